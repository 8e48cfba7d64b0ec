import { vpnToVa } from '../layout.js';
import type { Mm } from '../mm.js';
import { PROT_WRITE, VM_LOCKONFAULT, VM_SHARED, type Vma } from '../vma/vma.js';
import { handleMmFault } from './fault.js';
import { FAULT_FLAG_WRITE } from './faultcode.js';

/**
 * Pages brought in before they are asked for (Linux: mm_populate): for writing where the VMA is private and allows that, else for
 * reading. VMAs that are locked on fault are passed over.
 */

/** The rights to fault a page of `vma` in with, or -1 when it is not to be populated. */
function populateFlags(vma: Vma): number {
  if ((vma.flags & VM_LOCKONFAULT) !== 0) return -1;
  return (vma.prot & PROT_WRITE) !== 0 && (vma.flags & VM_SHARED) === 0 ? FAULT_FLAG_WRITE : 0;
}

/** What can be had without waiting: stops at the first page that cannot. */
export function populateNow(mm: Mm, startVpn: number, endVpn: number): void {
  mm.mmapLock.lock('read');
  populateLocked(mm, startVpn, endVpn);
  mm.mmapLock.unlock();
}

/** As `populateNow`, with mmapLock held. */
export function populateLocked(mm: Mm, startVpn: number, endVpn: number): void {
  for (let vpn = startVpn; vpn < endVpn; vpn++) {
    const vma = mm.vmas.find(vpn);
    const flags = vma === undefined ? -1 : populateFlags(vma);
    if (flags >= 0 && handleMmFault(mm, vpn, flags === FAULT_FLAG_WRITE, mm.host.reclaim.min) < 0) return;
  }
}

/**
 * Every page of the range; holes are passed over. Waits, and looks the VMA up again after every wait. `onError` is told of a page that
 * `faultIn` rejected, and throws, or lets it go on with the next VMA.
 */
export async function populate(
  mm: Mm,
  startVpn: number,
  endVpn: number,
  onError: (error: unknown) => void,
): Promise<void> {
  let vpn = startVpn;
  for (let vma = mm.vmas.firstEndingAfter(vpn); vma !== undefined; vma = mm.vmas.firstEndingAfter(vpn)) {
    vpn = Math.max(vpn, vma.startVpn);
    if (vpn >= endVpn) return;
    const flags = populateFlags(vma);
    if (flags >= 0 && (await populateOne(mm, vpn, flags, onError))) vpn++;
    else vpn = vma.endVpn;
  }
}

/** False where `onError` was told of an error, and went on. */
export async function populateOne(
  mm: Mm,
  vpn: number,
  flags: number,
  onError: (error: unknown) => void,
): Promise<boolean> {
  const pfn = mm.tryGetPage(vpnToVa(vpn), flags);
  if (pfn > 0) {
    mm.putPage(pfn);
    return true;
  }
  try {
    await mm.faultIn(vpnToVa(vpn), flags);
    return true;
  } catch (error) {
    onError(error);
    return false;
  }
}
