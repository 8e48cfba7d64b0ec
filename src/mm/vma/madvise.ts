import { hex, pageRange, refuse } from '../args.js';
import type { Mm } from '../mm.js';
import { MMU_NOTIFY_CLEAR } from '../notifier/range.js';
import { coldRange, lazyfreeRange, pageoutRange, willneedRange } from './madvisepages.js';
import { zapRange } from './unmap.js';
import { VM_DONTCOPY, VM_DONTDUMP, VM_RAND_READ, VM_SEQ_READ, VM_WIPEONFORK, type Vma } from './vma.js';
import { changeVma } from './vmaflags.js';

/**
 * madvise (Linux: madvise.c): what a program says of a range of pages. Holes are passed over and are ENOMEM in the end, when the rest is done;
 * a mapping that an advice does not go with is EINVAL, and ends it. There is no merging of pages, and there are no huge ones: their advice is
 * EINVAL, as in a kernel built without them.
 *
 * DONTNEED and FREE are CLEAR brackets, one for each VMA; PAGEOUT is reclaim, with its own; all others are no events.
 */

export const MADV_NORMAL = 0;
export const MADV_RANDOM = 1;
export const MADV_SEQUENTIAL = 2;
/** Pages in swap or in a file are read in; nobody waits. */
export const MADV_WILLNEED = 3;
/** The contents go: private memory reads as zeros, files as what they hold. */
export const MADV_DONTNEED = 4;
/** The contents may go, until they are written again. */
export const MADV_FREE = 8;
/** A hole in the file. */
export const MADV_REMOVE = 9;
export const MADV_DONTFORK = 10;
export const MADV_DOFORK = 11;
export const MADV_DONTDUMP = 16;
export const MADV_DODUMP = 17;
/** A child of fork sees zeros. */
export const MADV_WIPEONFORK = 18;
export const MADV_KEEPONFORK = 19;
/** Reclaim takes these first. */
export const MADV_COLD = 20;
/** Reclaim takes these now. */
export const MADV_PAGEOUT = 21;
/** Every page is brought in, for reading or writing: waits. */
export const MADV_POPULATE_READ = 22;
export const MADV_POPULATE_WRITE = 23;
/** As MADV_DONTNEED, of locked memory too. */
export const MADV_DONTNEED_LOCKED = 24;

/** Advice that `madvise` can follow without waiting. */
export type MadviseNow =
  | typeof MADV_NORMAL
  | typeof MADV_RANDOM
  | typeof MADV_SEQUENTIAL
  | typeof MADV_WILLNEED
  | typeof MADV_DONTNEED
  | typeof MADV_FREE
  | typeof MADV_DONTFORK
  | typeof MADV_DOFORK
  | typeof MADV_DONTDUMP
  | typeof MADV_DODUMP
  | typeof MADV_WIPEONFORK
  | typeof MADV_KEEPONFORK
  | typeof MADV_COLD
  | typeof MADV_PAGEOUT
  | typeof MADV_DONTNEED_LOCKED;

/** Advice that waits, for pages or for the file. */
export type MadviseWaits = typeof MADV_POPULATE_READ | typeof MADV_POPULATE_WRITE | typeof MADV_REMOVE;

interface Advice {
  /** The mmapLock that it needs. */
  readonly mode: 'read' | 'write';
  /** Whether it goes with the VMA. */
  fits(vma: Vma): boolean;
  /** Why not, after "the mapping at 0x… ". */
  readonly must: string;
  apply(vma: Vma, from: number, to: number): void;
}

const any = () => true;
const isAnonymous = (vma: Vma) => vma.file === undefined;
const notLocked = (vma: Vma) => !vma.locked;

/** Sets and clears flags of the VMA. */
function flagAdvice(set: number, clear: number, fits: (vma: Vma) => boolean = any, must = ''): Advice {
  return {
    mode: 'write',
    fits,
    must,
    apply(vma, from, to) {
      const flags = (vma.flags & ~clear) | set;
      if (flags !== vma.flags) changeVma('madvise', vma, from, to, vma.prot, flags, undefined, 'EAGAIN');
    },
  };
}

function pageAdvice(apply: Advice['apply'], fits: (vma: Vma) => boolean = any, must = ''): Advice {
  return { mode: 'read', fits, must, apply };
}

function dontneed(vma: Vma, from: number, to: number): void {
  zapRange(vma.mm, vma, from, to, MMU_NOTIFY_CLEAR);
}

const ADVICE: ReadonlyMap<number, Advice> = new Map([
  [MADV_NORMAL, flagAdvice(0, VM_RAND_READ | VM_SEQ_READ)],
  [MADV_RANDOM, flagAdvice(VM_RAND_READ, VM_SEQ_READ)],
  [MADV_SEQUENTIAL, flagAdvice(VM_SEQ_READ, VM_RAND_READ)],
  [MADV_WILLNEED, pageAdvice(willneedRange)],
  [MADV_DONTNEED, pageAdvice(dontneed, notLocked, 'must not be locked')],
  [MADV_DONTNEED_LOCKED, pageAdvice(dontneed)],
  [
    MADV_FREE,
    pageAdvice(lazyfreeRange, (vma) => notLocked(vma) && isAnonymous(vma), 'must be anonymous, private and not locked'),
  ],
  [MADV_DONTFORK, flagAdvice(VM_DONTCOPY, 0)],
  [MADV_DOFORK, flagAdvice(0, VM_DONTCOPY)],
  [MADV_DONTDUMP, flagAdvice(VM_DONTDUMP, 0)],
  [MADV_DODUMP, flagAdvice(0, VM_DONTDUMP)],
  [MADV_WIPEONFORK, flagAdvice(VM_WIPEONFORK, 0, isAnonymous, 'must be anonymous and private')],
  [MADV_KEEPONFORK, flagAdvice(0, VM_WIPEONFORK)],
  [MADV_COLD, pageAdvice(coldRange, notLocked, 'must not be locked')],
  [MADV_PAGEOUT, pageAdvice(pageoutRange, notLocked, 'must not be locked')],
]);

/** What does not wait. */
export function madvise(mm: Mm, va: number, length: number, advice: number): void {
  const what = ADVICE.get(advice);
  if (what === undefined) refuseAdvice(advice);
  const [startVpn, endVpn] = pageRange('madvise', va, length, 'EINVAL');
  if (startVpn === endVpn) return;
  mm.mmapLock.lock(what.mode);
  try {
    adviseEach(mm, startVpn, endVpn, what);
  } finally {
    mm.mmapLock.unlock();
  }
}

export function refuseAdvice(advice: number): never {
  refuse('EINVAL', 'madvise', `advice ${advice} must be one of the MADV_ constants that are there`);
}

function adviseEach(mm: Mm, startVpn: number, endVpn: number, advice: Advice): void {
  let next = startVpn;
  let hole = false;
  while (next < endVpn) {
    const vma = mm.vmas.firstEndingAfter(next);
    if (vma === undefined || vma.startVpn >= endVpn) break;
    hole ||= vma.startVpn > next;
    const from = Math.max(vma.startVpn, next);
    const to = Math.min(vma.endVpn, endVpn);
    if (!advice.fits(vma)) refuse('EINVAL', 'madvise', `the mapping at ${hex(vma.start)} ${advice.must}`);
    advice.apply(vma, from, to);
    next = to;
  }
  if (hole || next < endVpn)
    refuse('ENOMEM', 'madvise', 'every page of the range must be mapped; what is has been advised');
}
