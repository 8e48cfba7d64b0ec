import type { Host } from './host.js';
import type { Mm } from './mm.js';
import { dropRef, tryDropSwapCache } from './page.js';
import { PTE_NONE, pteIsPresent, pteIsSwap, ptePfn, pteSwapSlot } from './pte.js';
import type { MmuNotifyEvent } from './range.js';
import { isAnon, removeRmap } from './rmap.js';
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
  const { notifiers, range } = mm;
  range.reset(event, true);
  range.add(startVpn, endVpn);
  notifiers.invalidateRangeStart(range.seal());
  zapPages(vma, startVpn, endVpn);
  notifiers.invalidateRangeEnd(range);
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
  const { pageTable, host } = vma.mm;
  let vpn = startVpn;
  while ((vpn = pageTable.skipEmpty(vpn, endVpn)) < endVpn) {
    const end = Math.min(endVpn, ((vpn >>> 9) + 1) << 9);
    const i = pageTable.find(vpn);
    for (let k = 0; k < end - vpn; k++) {
      const pte = pageTable.words.readOnce(i + k);
      if (pte !== PTE_NONE && !(keepAnon && isOwn(host, pte))) zapPte(vma, i + k);
    }
    vpn = end;
  }
}

/** Not a page of the page cache. */
function isOwn(host: Host, pte: number): boolean {
  return !pteIsPresent(pte) || isAnon(host, ptePfn(pte));
}

function zapPte(vma: Vma, i: number): void {
  const { host } = vma.mm;
  const pte = vma.mm.pageTable.getAndSet(i, PTE_NONE);
  if (pteIsPresent(pte)) zapPresent(host, vma, ptePfn(pte));
  else if (pteIsSwap(pte)) zapSwap(host, pteSwapSlot(pte));
}

function zapPresent(host: Host, vma: Vma, pfn: number): void {
  if (pfn === host.frames.zeroPfn) return;
  removeRmap(host, vma, pfn);
  if (dropRef(host, pfn) || (host.frames.mapcount[pfn] === 0 && tryDropSwapCache(host, pfn))) host.gather.add(pfn);
}

function zapSwap(host: Host, slot: number): void {
  if (host.swap.put(slot)) return;
  const pfn = host.swap.cache[slot]!;
  if (pfn !== 0 && host.frames.mapcount[pfn] === 0 && tryDropSwapCache(host, pfn)) host.gather.add(pfn);
}
