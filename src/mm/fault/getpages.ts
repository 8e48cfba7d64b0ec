import type { Mm } from '../mm.js';
import { getPage } from '../page/page.js';
import { handleMmFault } from './fault.js';
import { FAULT_OOM, FAULT_SIGSEGV } from './faultcode.js';

/**
 * Many pages at once (Linux: get_user_pages_fast): what `tryGetPage` does for one, under one mmapLock. WHY: a window of read-ahead is mapped for half of what its pages cost one by one.
 */

/**
 * The frames of pages [vpn, vpn + nrPages), as far as they can be had without waiting from the first on, into `pfns`, each with a reference. How many, or where the first cannot be had, why:
 * a FAULT_ number below 0.
 */
export function tryGetPages(mm: Mm, vpn: number, nrPages: number, write: boolean, pfns: Int32Array): number {
  if (mm.oomKilled !== undefined) return FAULT_OOM;
  const { min } = mm.host.reclaim;
  let [nr, pfn] = [0, FAULT_SIGSEGV];
  mm.mmapLock.lock('read');
  for (; nr < nrPages && (pfn = handleMmFault(mm, vpn + nr, write, min)) > 0; nr++) {
    getPage(mm.host, pfn);
    pfns[nr] = pfn;
  }
  mm.mmapLock.unlock();
  return nr > 0 ? nr : pfn;
}
