import type { Mm } from '../mm.js';
import {
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
  mmuNotifierRangeAdd,
  mmuNotifierRangeInit,
} from '../notifier/hooks.js';
import { MMU_NOTIFY_SOFT_DIRTY } from '../notifier/range.js';
import { PTE_SOFT_DIRTY, PTE_WRITE, pteIsPresent, pteIsSame, pteIsSwap } from './pte.js';

/**
 * Soft-dirty tracking (Linux: clear_refs with 4): which pages were written since the marks were last cleared. `clearSoftDirty` takes the marks,
 * and with them the right to write; the next write, by the mm or from outside, faults and sets the mark again. `pagemap` tells the marks.
 *
 *   clearSoftDirty                               external writer
 *   invalidateRangeStart: its entries are gone
 *   ptes lose PTE_WRITE and PTE_SOFT_DIRTY
 *   invalidateRangeEnd: seq moves
 *                                                tryGetPage(write) sets PTE_SOFT_DIRTY
 *
 * Required outcome: no write after it is missed (M17). Proved by test/mm/softdirty.test.ts. A writable pte is a soft-dirty one.
 *
 * What was mapped or moved since is dirty as a whole (`vma.softDirty`).
 */

/** One bracket over all that is mapped. Runs with mmapLock held for write. */
export function clearSoftDirty(mm: Mm): void {
  mmuNotifierRangeInit(mm, MMU_NOTIFY_SOFT_DIRTY);
  for (let vma = mm.vmas.first; vma !== undefined; vma = vma.next) mmuNotifierRangeAdd(mm, vma.startVpn, vma.endVpn);
  mmuNotifierInvalidateRangeStart(mm);
  for (let vma = mm.vmas.first; vma !== undefined; vma = vma.next) {
    vma.softDirty = false;
    clearRange(mm, vma.startVpn, vma.endVpn);
  }
  mmuNotifierInvalidateRangeEnd(mm);
}

function clearRange(mm: Mm, startVpn: number, endVpn: number): void {
  const { pageTable } = mm;
  for (let vpn = startVpn; (vpn = pageTable.skipEmpty(vpn, endVpn)) < endVpn; ) {
    const end = Math.min(endVpn, ((vpn >>> 9) + 1) << 9);
    clearLeaf(mm, pageTable.find(vpn), end - vpn);
    vpn = end;
  }
}

function clearLeaf(mm: Mm, first: number, nrPtes: number): void {
  const { words } = mm.pageTable;
  for (let i = first; i < first + nrPtes; i++) {
    const pte = words.readOnce(i);
    if ((pteIsPresent(pte) || pteIsSwap(pte) || pteIsSame(pte)) && (pte & PTE_SOFT_DIRTY) !== 0)
      words.writeOnce(i, pte & ~(PTE_SOFT_DIRTY | (pteIsPresent(pte) ? PTE_WRITE : 0)));
  }
}
