/**
 * The tables that shadow page directories are made of: a fixed number of them, for a guest. Each has 512 entries of 32 bits. An entry of a table of the upper two levels
 * is the number of a table + 1, one of the last level a shadow pte: pfn in bits 31 to 12, and SPTE_*. 0 is none.
 *
 * A table knows where it stands: in which directory, and for which pages; so an entry that is met by the reverse map tells its address.
 * Use: `alloc` the roots first; `find` and `make` go down; `free` gives back what is empty.
 */

/** Flags of a shadow pte, where Sv39 has them. The rights are the guest's, and SPTE_W only after a write. */
export const SPTE_V = 1;
export const SPTE_R = 2;
export const SPTE_W = 4;
export const SPTE_X = 8;
export const SPTE_U = 16;
/** Handed out to the hart since `clearFlushYoung` looked last. */
export const SPTE_A = 64;

export const NR_ENTRIES = 512;
/** Levels of tables: 0 has ptes. */
export const ROOT_LEVEL = 2;

export class ShadowTables {
  readonly nrTables: number;
  readonly entries: Int32Array;
  /** By table: its directory (-1: free), its level, and the number of the first page that it is for. */
  readonly directory: Int32Array;
  readonly level: Int32Array;
  readonly firstVpn: Int32Array;
  private readonly freeTables: number[];

  constructor(nrTables: number) {
    this.nrTables = nrTables;
    this.entries = new Int32Array(nrTables * NR_ENTRIES);
    this.directory = new Int32Array(nrTables).fill(-1);
    this.level = new Int32Array(nrTables);
    this.firstVpn = new Int32Array(nrTables);
    this.freeTables = Array.from({ length: nrTables }, (_, i) => nrTables - 1 - i);
  }

  get nrFree(): number {
    return this.freeTables.length;
  }

  /** An empty table; there must be a free one. */
  alloc(directory: number, level: number, firstVpn: number): number {
    const table = this.freeTables.pop()!;
    this.directory[table] = directory;
    this.level[table] = level;
    this.firstVpn[table] = firstVpn;
    return table;
  }

  /** Its entries are 0. */
  free(table: number): void {
    this.directory[table] = -1;
    this.freeTables.push(table);
  }

  /** Index of the last-level entry for `vpn` (27 bits) below `root`, or -1. */
  find(root: number, vpn: number): number {
    const middle = this.entries[root * NR_ENTRIES + (vpn >>> 18)]! - 1;
    if (middle < 0) return -1;
    const leaf = this.entries[middle * NR_ENTRIES + ((vpn >>> 9) & 511)]! - 1;
    return leaf < 0 ? -1 : leaf * NR_ENTRIES + (vpn & 511);
  }

  /** As `find`, and makes what lacks: at most two tables, which must be free. */
  make(root: number, vpn: number): number {
    const directory = this.directory[root]!;
    const middle = this.child(root * NR_ENTRIES + (vpn >>> 18), directory, 1, vpn & ~0x3ffff);
    const leaf = this.child(middle * NR_ENTRIES + ((vpn >>> 9) & 511), directory, 0, vpn & ~0x1ff);
    return leaf * NR_ENTRIES + (vpn & 511);
  }

  private child(index: number, directory: number, level: number, firstVpn: number): number {
    if (this.entries[index] === 0) this.entries[index] = this.alloc(directory, level, firstVpn) + 1;
    return this.entries[index]! - 1;
  }

  /** Directory and page (27 bits) of a last-level entry. */
  directoryOf(index: number): number {
    return this.directory[index >>> 9]!;
  }

  vpnOf(index: number): number {
    return this.firstVpn[index >>> 9]! + (index & 511);
  }
}
