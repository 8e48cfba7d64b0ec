import type { Mm } from '../mm.js';
import type { MmuSubscription, Piece } from './subscription.js';

/**
 * What a bracket is about: an mm, an event, and the pages that go or lose rights, as sorted pairs [start vpn, end vpn).
 * One object serves many brackets: `reset`, `add` pages or ranges, `seal`, then start and end.
 */

export const MMU_NOTIFY_UNMAP = 0;
export const MMU_NOTIFY_CLEAR = 1;
export const MMU_NOTIFY_PROTECTION_VMA = 2;
export const MMU_NOTIFY_PROTECTION_PAGE = 3;
export const MMU_NOTIFY_SOFT_DIRTY = 4;
export type MmuNotifyEvent = 0 | 1 | 2 | 3 | 4;

/** Names of the events, for messages and traces. */
export const MMU_NOTIFY_NAMES = ['UNMAP', 'CLEAR', 'PROTECTION_VMA', 'PROTECTION_PAGE', 'SOFT_DIRTY'] as const;

/** What a callback sees. It must not keep the object beyond the call: the next bracket reuses it. */
export interface MmuNotifierRange {
  readonly mm: Mm;
  readonly event: MmuNotifyEvent;
  /** Whether `invalidateRangeStart` may wait. If not, it may refuse with -EAGAIN (N12). */
  readonly blockable: boolean;
  /** Hull of the ranges, in bytes. */
  readonly start: number;
  readonly end: number;
  readonly nrRanges: number;
  /** Flat pairs [start vpn, end vpn), sorted, disjoint; valid up to 2 * nrRanges. */
  readonly ranges: Int32Array;
}

const PAGE_SIZE = 4096;

export class RangeList implements MmuNotifierRange {
  readonly mm: Mm;
  event: MmuNotifyEvent = MMU_NOTIFY_CLEAR;
  blockable = true;
  nrRanges = 0;
  ranges = new Int32Array(16);
  /** While it is open: the one subscription whose start was delivered and whose end is due. Undefined where there may be several: then `begun`. */
  alone: MmuSubscription | undefined;
  /** The first `nrBegun` are of the subscriptions whose start was delivered and whose end is due. */
  readonly begun: Piece[] = [];
  nrBegun = 0;
  /** Between a start that reached somebody and its end. */
  open = false;
  private sorted = true;

  constructor(mm: Mm) {
    this.mm = mm;
  }

  get start(): number {
    return this.nrRanges === 0 ? 0 : this.ranges[0]! * PAGE_SIZE;
  }

  get end(): number {
    return this.nrRanges === 0 ? 0 : this.ranges[this.nrRanges * 2 - 1]! * PAGE_SIZE;
  }

  isBegun(sub: MmuSubscription): boolean {
    for (let i = 0; i < this.nrBegun; i++) if (this.begun[i]!.sub === sub) return true;
    return false;
  }

  reset(event: MmuNotifyEvent, blockable: boolean): void {
    this.event = event;
    this.blockable = blockable;
    this.nrRanges = 0;
    this.sorted = true;
  }

  /** `reset`, `add` and `seal` for a bracket of one run of pages that may block. */
  set(event: MmuNotifyEvent, startVpn: number, endVpn: number): this {
    this.event = event;
    this.blockable = true;
    this.sorted = true;
    this.nrRanges = 1;
    this.ranges[0] = startVpn;
    this.ranges[1] = endVpn;
    return this;
  }

  /** Adds [startVpn, endVpn); joins it to the one before where they touch. */
  add(startVpn: number, endVpn: number): void {
    const n = this.nrRanges * 2;
    if (n > 0) {
      const lastEnd = this.ranges[n - 1]!;
      if (startVpn === lastEnd) {
        this.ranges[n - 1] = endVpn;
        return;
      }
      if (startVpn < lastEnd) this.sorted = false;
    }
    if (n === this.ranges.length) this.grow();
    this.ranges[n] = startVpn;
    this.ranges[n + 1] = endVpn;
    this.nrRanges++;
  }

  private grow(): void {
    const bigger = new Int32Array(this.ranges.length * 2);
    bigger.set(this.ranges);
    this.ranges = bigger;
  }

  /** Sorts and joins: the hull is right from here on. */
  seal(): this {
    if (!this.sorted) this.sort();
    return this;
  }

  private sort(): void {
    const pairs: [number, number][] = [];
    for (let i = 0; i < this.nrRanges; i++) pairs.push([this.ranges[2 * i]!, this.ranges[2 * i + 1]!]);
    pairs.sort((a, b) => a[0] - b[0]);
    this.nrRanges = 0;
    this.sorted = true;
    for (const [start, end] of pairs) this.addSorted(start, end);
  }

  private addSorted(start: number, end: number): void {
    const n = this.nrRanges * 2;
    if (n > 0 && start <= this.ranges[n - 1]!) {
      if (end > this.ranges[n - 1]!) this.ranges[n - 1] = end;
      return;
    }
    this.add(start, end);
  }
}
