import type { Mm } from '../mm.js';
import type { Callbacks } from './callbacks.js';
import type { MmapLockMode, MmuSubscription } from './subscription.js';

/**
 * Drivers that hear of mmapLock (S7): before it is taken, in the order of their registration, and after it is given back, in the reverse. Who has heard of the
 * one hears of the other, though others come and go in between.
 */
export class LockHooks {
  private readonly mm: Mm;
  private readonly callbacks: Callbacks;
  /** In the order of registration. */
  private readonly subs: MmuSubscription[] = [];
  /** Those who were told that it is taken, and will be told that it was given back. */
  private readonly told: MmuSubscription[] = [];

  constructor(mm: Mm, callbacks: Callbacks) {
    this.mm = mm;
    this.callbacks = callbacks;
  }

  /** What the hooks look at before they come here. */
  private count(): void {
    this.mm.nrLockHooks = this.subs.length + this.told.length;
  }

  add(sub: MmuSubscription): void {
    if (sub.ops.mmapLock !== undefined || sub.ops.mmapUnlock !== undefined) this.subs.push(sub);
    this.count();
  }

  remove(sub: MmuSubscription): void {
    const i = this.subs.indexOf(sub);
    if (i >= 0) this.subs.splice(i, 1);
    this.count();
  }

  tellLocking(mode: MmapLockMode): void {
    for (const sub of this.subs) {
      const { ops } = sub;
      this.told.push(sub);
      this.count();
      if (ops.mmapLock !== undefined) this.callbacks.guard(sub, 'mmapLock', () => ops.mmapLock!(sub, mode));
    }
  }

  /** Pairs with `tellLocking`. */
  tellUnlocked(mode: MmapLockMode): void {
    for (let sub = this.told.pop(); sub !== undefined; sub = this.told.pop()) {
      const { ops } = sub;
      this.count();
      if (ops.mmapUnlock !== undefined) this.callbacks.guard(sub, 'mmapUnlock', () => ops.mmapUnlock!(sub, mode));
    }
  }
}
