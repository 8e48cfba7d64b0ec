import type { Host } from '../host.js';
import type { Mm } from '../mm.js';
import {
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
  mmuNotifierRangeAdd,
  mmuNotifierRangeInit,
} from '../notifier/hooks.js';
import type { MmuNotifyEvent } from '../notifier/range.js';
import { PTE_PRESENT, pteIsPresent, ptePfn } from '../pgtable/pte.js';
import type { Vma } from '../vma/vma.js';
import { rmapVisit } from './rmap.js';

/**
 * One bracket for each mm that maps any of a set of frames, over all of them at once: what reclaim, migration and the cleaning of shared pages
 * go through, so that a batch costs a driver one call and one flush.
 *
 * Use: `begin`, `add` each frame, `start`; change the ptes of those that are not `refused`; `end`; then frames may be freed.
 */
export class RmapBracket {
  private readonly host: Host;
  private readonly mms: Mm[] = [];
  private event: MmuNotifyEvent = 0;
  private adding = 0;
  private bits = PTE_PRESENT;
  private readonly addPage: (vma: Vma, vpn: number) => void;
  private readonly isRefused: (vma: Vma) => boolean;

  constructor(host: Host) {
    this.host = host;
    this.addPage = (vma, vpn) => this.addToRange(vma.mm, vpn);
    this.isRefused = (vma) => vma.mm.refusedReclaim;
  }

  begin(event: MmuNotifyEvent): void {
    this.event = event;
    this.mms.length = 0;
  }

  /** Every page whose pte maps the frame, and has any of `bits`, will be in a range. */
  add(pfn: number, bits = PTE_PRESENT): void {
    this.adding = pfn;
    this.bits = bits;
    rmapVisit(this.host, pfn, this.addPage);
  }

  private addToRange(mm: Mm, vpn: number): void {
    const pte = mm.pageTable.get(vpn);
    if (!pteIsPresent(pte) || ptePfn(pte) !== this.adding || (pte & this.bits) === 0) return;
    if (!mm.inReclaim) {
      mm.inReclaim = true;
      mmuNotifierRangeInit(mm, this.event);
      this.mms.push(mm);
    }
    mmuNotifierRangeAdd(mm, vpn, vpn + 1);
  }

  /** Nobody maps what was added. */
  get isEmpty(): boolean {
    return this.mms.length === 0;
  }

  /** Opens the brackets. A driver may refuse its mm's where they must not block (N12). Pairs with `end`. */
  start(blockable: boolean): void {
    for (const mm of this.mms) {
      mm.refusedReclaim = mmuNotifierInvalidateRangeStart(mm, blockable) !== 0;
    }
  }

  /** Whether an mm that maps the frame may not be touched: its driver refused. */
  refused(pfn: number): boolean {
    return rmapVisit(this.host, pfn, this.isRefused);
  }

  /** Closes the brackets. Pairs with `start`. */
  end(): void {
    for (const mm of this.mms) {
      if (!mm.refusedReclaim) mmuNotifierInvalidateRangeEnd(mm);
      mm.refusedReclaim = false;
      mm.inReclaim = false;
    }
  }
}
