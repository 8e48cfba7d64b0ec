import { NR_VPNS } from './layout.js';
import type { Mm } from './mm.js';
import { mmuNotifierRelease } from './notifier/hooks.js';
import { remotesDetach, remotesExit } from './remote/hooks.js';
import { unmapLocked } from './vma/mmap.js';

/**
 * The end of an mm (Linux: exit_mmap, mmdrop). Whoever maps its pages hears of all that goes before any of it does; where another thread has not said yet that it has
 * stopped, the tables stay until its end is known (remote/hooks.ts).
 */
export function exitMm(mm: Mm): void {
  mm.mmapLock.lock('write');
  remotesDetach(mm);
  unmapLocked(mm, 0, NR_VPNS);
  mm.mmapLock.unlock();
  mm.exited = true;
  const quiet = remotesExit(mm);
  mmuNotifierRelease(mm);
  mm.host.gather.free();
  if (quiet) mm.pageTable.destroy();
  mm.host.removeMm(mm);
}
