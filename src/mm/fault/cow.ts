import type { Host } from '../host.js';
import { pfnToPa } from '../layout.js';
import type { Mm } from '../mm.js';
import { mmuNotifierInvalidatePagesStart, mmuNotifierInvalidateRangeEnd } from '../notifier/hooks.js';
import { MMU_NOTIFY_CLEAR } from '../notifier/range.js';
import { PG_DIRTY, PG_SWAPBACKED, PG_SWAPCACHE } from '../page/frames.js';
import { dropMappedRef, setFlag, tryDropSwapCache } from '../page/page.js';
import {
  mkPte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_READ,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  ptePfn,
} from '../pgtable/pte.js';
import { addNewAnonRmap, isAnon, moveAnonRmap, removeRmap } from '../rmap/rmap.js';
import type { Vma } from '../vma/vma.js';

/**
 * A write to a page that its pte may only read, in private memory (Linux: do_wp_page).
 *
 * It is reused in place when nobody else can see it: an anonymous frame to which this pte, and a swap cache that no other pte names,
 * have the only references. That adds a right and is no event (N20). Everything else is copied: the zero page, a page of a file, a page
 * that was forked and is still shared, and one that somebody holds. Of the copy the external MMUs are told, for what they map of the old
 * page must go before the new one is published (N5):
 *
 *   write fault                                  external reader
 *   invalidateRangeStart: entry of the old page gone
 *   new frame copied
 *                                                seq read; pte read: old page
 *   pte: new frame, writable
 *   invalidateRangeEnd: seq moves
 *                                                readRetry: true -> looks again, finds the new page
 *
 * Required outcome: after the write no reader of this mm sees the old page (M46). Proved by test/mm/cow.test.ts and test/mm/fork.test.ts.
 */

const WRITABLE = PTE_READ | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_EXCLUSIVE | PTE_SOFT_DIRTY;

/** Returns the pfn that is mapped for writing then, or 0 when no frame is free beyond `reserve`. */
export function breakCow(mm: Mm, vma: Vma, vpn: number, i: number, pte: number, reserve: number): number {
  const { host } = mm;
  const pfn = ptePfn(pte);
  if ((pte & PTE_EXCLUSIVE) !== 0 || canReuse(host, pfn)) return reuse(mm, vma, i, pte);
  const copy = host.reclaim.allocFrame(reserve);
  if (copy === 0) return 0;
  replacePage(mm, vma, vpn, i, pfn, copy);
  return copy;
}

/** Whether nobody but one pte can see the anonymous frame. */
function canReuse(host: Host, pfn: number): boolean {
  const { flags, refcount, private: slotOf } = host.frames;
  if (!isAnon(host, pfn)) return false;
  if ((flags[pfn]! & PG_SWAPCACHE) === 0) return refcount[pfn] === 1;
  return refcount[pfn] === 2 && host.swap.count[slotOf[pfn]!] === 0;
}

function reuse(mm: Mm, vma: Vma, i: number, pte: number): number {
  const { host } = mm;
  const pfn = ptePfn(pte);
  if ((pte & PTE_EXCLUSIVE) === 0) moveAnonRmap(host, vma, pfn);
  mm.pageTable.set(i, pte | WRITABLE);
  markDirty(host, pfn);
  return pfn;
}

function replacePage(mm: Mm, vma: Vma, vpn: number, i: number, old: number, copy: number): void {
  const { host } = mm;
  const isZero = old === host.frames.zeroPfn;
  mmuNotifierInvalidatePagesStart(mm, MMU_NOTIFY_CLEAR, vpn, vpn + 1);
  if (isZero) host.pageOps.zero(pfnToPa(copy));
  else host.pageOps.copy(pfnToPa(copy), pfnToPa(old));
  host.frames.flags[copy] = PG_DIRTY | PG_SWAPBACKED;
  addNewAnonRmap(host, vma, vpn, copy);
  mm.pageTable.set(i, mkPte(copy, WRITABLE));
  if (!isZero) removeRmap(host, vma, old);
  mmuNotifierInvalidateRangeEnd(mm);
  host.lru.add(copy);
  if (!isZero && dropMappedRef(host, old)) host.frames.free(old);
}

/** Dirty from now on: what its swap slot holds is stale, and MADV_FREE's gift is taken back. While it is being written out, the completion sees the flag (N27). */
export function markDirty(host: Host, pfn: number): void {
  const { flags } = host.frames;
  flags[pfn] = flags[pfn]! | PG_DIRTY;
  if (isAnon(host, pfn) && (flags[pfn]! & PG_SWAPBACKED) === 0) setFlag(host, pfn, PG_SWAPBACKED);
  tryDropSwapCache(host, pfn);
}
