import { type WasmMemory, Words } from '../base/index.js';
import { type Layout, PTRS_PER_TABLE, TABLE_BYTES } from './layout.js';

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
  nrFree: number;
  private readonly freeTables: Int32Array;

  constructor(memory: WasmMemory, layout: Layout) {
    this.nrTables = layout.nrTables;
    this.words = new Words(memory, layout.tablesBase, layout.nrTables * PTRS_PER_TABLE);
    this.used = new Uint16Array(layout.nrTables);
    this.nrFree = layout.nrTables - 1;
    this.freeTables = new Int32Array(layout.nrTables);
    for (let i = 0; i < this.nrFree; i++) this.freeTables[i] = this.nrTables - 1 - i;
  }

  /** A table of zeros, or 0 when the pool is empty. */
  alloc(): number {
    return this.nrFree === 0 ? 0 : this.freeTables[--this.nrFree]!;
  }

  free(table: number): void {
    this.freeTables[this.nrFree++] = table;
  }

  get bytesInUse(): number {
    return (this.nrTables - 1 - this.nrFree) * TABLE_BYTES;
  }
}
