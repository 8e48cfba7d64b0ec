import { Words } from '../../src/base/index.js';
import {
  type Host,
  INVALIDATE_SEQ_WORDS,
  InvalidateSeq,
  type Mm,
  mmuNotifierRegister,
  PAGE_SIZE,
} from '../../src/mm/index.js';

/**
 * Subscribes a driver with a flat table to `nrPages` pages from `start` on: it zaps what it has, as GuestRam and kvm's direct table do. `seq`: it counts
 * brackets, as one with threads must; without, it zaps and does nothing else.
 */
export function registerDriver(host: Host, mm: Mm, start: number, nrPages: number, counts: boolean): void {
  const words = new Words(host.memory, host.arenaAlloc(4 * INVALIDATE_SEQ_WORDS, 4), INVALIDATE_SEQ_WORDS);
  for (let i = 0; i < INVALIDATE_SEQ_WORDS; i++) words.writeOnce(i, 0);
  const seq = new InvalidateSeq(words, 0);
  const table = new Int32Array(nrPages);
  const base = start / PAGE_SIZE;
  mmuNotifierRegister(mm, start, start + nrPages * PAGE_SIZE, {
    invalidateRangeStart: (_sub, range) => {
      if (counts) seq.beginRange(range);
      const { ranges, nrRanges } = range;
      for (let i = 0; i < nrRanges; i++) {
        const end = Math.min(table.length, ranges[2 * i + 1]! - base);
        for (let k = Math.max(0, ranges[2 * i]! - base); k < end; k++) table[k] = 0;
      }
    },
    invalidateRangeEnd: () => {
      if (counts) seq.end();
    },
  });
}
