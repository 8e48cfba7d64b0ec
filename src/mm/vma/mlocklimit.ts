import type { ErrnoName } from '../../base/index.js';
import { refuse } from '../args.js';
import type { Mm } from '../mm.js';
import { nrPinned } from '../notifier/hooks.js';
import { limitToPages } from './rlimit.js';

/** How much may be locked: RLIMIT_MEMLOCK for each mm, and the frames of the host, of which some must be left to reclaim. */

/** Refuses with EPERM who may lock nothing at all (Linux: can_do_mlock). */
export function checkCanMlock(mm: Mm, syscall: string): void {
  if (mm.rlimits.memlock === 0) refuse('EPERM', syscall, `RLIMIT_MEMLOCK of ${mm.name} is 0: it may lock nothing`);
}

/** Refuses `nrNew` more locked pages that are too many for the mm or for its host. */
export function checkMlockLimits(mm: Mm, syscall: string, nrNew: number, code: ErrnoName): void {
  const { host, vm } = mm;
  const kib = (nrPages: number) => `${nrPages * 4} KiB`;
  const beside = (nrPages: number) => `${kib(nrNew)} cannot be locked beside the ${kib(nrPages)} that are`;
  const limitPages = limitToPages(mm.rlimits.memlock);
  if (vm.locked + nrNew > limitPages)
    refuse(code, syscall, `${beside(vm.locked)}: at most RLIMIT_MEMLOCK, ${kib(limitPages)} for ${mm.name}`);
  const lockable = host.frames.nrFrames - host.reclaim.reserve;
  const locked = host.vm.locked + nrPinned(host);
  if (locked + nrNew <= lockable) return;
  refuse(
    code,
    syscall,
    `${beside(locked)}: at most ${kib(lockable)} of the host's ${kib(host.frames.nrFrames)} of frames`,
  );
}
