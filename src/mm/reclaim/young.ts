import type { Host } from '../host.js';
import { PAGE_SIZE } from '../layout.js';
import { mmuNotifierClearFlushYoung } from '../notifier/hooks.js';
import { PG_IDLE, PG_YOUNG } from '../page/frames.js';
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

  /** Takes the marks away, and what idle page tracking has kept of them. */
  testAndClear(pfn: number): boolean {
    const { flags } = this.host.frames;
    this.young = (flags[pfn]! & PG_YOUNG) !== 0;
    this.visiting = pfn;
    rmapVisit(this.host, pfn, this.testOne);
    if (this.young) flags[pfn] = flags[pfn]! & ~(PG_YOUNG | PG_IDLE);
    return this.young;
  }

  private test(vma: Vma, vpn: number): void {
    const mark = testAndClearPte(vma, vpn, this.visiting);
    if (mark < 0) return;
    if (mark > 0) this.young = true;
    const { mm } = vma;
    if (mmuNotifierClearFlushYoung(mm, vpn * PAGE_SIZE, (vpn + 1) * PAGE_SIZE)) this.young = true;
  }
}

/** Takes the mark of the pte of page `vpn`: 1 where it had one, 0 where it had none, -1 where it does not map the frame. */
export function testAndClearPte(vma: Vma, vpn: number, pfn: number): number {
  const { pageTable } = vma.mm;
  const i = pageTable.find(vpn);
  if (i === 0) return -1;
  const pte = pageTable.words.readOnce(i);
  if (!pteIsPresent(pte) || ptePfn(pte) !== pfn) return -1;
  if ((pte & PTE_ACCESSED) === 0) return 0;
  pageTable.words.fetchAnd(i, ~PTE_ACCESSED);
  return 1;
}
