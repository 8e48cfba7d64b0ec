import type { Mm } from '../mm.js';

/**
 * Temporary references that let an instruction make progress (N26). One guest instruction may need two code pages, two
 * data pages and the page-table pages of each walk; while the vCPU waits for one of them, the others may be evicted. So
 * each page that was waited for is kept by a reference until the instruction has retired.
 *
 * This is no pin: the references end with the instruction, and their number is bounded by what one instruction can need.
 */

/** Two code and two data pages, with three page-table pages each. */
export const MAX_HELD_PAGES = 16;

export class HeldPages {
  private readonly mm: Mm;
  private readonly pfns = new Int32Array(MAX_HELD_PAGES);
  private nr = 0;

  constructor(mm: Mm) {
    this.mm = mm;
  }

  /** Takes over the reference that `tryGetPage` returned. */
  hold(pfn: number): void {
    if (this.nr === MAX_HELD_PAGES) this.releaseAll();
    this.pfns[this.nr++] = pfn;
  }

  releaseAll(): void {
    while (this.nr > 0) this.mm.putPage(this.pfns[--this.nr]!);
  }

  get length(): number {
    return this.nr;
  }
}
