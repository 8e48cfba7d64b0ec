import { bug } from '../../base/index.js';
import { Deferred } from '../deferred.js';
import type { Host } from '../host.js';
import { PAGE_SIZE } from '../layout.js';
import { MMU_NOTIFY_PROTECTION_PAGE } from '../notifier/range.js';
import { PG_RECLAIM, PG_WRITEBACK } from '../page/frames.js';
import { PTE_DIRTY, PTE_WRITE, pteIsPresent, ptePfn } from '../pgtable/pte.js';
import { rmapVisit } from '../rmap/rmap.js';
import { RmapBracket } from '../rmap/rmapbracket.js';
import type { Vma } from '../vma/vma.js';
import type { AddressSpace } from './addressspace.js';
import { callStore, type IoLimits, type Moved, overdue, Transfer, transfer, transferSync, viewsOf } from './storeio.js';
import { XA_MARK_DIRTY, XA_MARK_WRITEBACK, XA_MAX_INDEX } from './xarray.js';

/**
 * Writing dirty pages of files to their stores (Linux: page-writeback.c, folio_mkclean). Pages are cleaned in batches: one bracket
 * for each mm that maps any of them writable takes the right to write away, then they are clean, then they are written.
 *
 *   write-back                                 writer, perhaps external
 *   invalidateRangeStart: no external entry
 *   WRITE and DIRTY cleared in the ptes
 *   invalidateRangeEnd
 *   PG_DIRTY cleared, PG_WRITEBACK set;
 *   write submitted
 *                                              faults for writing: PG_DIRTY set
 *   written: PG_WRITEBACK cleared;
 *   PG_DIRTY is set -> written again later
 *
 * Required outcome: no write is lost (N15), and none is taken for written that came after the page was sent (N27). Proved by
 * test/mm/filewriteback.test.ts.
 *
 * Pages under write-back stay mapped and on their list. A failed write leaves them dirty, and is entered in the address space's `wbErr`.
 */

const MAX_BATCH = 64;
/** Pages under way for one sync at most. */
const MAX_IN_FLIGHT = 512;

interface WriteRun {
  readonly as: AddressSpace;
  readonly first: number;
  readonly pfns: number[];
  readonly lenBytes: number;
  readonly io: Transfer;
}

export class FileWriteback {
  private readonly host: Host;
  private readonly limits: IoLimits;
  private readonly runs = new Map<number, WriteRun>();
  private readonly batch = new Int32Array(MAX_BATCH);
  private nrBatch = 0;
  private readonly bracket: RmapBracket;
  private cleaning = 0;
  private settled = new Deferred();
  /** Transfers that have neither ended nor are overdue. */
  nrActive = 0;
  private readonly protect: (vma: Vma, vpn: number) => void;

  constructor(host: Host, limits: IoLimits) {
    this.host = host;
    this.limits = limits;
    this.bracket = new RmapBracket(host);
    this.protect = (vma, vpn) => this.protectOne(vma, vpn);
  }

  /**
   * Sends up to `maxPages` dirty pages of [start, end) on their way, in order; returns the index from which to go on, or `end`. Passes over
   * pages that are under way already. Nothing is sent while the store owes a cut. `sync`: written when it returns.
   */
  writeRange(as: AddressSpace, start: number, end: number, maxPages: number, sync: boolean): number {
    if (as.owedTruncate !== undefined) return end;
    let index = start;
    for (let left = maxPages; left > 0 && index < end; left -= Math.max(1, this.nrBatch)) {
      index = this.fillBatch(as, index, end, left);
      if (this.nrBatch > 0) this.sendBatch(as, sync);
    }
    return index;
  }

  private fillBatch(as: AddressSpace, index: number, end: number, maxPages: number): number {
    this.nrBatch = 0;
    while (this.nrBatch < Math.min(MAX_BATCH, maxPages)) {
      const next = as.pages.nextMarked(index, end, XA_MARK_DIRTY);
      if (next < 0) return end;
      index = next + 1;
      if (!as.pages.isMarked(next, XA_MARK_WRITEBACK)) this.batch[this.nrBatch++] = as.pages.get(next);
    }
    return index;
  }

  /**
   * Sends pages that reclaim has unmapped, all dirty, of any files, on their way; they are freed when they are written, if nobody took them up again.
   * Returns how many were sent.
   */
  writeReclaimed(pfns: number[], sync: boolean): number {
    const { flags, mapping, index } = this.host.frames;
    pfns.sort((a, b) => mapping[a]! - mapping[b]! || index[a]! - index[b]!);
    let nr = 0;
    for (let k = 0; k < pfns.length; ) {
      const as = this.host.pageCache.ofFrame(pfns[k]!);
      const may = as.owedTruncate === undefined && (!sync || canBlock(as));
      this.nrBatch = 0;
      for (; k < pfns.length && mapping[pfns[k]!] === -as.id && this.nrBatch < MAX_BATCH; k++) {
        if (!may || (flags[pfns[k]!]! & PG_WRITEBACK) !== 0) continue;
        flags[pfns[k]!] = flags[pfns[k]!]! | PG_RECLAIM;
        this.batch[this.nrBatch++] = pfns[k]!;
      }
      nr += this.nrBatch;
      if (this.nrBatch > 0) this.sendBatch(as, sync);
    }
    return nr;
  }

  private sendBatch(as: AddressSpace, sync: boolean): void {
    this.clean(as);
    const pfns = Array.from(this.batch.subarray(0, this.nrBatch));
    const { index } = this.host.frames;
    let first = 0;
    for (let k = 1; k <= pfns.length; k++) {
      if (k < pfns.length && index[pfns[k]!] === index[pfns[k - 1]!]! + 1) continue;
      this.submit(as, pfns.slice(first, k), sync);
      first = k;
    }
  }

  /** Takes the right to write away from all who map the batch, then marks its pages clean and under way. */
  private clean(as: AddressSpace): void {
    const { batch, bracket, nrBatch } = this;
    const { mapcount } = this.host.frames;
    bracket.begin(MMU_NOTIFY_PROTECTION_PAGE);
    for (let k = 0; k < nrBatch; k++) if (mapcount[batch[k]!] !== 0) bracket.add(batch[k]!, PTE_WRITE | PTE_DIRTY);
    bracket.start(true);
    for (let k = 0; k < nrBatch && !bracket.isEmpty; k++) this.protectPage(batch[k]!);
    bracket.end();
    for (let k = 0; k < nrBatch; k++) {
      as.clearDirty(batch[k]!);
      as.setWriteback(batch[k]!);
    }
  }

  private protectPage(pfn: number): void {
    this.cleaning = pfn;
    rmapVisit(this.host, pfn, this.protect);
  }

  private protectOne(vma: Vma, vpn: number): void {
    const { pageTable } = vma.mm;
    const i = pageTable.find(vpn);
    if (i === 0) return;
    const pte = pageTable.words.readOnce(i);
    if (!pteIsPresent(pte) || ptePfn(pte) !== this.cleaning || (pte & (PTE_WRITE | PTE_DIRTY)) === 0) return;
    pageTable.set(i, pte & ~(PTE_WRITE | PTE_DIRTY));
  }

  private submit(as: AddressSpace, pfns: number[], sync: boolean): void {
    const first = this.host.frames.index[pfns[0]!]!;
    const offset = first * PAGE_SIZE;
    const lenBytes = Math.min(pfns.length * PAGE_SIZE, as.sizeBytes - offset);
    const run = { as, first, pfns, lenBytes, io: new Transfer(sync ? undefined : this.limits) };
    for (const pfn of pfns) this.runs.set(pfn, run);
    const views = viewsOf(this.host, pfns, lenBytes);
    this.nrActive++;
    void run.io.settled.then(() => this.wake());
    if (sync) this.complete(run, transferSync(as.store!, 'write', offset, views));
    else void transfer(as.store!, 'write', offset, views).then((moved) => this.complete(run, moved));
  }

  private wake(): void {
    this.nrActive--;
    const { settled } = this;
    this.settled = new Deferred();
    settled.resolve();
  }

  private complete(run: WriteRun, moved: Moved): void {
    const { as, pfns } = run;
    const { counts } = this.host.pageCache;
    if (moved.error !== undefined) {
      as.wbErr.set(moved.error.errno);
      this.host.vmstat.fileWriteErrors++;
    }
    if (moved.lenBytes > 0) as.storeBytes = Math.max(as.storeBytes, run.first * PAGE_SIZE + moved.lenBytes);
    for (const [k, pfn] of pfns.entries()) {
      const ok = moved.lenBytes >= Math.min((k + 1) * PAGE_SIZE, run.lenBytes);
      if (ok) counts.nrWritten++;
      this.completeOne(as, pfn, ok);
    }
    run.io.end(moved.error);
  }

  private completeOne(as: AddressSpace, pfn: number, ok: boolean): void {
    const { frames } = this.host;
    if (this.host.pageCache.ofFrame(pfn) !== as) bug('N27', `frame ${pfn} left ${as.name} while it was written`);
    this.runs.delete(pfn);
    as.clearWriteback(pfn);
    if (!ok) as.setDirty(pfn);
    const wanted = (frames.flags[pfn]! & PG_RECLAIM) !== 0;
    frames.flags[pfn] = frames.flags[pfn]! & ~PG_RECLAIM;
    if (wanted && this.host.pageCache.tryEvict(pfn)) this.host.vmstat.pgsteal++;
  }

  /** Waits for the transfer that page `index` is under, if it is. Rejects with EIO when that is overdue. */
  async waitPage(as: AddressSpace, index: number): Promise<void> {
    const run = this.runs.get(as.pages.get(index));
    if (run === undefined) return;
    await run.io.settled;
    if (!run.io.ended) throw overdue('write', as.name);
  }

  isBusy(as: AddressSpace, start: number, end: number): boolean {
    return as.pages.nextMarked(start, end, XA_MARK_WRITEBACK) >= 0;
  }

  /** Waits until none of [start, end) is under way. */
  async waitRange(as: AddressSpace, start: number, end: number): Promise<void> {
    for (let index = start; (index = as.pages.nextMarked(index, end, XA_MARK_WRITEBACK)) >= 0; ) {
      await this.waitPage(as, index);
    }
  }

  /** Writes what is dirty in [start, end) now, and waits for it. Writes that fail are in `wbErr`; rejects when the store does not answer, or gets its length wrong. */
  async syncRange(as: AddressSpace, start = 0, end = XA_MAX_INDEX): Promise<void> {
    await this.payTruncate(as);
    for (let index = start; (index = as.pages.nextMarked(index, end, XA_MARK_DIRTY)) >= 0; ) {
      if (as.pages.isMarked(index, XA_MARK_WRITEBACK)) await this.waitPage(as, index);
      else if (as.pages.nrMarked(XA_MARK_WRITEBACK) > MAX_IN_FLIGHT) await this.next();
      else index = this.writeRange(as, index, this.endOfRun(as, index, end), MAX_BATCH, false);
    }
    await this.waitRange(as, start, end);
    await this.extendStore(as);
  }

  /** Up to the next page that has to be waited for first. */
  private endOfRun(as: AddressSpace, index: number, end: number): number {
    const busy = as.pages.nextMarked(index, Math.min(end, index + MAX_BATCH), XA_MARK_WRITEBACK);
    return busy < 0 ? end : busy;
  }

  /** The file's end may be a hole, behind everything that was written: the store gets its length. Rejects as the store does. */
  async extendStore(as: AddressSpace): Promise<void> {
    if (as.storeBytes >= as.sizeBytes) return;
    await as.inodeLock.run(async () => {
      const size = as.sizeBytes;
      if (as.storeBytes >= size || as.owedTruncate !== undefined) return;
      await callStore(as.store!, 'truncate', () => as.store!.truncate(size));
      as.storeBytes = size;
    });
  }

  /** Makes the cut that the store refused before, if it did: until then it may hold bytes that are no longer the file's. */
  async payTruncate(as: AddressSpace): Promise<void> {
    const size = as.owedTruncate;
    if (size === undefined) return;
    try {
      await callStore(as.store!, 'truncate', () => as.store!.truncate(size));
      if (as.owedTruncate === size) as.owedTruncate = undefined;
    } catch (error) {
      as.wbErr.set((error as { errno: number }).errno);
      throw error;
    }
  }

  /** Writes up to `maxPages` dirty pages, blocking; nothing where the store cannot. */
  syncSome(as: AddressSpace, maxPages: number): void {
    if (canBlock(as)) this.writeRange(as, 0, XA_MAX_INDEX, maxPages, true);
  }

  /** Resolves when the next transfer has ended, or is overdue. */
  next(): Promise<void> {
    return this.settled.promise;
  }

  /** Resolves when no transfer is under way, but for those that are overdue. */
  async drain(): Promise<void> {
    for (const run of new Set(this.runs.values())) await run.io.settled;
  }
}

function canBlock(as: AddressSpace): boolean {
  return as.store?.writeSync !== undefined;
}
