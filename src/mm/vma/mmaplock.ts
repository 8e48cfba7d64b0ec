import { bug, CONFIG_LOCKDEP, LOCK_CLASSES, lockdepAcquire, lockdepMayTake, lockdepRelease } from '../../base/index.js';
import type { Mm } from '../mm.js';
import { mmuNotifierMmapLocking, mmuNotifierMmapUnlocked } from '../notifier/hooks.js';
import type { MmapLockMode } from '../notifier/subscription.js';

/**
 * mmapLock (Linux: mmap_lock): guards the VMAs of an mm. VMAs belong to one thread, so it is never contended; it exists to be checked: it
 * is never held across a wait, a writer is alone, and drivers that registered for it are told (S7), before it is taken and after it
 * is given back, in the order of their registration and its reverse.
 *
 * Reclaim does not take it: these hooks alone protect nothing against reclaim.
 */
export class MmapLock {
  private readonly mm: Mm;
  private mode: MmapLockMode | undefined;

  constructor(mm: Mm) {
    this.mm = mm;
  }

  lock(mode: MmapLockMode): void {
    if (CONFIG_LOCKDEP) lockdepMayTake(LOCK_CLASSES.mmapLock);
    if (this.mode !== undefined) bug('N7', `mmapLock taken for ${mode} while it is held for ${this.mode}`);
    mmuNotifierMmapLocking(this.mm, mode);
    if (CONFIG_LOCKDEP) lockdepAcquire(this, LOCK_CLASSES.mmapLock, this.mm.id);
    this.mode = mode;
  }

  unlock(): void {
    const mode = this.mode;
    if (mode === undefined) bug('N7', 'mmapLock given back while it is not held');
    this.mode = undefined;
    if (CONFIG_LOCKDEP) lockdepRelease(this);
    mmuNotifierMmapUnlocked(this.mm, mode);
  }

  get heldForWrite(): boolean {
    return this.mode === 'write';
  }

  get held(): boolean {
    return this.mode !== undefined;
  }
}
