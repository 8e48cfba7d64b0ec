import { KernelError } from '../base/index.js';
import { FAULT_FLAG_WRITE, type Mm, PAGE_SIZE, PROT_WRITE, pinPage, RLIMIT_MEMLOCK, unpinPage } from '../mm/index.js';

/**
 * Memory that is registered without IBV_ACCESS_ON_DEMAND, as all was before there were notifiers: every page is brought in and keeps a reference until
 * `unpin` (Linux: ib_umem_get, pin_user_pages with FOLL_LONGTERM). They count against RLIMIT_MEMLOCK, apart from what mlock has locked (mm->pinned_vm). The pages stay where they are
 * whatever becomes of the mapping; the child of a fork gets copies of them.
 */

/** Of each mm, over all devices. */
const pinnedPages = new WeakMap<Mm, number>();

export class PinnedPages {
  readonly pfns: number[] = [];
  private readonly mm: Mm;
  private nrCounted = 0;

  private constructor(mm: Mm) {
    this.mm = mm;
  }

  /** Rejects with KernelError ENOMEM (the limit, no frame), EFAULT, EHWPOISON. */
  static async pin(mm: Mm, vpn: number, nrPages: number, write: boolean): Promise<PinnedPages> {
    const pages = new PinnedPages(mm);
    pages.count(nrPages);
    try {
      for (let page = 0; page < nrPages; page++) pages.pfns.push(await pages.pinOne((vpn + page) * PAGE_SIZE, write));
    } catch (error) {
      pages.unpin();
      throw error;
    }
    return pages;
  }

  private count(nrPages: number): void {
    const already = pinnedPages.get(this.mm) ?? 0;
    const limit = Math.floor(this.mm.getrlimit(RLIMIT_MEMLOCK) / PAGE_SIZE);
    if (already + nrPages > limit) {
      const would = `${nrPages} pages, beside ${already} that are pinned, must be at most ${limit}`;
      throw new KernelError('ENOMEM', 'regMr', `RLIMIT_MEMLOCK: ${would}; or register with IBV_ACCESS_ON_DEMAND`);
    }
    pinnedPages.set(this.mm, already + nrPages);
    this.nrCounted = nrPages;
  }

  /** Its own page, not one that it shares until somebody writes: a write of the host would leave the NIC with the old one. */
  private async pinOne(va: number, write: boolean): Promise<number> {
    const { mm } = this;
    const vma = mm.findVma(va);
    const flags = write || (vma !== undefined && (vma.prot & PROT_WRITE) !== 0) ? FAULT_FLAG_WRITE : 0;
    for (;;) {
      const pfn = mm.tryGetPage(va, flags);
      if (pfn > 0) {
        pinPage(mm.host, pfn);
        mm.putPage(pfn);
        return pfn;
      }
      await mm.faultIn(va, flags);
    }
  }

  unpin(): void {
    const { mm } = this;
    for (const pfn of this.pfns.splice(0)) if (pfn !== mm.host.frames.zeroPfn) unpinPage(mm.host, pfn);
    pinnedPages.set(mm, (pinnedPages.get(mm) ?? 0) - this.nrCounted);
    this.nrCounted = 0;
  }
}
