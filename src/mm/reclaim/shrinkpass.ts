import { shmemSwapOut } from '../file/shmem.js';
import type { Host } from '../host.js';
import { MMU_NOTIFY_CLEAR } from '../notifier/range.js';
import {
  PG_ACTIVE,
  PG_DIRTY,
  PG_PINNED,
  PG_REFERENCED,
  PG_SWAPBACKED,
  PG_SWAPCACHE,
  PG_WRITEBACK,
} from '../page/frames.js';
import { LRU_INACTIVE_ANON, LRU_INACTIVE_FILE } from '../page/lru.js';
import { dropRef, isHeld, tryDropSwapCache } from '../page/page.js';
import { mkSamePte, mkSwapPte, PTE_NONE } from '../pgtable/pte.js';
import { remotesDrainAll } from '../remote/hooks.js';
import { removeRmap, rmapVisit, tryToUnmapOne } from '../rmap/rmap.js';
import { RmapBracket } from '../rmap/rmapbracket.js';
import type { Vma } from '../vma/vma.js';

/**
 * One pass of reclaim over the lists (Linux: shrink_lruvec, shrink_folio_list): it takes a batch from the tail of the inactive lists. Pages that were used since the last look
 * go to the active list (second chance), the others are unmapped, all pages of one mm under one bracket (N12); clean ones are freed, dirty ones written, and
 * freed when the write is done.
 *
 * Use: `shrink`, again and again, by kswapd and by those who find no frame (reclaim.ts); `reclaimPages` for pages that somebody chose.
 */

const MAX_BATCH = 64;

export class ShrinkPass {
  private readonly host: Host;
  readonly batchSize: number;
  private readonly batch: Int32Array;
  /** Of the pages of the batch that are one value repeated, its number (samefilled.ts); else -1. */
  private readonly sameNumbers: Int32Array;
  private nrBatch = 0;
  private readonly bracket: RmapBracket;
  private visiting = 0;
  private visitingNumber = 0;
  private readonly unmapOne: (vma: Vma, vpn: number) => void;
  private readonly unmapOneSame: (vma: Vma, vpn: number) => void;

  constructor(host: Host) {
    this.host = host;
    this.batchSize = Math.max(4, Math.min(host.frames.nrFrames >> 3, MAX_BATCH));
    this.batch = new Int32Array(this.batchSize);
    this.sameNumbers = new Int32Array(this.batchSize);
    this.bracket = new RmapBracket(host);
    this.unmapOne = (vma, vpn) => this.unmap(vma, vpn);
    this.unmapOneSame = (vma, vpn) => this.unmapSame(vma, vpn);
  }

  /**
   * One pass. Returns the pages that it freed or handed to the device: 0 means no progress. `desperate`: pages in use are
   * taken too.
   */
  shrink(blockable: boolean, sync: boolean, desperate: boolean): number {
    const { vmstat } = this.host;
    const { pgscan, pgsteal } = vmstat;
    remotesDrainAll(this.host);
    const nr = this.shrinkLists(blockable, sync, desperate);
    // kswapd's passes do not block.
    if (blockable) vmstat.pgscanDirect += vmstat.pgscan - pgscan;
    if (blockable) vmstat.pgstealDirect += vmstat.pgsteal - pgsteal;
    return nr;
  }

  private shrinkLists(blockable: boolean, sync: boolean, desperate: boolean): number {
    this.nrBatch = 0;
    // Pages of files first: most need no write.
    for (const inactive of [LRU_INACTIVE_FILE, LRU_INACTIVE_ANON]) {
      this.ageActive(inactive, desperate);
      this.isolate(inactive, desperate);
    }
    if (this.nrBatch === 0) return 0;
    this.unmapBatch(blockable);
    return this.evict(sync);
  }

  /** Keeps the inactive list long enough for its pages to be used again. What is inactive may all be held: `desperate` goes on in any case (N26). */
  private ageActive(inactive: number, desperate: boolean): void {
    const { lru, vmstat, workingset, young } = this.host;
    const active = inactive + 1;
    let scan = Math.min(lru.nr[active]!, this.batchSize * 2);
    while (scan-- > 0 && (desperate || lru.nr[inactive]! < workingset.inactiveTarget(active))) {
      const pfn = lru.tail(active);
      if (pfn === 0) return;
      if (young.testAndClear(pfn) && !desperate) {
        workingset.touch(pfn);
        lru.move(pfn, 0, 0);
        continue;
      }
      vmstat.pgdeactivate++;
      lru.move(pfn, 0, PG_ACTIVE);
    }
  }

  /** Takes unused pages off the inactive list, until the batch is full. */
  private isolate(inactive: number, desperate: boolean): void {
    const { lru } = this.host;
    let scan = Math.min(lru.nr[inactive]!, this.batchSize * 4);
    while (scan-- > 0 && this.nrBatch < this.batchSize) {
      const pfn = lru.tail(inactive);
      // A driver that breaks its contract when it is asked for young pages empties the list: they are pinned.
      if (pfn === 0) return;
      this.host.vmstat.pgscan++;
      if (isHeld(this.host, pfn) || this.isUnderWriteback(pfn)) lru.move(pfn, 0, 0);
      else if (desperate || !this.spare(pfn)) {
        lru.remove(pfn);
        this.batch[this.nrBatch++] = pfn;
      }
    }
  }

  /**
   * A page that was used goes round once more, for that may have been whoever brought it in; and to the active list when it was used again by
   * then (Linux: folio_check_references).
   */
  private spare(pfn: number): boolean {
    const { frames, lru, vmstat, workingset, young } = this.host;
    if (!young.testAndClear(pfn)) return false;
    if ((frames.flags[pfn]! & PG_REFERENCED) === 0) lru.move(pfn, PG_REFERENCED, 0);
    else {
      vmstat.pgactivate++;
      workingset.touch(pfn);
      lru.move(pfn, PG_ACTIVE, PG_REFERENCED);
    }
    return true;
  }

  /** A page of a file stays on its list while it is written. */
  private isUnderWriteback(pfn: number): boolean {
    return (this.host.frames.flags[pfn]! & PG_WRITEBACK) !== 0;
  }

  /** Unmaps the batch: a slot for each page, one bracket for each mm, the ptes cleared inside. */
  private unmapBatch(blockable: boolean): void {
    const { batch, bracket, nrBatch } = this;
    bracket.begin(MMU_NOTIFY_CLEAR);
    for (let k = 0; k < nrBatch; k++) if (this.prepareSlot(k)) bracket.add(batch[k]!);
    bracket.start(blockable);
    for (let k = 0; k < nrBatch; k++) this.unmapPage(k);
    bracket.end();
  }

  /**
   * False when the page must stay, because there is no slot for it. One that is a single value needs none, nor does a clean one without a slot, which
   * is zeros.
   */
  private prepareSlot(k: number): boolean {
    const { frames, swap, sameFilled } = this.host;
    const pfn = this.batch[k]!;
    this.sameNumbers[k] = -1;
    if (frames.mapping[pfn]! < 0) return true;
    if ((frames.flags[pfn]! & PG_SWAPCACHE) !== 0 || (frames.flags[pfn]! & PG_DIRTY) === 0) return true;
    this.sameNumbers[k] = sameFilled.numberOf(pfn);
    if (this.sameNumbers[k]! >= 0) return true;
    const slot = swap.alloc();
    if (slot < 0) return false;
    swap.addToCache(slot, pfn);
    return true;
  }

  private unmapPage(k: number): void {
    const pfn = this.batch[k]!;
    if (this.sameNumbers[k]! >= 0) {
      this.unmapSameFilled(pfn, this.sameNumbers[k]!);
      return;
    }
    const { flags, mapping } = this.host.frames;
    if ((flags[pfn]! & (PG_SWAPCACHE | PG_DIRTY)) === PG_DIRTY && mapping[pfn]! >= 0) return;
    // The bracket's start has pinned it: its owner goes on with it.
    if ((flags[pfn]! & PG_PINNED) !== 0) return;
    this.visiting = pfn;
    if (!this.bracket.refused(pfn)) rmapVisit(this.host, pfn, this.unmapOne);
  }

  /**
   * Until the bracket opened others could write to the page, and whoever holds it still can: it stays if it has changed, or is held.
   *
   *   reclaim                                      external writer
   *   the page is one value: takes no slot
   *                                                writes another
   *   invalidateRangeStart: its entries are gone
   *   looks again: the page stays
   *
   * Required outcome: no write is lost (N15). Proved by test/explore/models/samefilled.ts.
   */
  private unmapSameFilled(pfn: number, number: number): void {
    const { host } = this;
    const stays = isHeld(host, pfn) || this.bracket.refused(pfn);
    if (!stays && host.sameFilled.numberOf(pfn) === number) {
      this.visiting = pfn;
      this.visitingNumber = number;
      rmapVisit(host, pfn, this.unmapOneSame);
      host.vmstat.swpoutSame++;
    }
    host.sameFilled.forgetUnused(number);
  }

  private unmapSame(vma: Vma, vpn: number): void {
    const { host } = this;
    const { pageTable } = vma.mm;
    const i = pageTable.find(vpn);
    if (i === 0) return;
    const pte = mkSamePte(this.visitingNumber, pageTable.words.readOnce(i));
    if (tryToUnmapOne(pageTable, i, this.visiting, pte) === 0) return;
    host.sameFilled.get(this.visitingNumber);
    removeRmap(host, vma, this.visiting);
    host.frames.refcount[this.visiting] = host.frames.refcount[this.visiting]! - 1;
  }

  private unmap(vma: Vma, vpn: number): void {
    const { host } = this;
    const { frames, swap } = host;
    const pfn = this.visiting;
    const i = vma.mm.pageTable.find(vpn);
    const cached = (frames.flags[pfn]! & PG_SWAPCACHE) !== 0;
    const slot = frames.private[pfn]!;
    const pte = vma.mm.pageTable.words.readOnce(i);
    if (i === 0 || tryToUnmapOne(vma.mm.pageTable, i, pfn, cached ? mkSwapPte(slot, pte) : PTE_NONE) === 0) return;
    if (cached) swap.get(slot);
    removeRmap(host, vma, pfn);
    frames.refcount[pfn] = frames.refcount[pfn]! - 1;
  }

  /** After the brackets: frees what is clean, writes what is dirty, puts back what could not be unmapped. */
  private evict(sync: boolean): number {
    const { host } = this;
    const { frames } = host;
    const dirty: number[] = [];
    const dirtyFile: number[] = [];
    let nrFreed = 0;
    for (let k = 0; k < this.nrBatch; k++) {
      const pfn = this.batch[k]!;
      if (frames.mapcount[pfn] !== 0 || isHeld(this.host, pfn)) this.putBack(pfn);
      else if (frames.mapping[pfn]! < 0) nrFreed += this.evictCached(pfn, dirty, dirtyFile);
      else nrFreed += this.evictAnon(pfn, dirty);
    }
    host.vmstat.pgsteal += nrFreed;
    dirty.sort((a, b) => frames.private[a]! - frames.private[b]!);
    host.writeback.submit(dirty, sync);
    return nrFreed + dirty.length + host.pageCache.writeback.writeReclaimed(dirtyFile, sync);
  }

  private evictAnon(pfn: number, dirty: number[]): number {
    const { frames, swap, workingset } = this.host;
    const flags = frames.flags[pfn]!;
    if ((flags & PG_SWAPCACHE) !== 0 && (flags & PG_DIRTY) !== 0) {
      dirty.push(pfn);
      return 0;
    }
    if ((flags & PG_SWAPCACHE) !== 0) {
      swap.shadow[frames.private[pfn]!] = workingset.shadowOf(pfn);
      swap.removeFromCache(pfn);
      dropRef(this.host, pfn);
    }
    frames.free(pfn);
    return 1;
  }

  /** A page of a file or of shared memory: the one reference is its cache's. */
  private evictCached(pfn: number, dirty: number[], dirtyFile: number[]): number {
    const { pageCache, frames, lru } = this.host;
    if ((frames.flags[pfn]! & PG_DIRTY) === 0) {
      if (pageCache.tryEvict(pfn)) return 1;
      this.putBack(pfn);
    } else if ((frames.flags[pfn]! & PG_SWAPBACKED) === 0) {
      lru.add(pfn);
      dirtyFile.push(pfn);
    } else if (shmemSwapOut(this.host, pageCache.ofFrame(pfn), pfn)) dirty.push(pfn);
    else this.putBack(pfn);
    return 0;
  }

  private putBack(pfn: number): void {
    if (tryDropSwapCache(this.host, pfn)) this.host.frames.free(pfn);
    else {
      this.host.frames.flags[pfn] = this.host.frames.flags[pfn]! | PG_ACTIVE;
      this.host.lru.add(pfn);
    }
  }

  /** Takes pages that the caller chose, which are on a list, whether they are in use or not. Nobody waits for the writes. */
  reclaimPages(pfns: readonly number[]): void {
    for (let at = 0; at < pfns.length; at += this.batchSize) {
      this.nrBatch = 0;
      for (const pfn of pfns.slice(at, at + this.batchSize)) {
        this.host.lru.remove(pfn);
        this.batch[this.nrBatch++] = pfn;
      }
      this.unmapBatch(true);
      this.evict(false);
    }
  }
}
