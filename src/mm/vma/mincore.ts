import { hex, refuse, unsignedLong } from '../args.js';
import type { File } from '../file/file.js';
import { valueToSlot } from '../file/shmem.js';
import type { Host } from '../host.js';
import { bytesToPages, PAGE_SIZE, VA_SIZE, vaToVpn, vpnToVa } from '../layout.js';
import type { Mm } from '../mm.js';
import { PG_LOCKED } from '../page/frames.js';
import { PTE_NONE, pteIsSame, pteIsSwap, pteSwapSlot } from '../pgtable/pte.js';
import type { Vma } from './vma.js';

/**
 * mincore (Linux: mincore.c): which pages could be had without I/O. That is what is mapped, and what lies in the swap cache or the
 * page cache; untouched anonymous memory is not.
 */

/** Writes 1 or 0 for each page to `vec`; what lies before a hole is written, then ENOMEM. */
export function mincore(mm: Mm, va: number, length: number, vec: Uint8Array): void {
  const start = unsignedLong('mincore', 'addr', va);
  const len = unsignedLong('mincore', 'length', length);
  if (va % PAGE_SIZE !== 0) refuse('EINVAL', 'mincore', `addr ${hex(va)} must be a multiple of ${PAGE_SIZE}`);
  if (start + len > VA_SIZE) refuse('ENOMEM', 'mincore', `${length} bytes at ${hex(va)} must end below 2^39`);
  const startVpn = vaToVpn(start);
  const nrPages = bytesToPages(len);
  if (vec.length < nrPages) refuse('EFAULT', 'mincore', `vec of ${vec.length} bytes must have ${nrPages}, one a page`);
  for (let k = 0; k < nrPages; ) {
    const vma = mm.vmas.find(startVpn + k);
    if (vma === undefined)
      refuse('ENOMEM', 'mincore', `address ${hex(vpnToVa(startVpn + k))} of ${mm.name} must be mapped`);
    const end = Math.min(vma.endVpn - startVpn, nrPages);
    for (; k < end; k++) vec[k] = isInCore(vma, startVpn + k) ? 1 : 0;
  }
}

function isInCore(vma: Vma, vpn: number): boolean {
  const { host, pageTable } = vma.mm;
  const pte = pageTable.get(vpn);
  if (pte === PTE_NONE) return vma.file !== undefined && isCached(vma, vma.file, vpn);
  // As in Linux, what is swapped out is not in memory, though it need not be read. Poison and pages on their way elsewhere need no I/O.
  if (pteIsSame(pte)) return false;
  return !pteIsSwap(pte) || isSwapCached(host, pteSwapSlot(pte));
}

function isSwapCached(host: Host, slot: number): boolean {
  const pfn = host.swap.cache[slot]!;
  return pfn !== 0 && (host.frames.flags[pfn]! & PG_LOCKED) === 0;
}

function isCached(vma: Vma, file: File, vpn: number): boolean {
  const { host } = vma.mm;
  const value = file.mapping.pages.get(vma.pgoffOf(vpn));
  if (value > 0) return (host.frames.flags[value]! & PG_LOCKED) === 0;
  return value < 0 && file.mapping.isShmem && isSwapCached(host, valueToSlot(value));
}
