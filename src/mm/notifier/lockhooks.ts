import type { Callbacks } from './callbacks.js';
import type { MmapLockMode, MmuSubscription } from './subscription.js';

/**
 * Drivers that hear of mmapLock (S7): before it is taken, in the order of their registration, and after it is given back, in the reverse. Who has heard of the
 * one hears of the other, though others come and go in between.
 */
export class LockHooks {
  private readonly callbacks: Callbacks;
  /** In the order of registration; `nr` of them. */
  private readonly subs: MmuSubscription[] = [];
  nr = 0;
  /** Those who were told that it is taken, and will be told that it was given back; `nrTold` of them. */
  private readonly told: MmuSubscription[] = [];
  nrTold = 0;

  constructor(callbacks: Callbacks) {
    this.callbacks = callbacks;
  }

  add(sub: MmuSubscription): void {
    if (sub.ops.mmapLock !== undefined || sub.ops.mmapUnlock !== undefined) this.nr = this.subs.push(sub);
  }

  remove(sub: MmuSubscription): void {
    const i = this.subs.indexOf(sub);
    if (i >= 0) this.subs.splice(i, 1);
    this.nr = this.subs.length;
  }

  tellLocking(mode: MmapLockMode): void {
    for (const sub of this.subs) {
      const { ops } = sub;
      this.nrTold = this.told.push(sub);
      if (ops.mmapLock !== undefined) this.callbacks.guard(sub, 'mmapLock', () => ops.mmapLock!(sub, mode));
    }
  }

  /** Pairs with `tellLocking`. */
  tellUnlocked(mode: MmapLockMode): void {
    for (let sub = this.told.pop(); sub !== undefined; sub = this.told.pop()) {
      const { ops } = sub;
      this.nrTold = this.told.length;
      if (ops.mmapUnlock !== undefined) this.callbacks.guard(sub, 'mmapUnlock', () => ops.mmapUnlock!(sub, mode));
    }
  }
}
