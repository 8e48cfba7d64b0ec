import { KernelError } from '../base/index.js';
import { FAULT_FLAG_WRITE } from './fault.js';
import { PAGE_SIZE, pfnToPa, VA_SIZE } from './layout.js';
import type { Mm } from './mm.js';

/**
 * Reading and writing an mm's memory by address (Linux: access_remote_vm). Each page is looked up when its turn comes and kept
 * by a reference while its bytes are copied; between pages others may run. A transfer that fails half way has moved what lies before.
 */

/** Moves `lenBytes` between the bytes at `pa` of the host's memory and offset `at` of the caller's buffer. */
type Copy = (pa: number, at: number, lenBytes: number) => void;

export async function accessMm(mm: Mm, va: number, lenBytes: number, flags: number, copy: Copy): Promise<void> {
  checkSpan(va, lenBytes, flags);
  for (let at = 0; at < lenBytes; ) {
    const moved = accessPage(mm, va + at, at, lenBytes - at, flags, copy);
    if (moved === 0) await mm.faultIn(va + at, flags);
    at += moved;
  }
}

export function accessMmSync(mm: Mm, va: number, lenBytes: number, flags: number, copy: Copy): void {
  checkSpan(va, lenBytes, flags);
  for (let at = 0; at < lenBytes; ) {
    const moved = accessPage(mm, va + at, at, lenBytes - at, flags, copy);
    if (moved === 0) mm.faultInSync(va + at, flags);
    at += moved;
  }
}

/** Moves what lies in the page of `va`; 0 when the page has to be faulted in. */
function accessPage(mm: Mm, va: number, at: number, leftBytes: number, flags: number, copy: Copy): number {
  const pfn = mm.tryGetPage(va, flags);
  if (pfn < 0) return 0;
  const offset = va % PAGE_SIZE;
  const lenBytes = Math.min(leftBytes, PAGE_SIZE - offset);
  copy(pfnToPa(pfn) + offset, at, lenBytes);
  mm.putPage(pfn);
  return lenBytes;
}

function checkSpan(va: number, lenBytes: number, flags: number): void {
  if (Number.isInteger(va) && va >= 0 && va + lenBytes <= VA_SIZE) return;
  const syscall = (flags & FAULT_FLAG_WRITE) !== 0 ? 'write' : 'read';
  throw new KernelError('EFAULT', syscall, `address ${va} with ${lenBytes} bytes must lie in [0, 2^39)`);
}
