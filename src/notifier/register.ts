import { CONFIG_PTE_NOTIFIERS, KernelError } from '../base/index.js';
import { mmuNotifierRegister, mmuNotifierUnpin, mmuNotifierUnregister, type Vma } from '../mm/index.js';
import type { PteNotifier } from './ptenotifier.js';
import { Registration } from './registration.js';

/**
 * Registering a PteNotifier on a VMA, and ending that.
 *
 * Underneath, the subscription belongs to the mm and is keyed by the addresses that the VMA has now. So a split keeps the
 * registration on both halves, a merge does nothing, a partial unmap only clears, and what is mapped later into a hole of the area
 * belongs to it. The child of a fork has no registration. mremap clears the old addresses, and the registration follows its area.
 */

/**
 * Registers `pn` on `vma`. Throws KernelError EBUSY when it is registered already, or while a bracket is open (N16); EDEADLK from a callback;
 * EINVAL for a VMA that is not mapped any more; ENOMEM when the arena has no 16 bytes left; ENOSYS in a build without CONFIG_PTE_NOTIFIERS.
 */
export function pteNotifierRegister(pn: PteNotifier, vma: Vma): void {
  if (!CONFIG_PTE_NOTIFIERS) refuse('ENOSYS', 'this build has no pte notifiers (CONFIG_PTE_NOTIFIERS is false)');
  if (pn.registered) refuse('EBUSY', 'the notifier must not be registered already: it has one link');
  if (vma.mm.findVma(vma.start) !== vma)
    refuse('EINVAL', `VMA [0x${vma.start.toString(16)}, 0x${vma.end.toString(16)}) must be one of ${vma.mm.name}`);
  const before = pn.registration;
  before?.finish();
  const registration = new Registration(pn, vma, before === undefined ? 0 : (before.lastSeq + 1) | 0);
  try {
    const onPoisoned = (_sub: unknown, reason: string) => pn.onPoisoned?.(pn, reason);
    registration.sub = mmuNotifierRegister(vma.mm, vma.start, vma.end, registration, { onPoisoned });
  } catch (error) {
    registration.finish();
    throw error;
  }
  pn.registration = registration;
}

/**
 * Ends the registration: calls `release`, unless it has been, and returns when no callback runs or can start (N17). The driver has
 * dropped its entries before, or does so in `release`. Throws KernelError EINVAL when it is not registered, EDEADLK from a callback,
 * EBUSY while a bracket is open.
 */
export function pteNotifierUnregister(pn: PteNotifier): void {
  const { registration } = pn;
  if (registration === undefined || !pn.registered) {
    throw new KernelError('EINVAL', 'pteNotifierUnregister', 'the notifier must be registered on a VMA');
  }
  mmuNotifierUnregister(registration.sub!);
  registration.finish();
}

/**
 * The driver's external table is gone, and nothing maps any more what was pinned when it broke its contract: gives that memory back. Returns the
 * frames of it, 0 where it broke nothing. Throws KernelError EBUSY while it is registered.
 */
export function pteNotifierUnpin(pn: PteNotifier): number {
  const sub = pn.registration?.sub;
  return sub === undefined ? 0 : mmuNotifierUnpin(sub);
}

function refuse(code: 'ENOSYS' | 'EBUSY' | 'EINVAL', message: string): never {
  throw new KernelError(code, 'pteNotifierRegister', message);
}
