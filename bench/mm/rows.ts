import {
  FAULT_FLAG_WRITE,
  type Host,
  type Mm,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';
import { map, newMm, PAGE, place, timed, touch, touched } from './world.js';

/** The operations that both sides do, as Unpin does them: nanoseconds for all pages of one round. */

/** What no manager of memory on this machine can do without, for one page; see floor.ts. */
export type FloorName = 'zero' | 'copy' | 'store';

export interface Row {
  readonly name: string;
  /** What bench/linux-peer/mm.c calls it. */
  readonly operation: string;
  readonly nrPages: number;
  /** Times faster than Linux that it must be. */
  readonly bar?: number;
  readonly floor?: FloorName;
  run(host: Host, nrPages: number): number;
}

const SOME = 16_384;
const MANY = 65_536;

/** Runs `body` on a new mm, which ends afterwards. */
function onMm(host: Host, body: (mm: Mm) => number): number {
  const mm = newMm(host);
  const ns = body(mm);
  mm.exit();
  return ns;
}

export const writeFault: Row = {
  name: 'anonymous write fault with zeroing',
  operation: 'write-fault',
  nrPages: SOME,
  bar: 2.5,
  floor: 'zero',
  run: (host, nr) =>
    onMm(host, (mm) => {
      const va = map(mm, nr);
      return timed(() => touch(mm, va, nr));
    }),
};

export const munmapMapped: Row = {
  name: 'munmap of mapped pages',
  operation: 'munmap',
  nrPages: MANY,
  bar: 4,
  floor: 'store',
  run: (host, nr) =>
    onMm(host, (mm) => {
      const va = touched(mm, nr);
      return timed(() => mm.munmap(va, nr * PAGE));
    }),
};

export const dontneedRange: Row = {
  name: 'DONTNEED of mapped pages',
  operation: 'dontneed-range',
  nrPages: MANY,
  bar: 4,
  floor: 'store',
  run: (host, nr) =>
    onMm(host, (mm) => {
      const va = touched(mm, nr);
      return timed(() => mm.madviseDontneed(va, nr * PAGE));
    }),
};

const dontneedEach: Row = {
  name: 'DONTNEED, a call a page',
  operation: 'dontneed-each',
  nrPages: SOME,
  bar: 4,
  floor: 'store',
  run: (host, nr) =>
    onMm(host, (mm) => {
      const va = touched(mm, nr);
      return timed(() => {
        for (let p = 0; p < nr; p++) mm.madviseDontneed(va + p * PAGE, PAGE);
      });
    }),
};

/** A pager in user space: each missing page is filled with contents that the program supplies. */
const missingCopy: Row = {
  name: 'a missing page filled by its pager (userfaultfd MISSING + COPY)',
  operation: 'missing-copy',
  nrPages: 4096,
  bar: 12,
  floor: 'copy',
  run: (host, nr) =>
    onMm(host, (mm) => {
      const [va, source] = [map(mm, nr), map(mm, 1)];
      const from = mm.tryGetPage(source, FAULT_FLAG_WRITE);
      const ns = timed(() => {
        for (let p = 0; p < nr; p++) {
          const pfn = mm.tryGetPage(va + p * PAGE, FAULT_FLAG_WRITE);
          host.pageOps.copy(pfn * PAGE, from * PAGE);
          mm.putPage(pfn);
        }
      });
      mm.putPage(from);
      return ns;
    }),
};

export const forkMapped: Row = {
  name: 'fork, per mapped page',
  operation: 'fork',
  nrPages: MANY,
  bar: 6,
  floor: 'store',
  run: (host, nr) =>
    onMm(host, (mm) => {
      touched(mm, nr);
      let child: Mm | undefined;
      const ns = timed(() => {
        child = mm.fork();
      });
      child!.exit();
      return ns;
    }),
};

export const cowBreak: Row = {
  name: 'copy-on-write break after fork',
  operation: 'cow-break',
  nrPages: SOME,
  bar: 3,
  floor: 'copy',
  run: (host, nr) =>
    onMm(host, (mm) => {
      const va = touched(mm, nr);
      const child = mm.fork();
      const ns = timed(() => touch(mm, va, nr));
      child.exit();
      return ns;
    }),
};

/** Both directions, as the peer: the second gives the right back. */
export const mprotectRange: Row = {
  name: 'mprotect of a range',
  operation: 'mprotect',
  nrPages: MANY,
  bar: 4,
  floor: 'store',
  run: (host, nr) =>
    onMm(host, (mm) => {
      const va = touched(mm, nr);
      const ns = timed(() => {
        mm.mprotect(va, nr * PAGE, PROT_READ);
        mm.mprotect(va, nr * PAGE, PROT_READ | PROT_WRITE);
      });
      return ns / 2;
    }),
};

/** `skew` pages off the alignment of leaf tables: then each pte moves by itself. */
function move(host: Host, nr: number, skew: number): number {
  return onMm(host, (mm) => {
    const va = touched(mm, nr);
    const to = place(mm, nr) + skew * PAGE;
    return timed(() => void mm.mremap(va, nr * PAGE, nr * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
  });
}

const mremapPtes: Row = {
  name: 'mremap, pte by pte',
  operation: 'mremap-ptes',
  nrPages: MANY,
  floor: 'store',
  run: (host, nr) => move(host, nr, 1),
};

const mremapTables: Row = {
  name: 'mremap by whole tables',
  operation: 'mremap-tables',
  nrPages: MANY,
  floor: 'store',
  run: (host, nr) => move(host, nr, 0),
};

export const ROWS: readonly Row[] = [
  writeFault,
  cowBreak,
  munmapMapped,
  dontneedRange,
  dontneedEach,
  forkMapped,
  mprotectRange,
  mremapPtes,
  mremapTables,
  missingCopy,
];
