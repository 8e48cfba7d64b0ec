import { CONFIG_LOCKDEP, ERRNO, lockdepBracket } from '../../base/index.js';
import { PAGE_SIZE } from '../layout.js';
import type { NotifierCalls } from '../stat/stats.js';
import type { Callbacks } from './callbacks.js';
import { enterCallback, pinRange } from './containment.js';
import type { NotifierHost } from './notifierhost.js';
import { MMU_NOTIFY_CLEAR, MMU_NOTIFY_UNMAP, type MmuNotifyEvent, type RangeList } from './range.js';
import { type MmuSubscription, overlaps } from './subscription.js';
import type { Subscriptions } from './subscriptions.js';

/**
 * The brackets of one mm: `start` (when it returns, every external entry of the ranges is gone and flushed), clear the ptes, `end`, then the frames may
 * be freed. Each start that was delivered is paired with an end, and no other (N12). Brackets of one mm may overlap; nothing waits between start and
 * end. All of it is made for being called for a single page: it allocates nothing.
 *
 * Use: `startPages` for one run of pages that may block, `start` for all else; change the ptes; `end`.
 */
export class Brackets {
  private readonly subs: Subscriptions;
  private readonly callbacks: Callbacks;
  private readonly host: NotifierHost;
  private readonly calls: NotifierCalls;
  private readonly vmstat: NotifierHost['vmstat'];
  private readonly watched: boolean;
  private nrOpen = 0;
  /** A callback of a bracket runs. */
  calling = false;

  constructor(subs: Subscriptions, callbacks: Callbacks) {
    const { host } = callbacks;
    this.subs = subs;
    this.callbacks = callbacks;
    this.host = host;
    this.calls = host.calls;
    this.vmstat = host.vmstat;
    this.watched = callbacks.watched;
  }

  get isOpen(): boolean {
    return this.nrOpen > 0;
  }

  /**
   * `start` of a bracket of one run of pages that may block, which nobody can refuse. Pairs with `end`.
   *
   * WHY all in one: it is what a page by itself costs where one driver is concerned. In pieces the engine takes some of them in and calls others, as it decides in
   * each run anew, and a call is 40 instructions.
   */
  startPages(range: RangeList, event: MmuNotifyEvent, startVpn: number, endVpn: number): void {
    // WHY | 0: a parameter may be any number to the engine, which goes into an Int32Array by way of a double.
    const start = startVpn | 0;
    const end = endVpn | 0;
    range.set(event, start, end);
    const { sole } = this.subs;
    if (sole === undefined) {
      this.start(range);
      return;
    }
    if (start >= sole.node.end || end <= sole.node.start) return;
    const { sub } = sole;
    const { ops } = sub;
    this.open(range);
    if (range.alone !== sub) range.alone = sub;
    if (this.watched) this.startOne(sub, range);
    else if (sub.poisoned === undefined && ops.invalidateRangeStart !== undefined) {
      this.calls.invalidateRangeStart++;
      this.calling = true;
      let result: unknown;
      try {
        result = ops.invalidateRangeStart(sub, range);
      } catch (error) {
        this.callbacks.threw(sub, 'invalidateRangeStart', error);
      }
      this.calling = false;
      if (result !== undefined && result !== 0) this.startSlow(sub, range, 0, result);
    }
    if (sub.poisoned !== undefined) this.startedPoisoned(range, sub);
  }

  /**
   * Opens the bracket. 0, or -EAGAIN when a driver refused a non-blocking one: then every start that was delivered has been
   * ended again, no pte may be touched, and there is no `end` to call. Pairs with `end`.
   */
  start(range: RangeList): number {
    const { begun, nrRanges, ranges } = range;
    if (nrRanges === 0) return 0;
    const nrFound = this.subs.collect(ranges[0]!, ranges[2 * nrRanges - 1]!, begun);
    if (nrFound === 0) return 0;
    if (nrFound === 1 && nrRanges === 1) return this.startAlone(range, begun[0]!.sub);
    this.addConcerned(range, nrFound);
    return range.nrBegun === 0 ? 0 : this.startEach(range);
  }

  /** WHY beside `startEach`: without the lists it takes 8 ns less. */
  private startAlone(range: RangeList, sub: MmuSubscription): number {
    this.open(range);
    if (this.startOne(sub, range)) return this.refused(range, 0);
    if (range.alone !== sub) range.alone = sub;
    if (sub.poisoned !== undefined) this.startedPoisoned(range, sub);
    return 0;
  }

  private startedPoisoned(range: RangeList, sub: MmuSubscription): void {
    pinRange(sub, range);
    this.close(range);
  }

  private open(range: RangeList): void {
    if (CONFIG_LOCKDEP) lockdepBracket();
    this.nrOpen++;
    this.vmstat.brackets++;
    range.open = true;
  }

  private close(range: RangeList): void {
    range.open = false;
    this.nrOpen--;
  }

  /** Ends the bracket for those `nrBegun` whose start was delivered before a driver refused. */
  private refused(range: RangeList, nrBegun: number): number {
    range.alone = undefined;
    range.nrBegun = nrBegun;
    this.end(range);
    this.vmstat.refusals++;
    return -ERRNO.EAGAIN;
  }

  /** Of the pieces that the hull of the range touches: those that the range touches, one of each subscription. */
  private addConcerned(range: RangeList, nrFound: number): void {
    const { begun } = range;
    range.nrBegun = 0;
    for (let i = 0; i < nrFound; i++) {
      const piece = begun[i]!;
      if (range.nrRanges > 1 && !overlaps(piece, range)) continue;
      if (piece.sub.pieces.length > 1 && range.isBegun(piece.sub)) continue;
      begun[range.nrBegun++] = piece;
    }
  }

  private startEach(range: RangeList): number {
    this.open(range);
    const { begun } = range;
    let nrBegun = 0;
    for (let i = 0; i < range.nrBegun; i++) {
      const { sub } = begun[i]!;
      if (this.startOne(sub, range)) return this.refused(range, nrBegun);
      if (sub.poisoned !== undefined) pinRange(sub, range);
      else if (nrBegun++ !== i) begun[nrBegun - 1] = begun[i]!;
    }
    range.alone = undefined;
    range.nrBegun = nrBegun;
    if (nrBegun === 0) this.close(range);
    return 0;
  }

  /** True when the driver refused, as it may where the bracket must not block. */
  private startOne(sub: MmuSubscription, range: RangeList): boolean {
    const { ops } = sub;
    if (sub.poisoned !== undefined || ops.invalidateRangeStart === undefined) return false;
    this.calls.invalidateRangeStart++;
    this.calling = true;
    const began = this.watched ? enterCallback(this.host, 'invalidateRangeStart', range.blockable) : 0;
    let result: unknown;
    try {
      result = ops.invalidateRangeStart(sub, range);
    } catch (error) {
      this.callbacks.threw(sub, 'invalidateRangeStart', error);
    }
    this.calling = false;
    const quiet = (result === undefined || result === 0) && !this.watched;
    return quiet ? false : this.startSlow(sub, range, began, result);
  }

  /** The start has returned something, or is to be looked at. */
  private startSlow(sub: MmuSubscription, range: RangeList, began: number, result: unknown): boolean {
    this.callbacks.judge(sub, 'invalidateRangeStart', began, result);
    if (sub.poisoned !== undefined) return false;
    if (result === undefined || result === 0) {
      if (this.host.debug && sub.ops.mappings !== undefined) this.checkLeft(sub, range);
      return false;
    }
    if (result === -ERRNO.EAGAIN && !range.blockable) return true;
    const why = range.blockable ? 'in a bracket that may block' : 'instead of 0 or -EAGAIN';
    this.callbacks.poison(sub, `invalidateRangeStart returned ${String(result)} ${why}`);
    return false;
  }

  /** N1, in debug builds: nothing of what a start took away may be left; where rights alone go, nothing that may write. */
  private checkLeft(sub: MmuSubscription, range: RangeList): void {
    const writable = range.event !== MMU_NOTIFY_UNMAP && range.event !== MMU_NOTIFY_CLEAR;
    let left = 0;
    const count = (from: number, to: number) => void (left += sub.ops.mappings!(sub, from, to, writable));
    this.calling = true;
    try {
      for (let i = 0; i < range.nrRanges; i++)
        sub.forEachPart(range.ranges[2 * i]! * PAGE_SIZE, range.ranges[2 * i + 1]! * PAGE_SIZE, count);
    } catch (error) {
      this.callbacks.threw(sub, 'mappings', error);
    }
    this.calling = false;
    if (left > 0) this.callbacks.poison(sub, `invalidateRangeStart left ${left} mappings behind`);
  }

  /** Closes the bracket for those whose start was delivered. Pairs with `start`, `startPages`. */
  end(range: RangeList): void {
    if (!range.open) return;
    const { alone } = range;
    if (alone !== undefined) this.endAlone(range, alone);
    else this.endEach(range);
  }

  private endAlone(range: RangeList, sub: MmuSubscription): void {
    this.endOne(sub, range);
    this.close(range);
  }

  private endEach(range: RangeList): void {
    const { begun, nrBegun } = range;
    for (let i = 0; i < nrBegun; i++) this.endOne(begun[i]!.sub, range);
    range.nrBegun = 0;
    this.close(range);
  }

  private endOne(sub: MmuSubscription, range: RangeList): void {
    const { ops } = sub;
    if (sub.poisoned !== undefined || ops.invalidateRangeEnd === undefined) return;
    this.calls.invalidateRangeEnd++;
    this.calling = true;
    const began = this.watched ? enterCallback(this.host, 'invalidateRangeEnd', false) : 0;
    let result: unknown;
    try {
      result = ops.invalidateRangeEnd(sub, range);
    } catch (error) {
      this.callbacks.threw(sub, 'invalidateRangeEnd', error);
    }
    this.calling = false;
    if (result !== undefined || this.watched) this.callbacks.judge(sub, 'invalidateRangeEnd', began, result);
  }
}
