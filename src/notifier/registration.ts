import { Words } from '../base/index.js';
import {
  INVALIDATE_SEQ_LABEL,
  INVALIDATE_SEQ_WORDS,
  InvalidateSeq,
  MMU_NOTIFY_UNMAP,
  type Mm,
  type MmapLockMode,
  type MmuNotifierOps,
  type MmuNotifierRange,
  type MmuSubscription,
  mmuNotifierUnregister,
  PAGE_SIZE,
  type Vma,
} from '../mm/index.js';
import type { PteNotifier } from './ptenotifier.js';

/**
 * One registration of a PteNotifier, as mm sees it: a subscription over the bytes of the VMA at the time it was registered. It turns
 * brackets into the proposal's callbacks, and counts them for read-begin and read-retry.
 *
 * The order inside `invalidateRangeStart`: the sequence count first, then the ptes are read and `clear` is called. A driver with
 * threads takes its lock in `clear`, not around the count; that is enough:
 *
 *   mm thread                                 external fault, under the driver's lock
 *                                             readRetry: no bracket -> installs
 *   begin: inProgress is set
 *   clear: takes the lock, drops the entry
 *
 * Either the fault's readRetry comes after `begin`, and sees it, or its entry is there when `clear` gets the lock.
 *
 * It lives until the area is closed or `pteNotifierUnregister`; its words of the arena go back with it.
 */
const SEQ_BYTES = INVALIDATE_SEQ_WORDS * 4;

export class Registration implements MmuNotifierOps {
  readonly mm: Mm;
  readonly start: number;
  readonly end: number;
  /** Set when mm has accepted it. */
  sub: MmuSubscription | undefined;
  /** The last sequence number that it gave out; valid once it is finished. */
  lastSeq = 0;
  mmapLock?: (sub: MmuSubscription, mode: MmapLockMode) => void;
  mmapUnlock?: (sub: MmuSubscription, mode: MmapLockMode) => void;
  mappings?: (sub: MmuSubscription, start: number, end: number, writable: boolean) => number;
  private readonly pn: PteNotifier;
  private readonly seq: InvalidateSeq;
  private readonly seqAddr: number;
  /** What the sequence numbers start from: beyond those of the registration before, so that none of its faults can install here. */
  private readonly firstSeq: number;
  /** A piece of the area that is about to go. */
  private vma: Vma;
  private closed = false;
  private ended = false;
  private readonly clearOne: (vpn: number) => void;

  /** Throws KernelError ENOMEM when the arena is full. */
  constructor(pn: PteNotifier, vma: Vma, firstSeq: number) {
    this.pn = pn;
    this.vma = vma;
    this.mm = vma.mm;
    this.start = vma.start;
    this.end = vma.end;
    this.firstSeq = firstSeq;
    const { host } = vma.mm;
    this.seqAddr = host.arenaAlloc(SEQ_BYTES, 4);
    const words = new Words(host.memory, this.seqAddr, INVALIDATE_SEQ_WORDS, INVALIDATE_SEQ_LABEL);
    for (let i = 0; i < INVALIDATE_SEQ_WORDS; i++) words.writeOnce(i, 0);
    this.seq = new InvalidateSeq(words, 0);
    this.clearOne = (vpn) => this.clear(vpn);
    if (pn.ops.lock !== undefined) this.mmapLock = (_sub, mode) => pn.ops.lock!(pn, mode);
    if (pn.ops.mappings !== undefined)
      this.mappings = (_sub, start, end, writable) => pn.ops.mappings!(pn, start, end, writable);
    if (pn.ops.unlock !== undefined) this.mmapUnlock = (_sub, mode) => pn.ops.unlock!(pn, mode);
  }

  /** Whether entries may be installed under it. */
  get live(): boolean {
    return !this.ended && this.sub !== undefined && this.sub.poisoned === undefined;
  }

  readBegin(): number {
    return (this.firstSeq + this.seq.readBegin()) | 0;
  }

  readRetry(seq: number, address: number | undefined): boolean {
    return this.seq.readRetry((seq - this.firstSeq) | 0, address);
  }

  /** Pairs with `invalidateRangeEnd`. */
  invalidateRangeStart(sub: MmuSubscription, range: MmuNotifierRange): void {
    this.seq.beginRange(range);
    for (let i = 0; i < range.nrRanges; i++) {
      const [start, end] = [range.ranges[2 * i]! * PAGE_SIZE, range.ranges[2 * i + 1]! * PAGE_SIZE];
      sub.forEachPart(start, end, (from, to) => {
        if (range.event === MMU_NOTIFY_UNMAP) this.vma = this.mm.findVma(from) ?? this.vma;
        this.mm.forEachPresent(from / PAGE_SIZE, to / PAGE_SIZE, this.clearOne);
      });
    }
  }

  private clear(vpn: number): void {
    const address = vpn * PAGE_SIZE;
    const vma = this.mm.findVma(address);
    if (vma !== undefined) refusePromise('clear', this.pn.ops.clear(this.pn, vma, address));
  }

  /** Pairs with `invalidateRangeStart`. */
  invalidateRangeEnd(): void {
    this.seq.end();
    if (this.closed) this.finish();
  }

  areaClosed(): void {
    this.closed = true;
    return this.pn.ops.close?.(this.pn, this.vma);
  }

  release(): void {
    if (this.closed && !this.mm.exited) return;
    return this.pn.ops.release?.(this.pn);
  }

  /** Ends what `vmaClosePteNotifiers` closed: the mm lives on, so there is no `release`. */
  unregisterClosed(): void {
    mmuNotifierUnregister(this.sub!);
    this.finish();
  }

  /** No number of this registration is valid any more. */
  finish(): void {
    if (this.ended) return;
    this.ended = true;
    this.lastSeq = this.readBegin();
    this.mm.host.arenaFree(this.seqAddr, SEQ_BYTES);
  }
}

/** TypeScript lets an async function pass for one that returns nothing; what it does later, it does too late. */
function refusePromise(op: string, result: unknown): void {
  if (typeof result !== 'object' || result === null || typeof (result as PromiseLike<unknown>).then !== 'function')
    return;
  (result as PromiseLike<unknown>).then(undefined, () => {});
  throw new Error(`${op} returned a promise; it must be done when it returns`);
}
