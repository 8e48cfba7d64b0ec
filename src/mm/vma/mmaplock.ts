import {
  bug,
  CONFIG_LOCKDEP,
  CONFIG_PTE_NOTIFIERS,
  LOCK_CLASSES,
  lockdepAcquire,
  lockdepMayTake,
  lockdepRelease,
} from '../../base/index.js';
import type { MmuNotifiers } from '../notifier/notifier.js';
import type { MmapLockMode, MmuSubscription } from '../notifier/subscription.js';

/**
 * mmapLock (Linux: mmap_lock): guards the VMAs of an mm. VMAs belong to one thread, so it is never contended; it exists to be checked: it
 * is never held across a wait, a writer is alone, and drivers that registered for it are told (S7), before it is taken and after it
 * is given back, in the order of their registration and its reverse.
 *
 * Reclaim does not take it: these hooks alone protect nothing against reclaim.
 */
export class MmapLock {
  private readonly notifiers: MmuNotifiers;
  private mode: MmapLockMode | undefined;
  /** Those who were told that it was taken, and will be told that it was given back. */
  private readonly told: MmuSubscription[] = [];

  constructor(notifiers: MmuNotifiers) {
    this.notifiers = notifiers;
  }

  lock(mode: MmapLockMode): void {
    if (CONFIG_LOCKDEP) lockdepMayTake(LOCK_CLASSES.mmapLock);
    if (this.mode !== undefined) bug('N7', `mmapLock taken for ${mode} while it is held for ${this.mode}`);
    if (CONFIG_PTE_NOTIFIERS && this.notifiers.lockHooks.length > 0) this.tellLocked(mode);
    if (CONFIG_LOCKDEP) lockdepAcquire(this, LOCK_CLASSES.mmapLock, this.notifiers.mm.id);
    this.mode = mode;
  }

  private tellLocked(mode: MmapLockMode): void {
    for (const sub of this.notifiers.lockHooks) {
      const { ops } = sub;
      this.told.push(sub);
      if (ops.mmapLock !== undefined) this.notifiers.guard(sub, 'mmapLock', () => ops.mmapLock!(sub, mode));
    }
  }

  unlock(): void {
    const mode = this.mode;
    if (mode === undefined) bug('N7', 'mmapLock given back while it is not held');
    this.mode = undefined;
    if (CONFIG_LOCKDEP) lockdepRelease(this);
    if (CONFIG_PTE_NOTIFIERS && this.told.length > 0) this.tellUnlocked(mode);
  }

  private tellUnlocked(mode: MmapLockMode): void {
    for (let sub = this.told.pop(); sub !== undefined; sub = this.told.pop()) {
      const { ops } = sub;
      if (ops.mmapUnlock !== undefined) this.notifiers.guard(sub, 'mmapUnlock', () => ops.mmapUnlock!(sub, mode));
    }
  }

  get heldForWrite(): boolean {
    return this.mode === 'write';
  }

  get held(): boolean {
    return this.mode !== undefined;
  }
}
