import { pageRange } from '../args.js';
import type { Mm } from '../mm.js';
import {
  PTE_SOFT_DIRTY,
  pteIsPoison,
  pteIsPresent,
  pteIsSame,
  pteIsSwap,
  ptePfn,
  pteSwapSlot,
} from '../pgtable/pte.js';
import type { Vma } from '../vma/vma.js';

/** What each page of an mm is (Linux: /proc/pid/pagemap): for tests, and for people who look. Walks the page table; changes nothing. */

export interface PagemapEntry {
  /** A frame is mapped. */
  readonly present: boolean;
  readonly swapped: boolean;
  /** A page of a file or of shared memory. */
  readonly file: boolean;
  /** Written since `clearSoftDirty`, or mapped since. */
  readonly softDirty: boolean;
  /** No other pte maps the frame. */
  readonly exclusive: boolean;
  /** Its contents are lost. */
  readonly poisoned: boolean;
  /** The frame, or the slot of the swap device; -1 for none: what is swapped and one value repeated has no slot. */
  readonly pfn: number;
  readonly swapSlot: number;
}

const ABSENT: PagemapEntry = {
  present: false,
  swapped: false,
  file: false,
  softDirty: false,
  exclusive: false,
  poisoned: false,
  pfn: -1,
  swapSlot: -1,
};

/** One entry for each of `nrPages` pages from `va` on, whether mapped or not. Throws KernelError EINVAL. */
export function pagemap(mm: Mm, va: number, nrPages: number): PagemapEntry[] {
  const [startVpn] = pageRange('pagemap', va, nrPages, 'EINVAL');
  return Array.from({ length: nrPages }, (_, k) => {
    const vma = mm.vmas.find(startVpn + k);
    return vma === undefined ? ABSENT : entryOf(vma, startVpn + k);
  });
}

function entryOf(vma: Vma, vpn: number): PagemapEntry {
  const { frames } = vma.mm.host;
  const pte = vma.mm.pageTable.get(vpn);
  const marked = (pteIsPresent(pte) || pteIsSwap(pte) || pteIsSame(pte)) && (pte & PTE_SOFT_DIRTY) !== 0;
  const entry = { ...ABSENT, softDirty: vma.softDirty || marked, poisoned: pteIsPoison(pte) };
  if (pteIsSwap(pte)) return { ...entry, swapped: true, swapSlot: pteSwapSlot(pte) };
  if (pteIsSame(pte)) return { ...entry, swapped: true };
  if (!pteIsPresent(pte)) return entry;
  const pfn = ptePfn(pte);
  return { ...entry, present: true, pfn, file: frames.mapping[pfn]! < 0, exclusive: frames.mapcount[pfn] === 1 };
}
