import { CONFIG_PTE_NOTIFIERS, ERRNO, type IntervalNode, IntervalTree, KernelError } from '../base/index.js';
import { VA_SIZE } from './layout.js';
import type { Mm } from './mm.js';
import type { MmuNotifierRange, RangeList } from './range.js';
import type { NotifierCalls } from './stats.js';
import type { VmaSet } from './vmaset.js';

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
 * mm, or return a promise (N13). One that breaks its contract poisons its subscription: it is not called again, the frames that it may
 * still map are pinned for ever and counted, its owner is told, and everybody else goes on (N19).
 *
 * Use: `mmuNotifierRegister`, callbacks, `mmuNotifierUnregister`: when that returns, none runs and none can start (N17).
 */

export interface MmuNotifierOps {
  /** Drop and flush what maps `range`, which is still mapped and referenced. Returns 0 or nothing; -EAGAIN only where !range.blockable. */
  // biome-ignore lint/suspicious/noConfusingVoidType: a callback without a result is a usual one.
  invalidateRangeStart?(sub: MmuSubscription, range: MmuNotifierRange): number | void;
  /** The ptes are changed; page contents must not be touched any more. */
  invalidateRangeEnd?(sub: MmuSubscription, range: MmuNotifierRange): void;
  /** Whether the bytes [start, end) were used through the external MMU since the last call; clears and flushes that (N14). */
  clearFlushYoung?(sub: MmuSubscription, start: number, end: number): boolean;
  /** The mm goes away: called once, the last callback; the frames are freed after it. */
  release?(sub: MmuSubscription): void;
  /**
   * Nothing of the subscription's range is mapped any more; called once, inside the bracket, before anything is freed. A
   * subscription with this op lives as long as its area: it is removed by itself after the bracket.
   */
  areaClosed?(sub: MmuSubscription): void;
  /** Around the mmap lock (S7), in the order of registration. */
  mmapLock?(sub: MmuSubscription, mode: MmapLockMode): void;
  mmapUnlock?(sub: MmuSubscription, mode: MmapLockMode): void;
}

export type MmapLockMode = 'read' | 'write';

export interface MmuNotifierOptions {
  /** Told, soon after, that the subscription broke its contract and is dead. */
  onPoisoned?: (sub: MmuSubscription, reason: string) => void;
}

export class MmuSubscription {
  readonly mm: Mm;
  /** Bytes [start, end). */
  readonly start: number;
  readonly end: number;
  readonly ops: MmuNotifierOps;
  /** Counts up over the host: the lock order of `mmapLock` hooks. */
  readonly id: number;
  readonly onPoisoned: ((sub: MmuSubscription, reason: string) => void) | undefined;
  /** Why it is not called any more. */
  poisoned: string | undefined;
  registered = true;
  released = false;
  closed = false;
  node: IntervalNode<MmuSubscription> | undefined;

  constructor(mm: Mm, start: number, end: number, ops: MmuNotifierOps, id: number, options: MmuNotifierOptions) {
    this.mm = mm;
    this.start = start;
    this.end = end;
    this.ops = ops;
    this.id = id;
    this.onPoisoned = options.onPoisoned;
  }

  overlaps(range: MmuNotifierRange): boolean {
    for (let i = 0; i < range.nrRanges; i++) {
      if (range.ranges[2 * i]! * PAGE_SIZE < this.end && range.ranges[2 * i + 1]! * PAGE_SIZE > this.start) return true;
    }
    return false;
  }
}

const PAGE_SIZE = 4096;

/** What the notifiers of an mm need of their host. */
export interface NotifierHost {
  readonly calls: NotifierCalls;
  /** A callback that takes longer is a broken contract; 0 for no budget. */
  readonly budgetMs: number;
  now(): number;
  defer(fn: () => void): void;
  nextId(): number;
  countBracket(): void;
  countRefusal(): void;
  countPoisoned(): void;
  /** Pins the frames that are mapped in [start, end). */
  pin(mm: Mm, start: number, end: number): void;
}

/** The subscriptions of one mm. */
export class MmuNotifiers {
  private readonly mm: Mm;
  private readonly host: NotifierHost;
  private readonly tree = new IntervalTree<MmuSubscription>();
  /** Those with mmap lock hooks, by id. */
  readonly lockHooks: MmuSubscription[] = [];
  /** Their areas are gone; they go after the bracket. */
  private readonly closed: MmuSubscription[] = [];
  /** Callbacks that run right now. */
  private nrRunning = 0;
  private nrBrackets = 0;
  private current: RangeList | undefined;
  private readonly collect: (sub: MmuSubscription) => void;

  constructor(mm: Mm, host: NotifierHost) {
    this.mm = mm;
    this.host = host;
    this.collect = (sub) => {
      if (sub.overlaps(this.current!)) this.current!.begun[this.current!.nrBegun++] = sub;
    };
  }

  get nrSubscriptions(): number {
    return this.tree.size;
  }

  all(): MmuSubscription[] {
    return this.tree.overlapping(0, VA_SIZE);
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
    const sub = new MmuSubscription(this.mm, start, end, ops, this.host.nextId(), options);
    sub.node = this.tree.insert(start, end, sub);
    if (ops.mmapLock !== undefined || ops.mmapUnlock !== undefined) this.lockHooks.push(sub);
    return sub;
  }

  unregister(sub: MmuSubscription): void {
    if (!sub.registered) throw new KernelError('EINVAL', 'mmuNotifierUnregister', 'the subscription is not registered');
    this.refuseInside('mmuNotifierUnregister');
    if (sub.poisoned !== undefined) this.host.pin(this.mm, sub.start, sub.end);
    this.releaseOne(sub);
    this.remove(sub);
  }

  /** N16, N17: neither from a callback nor while a bracket is open. */
  private refuseInside(syscall: string): void {
    if (this.nrRunning > 0) throw new KernelError('EDEADLK', syscall, 'must not be called from a callback of this mm');
    if (this.nrBrackets > 0) throw new KernelError('EBUSY', syscall, 'must not be called while a bracket is open');
  }

  private remove(sub: MmuSubscription): void {
    this.tree.remove(sub.node!);
    sub.registered = false;
    const i = this.lockHooks.indexOf(sub);
    if (i >= 0) this.lockHooks.splice(i, 1);
  }

  /**
   * Opens the bracket. 0, or -EAGAIN when a driver refused a non-blocking one: then every start that was delivered has been
   * ended again, no pte may be touched, and there is no `invalidateRangeEnd` to call. Pairs with `invalidateRangeEnd`.
   */
  invalidateRangeStart(range: RangeList): number {
    range.nrBegun = 0;
    if (!CONFIG_PTE_NOTIFIERS || this.tree.size === 0) return 0;
    this.current = range;
    this.tree.visit(range.start, range.end, this.collect);
    return range.nrBegun === 0 ? 0 : this.deliverStart(range);
  }

  private deliverStart(range: RangeList): number {
    this.nrBrackets++;
    range.open = true;
    this.host.countBracket();
    const subs = range.begun;
    let nrBegun = 0;
    for (let i = 0; i < range.nrBegun; i++) {
      const sub = subs[i]!;
      const refused = this.startOne(sub, range);
      if (refused) {
        range.nrBegun = nrBegun;
        this.invalidateRangeEnd(range);
        this.host.countRefusal();
        return -ERRNO.EAGAIN;
      }
      if (sub.poisoned === undefined) subs[nrBegun++] = sub;
      else this.pinRange(sub, range);
    }
    range.nrBegun = nrBegun;
    if (nrBegun === 0) this.closeBracket(range);
    return 0;
  }

  /** True when the driver refused, as it may where the bracket must not block. */
  private startOne(sub: MmuSubscription, range: RangeList): boolean {
    if (sub.poisoned !== undefined || sub.ops.invalidateRangeStart === undefined) return false;
    this.host.calls.invalidateRangeStart++;
    const began = this.enter();
    let result: unknown;
    try {
      result = sub.ops.invalidateRangeStart(sub, range);
    } catch (error) {
      this.poison(sub, `invalidateRangeStart threw ${String(error)}`);
    }
    this.leave(sub, 'invalidateRangeStart', began, result);
    if (result === undefined || result === 0 || sub.poisoned !== undefined) return false;
    if (result === -ERRNO.EAGAIN && !range.blockable) return true;
    const why = range.blockable ? 'in a bracket that may block' : 'instead of 0 or -EAGAIN';
    this.poison(sub, `invalidateRangeStart returned ${String(result)} ${why}`);
    return false;
  }

  private pinRange(sub: MmuSubscription, range: MmuNotifierRange): void {
    for (let i = 0; i < range.nrRanges; i++) {
      const start = Math.max(sub.start, range.ranges[2 * i]! * PAGE_SIZE);
      const end = Math.min(sub.end, range.ranges[2 * i + 1]! * PAGE_SIZE);
      if (start < end) this.host.pin(this.mm, start, end);
    }
  }

  /** Closes the bracket for those whose start was delivered. Pairs with `invalidateRangeStart`. */
  invalidateRangeEnd(range: RangeList): void {
    if (!CONFIG_PTE_NOTIFIERS || !range.open) return;
    for (let i = 0; i < range.nrBegun; i++) {
      const sub = range.begun[i]!;
      if (sub.poisoned !== undefined || sub.ops.invalidateRangeEnd === undefined) continue;
      this.host.calls.invalidateRangeEnd++;
      const began = this.enter();
      let result: unknown;
      try {
        result = sub.ops.invalidateRangeEnd(sub, range);
      } catch (error) {
        this.poison(sub, `invalidateRangeEnd threw ${String(error)}`);
      }
      this.leave(sub, 'invalidateRangeEnd', began, result);
    }
    range.nrBegun = 0;
    this.closeBracket(range);
  }

  private closeBracket(range: RangeList): void {
    range.open = false;
    this.nrBrackets--;
  }

  /** Whether any external MMU used the bytes [start, end) since the last call. A poisoned one may have: it counts as young. */
  clearFlushYoung(start: number, end: number): boolean {
    if (!CONFIG_PTE_NOTIFIERS || this.tree.size === 0) return false;
    let young = false;
    this.tree.visit(start, end, (sub) => {
      if (sub.poisoned !== undefined) young = true;
      else if (sub.ops.clearFlushYoung !== undefined && this.youngOne(sub, start, end)) young = true;
    });
    return young;
  }

  private youngOne(sub: MmuSubscription, start: number, end: number): boolean {
    this.host.calls.clearFlushYoung++;
    const began = this.enter();
    let result: unknown = true;
    try {
      result = sub.ops.clearFlushYoung!(sub, Math.max(start, sub.start), Math.min(end, sub.end));
    } catch (error) {
      this.poison(sub, `clearFlushYoung threw ${String(error)}`);
    }
    this.leave(sub, 'clearFlushYoung', began, result);
    return result !== false;
  }

  /** Inside the UNMAP bracket of [start, end): tells the subscriptions of which nothing is mapped any more. */
  closeAreas(start: number, end: number, vmas: VmaSet): void {
    if (!CONFIG_PTE_NOTIFIERS || this.tree.size === 0) return;
    for (const sub of this.tree.overlapping(start, end)) {
      if (sub.closed || sub.ops.areaClosed === undefined) continue;
      if (vmas.intersects(Math.floor(sub.start / PAGE_SIZE), Math.ceil(sub.end / PAGE_SIZE))) continue;
      sub.closed = true;
      this.closed.push(sub);
      this.guard(sub, 'areaClosed', () => sub.ops.areaClosed!(sub));
    }
  }

  /** After the bracket: the closed areas' subscriptions go. */
  removeClosed(): void {
    for (let sub = this.closed.pop(); sub !== undefined; sub = this.closed.pop()) {
      if (sub.registered) this.remove(sub);
    }
  }

  /** The mm goes away: each release once, before its frames are freed (N18). */
  releaseAll(): void {
    for (const sub of this.tree.overlapping(0, VA_SIZE)) this.releaseOne(sub);
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
    this.host.calls[op]++;
    const began = this.enter();
    let result: unknown;
    try {
      result = call();
    } catch (error) {
      this.poison(sub, `${op} threw ${String(error)}`);
    }
    this.leave(sub, op, began, result);
  }

  private enter(): number {
    this.nrRunning++;
    return this.host.budgetMs === 0 ? 0 : this.host.now();
  }

  private leave(sub: MmuSubscription, op: string, began: number, result: unknown): void {
    this.nrRunning--;
    if (isThenable(result)) {
      result.then(undefined, () => {});
      this.poison(sub, `${op} returned a promise; it must be done when it returns`);
    }
    if (this.host.budgetMs === 0) return;
    const tookMs = this.host.now() - began;
    if (tookMs <= this.host.budgetMs) return;
    this.poison(sub, `${op} took ${tookMs.toFixed(1)} ms; its budget is ${this.host.budgetMs} ms`);
  }

  /** The subscription broke its contract: what it may map now stays pinned, and so does what a later bracket would take away. */
  private poison(sub: MmuSubscription, reason: string): void {
    if (sub.poisoned !== undefined) return;
    sub.poisoned = reason;
    this.host.countPoisoned();
    this.host.pin(this.mm, sub.start, sub.end);
    const { onPoisoned } = sub;
    if (onPoisoned !== undefined) this.host.defer(() => onPoisoned(sub, reason));
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function';
}

/**
 * Subscribes `ops` to the bytes [start, end) of `mm`, under its mmapLock. Throws KernelError EINVAL for a bad range, EDEADLK from a
 * callback, EBUSY while a bracket is open.
 */
export function mmuNotifierRegister(
  mm: Mm,
  start: number,
  end: number,
  ops: MmuNotifierOps,
  options: MmuNotifierOptions = {},
): MmuSubscription {
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
