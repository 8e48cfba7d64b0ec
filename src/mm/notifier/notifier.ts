import {
  CONFIG_LOCKDEP,
  CONFIG_PTE_NOTIFIERS,
  ERRNO,
  IntervalTree,
  KernelError,
  lockdepBracket,
} from '../../base/index.js';
import type { Host, HostOptions } from '../host.js';
import { VA_SIZE } from '../layout.js';
import type { Mm } from '../mm.js';
import type { NotifierCalls, VmStat } from '../stat/stats.js';
import type { VmaSet } from '../vma/vmaset.js';
import { enterCallback, leaveCallback, pinAll, pinRange, unpinAll } from './containment.js';
import { MMU_NOTIFY_CLEAR, MMU_NOTIFY_UNMAP, type RangeList } from './range.js';
import {
  type MmapLockMode,
  type MmuNotifierOps,
  type MmuNotifierOptions,
  MmuSubscription,
  overlaps,
  type Piece,
} from './subscription.js';

/**
 * MMU notifiers, the general form (Linux: mmu_notifier.c): who keeps an external page table over part of an mm is told before
 * the mm changes a pte there. A subscription belongs to the mm and is keyed by address range, so that split, merge, mremap and
 * fork can neither lose nor double it.
 *
 * A destructive change is a bracket: `invalidateRangeStart` (when it returns, every external entry of the ranges is gone and
 * flushed), clear the ptes, `invalidateRangeEnd`, then the frames may be freed. Each start that was delivered is paired with an
 * end, and no other (N12). Brackets of one mm may overlap; nothing waits between start and end.
 *
 * A callback runs on the mm thread, perhaps with mmapLock held and inside reclaim: it must not wait, call into this
 * mm, or return a promise (N13). One that breaks its contract poisons its subscription (containment.ts): it is not called again, the frames
 * that it may still map are pinned and counted, its owner is told, and everybody else goes on (N19).
 *
 * Use: `mmuNotifierRegister`, callbacks, `mmuNotifierUnregister`: when that returns, none runs and none can start (N17); once the driver's
 * external table is gone as well `mmuNotifierUnpin`.
 */

const PAGE_SIZE = 4096;

/** What the notifiers of an mm need of their host. */
export interface NotifierHost {
  readonly calls: NotifierCalls;
  /** A callback that takes longer is a broken contract; 0 for no budget. */
  readonly budgetMs: number;
  now(): number;
  defer(fn: () => void): void;
  nextId(): number;
  readonly vmstat: Pick<VmStat, 'brackets' | 'refusals' | 'poisoned'>;
  /** Whether drivers are asked after each start what they have left behind. */
  readonly debug: boolean;
}

/** What the notifiers of a host's mms share. */
export function makeNotifierHost(host: Host, options: HostOptions): NotifierHost {
  const { vmstat } = host;
  let nextId = 1;
  return {
    calls: vmstat.notifierCalls,
    budgetMs: options.now === undefined ? 0 : (options.notifierBudgetMs ?? 0),
    now: options.now ?? (() => 0),
    defer: (fn) => host.defer(fn),
    nextId: () => nextId++,
    vmstat,
    debug: options.debug ?? false,
  };
}

/** The subscriptions of one mm. */
export class MmuNotifiers {
  readonly mm: Mm;
  private readonly host: NotifierHost;
  private readonly calls: NotifierCalls;
  private readonly tree = new IntervalTree<Piece>();
  private count = 0;
  /** Those with mmap lock hooks, by id. */
  readonly lockHooks: MmuSubscription[] = [];
  /** Those who were told that the mmap lock is taken, and will be told that it was given back. */
  readonly toldLocks: MmuSubscription[] = [];
  /** Their areas are gone; they go after the bracket. */
  private readonly closed: MmuSubscription[] = [];
  /** Callbacks that run right now. */
  private nrRunning = 0;
  private nrBrackets = 0;
  /** Whether callbacks are looked at more closely than for what they return: always in debug builds. */
  private readonly watched: boolean;
  /** What the walk of the bracket that opens has found. */
  private readonly found: Piece[] = [];

  constructor(mm: Mm, host: NotifierHost) {
    this.mm = mm;
    this.host = host;
    this.calls = host.calls;
    this.watched = CONFIG_LOCKDEP || host.budgetMs !== 0 || host.debug;
  }

  get nrSubscriptions(): number {
    return this.count;
  }

  all(): MmuSubscription[] {
    return this.overlapping(0, VA_SIZE);
  }

  private overlapping(start: number, end: number): MmuSubscription[] {
    const pieces = this.tree.overlapping(Math.floor(start / PAGE_SIZE), Math.ceil(end / PAGE_SIZE));
    return [...new Set(pieces.map((piece) => piece.sub))];
  }

  get inBracket(): boolean {
    return this.nrBrackets > 0;
  }

  register(start: number, end: number, ops: MmuNotifierOps, options: MmuNotifierOptions): MmuSubscription {
    if (!(start >= 0 && start < end && end <= VA_SIZE)) {
      const range = `[0x${start.toString(16)}, 0x${end.toString(16)})`;
      throw new KernelError('EINVAL', 'mmuNotifierRegister', `range ${range} must be a part of [0, 2^39)`);
    }
    this.refuseInside('mmuNotifierRegister');
    const sub = new MmuSubscription(this.mm, ops, this.host.nextId(), options);
    sub.pieces = [this.addPiece(sub, start, end)];
    this.count++;
    if (ops.mmapLock !== undefined || ops.mmapUnlock !== undefined) this.lockHooks.push(sub);
    return sub;
  }

  private addPiece(sub: MmuSubscription, start: number, end: number): Piece {
    const piece: { -readonly [K in keyof Piece]: Piece[K] | undefined } = { sub, start, end, node: undefined };
    // WHY pages: a byte of 39 bits is a heap number wherever it is passed on.
    piece.node = this.tree.insert(Math.floor(start / PAGE_SIZE), Math.ceil(end / PAGE_SIZE), piece as Piece);
    return piece as Piece;
  }

  unregister(sub: MmuSubscription): void {
    if (!sub.registered) throw new KernelError('EINVAL', 'mmuNotifierUnregister', 'the subscription is not registered');
    this.refuseInside('mmuNotifierUnregister');
    if (sub.poisoned !== undefined) pinAll(sub);
    this.releaseOne(sub);
    this.remove(sub);
  }

  /** N16, N17: neither from a callback nor while a bracket is open. */
  private refuseInside(syscall: string): void {
    if (this.nrRunning > 0) throw new KernelError('EDEADLK', syscall, 'must not be called from a callback of this mm');
    if (this.nrBrackets > 0) throw new KernelError('EBUSY', syscall, 'must not be called while a bracket is open');
  }

  private remove(sub: MmuSubscription): void {
    for (const piece of sub.pieces) this.tree.remove(piece.node);
    this.count--;
    sub.registered = false;
    const i = this.lockHooks.indexOf(sub);
    if (i >= 0) this.lockHooks.splice(i, 1);
  }

  /**
   * Opens the bracket. 0, or -EAGAIN when a driver refused a non-blocking one: then every start that was delivered has been
   * ended again, no pte may be touched, and there is no `invalidateRangeEnd` to call. Pairs with `invalidateRangeEnd`.
   */
  invalidateRangeStart(range: RangeList): number {
    const { begun, nrRanges, ranges } = range;
    range.nrBegun = 0;
    if (nrRanges === 0) return 0;
    const nrFound = this.tree.collect(ranges[0]!, ranges[2 * nrRanges - 1]!, begun);
    if (nrFound === 0) return 0;
    if (nrFound === 1 && nrRanges === 1) return this.startAlone(range, begun[0]!.sub);
    this.addConcerned(range, nrFound);
    return range.nrBegun === 0 ? 0 : this.deliverStart(range);
  }

  /** WHY beside `deliverStart`: one driver and one run of pages is the usual bracket, and without the lists it takes 8 ns less. */
  private startAlone(range: RangeList, sub: MmuSubscription): number {
    this.openBracket(range);
    if (this.startOne(sub, range)) return this.refused(range, 0);
    range.nrBegun = 1;
    if (sub.poisoned !== undefined) this.startedPoisoned(range, sub);
    return 0;
  }

  private startedPoisoned(range: RangeList, sub: MmuSubscription): void {
    range.nrBegun = 0;
    pinRange(sub, range);
    this.closeBracket(range);
  }

  private openBracket(range: RangeList): void {
    if (CONFIG_LOCKDEP) lockdepBracket();
    this.nrBrackets++;
    this.host.vmstat.brackets++;
    range.open = true;
  }

  /** Ends the bracket for those `nrBegun` whose start was delivered before a driver refused. */
  private refused(range: RangeList, nrBegun: number): number {
    range.nrBegun = nrBegun;
    this.invalidateRangeEnd(range);
    this.host.vmstat.refusals++;
    return -ERRNO.EAGAIN;
  }

  /** Of the pieces that the hull of the range touches: those that the range touches, one of each subscription. */
  private addConcerned(range: RangeList, nrFound: number): void {
    const { begun } = range;
    for (let i = 0; i < nrFound; i++) {
      const piece = begun[i]!;
      if (range.nrRanges > 1 && !overlaps(piece, range)) continue;
      if (piece.sub.pieces.length > 1 && range.isBegun(piece.sub)) continue;
      begun[range.nrBegun++] = piece;
    }
  }

  private deliverStart(range: RangeList): number {
    this.openBracket(range);
    const { begun } = range;
    let nrBegun = 0;
    for (let i = 0; i < range.nrBegun; i++) {
      const { sub } = begun[i]!;
      if (this.startOne(sub, range)) return this.refused(range, nrBegun);
      if (sub.poisoned !== undefined) pinRange(sub, range);
      else if (nrBegun++ !== i) begun[nrBegun - 1] = begun[i]!;
    }
    range.nrBegun = nrBegun;
    if (nrBegun === 0) this.closeBracket(range);
    return 0;
  }

  /** True when the driver refused, as it may where the bracket must not block. */
  private startOne(sub: MmuSubscription, range: RangeList): boolean {
    const { ops } = sub;
    if (sub.poisoned !== undefined || ops.invalidateRangeStart === undefined) return false;
    this.calls.invalidateRangeStart++;
    this.nrRunning++;
    const began = this.watched ? enterCallback(this.host, 'invalidateRangeStart', range.blockable) : 0;
    let result: unknown;
    try {
      result = ops.invalidateRangeStart(sub, range);
    } catch (error) {
      this.threw(sub, 'invalidateRangeStart', error);
    }
    this.nrRunning--;
    const quiet = (result === undefined || result === 0) && !this.watched;
    return quiet ? false : this.startSlow(sub, range, began, result);
  }

  /** The start has returned something, or is to be looked at. */
  private startSlow(sub: MmuSubscription, range: RangeList, began: number, result: unknown): boolean {
    this.leaveSlow(sub, 'invalidateRangeStart', began, result);
    if (sub.poisoned !== undefined) return false;
    if (result === undefined || result === 0) {
      if (this.host.debug && sub.ops.mappings !== undefined) this.checkLeft(sub, range);
      return false;
    }
    if (result === -ERRNO.EAGAIN && !range.blockable) return true;
    const why = range.blockable ? 'in a bracket that may block' : 'instead of 0 or -EAGAIN';
    this.poison(sub, `invalidateRangeStart returned ${String(result)} ${why}`);
    return false;
  }

  /** N1, in debug builds: nothing of what a start took away may be left; where rights alone go, nothing that may write. */
  private checkLeft(sub: MmuSubscription, range: RangeList): void {
    const writable = range.event !== MMU_NOTIFY_UNMAP && range.event !== MMU_NOTIFY_CLEAR;
    let left = 0;
    const count = (from: number, to: number) => void (left += sub.ops.mappings!(sub, from, to, writable));
    this.nrRunning++;
    try {
      for (let i = 0; i < range.nrRanges; i++)
        sub.forEachPart(range.ranges[2 * i]! * PAGE_SIZE, range.ranges[2 * i + 1]! * PAGE_SIZE, count);
    } catch (error) {
      this.poison(sub, `mappings threw ${String(error)}`);
    }
    this.nrRunning--;
    if (left > 0) this.poison(sub, `invalidateRangeStart left ${left} mappings behind`);
  }

  /** Closes the bracket for those whose start was delivered. Pairs with `invalidateRangeStart`. */
  invalidateRangeEnd(range: RangeList): void {
    if (!range.open) return;
    const { begun, nrBegun } = range;
    if (nrBegun === 1) this.endOne(begun[0]!.sub, range);
    else for (let i = 0; i < nrBegun; i++) this.endOne(begun[i]!.sub, range);
    range.nrBegun = 0;
    this.closeBracket(range);
  }

  private endOne(sub: MmuSubscription, range: RangeList): void {
    const { ops } = sub;
    if (sub.poisoned !== undefined || ops.invalidateRangeEnd === undefined) return;
    this.calls.invalidateRangeEnd++;
    this.nrRunning++;
    const began = this.watched ? enterCallback(this.host, 'invalidateRangeEnd', false) : 0;
    let result: unknown;
    try {
      result = ops.invalidateRangeEnd(sub, range);
    } catch (error) {
      this.threw(sub, 'invalidateRangeEnd', error);
    }
    this.nrRunning--;
    if (result !== undefined || this.watched) this.leaveSlow(sub, 'invalidateRangeEnd', began, result);
  }

  private closeBracket(range: RangeList): void {
    range.open = false;
    this.nrBrackets--;
  }

  /** Whether any external MMU used the bytes [start, end) since the last call. A poisoned one may have: it counts as young. */
  clearFlushYoung(start: number, end: number): boolean {
    if (this.tree.size === 0) return false;
    const { found } = this;
    const nrFound = this.tree.collect(Math.floor(start / PAGE_SIZE), Math.ceil(end / PAGE_SIZE), found);
    let young = false;
    for (let i = 0; i < nrFound; i++) {
      const { sub } = found[i]!;
      if (sub.poisoned !== undefined) young = true;
      else if (sub.ops.clearFlushYoung !== undefined && this.youngOne(found[i]!, start, end)) young = true;
    }
    return young;
  }

  private youngOne({ sub, ...piece }: Piece, start: number, end: number): boolean {
    this.calls.clearFlushYoung++;
    const began = this.enter('clearFlushYoung', false);
    let result: unknown = true;
    try {
      result = sub.ops.clearFlushYoung!(sub, Math.max(start, piece.start), Math.min(end, piece.end));
    } catch (error) {
      this.poison(sub, `clearFlushYoung threw ${String(error)}`);
    }
    this.leave(sub, 'clearFlushYoung', began, result);
    return result !== false;
  }

  /** Inside the UNMAP bracket of [start, end): tells the subscriptions of which nothing is mapped any more. */
  closeAreas(start: number, end: number, vmas: VmaSet): void {
    if (this.tree.size === 0) return;
    for (const sub of this.overlapping(start, end)) {
      if (sub.closed || sub.ops.areaClosed === undefined) continue;
      if (sub.pieces.some((p) => vmas.intersects(Math.floor(p.start / PAGE_SIZE), Math.ceil(p.end / PAGE_SIZE))))
        continue;
      sub.closed = true;
      this.closed.push(sub);
      this.guard(sub, 'areaClosed', () => sub.ops.areaClosed!(sub));
    }
  }

  /**
   * After the bracket: what was mapped at the bytes [start, end) is now at `newStart`. Subscriptions that live with their area go with it;
   * `left`: the old addresses stay mapped, and theirs.
   */
  moveAreas(start: number, end: number, newStart: number, left: boolean): void {
    if (this.tree.size === 0) return;
    for (const sub of this.overlapping(start, end)) {
      if (sub.ops.areaClosed !== undefined)
        sub.pieces = sub.pieces.flatMap((p) => this.movePiece(p, start, end, newStart, left));
    }
  }

  private movePiece(piece: Piece, start: number, end: number, newStart: number, left: boolean): Piece[] {
    const from = Math.max(piece.start, start);
    const to = Math.min(piece.end, end);
    if (from >= to) return [piece];
    const moved = this.addPiece(piece.sub, newStart + (from - start), newStart + (to - start));
    if (left) return [piece, moved];
    this.tree.remove(piece.node);
    const pieces = [moved];
    if (piece.start < from) pieces.push(this.addPiece(piece.sub, piece.start, from));
    if (to < piece.end) pieces.push(this.addPiece(piece.sub, to, piece.end));
    return pieces;
  }

  /** After the bracket: the closed areas' subscriptions go. */
  removeClosed(): void {
    for (let sub = this.closed.pop(); sub !== undefined; sub = this.closed.pop()) {
      if (sub.registered) this.remove(sub);
    }
  }

  /** In the order of registration. */
  tellLocking(mode: MmapLockMode): void {
    for (const sub of this.lockHooks) {
      const { ops } = sub;
      this.toldLocks.push(sub);
      if (ops.mmapLock !== undefined) this.guard(sub, 'mmapLock', () => ops.mmapLock!(sub, mode));
    }
  }

  tellUnlocked(mode: MmapLockMode): void {
    for (let sub = this.toldLocks.pop(); sub !== undefined; sub = this.toldLocks.pop()) {
      const { ops } = sub;
      if (ops.mmapUnlock !== undefined) this.guard(sub, 'mmapUnlock', () => ops.mmapUnlock!(sub, mode));
    }
  }

  /** The mm goes away: each release once, before its frames are freed (N18). */
  releaseAll(): void {
    for (const sub of this.all()) this.releaseOne(sub);
  }

  private releaseOne(sub: MmuSubscription): void {
    if (sub.released) return;
    sub.released = true;
    if (sub.ops.release === undefined || sub.poisoned !== undefined) return;
    this.guard(sub, 'release', () => sub.ops.release!(sub));
  }

  /** Calls a rare op under the same containment as the frequent ones. */
  guard(sub: MmuSubscription, op: keyof NotifierCalls, call: () => unknown): void {
    if (sub.poisoned !== undefined) return;
    this.calls[op]++;
    const began = this.enter(op, false);
    let result: unknown;
    try {
      result = call();
    } catch (error) {
      this.poison(sub, `${op} threw ${String(error)}`);
    }
    this.leave(sub, op, began, result);
  }

  private enter(op: string, mayWait: boolean): number {
    this.nrRunning++;
    return this.watched ? enterCallback(this.host, op, mayWait) : 0;
  }

  private leave(sub: MmuSubscription, op: string, began: number, result: unknown): void {
    this.nrRunning--;
    if (this.watched || typeof result === 'object') this.leaveSlow(sub, op, began, result);
  }

  private leaveSlow(sub: MmuSubscription, op: string, began: number, result: unknown): void {
    const broken = leaveCallback(this.host, op, began, result);
    if (broken !== undefined) this.poison(sub, broken);
  }

  private threw(sub: MmuSubscription, op: keyof NotifierCalls, error: unknown): void {
    this.poison(sub, `${op} threw ${String(error)}`);
  }

  /** The subscription broke its contract: what it may map now stays pinned, and so does what a later bracket would take away. */
  private poison(sub: MmuSubscription, reason: string): void {
    if (sub.poisoned !== undefined) return;
    sub.poisoned = reason;
    this.host.vmstat.poisoned++;
    if (this.mm.remotes !== undefined) this.mm.remotes.revoke();
    pinAll(sub);
    const { onPoisoned } = sub;
    if (onPoisoned !== undefined) this.host.defer(() => onPoisoned(sub, reason));
  }
}

/**
 * Subscribes `ops` to the bytes [start, end) of `mm`, under its mmapLock. Throws KernelError EINVAL for a bad range, EDEADLK from a
 * callback, EBUSY while a bracket is open, ENOSYS where notifiers are compiled out.
 */
export function mmuNotifierRegister(
  mm: Mm,
  start: number,
  end: number,
  ops: MmuNotifierOps,
  options: MmuNotifierOptions = {},
): MmuSubscription {
  if (!CONFIG_PTE_NOTIFIERS)
    throw new KernelError('ENOSYS', 'mmuNotifierRegister', 'this build has no notifiers (CONFIG_PTE_NOTIFIERS)');
  mm.mmapLock.lock('write');
  try {
    return mm.notifiers.register(start, end, ops, options);
  } finally {
    mm.mmapLock.unlock();
  }
}

/** Ends it: runs `release` if that has not run, and returns when no callback runs or can start (N17). */
export function mmuNotifierUnregister(sub: MmuSubscription): void {
  sub.mm.notifiers.unregister(sub);
}

/**
 * The driver vouches that its instance is gone: nothing maps any more what was pinned when it broke its contract, and what would have been taken
 * away since. Gives that memory back; returns the frames of it, 0 for a driver that broke nothing. Throws KernelError EBUSY while the subscription
 * is registered (`mmuNotifierUnregister` first), for until then it may fault pages in.
 */
export function mmuNotifierUnpin(sub: MmuSubscription): number {
  if (sub.registered)
    throw new KernelError(
      'EBUSY',
      'mmuNotifierUnpin',
      'the subscription must be unregistered, and what it mapped gone',
    );
  return unpinAll(sub);
}
