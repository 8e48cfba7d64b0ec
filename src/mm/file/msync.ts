import { KernelError } from '../../base/index.js';
import { pageRange } from '../args.js';
import type { Mm } from '../mm.js';

/** msync (Linux: msync.c): shared mappings of files are written back. Waits, without mmapLock; after each wait the VMAs are looked up again. */

export const MS_ASYNC = 1;
export const MS_INVALIDATE = 2;
export const MS_SYNC = 4;

/**
 * Rejects with KernelError EINVAL (flags, alignment), ENOMEM (a hole; what is mapped behind it was written), EBUSY (locked, with MS_INVALIDATE),
 * and as the file's `fsync`. MS_ASYNC does nothing but check: dirty pages are known, and write-back goes on by itself.
 */
export async function msync(mm: Mm, addr: number, length: number, flags: number): Promise<void> {
  const [start, end] = checkMsync(addr, length, flags);
  let vpn = start;
  let hole = false;
  while (vpn < end) {
    const vma = mm.vmas.firstEndingAfter(vpn);
    if (vma === undefined || vma.startVpn >= end) throw unmapped(mm, vpn);
    if (vma.startVpn > vpn) {
      if (flags === MS_ASYNC) throw unmapped(mm, vpn);
      hole = true;
      vpn = vma.startVpn;
    }
    if ((flags & MS_INVALIDATE) !== 0 && vma.locked)
      throw new KernelError('EBUSY', 'msync', `page 0x${vpn.toString(16)} of ${mm.name} must not be locked`);
    const [first, last] = [vma.pgoffOf(vpn), vma.pgoffOf(Math.min(end, vma.endVpn))];
    vpn = vma.endVpn;
    if ((flags & MS_SYNC) !== 0 && vma.shared) await vma.file!.fsyncRange('msync', first, last);
  }
  if (hole) throw unmapped(mm, start);
}

function checkMsync(addr: number, length: number, flags: number): [startVpn: number, endVpn: number] {
  const bad =
    (flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) !== 0 || (flags & (MS_ASYNC | MS_SYNC)) === (MS_ASYNC | MS_SYNC);
  if (bad)
    throw new KernelError('EINVAL', 'msync', `flags ${flags} must be made of MS_ASYNC or MS_SYNC, and MS_INVALIDATE`);
  return pageRange('msync', addr, length, 'ENOMEM');
}

function unmapped(mm: Mm, vpn: number): KernelError {
  return new KernelError('ENOMEM', 'msync', `page 0x${vpn.toString(16)} of ${mm.name} must be mapped`);
}
