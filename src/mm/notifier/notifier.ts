import { CONFIG_PTE_NOTIFIERS, KernelError } from '../../base/index.js';
import { VA_SIZE, vaToVpn } from '../layout.js';
import type { Mm } from '../mm.js';
import type { NotifierCalls } from '../stat/stats.js';
import { Areas } from './areas.js';
import { Brackets } from './brackets.js';
import { Callbacks } from './callbacks.js';
import { pinAll, unpinAll } from './containment.js';
import { LockHooks } from './lockhooks.js';
import type { NotifierHost } from './notifierhost.js';
import type { RangeList } from './range.js';
import { type MmuNotifierOps, type MmuNotifierOptions, MmuSubscription, type Piece } from './subscription.js';
import { Subscriptions } from './subscriptions.js';

/**
 * MMU notifiers, the general form (Linux: mmu_notifier.c): who keeps an external page table over part of an mm is told before
 * the mm changes a pte there. A subscription belongs to the mm and is keyed by address range, so that split, merge, mremap and
 * fork can neither lose nor double it.
 *
 * A destructive change is a bracket (brackets.ts): drivers are told at its start, and told again at its end.
 *
 * A callback runs on the mm thread, perhaps with mmapLock held and inside reclaim: it must not wait, call into this
 * mm, or return a promise (N13). One that breaks its contract poisons its subscription (containment.ts): it is not called again, the frames
 * that it may still map are pinned and counted, its owner is told, and everybody else goes on (N19).
 *
 * Use: `mmuNotifierRegister`, callbacks, `mmuNotifierUnregister`: when that returns, none runs and none can start (N17); once the driver's
 * external table is gone as well `mmuNotifierUnpin`.
 */

type YoungOp = 'clearFlushYoung' | 'clearYoung' | 'testYoung';

/** The notifiers of one mm. */
export class MmuNotifiers {
  readonly mm: Mm;
  nrSubscriptions = 0;
  readonly brackets: Brackets;
  readonly lockHooks: LockHooks;
  readonly areas: Areas;
  private readonly host: NotifierHost;
  private readonly callbacks: Callbacks;
  private readonly subs = new Subscriptions();
  /** What the look-up of `isYoung` has found. */
  private readonly found: Piece[] = [];

  constructor(mm: Mm, host: NotifierHost) {
    this.mm = mm;
    this.host = host;
    this.callbacks = new Callbacks(mm, host);
    this.brackets = new Brackets(this.subs, this.callbacks);
    this.lockHooks = new LockHooks(mm, this.callbacks);
    this.areas = new Areas(this.subs, this.callbacks, (sub) => this.remove(sub));
  }

  all(): MmuSubscription[] {
    return this.subs.overlapping(0, VA_SIZE);
  }

  get inBracket(): boolean {
    return this.brackets.isOpen;
  }

  register(start: number, end: number, ops: MmuNotifierOps, options: MmuNotifierOptions): MmuSubscription {
    if (!(start >= 0 && start < end && end <= VA_SIZE)) {
      const range = `[0x${start.toString(16)}, 0x${end.toString(16)})`;
      throw new KernelError('EINVAL', 'mmuNotifierRegister', `range ${range} must be a part of [0, 2^39)`);
    }
    this.refuseInside('mmuNotifierRegister');
    const sub = new MmuSubscription(this.mm, ops, this.host.nextId(), options);
    this.subs.add(sub, start, end);
    this.nrSubscriptions++;
    this.mm.nrWatchers++;
    this.lockHooks.add(sub);
    return sub;
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
    if (this.callbacks.running || this.brackets.calling)
      throw new KernelError('EDEADLK', syscall, 'must not be called from a callback of this mm');
    if (this.brackets.isOpen) throw new KernelError('EBUSY', syscall, 'must not be called while a bracket is open');
  }

  private remove(sub: MmuSubscription): void {
    this.subs.remove(sub);
    this.nrSubscriptions--;
    this.mm.nrWatchers--;
    this.lockHooks.remove(sub);
  }

  /** Opens a bracket: `Brackets.start`. Pairs with `invalidateRangeEnd`. */
  invalidateRangeStart(range: RangeList): number {
    return this.brackets.start(range);
  }

  /** Closes it. Pairs with `invalidateRangeStart`. */
  invalidateRangeEnd(range: RangeList): void {
    this.brackets.end(range);
  }

  /** Whether any external MMU used the bytes [start, end) since it was asked last: takes the marks, and flushes. A poisoned one may have: it counts as young. */
  clearFlushYoung(start: number, end: number): boolean {
    return this.isYoung('clearFlushYoung', start, end);
  }

  /** The same, where nothing need be flushed. */
  clearYoung(start: number, end: number): boolean {
    return this.isYoung('clearYoung', start, end);
  }

  /** The same question, which changes nothing. */
  testYoung(start: number, end: number): boolean {
    return this.isYoung('testYoung', start, end);
  }

  private isYoung(question: YoungOp, start: number, end: number): boolean {
    if (this.nrSubscriptions === 0) return false;
    const { found } = this;
    const nrFound = this.subs.collect(vaToVpn(start), vaToVpn(end - 1) + 1, found);
    let young = false;
    for (let i = 0; i < nrFound; i++) if (this.isYoungBy(found[i]!, question, start, end)) young = true;
    return young;
  }

  private isYoungBy(piece: Piece, question: YoungOp, start: number, end: number): boolean {
    const { callbacks } = this;
    const { sub } = piece;
    if (sub.poisoned !== undefined) return true;
    const op = question === 'clearYoung' && sub.ops.clearYoung === undefined ? 'clearFlushYoung' : question;
    if (sub.ops[op] === undefined) return false;
    const began = callbacks.enter(op);
    let result: unknown;
    try {
      result = sub.ops[op](sub, Math.max(start, piece.start), Math.min(end, piece.end));
    } catch (error) {
      callbacks.threw(sub, op, error);
    }
    callbacks.leave(sub, op, began, result);
    return result !== false;
  }

  /** The mm goes away: each release once, before its frames are freed (N18). */
  releaseAll(): void {
    for (const sub of this.all()) this.releaseOne(sub);
  }

  private releaseOne(sub: MmuSubscription): void {
    if (sub.released) return;
    sub.released = true;
    if (sub.ops.release === undefined) return;
    this.callbacks.guard(sub, 'release', () => sub.ops.release!(sub));
  }

  /** Calls a rare op under containment: `Callbacks.guard`. */
  guard(sub: MmuSubscription, op: keyof NotifierCalls, call: () => unknown): void {
    this.callbacks.guard(sub, op, call);
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
