import { refuse } from '../args.js';
import type { FrameTable } from '../page/frames.js';
import type { VmCounters } from './vmcounters.js';

/**
 * How much private writable memory the mms of a host may map for all that they may write to it (Linux: vm.overcommit_memory,
 * __vm_enough_memory).
 *
 * heuristic: what is obviously too much is refused: a single call for more than frames and swap. always: nothing is. never: all that
 * is charged stays below the swap and `ratio` percent of the frames, so that whoever writes to what he has mapped finds room.
 * MAP_NORESERVE is not charged, except with `never`, which ignores it.
 *
 * Charged are pages of VMAs with VM_ACCOUNT: VmaSet counts them, so that what was checked here and is inserted is charged.
 */
export type OvercommitPolicy = 'heuristic' | 'always' | 'never';

export class Overcommit {
  readonly policy: OvercommitPolicy;
  /** Percent of the frames, with `never`. */
  readonly ratio: number;
  private readonly frames: FrameTable;
  private readonly nrSlots: number;
  private readonly counters: VmCounters;

  constructor(policy: OvercommitPolicy, ratio: number, frames: FrameTable, nrSlots: number, counters: VmCounters) {
    if (policy !== 'heuristic' && policy !== 'always' && policy !== 'never')
      refuse('EINVAL', 'Host', `overcommit ${String(policy)} must be 'heuristic', 'always' or 'never'`);
    if (!(ratio >= 0)) refuse('EINVAL', 'Host', `overcommitRatio ${ratio} must be percents from 0 up`);
    this.policy = policy;
    this.ratio = ratio;
    this.frames = frames;
    this.nrSlots = nrSlots;
    this.counters = counters;
  }

  /** Pages that may be charged with `never`: CommitLimit. */
  get limit(): number {
    return Math.floor((this.frames.nrFrames * this.ratio) / 100) + this.nrSlots;
  }

  /** Whether `nrPages` more may be charged. */
  mayCommit(nrPages: number): boolean {
    if (nrPages <= 0 || this.policy === 'always') return true;
    if (this.policy === 'heuristic') return nrPages <= this.frames.nrFrames + this.nrSlots;
    return this.counters.committed + nrPages <= this.limit;
  }

  /** Refuses with ENOMEM, and the numbers, what `mayCommit` denies. */
  check(syscall: string, nrPages: number): void {
    if (this.mayCommit(nrPages)) return;
    const kib = (pages: number) => `${pages * 4} KiB`;
    const limit =
      this.policy === 'never'
        ? `beside ${kib(this.counters.committed)} that are: at most ${kib(this.limit)}, the swap and ${this.ratio} % of the frames`
        : `at once: the host has ${kib(this.frames.nrFrames)} of frames and ${kib(this.nrSlots)} of swap; MAP_NORESERVE maps more`;
    refuse('ENOMEM', syscall, `${kib(nrPages)} of private writable memory cannot be promised ${limit}`);
  }
}
