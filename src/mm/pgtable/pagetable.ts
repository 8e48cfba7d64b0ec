import { bug, type Words } from '../../base/index.js';
import { NR_VPNS, PTRS_PER_TABLE } from '../layout.js';
import type { TablePool } from './tablepool.js';

/**
 * The page table of one mm: three levels of 512 entries. A leaf entry is a pte (pte.ts), named by its word index in the
 * pool; an upper entry is the number of the table below, or 0.
 *
 * Ptes are written by the mm thread alone; other threads may read them at any time.
 *
 * Use: `find` a pte's index, read it by `words.readOnce`, change it by `set` or `getAndSet`, which keep the tables' counts. `prune`
 * gives empty tables back after a range was cleared.
 */
export class PageTable {
  readonly words: Words;
  private readonly pool: TablePool;
  private root: number;

  /** `root` is a table of the pool, owned from now on. */
  constructor(pool: TablePool, root: number) {
    this.pool = pool;
    this.words = pool.words;
    this.root = root * PTRS_PER_TABLE;
  }

  /** Word index of the root's first entry; 0 when the mm is gone. */
  get rootIndex(): number {
    return this.root;
  }

  /** Word index of the pte of `vpn`, or 0 when there is no leaf table. */
  find(vpn: number): number {
    const mid = this.words.readOnce(this.root + (vpn >>> 18));
    if (mid === 0) return 0;
    const leaf = this.words.readOnce(mid * PTRS_PER_TABLE + ((vpn >>> 9) & 511));
    return leaf === 0 ? 0 : leaf * PTRS_PER_TABLE + (vpn & 511);
  }

  /** The pte of `vpn`; 0 when there is none. */
  get(vpn: number): number {
    const i = this.find(vpn);
    return i === 0 ? 0 : this.words.readOnce(i);
  }

  /** As `find`, making tables on the way; 0 when the pool is empty. */
  ensure(vpn: number): number {
    const i = this.find(vpn);
    return i !== 0 ? i : this.ensureSlow(vpn);
  }

  private ensureSlow(vpn: number): number {
    const mid = this.childOf(this.root + (vpn >>> 18), 1, (vpn >>> 18) << 18);
    if (mid === 0) return 0;
    const leaf = this.childOf(mid * PTRS_PER_TABLE + ((vpn >>> 9) & 511), 0, (vpn >>> 9) << 9);
    if (leaf !== 0) return leaf * PTRS_PER_TABLE + (vpn & 511);
    this.prune(vpn, vpn + 1);
    return 0;
  }

  private childOf(i: number, level: number, firstVpn: number): number {
    const old = this.words.readOnce(i);
    if (old !== 0) return old;
    const table = this.pool.alloc(level, firstVpn);
    if (table !== 0) this.set(i, table);
    return table;
  }

  /** Writes an entry that nothing but the mm thread changes: absent ones, and those that gain rights. */
  set(i: number, pte: number): void {
    this.account(i, this.words.readOnce(i), pte);
    this.words.writeOnce(i, pte);
  }

  /** Replaces an entry and returns the old one, with every bit that others set in it until then. */
  getAndSet(i: number, pte: number): number {
    const old = this.words.exchange(i, pte);
    this.account(i, old, pte);
    return old;
  }

  /** `nrEntries` of the table of entry `i` were written by plain stores where there was nothing. */
  addUsed(i: number, nrEntries: number): void {
    this.pool.used[i >>> 9] = this.pool.used[i >>> 9]! + nrEntries;
  }

  /** Keeps a leaf table, until `unpin`, though it have no entries. */
  pin(table: number): void {
    this.pool.pinned.add(table);
    this.addUsed(table * PTRS_PER_TABLE, 1);
  }

  unpin(table: number): void {
    this.pool.pinned.delete(table);
    this.addUsed(table * PTRS_PER_TABLE, -1);
  }

  /**
   * Moves the leaf table of `from` to `to`, both multiples of 512; what was mapped there is gone already. False when no table is left for
   * the way to it.
   */
  moveLeaf(from: number, to: number): boolean {
    const source = this.midEntry(from);
    const mid = this.childOf(this.root + (to >>> 18), 1, (to >>> 18) << 18);
    if (mid === 0) return false;
    const target = mid * PTRS_PER_TABLE + ((to >>> 9) & 511);
    const leaf = this.words.readOnce(source);
    const old = this.words.readOnce(target);
    if (old !== 0) this.freeIfEmpty(target, old);
    this.set(source, 0);
    this.set(target, leaf);
    this.pool.rename(leaf, to);
    return true;
  }

  /** Word index of the entry that names the leaf table of `vpn`, which exists. */
  private midEntry(vpn: number): number {
    return this.words.readOnce(this.root + (vpn >>> 18)) * PTRS_PER_TABLE + ((vpn >>> 9) & 511);
  }

  private account(i: number, old: number, pte: number): void {
    if (old === 0) {
      if (pte !== 0) this.pool.used[i >>> 9] = this.pool.used[i >>> 9]! + 1;
    } else if (pte === 0) this.pool.used[i >>> 9] = this.pool.used[i >>> 9]! - 1;
  }

  /**
   * The first vpn of [vpn, end) whose leaf table exists, or `end`: walks skip what was never touched. The caller goes on to the
   * end of that leaf (512 pages) by itself.
   */
  skipEmpty(vpn: number, end: number): number {
    while (vpn < end) {
      const mid = this.words.readOnce(this.root + (vpn >>> 18));
      if (mid === 0) {
        vpn = ((vpn >>> 18) + 1) << 18;
        continue;
      }
      if (this.words.readOnce(mid * PTRS_PER_TABLE + ((vpn >>> 9) & 511)) !== 0) return vpn;
      vpn = ((vpn >>> 9) + 1) << 9;
    }
    return end;
  }

  /** Frees the tables of [start, end) that are empty. */
  prune(start: number, end: number): void {
    for (let top = start >>> 18; top <= (end - 1) >>> 18; top++) {
      const mid = this.words.readOnce(this.root + top);
      if (mid === 0) continue;
      this.pruneMid(mid, Math.max(start, top << 18), Math.min(end, (top + 1) << 18));
      this.freeIfEmpty(this.root + top, mid);
    }
  }

  private pruneMid(mid: number, start: number, end: number): void {
    for (let vpn = start; vpn < end; vpn = ((vpn >>> 9) + 1) << 9) {
      const i = mid * PTRS_PER_TABLE + ((vpn >>> 9) & 511);
      const leaf = this.words.readOnce(i);
      if (leaf !== 0) this.freeIfEmpty(i, leaf);
    }
  }

  private freeIfEmpty(i: number, table: number): void {
    if (this.pool.used[table] !== 0) return;
    this.set(i, 0);
    this.pool.free(table);
  }

  /** Calls `fn` for each pte that is not 0: for the checker. */
  visit(fn: (vpn: number, pte: number) => void): void {
    for (let vpn = 0; (vpn = this.skipEmpty(vpn, NR_VPNS)) < NR_VPNS; vpn++) {
      const pte = this.get(vpn);
      if (pte !== 0) fn(vpn, pte);
    }
  }

  /**
   * Tables in use, the root among them: for the checker, which also compares the counts of their entries. Of ptes for which `isUncounted` says
   * so nothing is counted yet.
   */
  countTables(isUncounted: (pte: number) => boolean): number {
    return this.countBelow(this.root / PTRS_PER_TABLE, 2, isUncounted);
  }

  private countBelow(table: number, level: number, isUncounted: (pte: number) => boolean): number {
    let nrTables = 1;
    let used = this.pool.pinned.has(table) ? 1 : 0;
    for (let k = 0; k < PTRS_PER_TABLE; k++) {
      const entry = this.words.readOnce(table * PTRS_PER_TABLE + k);
      if (entry === 0 || (level === 0 && isUncounted(entry))) continue;
      used++;
      if (level > 0) nrTables += this.countBelow(entry, level - 1, isUncounted);
    }
    if (used !== this.pool.used[table])
      bug('N6', `page table ${table}: ${used} entries, ${this.pool.used[table]} counted`);
    return nrTables;
  }

  /** Gives the root back; nothing is mapped any more. */
  destroy(): void {
    this.prune(0, NR_VPNS);
    const table = this.root / PTRS_PER_TABLE;
    if (this.pool.used[table] !== 0) bug('N4', `page table freed with ${this.pool.used[table]} entries in its root`);
    this.pool.free(table);
    // Table 0 is nobody's and all zeros: lookups after the end find nothing.
    this.root = 0;
  }
}
