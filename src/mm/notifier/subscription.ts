import type { IntervalNode } from '../../base/index.js';
import { PAGE_SIZE } from '../layout.js';
import type { Mm } from '../mm.js';
import type { MmuNotifierRange } from './range.js';

/** What a driver gives for its part of an mm, and what it holds then: the general form of a notifier (Linux: struct mmu_notifier_ops). */

export interface MmuNotifierOps {
  /** Drop and flush what maps `range`, which is still mapped and referenced. Returns 0 or nothing; -EAGAIN only where !range.blockable. */
  // biome-ignore lint/suspicious/noConfusingVoidType: a callback without a result is a usual one.
  invalidateRangeStart?(sub: MmuSubscription, range: MmuNotifierRange): number | void;
  /** The ptes are changed; page contents must not be touched any more. */
  invalidateRangeEnd?(sub: MmuSubscription, range: MmuNotifierRange): void;
  /**
   * Whether the bytes [start, end) were used through the external MMU since it was asked last (N14). Takes the marks of that use, and flushes, so that the next use
   * leaves one. A driver that cannot tell has none of the three: its pages are young by their host ptes alone.
   */
  clearFlushYoung?(sub: MmuSubscription, start: number, end: number): boolean;
  /** The same, and need not flush: what a TLB holds may be used unseen for a while. Without it `clearFlushYoung` is asked, which does more. */
  clearYoung?(sub: MmuSubscription, start: number, end: number): boolean;
  /** The same question, which changes nothing: who asks next hears the same. Without it the answer is no. */
  testYoung?(sub: MmuSubscription, start: number, end: number): boolean;
  /** The mm goes away: called once, the last callback; the frames are freed after it. */
  release?(sub: MmuSubscription): void;
  /**
   * Nothing of the subscription's area is mapped any more; called once, inside the bracket, before anything is freed. A
   * subscription with this op lives with its area: it follows it through mremap, and is removed by itself after the bracket of its end.
   */
  areaClosed?(sub: MmuSubscription): void;
  /**
   * For HostOptions.debug: how many entries it has for the bytes [start, end); with `writable` those alone that may write. Asked after each start,
   * which must have left none; where only rights go, no writable one.
   */
  mappings?(sub: MmuSubscription, start: number, end: number, writable: boolean): number;
  /** Around the mmap lock (S7), in the order of registration. */
  mmapLock?(sub: MmuSubscription, mode: MmapLockMode): void;
  mmapUnlock?(sub: MmuSubscription, mode: MmapLockMode): void;
}

export type MmapLockMode = 'read' | 'write';

export interface MmuNotifierOptions {
  /** Told, soon after, that the subscription broke its contract and is dead. */
  onPoisoned?: (sub: MmuSubscription, reason: string) => void;
}

/** A run of addresses of a subscription: bytes [start, end). There are several once mremap has moved a part of its area away. */
export interface Piece {
  readonly sub: MmuSubscription;
  readonly start: number;
  readonly end: number;
  readonly node: IntervalNode<Piece>;
}

export class MmuSubscription {
  readonly mm: Mm;
  /** The notifiers' own. */
  pieces: readonly Piece[] = [];
  readonly ops: MmuNotifierOps;
  /** Counts up over the host: the lock order of `mmapLock` hooks. */
  readonly id: number;
  readonly onPoisoned: ((sub: MmuSubscription, reason: string) => void) | undefined;
  /** Why it is not called any more. */
  poisoned: string | undefined;
  /** Frames that it may map and that therefore have a reference of its (N19). */
  readonly pinned = new Set<number>();
  registered = true;
  released = false;

  constructor(mm: Mm, ops: MmuNotifierOps, id: number, options: MmuNotifierOptions) {
    this.mm = mm;
    this.ops = ops;
    this.id = id;
    this.onPoisoned = options.onPoisoned;
  }

  /** Bytes: where its area is now; the first and the last address of it, where mremap has scattered it. */
  get start(): number {
    return Math.min(...this.pieces.map((piece) => piece.start));
  }

  get end(): number {
    return Math.max(...this.pieces.map((piece) => piece.end));
  }

  /** Calls `fn` for each part of the bytes [start, end) that is its own. */
  forEachPart(start: number, end: number, fn: (start: number, end: number) => void): void {
    for (const piece of this.pieces) {
      if (piece.start < end && piece.end > start) fn(Math.max(start, piece.start), Math.min(end, piece.end));
    }
  }
}

/** Whether a bracket touches the piece. */
export function overlaps(piece: Piece, range: MmuNotifierRange): boolean {
  for (let i = 0; i < range.nrRanges; i++) {
    if (range.ranges[2 * i]! * PAGE_SIZE < piece.end && range.ranges[2 * i + 1]! * PAGE_SIZE > piece.start) return true;
  }
  return false;
}
