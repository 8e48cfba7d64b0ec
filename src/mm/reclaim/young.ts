import type { Host } from '../host.js';
import { PAGE_SIZE } from '../layout.js';
import { mmuNotifierClearFlushYoung } from '../notifier/hooks.js';
import { PTE_ACCESSED, pteIsPresent, ptePfn } from '../pgtable/pte.js';
import { rmapVisit } from '../rmap/rmap.js';
import type { Vma } from '../vma/vma.js';

/** Whether a frame was used, through host ptes or external ones, since the last look (Linux: folio_referenced). */
export class Young {
  private readonly host: Host;
  private visiting = 0;
  private young = false;
  private readonly testOne: (vma: Vma, vpn: number) => void;

  constructor(host: Host) {
    this.host = host;
    this.testOne = (vma, vpn) => this.test(vma, vpn);
  }

  /** Takes the marks away. */
  testAndClear(pfn: number): boolean {
    this.young = false;
    this.visiting = pfn;
    rmapVisit(this.host, pfn, this.testOne);
    return this.young;
  }

  private test(vma: Vma, vpn: number): void {
    const { mm } = vma;
    const { pageTable } = mm;
    const i = pageTable.find(vpn);
    if (i === 0) return;
    const pte = pageTable.words.readOnce(i);
    if (!pteIsPresent(pte) || ptePfn(pte) !== this.visiting) return;
    if ((pte & PTE_ACCESSED) !== 0) {
      pageTable.words.fetchAnd(i, ~PTE_ACCESSED);
      this.young = true;
    }
    if (mmuNotifierClearFlushYoung(mm, vpn * PAGE_SIZE, (vpn + 1) * PAGE_SIZE)) this.young = true;
  }
}
