import { CONFIG_PTE_NOTIFIERS } from '../../base/index.js';
import type { FrameTable } from '../page/frames.js';
import {
  mkPte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_READ,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  pteIsPresent,
  ptePfn,
} from '../pgtable/pte.js';

/** The pte of a page of zeros that is about to be written: what a fault on the mm thread makes, and another thread's. */
export function demandZeroPte(pfn: number): number {
  return mkPte(pfn, PTE_READ | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_EXCLUSIVE | PTE_SOFT_DIRTY);
}

/**
 * Whether another thread wrote the pte and the mm thread has not accounted for it yet: it is present, and its frame has no mapcount. It is in no
 * count of tables or resident pages, on no list, and the reverse map does not find it. Inside a bracket there is none in the range.
 */
export function isUndrained(frames: FrameTable, pte: number): boolean {
  if (!CONFIG_PTE_NOTIFIERS) return false;
  return pteIsPresent(pte) && frames.mapcount[ptePfn(pte)] === 0 && ptePfn(pte) !== frames.zeroPfn;
}
