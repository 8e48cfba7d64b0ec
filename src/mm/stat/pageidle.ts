import { KernelError } from '../../base/index.js';
import type { Host } from '../host.js';
import { PAGE_SIZE } from '../layout.js';
import type { Mm } from '../mm.js';
import { mmuNotifierClearYoung } from '../notifier/hooks.js';
import { PG_IDLE, PG_LRU, PG_YOUNG } from '../page/frames.js';
import { testAndClearPte } from '../reclaim/young.js';
import { remotesDrainAll } from '../remote/hooks.js';
import { rmapVisit } from '../rmap/rmap.js';
import type { Vma } from '../vma/vma.js';

/**
 * Idle page tracking (Linux: mm/page_idle.c): frames are marked idle, and some time later each is asked whether it still is. So one learns how much of its memory
 * a guest really uses.
 *
 * A use is seen by the accessed bits of host ptes, by what external MMUs tell (`clearYoung`), and by calls that read or write a file. Reclaim loses nothing: a use that was
 * seen here is kept for it (PG_YOUNG). What is on no list is not tracked, as in Linux: free frames, those under I/O, the zero page.
 *
 * An external MMU need not flush for `clearYoung`. What its TLB holds then may go on being used unseen, for as long as the driver says (docs/contract.md, N14);
 * and a use by an entry that a bracket has taken away since is not seen.
 *
 * Use: `setIdleMm(mm)`, wait, `countMm(mm)`; or `setIdle` and `testIdle` for frames, whose numbers `mm.pagemap` tells.
 */

/** Pages of an mm that are in memory. */
export interface IdleCount {
  /** Marked, and not used since. */
  readonly nrIdle: number;
  /** Used since they were marked, or brought in since, or never marked, or not tracked. */
  readonly nrUsed: number;
}

export class PageIdle {
  private readonly host: Host;
  private visiting = 0;
  private referenced = false;
  private readonly clearOne: (vma: Vma, vpn: number) => void;

  constructor(host: Host) {
    this.host = host;
    this.clearOne = (vma, vpn) => this.clear(vma, vpn);
  }

  /** Marks the frame. False where it is not tracked. Throws KernelError EINVAL for what is no frame. */
  setIdle(pfn: number): boolean {
    this.check('setIdle', pfn);
    remotesDrainAll(this.host);
    return this.set(pfn);
  }

  /** Whether it is marked, and was not used since. Throws KernelError EINVAL for what is no frame. */
  testIdle(pfn: number): boolean {
    this.check('testIdle', pfn);
    remotesDrainAll(this.host);
    return this.test(pfn);
  }

  /** Marks every page of `mm` that is in memory and tracked. Returns how many. */
  setIdleMm(mm: Mm): number {
    let nr = 0;
    this.forEachFrame(mm, (pfn) => {
      if (this.set(pfn)) nr++;
    });
    return nr;
  }

  /** What of `mm` is in memory, and how much of that was used since `setIdleMm`. What was swapped out since is in neither number. */
  countMm(mm: Mm): IdleCount {
    let [nrIdle, nrUsed] = [0, 0];
    this.forEachFrame(mm, (pfn) => {
      if (this.test(pfn)) nrIdle++;
      else nrUsed++;
    });
    return { nrIdle, nrUsed };
  }

  /** Calls `fn` for each page of `mm` that is in memory, but for the zero page. */
  private forEachFrame(mm: Mm, fn: (pfn: number) => void): void {
    const { zeroPfn } = this.host.frames;
    remotesDrainAll(this.host);
    for (let vma = mm.vmas.first; vma !== undefined; vma = vma.next)
      mm.forEachPresent(vma.startVpn, vma.endVpn, (_vpn, pfn) => {
        if (pfn !== zeroPfn) fn(pfn);
      });
  }

  private check(call: string, pfn: number): void {
    const { frames } = this.host;
    if (Number.isInteger(pfn) && frames.isFrame(pfn)) return;
    const range = `[${frames.zeroPfn}, ${frames.endPfn})`;
    throw new KernelError('EINVAL', call, `frame ${pfn} must be one of ${range}`);
  }

  private set(pfn: number): boolean {
    const { flags } = this.host.frames;
    if ((flags[pfn]! & PG_LRU) === 0) return false;
    this.clearRefs(pfn);
    flags[pfn] = flags[pfn]! | PG_IDLE;
    return true;
  }

  private test(pfn: number): boolean {
    const { flags } = this.host.frames;
    if ((flags[pfn]! & (PG_LRU | PG_IDLE)) !== (PG_LRU | PG_IDLE)) return false;
    this.clearRefs(pfn);
    return (flags[pfn]! & PG_IDLE) !== 0;
  }

  /** Takes the marks of ptes and external entries (Linux: page_idle_clear_pte_refs): a frame that had one is not idle, and young for reclaim. */
  private clearRefs(pfn: number): void {
    const { flags } = this.host.frames;
    this.referenced = false;
    this.visiting = pfn;
    rmapVisit(this.host, pfn, this.clearOne);
    if (this.referenced) flags[pfn] = (flags[pfn]! & ~PG_IDLE) | PG_YOUNG;
  }

  private clear(vma: Vma, vpn: number): void {
    const mark = testAndClearPte(vma, vpn, this.visiting);
    if (mark < 0) return;
    if (mark > 0) this.referenced = true;
    if (mmuNotifierClearYoung(vma.mm, vpn * PAGE_SIZE, (vpn + 1) * PAGE_SIZE)) this.referenced = true;
  }
}
