import type { Host } from '../host.js';
import { pfnToPa } from '../layout.js';
import { MMU_NOTIFY_CLEAR } from '../notifier/range.js';
import { PG_LOCKED, PG_LRU, PG_SWAPCACHE, PG_WRITEBACK } from '../page/frames.js';
import { isHeld } from '../page/page.js';
import { migrationPfn, migrationToPte, mkMigrationPte, pteIsMigration } from '../pgtable/pte.js';
import type { Vma } from '../vma/vma.js';
import { rmapVisit, tryToUnmapOne } from './rmap.js';
import { RmapBracket } from './rmapbracket.js';

/**
 * Migration (Linux: migrate.c): a page goes from one frame to another, and nobody who uses its address notices. While it is on its way its
 * ptes are migration entries, which keep the rights and bits that they will have again: a fault that meets one waits (N22).
 *
 *   migration                                 external fault, external writer
 *   invalidateRangeStart: entries gone        (no write can reach the old frame)
 *   ptes: migration of frame 7
 *                                             tryGetPage: FAULT_RETRY
 *   contents copied to frame 9
 *   ptes: frame 9, as dirty and writable as before
 *   invalidateRangeEnd: seq moves
 *                                             tryGetPage: frame 9
 *
 * Required outcome: no write is lost and no external entry names the old frame, which is free then (M23, M27). Proved by test/mm/migrate.test.ts.
 *
 * A locked page may be migrated: mlock keeps it in memory, not in one place. One that somebody holds, or under I/O, stays.
 */
export class Migration {
  private readonly host: Host;
  private readonly bracket: RmapBracket;
  private from = 0;
  private to = 0;
  private readonly unmapOne: (vma: Vma, vpn: number) => void;
  private readonly restoreOne: (vma: Vma, vpn: number) => void;

  constructor(host: Host) {
    this.host = host;
    this.bracket = new RmapBracket(host);
    this.unmapOne = (vma, vpn) => this.unmap(vma, vpn);
    this.restoreOne = (vma, vpn) => this.restore(vma, vpn);
  }

  /** Whether the page in the frame can go elsewhere now: nobody but ptes and caches refers to it (a pin is a reference), and no transfer is under way. */
  isMovable(pfn: number): boolean {
    const { flags } = this.host.frames;
    const f = flags[pfn]!;
    if ((f & PG_LRU) === 0 || (f & (PG_LOCKED | PG_WRITEBACK)) !== 0) return false;
    return !isHeld(this.host, pfn);
  }

  /**
   * Moves each page `from[k]` to the frame `to[k]`, which the caller has from `frames` with a reference, under one bracket for each mm.
   * Returns how many it moved: those frames `from[k]` are free; where a driver refused or a page is held, `to[k]` is free again.
   */
  migrate(from: readonly number[], to: readonly number[], blockable: boolean): number {
    const { frames, vmstat } = this.host;
    this.bracket.begin(MMU_NOTIFY_CLEAR);
    for (const pfn of from) if (this.isMovable(pfn)) this.bracket.add(pfn);
    this.bracket.start(blockable);
    const free: number[] = [];
    let nrMoved = 0;
    for (const [k, pfn] of from.entries()) {
      const moves = this.isMovable(pfn) && !this.bracket.refused(pfn);
      if (moves) this.move(pfn, to[k]!);
      if (moves) nrMoved++;
      free.push(moves ? pfn : to[k]!);
    }
    this.bracket.end();
    for (const pfn of free) {
      frames.refcount[pfn] = 0;
      frames.free(pfn);
    }
    vmstat.pgmigrate_success += nrMoved;
    vmstat.pgmigrate_fail += from.length - nrMoved;
    return nrMoved;
  }

  private move(from: number, to: number): void {
    this.from = from;
    this.to = to;
    rmapVisit(this.host, from, this.unmapOne);
    this.host.pageOps.copy(pfnToPa(to), pfnToPa(from));
    this.moveState(from, to);
    rmapVisit(this.host, to, this.restoreOne);
  }

  private unmap(vma: Vma, vpn: number): void {
    const { pageTable } = vma.mm;
    const i = pageTable.find(vpn);
    if (i !== 0) tryToUnmapOne(pageTable, i, this.from, mkMigrationPte(pageTable.words.readOnce(i)));
  }

  private restore(vma: Vma, vpn: number): void {
    const { pageTable } = vma.mm;
    const i = pageTable.find(vpn);
    if (i === 0) return;
    const pte = pageTable.words.readOnce(i);
    if (pteIsMigration(pte) && migrationPfn(pte) === this.from) pageTable.set(i, migrationToPte(pte, this.to));
  }

  /** All that the frame table knows of the page, its place on the lru, and in swap cache and page cache. */
  private moveState(from: number, to: number): void {
    const { frames, lru, swap, pageCache } = this.host;
    const slot = (frames.flags[from]! & PG_SWAPCACHE) !== 0 ? frames.private[from]! : -1;
    if (slot >= 0) swap.cache[slot] = to;
    if (frames.mapping[from]! < 0) pageCache.ofFrame(from).replace(from, to);
    frames.moveRow(from, to);
    lru.replace(from, to);
  }
}
