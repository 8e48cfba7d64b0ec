import {
  FAULT_FLAG_WRITE,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PAGE_SIZE,
} from '../../src/mm/index.js';
import type { Trace } from './trace.js';

/**
 * A trace replayed on the real mm: each reference is an access through the page table, faults and reclaim are what they always are, and
 * background reclaim has its turn after each epoch. Deterministic: no time enters, and all that is deferred runs in order.
 */
export interface Replayed {
  /** Faults that waited for a page to be read. */
  readonly misses: number;
  /** Pages read from swap, those read ahead among them. */
  readonly swapIns: number;
  readonly swapOuts: number;
  /** Times that somebody had to reclaim for himself. */
  readonly allocstalls: number;
}

export async function replayOnUnpin(trace: Trace, nrFrames: number, pageCluster: number): Promise<Replayed> {
  const turns = new Turns();
  const host = new Host({
    frames: nrFrames,
    arenaBytes: 65536,
    swap: new MemorySwap({ sizeBytes: (trace.nrPages + 1024) * PAGE_SIZE }),
    pageCluster,
    defer: (fn) => turns.add(fn),
  });
  const mm = host.createMm();
  const va = mm.mmap(0, trace.nrPages * PAGE_SIZE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  let k = 0;
  for (const end of trace.epochEnds) {
    for (; k < end; k++) access(mm, va, trace.refs[k]!);
    await turns.run();
  }
  const { pgmajfault, pswpin, pswpout, allocstall } = host.vmstat;
  mm.exit();
  await turns.run();
  return { misses: pgmajfault, swapIns: pswpin, swapOuts: pswpout, allocstalls: allocstall };
}

function access(mm: Mm, va: number, ref: number): void {
  const at = va + (ref >> 1) * PAGE_SIZE;
  const flags = (ref & 1) !== 0 ? FAULT_FLAG_WRITE : 0;
  for (;;) {
    const pfn = mm.tryGetPage(at, flags);
    if (pfn > 0) {
      // What is written must differ from what the slot has, as in life.
      if (flags !== 0) mm.host.u8[pfn * PAGE_SIZE] = (mm.host.u8[pfn * PAGE_SIZE]! + 1) & 255;
      mm.putPage(pfn);
      return;
    }
    mm.faultInSync(at, flags);
  }
}

/** What mm defers, run in order, until nothing is left. */
class Turns {
  private readonly queue: (() => void)[] = [];

  add(fn: () => void): void {
    this.queue.push(fn);
  }

  async run(): Promise<void> {
    while (this.queue.length > 0) {
      for (const fn of this.queue.splice(0)) fn();
      await settled();
    }
  }
}

/** All promises that can go on have. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}
