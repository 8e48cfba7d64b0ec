import { type WasmMemory, Words } from '../../base/index.js';
import { type Layout, PTRS_PER_TABLE, TABLE_BYTES, vpnToVa } from '../layout.js';
import { describePte } from './pte.js';

/**
 * The pool of page tables, in shared memory: tables of 512 words, named by number; number 0 is never given out, so that
 * an upper entry of 0 means no table. `words` reaches all of them: entry i of table t is word t * 512 + i.
 *
 * A table is zero when it is given out, and must be zero again when it comes back. `used[t]` counts its entries that are not 0.
 */
export class TablePool {
  readonly words: Words;
  readonly used: Uint16Array;
  readonly nrTables: number;
  /** Byte of the memory where table 0 begins. */
  readonly addr: number;
  /** Tables that are kept though they may have no entries: `used` counts one more for each. */
  readonly pinned = new Set<number>();
  nrFree: number;
  /** What table t is, for labels: its level (0: leaf) and the first page that it spans. */
  private readonly levels: Uint8Array;
  private readonly firstVpns: Int32Array;
  private readonly freeTables: Int32Array;

  constructor(memory: WasmMemory, layout: Layout) {
    this.nrTables = layout.nrTables;
    this.addr = layout.tablesBase;
    this.words = new Words(memory, layout.tablesBase, layout.nrTables * PTRS_PER_TABLE, {
      word: (i) => this.label(i),
      value: (i, entry) => (this.levels[i >>> 9] === 0 ? describePte(entry) : `table ${entry}`),
    });
    this.used = new Uint16Array(layout.nrTables);
    this.nrFree = layout.nrTables - 1;
    this.levels = new Uint8Array(layout.nrTables);
    this.firstVpns = new Int32Array(layout.nrTables);
    this.freeTables = new Int32Array(layout.nrTables);
    for (let i = 0; i < this.nrFree; i++) this.freeTables[i] = this.nrTables - 1 - i;
  }

  /** A table of zeros of level 0 (leaf) to 2 (root) whose first page is `firstVpn`, or 0 when the pool is empty. */
  alloc(level: number, firstVpn: number): number {
    if (this.nrFree === 0) return 0;
    const table = this.freeTables[--this.nrFree]!;
    this.levels[table] = level;
    this.firstVpns[table] = firstVpn;
    return table;
  }

  /** The table spans the pages from `firstVpn` from now on. */
  rename(table: number, firstVpn: number): void {
    this.firstVpns[table] = firstVpn;
  }

  free(table: number): void {
    this.freeTables[this.nrFree++] = table;
  }

  /** `pte[0x10000]`: an entry by the address from which it maps. */
  private label(i: number): string {
    const level = this.levels[i >>> 9]!;
    const vpn = this.firstVpns[i >>> 9]! + ((i & (PTRS_PER_TABLE - 1)) << (9 * level));
    return `${['pte', 'pmd', 'pgd'][level]}[0x${vpnToVa(vpn).toString(16)}]`;
  }

  get bytesInUse(): number {
    return (this.nrTables - 1 - this.nrFree) * TABLE_BYTES;
  }
}
