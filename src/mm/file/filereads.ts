import { CONFIG_LOCKDEP, KernelError, LOCK_CLASSES, lockdepMayTake } from '../../base/index.js';
import type { Host } from '../host.js';
import { PAGE_SIZE, pfnToPa } from '../layout.js';
import { PG_LOCKED, PG_READAHEAD } from '../page/frames.js';
import { dropRef, putPage } from '../page/page.js';
import type { AddressSpace } from './addressspace.js';
import { type IoLimits, type Moved, overdue, Transfer, transfer, transferSync, viewsOf } from './storeio.js';

/**
 * Reading pages of files into the page cache. A frame that is being read is locked and in the cache, so that everybody who wants the page waits
 * for the one transfer; then they look again. The transfer has a reference of its own.
 *
 *   reader                            truncate
 *   page locked, in the cache;
 *   transfer under way
 *                                     page leaves the cache
 *   transfer ends: the page is not
 *   what the cache has there ->
 *   the frame is given back
 *
 * Required outcome: what was read of a page that is not the file's any more is nobody's. Proved by test/mm/file.test.ts.
 *
 * A page that could not be read leaves the cache. If it was read alone, everyone who waits for it is told EIO; if with others, because one of
 * them may be the bad one, they try it alone.
 */

interface ReadRun {
  readonly as: AddressSpace;
  readonly first: number;
  readonly pfns: number[];
  /** Bytes that the store has for it; what is behind them is zeros. */
  readonly lenBytes: number;
  readonly io: Transfer;
  /** Those of its pages that could not be read, and were still wanted. */
  readonly failed: number[];
}

/** What became of the wait for a page. */
export const READ_LOOK_AGAIN = 0;
export const READ_TRY_ALONE = 1;

export class FileReads {
  private readonly host: Host;
  private readonly limits: IoLimits;
  private readonly runs = new Map<number, ReadRun>();
  /** Of the transfer that ended last: for those that block. */
  private lastError: KernelError | undefined;

  constructor(host: Host, limits: IoLimits) {
    this.host = host;
    this.limits = limits;
  }

  /**
   * Begins to read those pages of [first, end) that are not cached, as far as there are frames; for page `wanted`, one of them, the last
   * `reserve` frames are not taken, the others leave more. The page `marker`, or none for -1, gets PG_READAHEAD. False when there is no frame
   * for `wanted`. `sync`: they are read when it returns; the store must be able to.
   */
  start(
    as: AddressSpace,
    first: number,
    end: number,
    wanted: number,
    reserve: number,
    marker: number,
    sync: boolean,
  ): boolean {
    let pfns: number[] = [];
    let index = first;
    for (; index < end; index++) {
      const cached = as.pages.get(index) > 0 || as.isPunching(index);
      const pfn = cached ? 0 : this.lockFrame(as, index, wanted, reserve);
      if (pfn === 0) {
        this.submit(as, index - pfns.length, pfns, sync);
        pfns = [];
        if (!cached && index >= wanted) break;
      } else pfns.push(pfn);
      if (index === marker) this.mark(pfn);
    }
    this.submit(as, index - pfns.length, pfns, sync);
    return index > wanted;
  }

  private mark(pfn: number): void {
    const { flags } = this.host.frames;
    if (pfn !== 0) flags[pfn] = flags[pfn]! | PG_READAHEAD;
  }

  /** The frame has two references: the cache's and the transfer's. 0 when there is none. */
  private lockFrame(as: AddressSpace, index: number, wanted: number, reserve: number): number {
    const { reclaim, frames } = this.host;
    const pfn = reclaim.allocFrame(reserve);
    if (pfn === 0) return 0;
    if (CONFIG_LOCKDEP) lockdepMayTake(LOCK_CLASSES.pageLock);
    frames.flags[pfn] = PG_LOCKED;
    this.host.pageCache.add(as, index, pfn, index === wanted);
    return pfn;
  }

  private submit(as: AddressSpace, first: number, pfns: number[], sync: boolean): void {
    if (pfns.length === 0) return;
    const offset = first * PAGE_SIZE;
    const lenBytes = Math.max(0, Math.min(as.storeBytes - offset, pfns.length * PAGE_SIZE));
    const io = new Transfer(sync ? undefined : this.limits);
    const run = { as, first, pfns, lenBytes, io, failed: [] };
    for (const pfn of pfns) this.runs.set(pfn, run);
    const views = viewsOf(this.host, pfns, lenBytes);
    if (views.length === 0) this.complete(run, { lenBytes: 0, error: undefined });
    else if (sync) this.complete(run, transferSync(as.store!, 'read', offset, views));
    else void transfer(as.store!, 'read', offset, views).then((moved) => this.complete(run, moved));
  }

  private complete(run: ReadRun, moved: Moved): void {
    for (const [k, pfn] of run.pfns.entries()) {
      const needed = Math.max(0, Math.min(run.lenBytes - k * PAGE_SIZE, PAGE_SIZE));
      this.runs.delete(pfn);
      this.completeOne(run, run.first + k, pfn, needed, moved.lenBytes >= k * PAGE_SIZE + needed || needed === 0);
    }
    if (moved.error !== undefined) this.host.vmstat.fileReadErrors++;
    this.lastError = moved.error;
    run.io.end(moved.error);
  }

  private completeOne(run: ReadRun, index: number, pfn: number, needed: number, ok: boolean): void {
    const { host } = this;
    const { frames, vmstat } = host;
    frames.flags[pfn] = frames.flags[pfn]! & ~PG_LOCKED;
    if (run.as.pages.get(index) === pfn) {
      if (ok) {
        if (needed < PAGE_SIZE) host.pageOps.clear(pfnToPa(pfn) + needed, PAGE_SIZE - needed);
        if (needed > 0) vmstat.filePagesRead++;
        host.lru.add(pfn);
      } else {
        run.failed.push(pfn);
        run.as.remove(pfn, 0);
        dropRef(host, pfn);
      }
    }
    putPage(host, pfn);
  }

  /**
   * Waits for the transfer that a locked frame is under. Rejects with KernelError: what the store said, where the page was read alone; EIO when the
   * transfer is overdue.
   */
  async wait(as: AddressSpace, pfn: number): Promise<number> {
    const run = this.runs.get(pfn);
    if (run === undefined) return READ_LOOK_AGAIN;
    await run.io.settled;
    if (!run.io.ended) throw overdue('read', as.name);
    if (!run.failed.includes(pfn)) return READ_LOOK_AGAIN;
    if (run.pfns.length > 1) return READ_TRY_ALONE;
    throw run.io.error!;
  }

  /**
   * As `start`, blocking. A transfer of the page that is under way cannot be waited for: its frame is put aside, to be given back when that ends.
   * Throws what the store said of the page that is wanted.
   */
  startSync(as: AddressSpace, first: number, end: number, wanted: number, reserve: number, marker: number): boolean {
    this.putAside(as, wanted);
    if (this.start(as, first, end, wanted, reserve, marker, true) && as.pages.get(wanted) > 0) return true;
    if (!this.start(as, wanted, wanted + 1, wanted, reserve, -1, true)) return false;
    if (as.pages.get(wanted) > 0) return true;
    throw this.lastError ?? new KernelError('EIO', 'read', `page ${wanted} of ${as.name} could not be read`);
  }

  private putAside(as: AddressSpace, index: number): void {
    const pfn = as.pages.get(index);
    if (pfn <= 0 || (this.host.frames.flags[pfn]! & PG_LOCKED) === 0) return;
    as.remove(pfn, 0);
    dropRef(this.host, pfn);
  }

  /** Resolves when no transfer is under way, but for those that are overdue. */
  async drain(): Promise<void> {
    for (const run of new Set(this.runs.values())) await run.io.settled;
  }
}
