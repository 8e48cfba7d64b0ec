import type { Host } from '../host.js';
import type { Mm } from '../mm.js';
import { mmuNotifierInvalidatePagesStart, mmuNotifierInvalidateRangeEnd } from '../notifier/hooks.js';
import type { MmuNotifyEvent } from '../notifier/range.js';
import { dropMappedRef, tryDropSwapCache } from '../page/page.js';
import { PTE_NONE, pteIsPresent, pteIsSame, pteIsSwap, ptePfn, pteSameNumber, pteSwapSlot } from '../pgtable/pte.js';
import { isAnon, removeRmap } from '../rmap/rmap.js';
import type { Vma } from './vma.js';

/**
 * Taking pages away from an mm (Linux: zap_page_range, mmu_gather). Frames that nothing refers to any more are gathered, and freed
 * when the bracket has ended: after the CPU's and the external TLBs are flushed (N4).
 */

/** Frames with refcount 0, linked through the frame table. */
export class Gather {
  private readonly host: Host;
  private head = 0;

  constructor(host: Host) {
    this.host = host;
  }

  add(pfn: number): void {
    this.host.frames.lruNext[pfn] = this.head;
    this.head = pfn;
  }

  free(): void {
    const { frames } = this.host;
    let pfn = this.head;
    this.head = 0;
    while (pfn !== 0) {
      const next = frames.lruNext[pfn]!;
      frames.free(pfn);
      pfn = next;
    }
  }
}

/** The whole bracket for the pages [startVpn, endVpn) of one VMA, which stays. */
export function zapRange(mm: Mm, vma: Vma, startVpn: number, endVpn: number, event: MmuNotifyEvent): void {
  mmuNotifierInvalidatePagesStart(mm, event, startVpn, endVpn);
  zapPages(vma, startVpn, endVpn);
  mmuNotifierInvalidateRangeEnd(mm);
  mm.host.gather.free();
}

/** Clears the ptes of [startVpn, endVpn), which lies in `vma`; inside a bracket. Skips what was never touched. */
export function zapPages(vma: Vma, startVpn: number, endVpn: number): void {
  zapWhere(vma, startVpn, endVpn, false);
}

/** As `zapPages`, but leaves a private mapping's own copies. */
export function zapFilePages(vma: Vma, startVpn: number, endVpn: number): void {
  zapWhere(vma, startVpn, endVpn, true);
}

function zapWhere(vma: Vma, startVpn: number, endVpn: number, keepAnon: boolean): void {
  const { pageTable } = vma.mm;
  let vpn = startVpn;
  while ((vpn = pageTable.skipEmpty(vpn, endVpn)) < endVpn) {
    const end = Math.min(endVpn, ((vpn >>> 9) + 1) << 9);
    const i = pageTable.find(vpn);
    pageTable.addUsed(i, -zapLeaf(vma, i, end - vpn, keepAnon));
    vpn = end;
  }
}

/** Returns how many of the `nrPtes` ptes from `i` on, all of one table, it cleared. */
function zapLeaf(vma: Vma, i: number, nrPtes: number, keepAnon: boolean): number {
  const { host, pageTable } = vma.mm;
  const { words } = pageTable;
  let nrCleared = 0;
  for (let k = i; k < i + nrPtes; k++) {
    const pte = words.readOnce(k);
    if (pte === PTE_NONE || (keepAnon && isOwn(host, pte))) continue;
    // WHY plain: only this thread writes ptes, and an exchange a page would be a third of the cost of an unmap.
    words.writeOnce(k, PTE_NONE);
    nrCleared++;
    if (pteIsPresent(pte)) zapPresent(host, vma, ptePfn(pte));
    else if (pteIsSwap(pte)) zapSwap(host, pteSwapSlot(pte));
    else if (pteIsSame(pte)) host.sameFilled.put(pteSameNumber(pte));
  }
  return nrCleared;
}

/** Not a page of the page cache. */
function isOwn(host: Host, pte: number): boolean {
  return !pteIsPresent(pte) || isAnon(host, ptePfn(pte));
}

function zapPresent(host: Host, vma: Vma, pfn: number): void {
  if (pfn === host.frames.zeroPfn) return;
  removeRmap(host, vma, pfn);
  if (dropMappedRef(host, pfn)) host.gather.add(pfn);
}

function zapSwap(host: Host, slot: number): void {
  if (host.swap.put(slot)) return;
  const pfn = host.swap.cache[slot]!;
  if (pfn !== 0 && host.frames.mapcount[pfn] === 0 && tryDropSwapCache(host, pfn)) host.gather.add(pfn);
}
