import { KernelError } from '../../base/index.js';
import type { Dma } from './dma.js';
import { runSteps, type Steps, wait } from './steps.js';

/**
 * A descriptor chain: what the driver hands to the device, as runs of guest-physical memory. First come the runs that the device reads, then
 * those that it writes; each of the two is seen here as one string of bytes.
 *
 * The numbers are the guest's: lengths up to 4 GiB a run, addresses anywhere, runs that overlap. Who moves bytes does it in pieces of a size
 * of its own; memory outside RAM is refused when it is reached.
 */

export interface GuestRun {
  readonly gpa: number;
  readonly lenBytes: number;
}

export class DescriptorChain {
  /** Index of its first descriptor: its name on the used ring. */
  readonly head: number;
  readonly readable: readonly GuestRun[];
  readonly writable: readonly GuestRun[];
  readonly readableBytes: number;
  readonly writableBytes: number;
  private readonly dma: Dma;

  /** Made by `Virtqueue.pop` alone. */
  constructor(head: number, readable: readonly GuestRun[], writable: readonly GuestRun[], dma: Dma) {
    this.head = head;
    this.readable = readable;
    this.writable = writable;
    this.readableBytes = lengthOf(readable);
    this.writableBytes = lengthOf(writable);
    this.dma = dma;
  }

  /**
   * Fills `dst` from byte `offset` of the readable part on; a promise where a page has to be waited for. Throws or rejects with KernelError EFAULT
   * beyond its end or outside RAM, ENODEV after a reset.
   */
  read(offset: number, dst: Uint8Array): Promise<void> | void {
    return runSteps(this.move(this.readable, offset, dst, (gpa, part) => this.dma.read(gpa, part)));
  }

  /** Writes `src` to byte `offset` of the writable part on, as `read`. */
  write(offset: number, src: Uint8Array): Promise<void> | void {
    return runSteps(this.move(this.writable, offset, src, (gpa, part) => this.dma.write(gpa, part)));
  }

  private *move(
    runs: readonly GuestRun[],
    offset: number,
    bytes: Uint8Array,
    access: (gpa: number, part: Uint8Array) => Promise<void> | void,
  ): Steps<void> {
    for (const { gpa, at, lenBytes } of pieces(runs, offset, bytes.length))
      yield* wait(access(gpa, bytes.subarray(at, at + lenBytes)));
  }
}

function lengthOf(runs: readonly GuestRun[]): number {
  return runs.reduce((sum, run) => sum + run.lenBytes, 0);
}

/** The pieces of memory behind bytes [offset, offset + lenBytes) of `runs`; `at` counts from `offset`. */
function* pieces(runs: readonly GuestRun[], offset: number, lenBytes: number) {
  let at = 0;
  for (const run of runs) {
    if (at === lenBytes) return;
    const take = Math.min(run.lenBytes - offset, lenBytes - at);
    if (take <= 0) {
      offset -= run.lenBytes;
      continue;
    }
    yield { gpa: run.gpa + offset, at, lenBytes: take };
    at += take;
    offset = 0;
  }
  if (at < lenBytes) throw new KernelError('EFAULT', 'virtio', `the chain is ${lenBytes - at} bytes too short`);
}
