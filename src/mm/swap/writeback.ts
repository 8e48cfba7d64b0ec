import { Deferred } from '../deferred.js';
import type { Host } from '../host.js';
import { PG_ACTIVE, PG_DIRTY, PG_SWAPCACHE, PG_WRITEBACK } from '../page/frames.js';
import { dropRef, tryDropSwapCache } from '../page/page.js';

/**
 * Writing pages to swap. A page comes here unmapped, in the swap cache, off the lists; no external MMU may write to it any more (N27).
 *
 *   reclaim                              owner of the page
 *   unmapped, flushed; PG_DIRTY cleared,
 *   PG_WRITEBACK set; write submitted
 *                                        faults, finds it in the swap cache, writes: PG_DIRTY set
 *   written: PG_DIRTY is set again ->
 *   the page stays, the slot is stale
 *
 * Required outcome: a page whose last contents are not in its slot is never freed. A failed write marks the page dirty
 * again and keeps it. Proved by test/mm/swap.test.ts.
 */
export class Writeback {
  private readonly host: Host;
  private done = new Deferred();
  /** Pages under way. */
  nrPages = 0;

  constructor(host: Host) {
    this.host = host;
  }

  /** Writes the frames, sorted by slot, a transfer for each run of consecutive slots. `sync`: done when it returns. */
  submit(pfns: number[], sync: boolean): void {
    const slotOf = this.host.frames.private;
    let first = 0;
    for (let i = 1; i <= pfns.length; i++) {
      if (i < pfns.length && slotOf[pfns[i]!] === slotOf[pfns[i - 1]!]! + 1) continue;
      this.submitRun(pfns.slice(first, i), sync);
      first = i;
    }
  }

  private submitRun(pfns: number[], sync: boolean): void {
    const { host } = this;
    const slots = pfns.map((pfn) => this.begin(pfn));
    const views = host.frameViews(pfns);
    if (sync) this.complete(pfns, this.transferSync(slots, views));
    else void this.transfer(slots, views).then((error) => this.complete(pfns, error));
  }

  private begin(pfn: number): number {
    const { frames, swap } = this.host;
    const slot = frames.private[pfn]!;
    frames.flags[pfn] = (frames.flags[pfn]! | PG_WRITEBACK) & ~PG_DIRTY;
    swap.newGeneration(slot);
    swap.setChecksum(slot, this.host.checksum(pfn, slot));
    this.nrPages++;
    return slot;
  }

  private transferSync(slots: number[], views: Uint8Array[]): unknown {
    try {
      this.host.device!.writeSync!(slots, views);
      return undefined;
    } catch (error) {
      return error ?? new Error('write failed');
    }
  }

  private async transfer(slots: number[], views: Uint8Array[]): Promise<unknown> {
    try {
      await this.host.device!.write(slots, views);
      return undefined;
    } catch (error) {
      return error ?? new Error('write failed');
    }
  }

  private complete(pfns: number[], error: unknown): void {
    const { host } = this;
    if (error === undefined) host.vmstat.pswpout += pfns.length;
    else {
      host.vmstat.swapWriteErrors += pfns.length;
      host.reportSwapError('write', error);
    }
    for (const pfn of pfns) this.completeOne(pfn, error !== undefined);
    this.nrPages -= pfns.length;
    const { done } = this;
    this.done = new Deferred();
    done.resolve();
  }

  private completeOne(pfn: number, failed: boolean): void {
    const { host } = this;
    const { frames, swap } = host;
    frames.flags[pfn] = (frames.flags[pfn]! & ~PG_WRITEBACK) | (failed ? PG_DIRTY : 0);
    if (tryDropSwapCache(host, pfn)) frames.free(pfn);
    else if (this.isEvictable(pfn)) {
      swap.shadow[frames.private[pfn]!] = host.workingset.shadowOf(pfn);
      swap.removeFromCache(pfn);
      if (dropRef(host, pfn)) frames.free(pfn);
      host.vmstat.pgsteal++;
    } else {
      frames.flags[pfn] = frames.flags[pfn]! | PG_ACTIVE;
      host.lru.add(pfn);
    }
  }

  /** Its last contents are in the slot, and the swap cache alone refers to it. */
  private isEvictable(pfn: number): boolean {
    const { flags, refcount, mapcount } = this.host.frames;
    return (flags[pfn]! & (PG_SWAPCACHE | PG_DIRTY)) === PG_SWAPCACHE && mapcount[pfn] === 0 && refcount[pfn] === 1;
  }

  /** Resolves when the next transfer has ended. */
  next(): Promise<void> {
    return this.done.promise;
  }

  async drain(): Promise<void> {
    while (this.nrPages > 0) await this.done.promise;
  }
}
