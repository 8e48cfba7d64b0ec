import type { Hart } from '../riscv/index.js';
import { Rmap } from './rmap.js';
import { NR_ENTRIES, ROOT_LEVEL, ShadowTables, SPTE_A, SPTE_W } from './shadowtables.js';

/**
 * The shadow page directories: what the hart really translates by. There are NR_PGDIRS for the roots of the guest's processes, of which one is present and a random one makes
 * room for a new root, and one more for the kernel's half, which all of them share.
 *
 * An entry that goes while the hart may be using it takes its translation along: the guest is bumped out (S10). So the TLB never knows more than the present
 * directory and the kernel's. All of it runs on the mm thread, where the guest is outside.
 */

export const NR_PGDIRS = 4;
/** The directory of the kernel's half. */
const KERNEL = NR_PGDIRS;
/** Where the kernel's half begins while nobody has said so: nowhere. */
const NO_KERNEL = NR_ENTRIES;
/** In place of a root: the directory is no one's; memory one to one. */
export const NO_ROOT = -2;
export const LINEAR_ROOT = -1;
/** What one address needs below its root. */
const TABLES_OF_PATH = ROOT_LEVEL;
/** The roots, and a path below each of two of them, with room to choose. */
export const MIN_SHADOW_TABLES = 16;

export class PageDirectories {
  readonly tables: ShadowTables;
  readonly rmap: Rmap;
  /** By directory: guest-physical address of the guest's root. */
  readonly roots = new Float64Array(NR_PGDIRS).fill(NO_ROOT);
  current = 0;
  /** Index of a root's first entry of the kernel's half. */
  kernelIndex = NO_KERNEL;
  /** By page of the guest: the frame of which code is decoded, or 0. It is derived from the frame as an entry is, and goes with it. */
  readonly codes: Int32Array;
  nrZapped = 0;
  nrSwitches = 0;
  nrVictims = 0;
  hart!: Hart;
  private readonly random: () => number;

  /** `nrGfns`: pages of the guest. `hart` is set before anything is shown. */
  constructor(nrGfns: number, nrTables: number, random: () => number) {
    this.random = random;
    this.tables = new ShadowTables(nrTables);
    this.rmap = new Rmap(nrGfns, nrTables * NR_ENTRIES);
    this.codes = new Int32Array(nrGfns);
    // Table n is the root of directory n.
    for (let directory = 0; directory <= KERNEL; directory++) this.tables.alloc(directory, ROOT_LEVEL, 0);
  }

  /** The guest's root that the hart runs under. */
  get root(): number {
    return this.roots[this.current]!;
  }

  /** The directory for `vpn` in the address space of `directory`. */
  directoryFor(directory: number, vpn: number): number {
    return vpn >>> 18 >= this.kernelIndex ? KERNEL : directory;
  }

  /** Index of the entry for `vpn` (27 bits) in the present address space, or -1. */
  find(vpn: number): number {
    return this.tables.find(this.directoryFor(this.current, vpn), vpn);
  }

  /** Sets the entry for `vpn` in the present address space, which shows page `gfn` of the guest. Returns its index. */
  install(vpn: number, gfn: number, spte: number): number {
    let index = this.find(vpn);
    if (index < 0) {
      this.makeRoom();
      index = this.tables.make(this.directoryFor(this.current, vpn), vpn);
    } else if (this.tables.entries[index] !== 0) {
      this.clear(index);
    }
    this.tables.entries[index] = spte;
    this.rmap.add(index, gfn);
    return index;
  }

  /** Tables run out: other address spaces go first, by chance, then all. */
  private makeRoom(): void {
    for (let n = 0; n < NR_PGDIRS && this.tables.nrFree < TABLES_OF_PATH; n++) {
      const victim = this.victim();
      if (victim !== this.current) this.release(victim);
    }
    if (this.tables.nrFree < TABLES_OF_PATH) this.releaseAll();
  }

  private victim(): number {
    return Math.floor(this.random() * NR_PGDIRS);
  }

  /** The entry goes, from its chain and from the TLB. */
  clear(index: number): void {
    this.tables.entries[index] = 0;
    this.rmap.remove(index);
    if (this.isVisible(this.tables.directoryOf(index))) this.hart.tlbFlushPage(vpnToVa(this.tables.vpnOf(index)));
  }

  /** Whether the hart may be using it. */
  isVisible(directory: number): boolean {
    return directory === this.current || directory === KERNEL;
  }

  // What the guest asks for.

  /** The directory whose root is `root`, or -1. */
  directoryOf(root: number): number {
    return this.roots.indexOf(root);
  }

  /** Linux: guest_new_pagetable. The root gets a directory, perhaps another's. */
  switchTo(root: number): void {
    this.nrSwitches++;
    let directory = this.directoryOf(root);
    if (directory < 0) {
      directory = this.victim();
      if (this.roots[directory] !== NO_ROOT) this.nrVictims++;
      this.release(directory);
      this.roots[directory] = root;
    }
    this.current = directory;
    this.hart.tlbFlushAll();
  }

  /** Everything of a directory, but not who it belongs to. */
  release(directory: number): void {
    this.releaseEntries(directory, 0, NR_ENTRIES);
  }

  releaseAll(): void {
    for (let directory = 0; directory <= KERNEL; directory++) this.release(directory);
  }

  /** The kernel's half of all address spaces begins at this index of the root. */
  setKernelIndex(index: number): void {
    this.releaseAll();
    this.kernelIndex = index;
  }

  /** Entry `index` of a root has changed, whose directory it is, or -1: the kernel's half is everybody's. */
  releaseRootEntry(directory: number, index: number): void {
    const holder = this.directoryFor(directory, index << 18);
    if (holder >= 0) this.releaseEntries(holder, index, index + 1);
  }

  private releaseEntries(directory: number, first: number, end: number): void {
    for (let i = first; i < end; i++) this.releaseChild(directory * NR_ENTRIES + i, ROOT_LEVEL);
    if (this.isVisible(directory)) this.hart.tlbFlushAll();
  }

  /** The same of the second-level entry for `vpn`. */
  releaseMiddleEntry(directory: number, vpn: number): void {
    const holder = this.directoryFor(directory, vpn);
    if (holder < 0) return;
    const middle = this.tables.entries[holder * NR_ENTRIES + (vpn >>> 18)]! - 1;
    if (middle >= 0) this.releaseChild(middle * NR_ENTRIES + ((vpn >>> 9) & 511), 1);
    if (this.isVisible(holder)) this.hart.tlbFlushAll();
  }

  /** The table that an entry of `level` leads to, with all below it. */
  private releaseChild(index: number, level: number): void {
    const { entries } = this.tables;
    const table = entries[index]! - 1;
    if (table < 0) return;
    entries[index] = 0;
    for (let i = table * NR_ENTRIES; i < (table + 1) * NR_ENTRIES; i++) {
      if (entries[i] === 0) continue;
      if (level > 1) this.releaseChild(i, level - 1);
      else {
        entries[i] = 0;
        this.rmap.remove(i);
      }
    }
    this.tables.free(table);
  }

  // What the host asks for (notify.ts).

  /** Pages [first, end) of the guest leave their frames: every entry that shows one goes. Returns how many there were. */
  zap(first: number, end: number): number {
    let nr = 0;
    for (let gfn = first; gfn < end; gfn++) nr += this.zapGfn(gfn);
    this.nrZapped += nr;
    return nr;
  }

  private zapGfn(gfn: number): number {
    let nr = 0;
    for (let index: number; (index = this.rmap.first(gfn)) >= 0; nr++) this.clear(index);
    this.dropCode(gfn);
    return nr;
  }

  /** Whether the guest used its pages [first, end) since the last call (N14). */
  clearYoung(first: number, end: number): boolean {
    const { entries } = this.tables;
    let young = false;
    for (let gfn = first; gfn < end; gfn++) {
      for (let index = this.rmap.first(gfn); index >= 0; index = this.rmap.after(index)) {
        if ((entries[index]! & SPTE_A) === 0) continue;
        young = true;
        entries[index]! &= ~SPTE_A;
        if (this.isVisible(this.tables.directoryOf(index))) this.hart.tlbFlushPage(vpnToVa(this.tables.vpnOf(index)));
      }
    }
    return young;
  }

  /** The same question, which changes nothing. */
  testYoung(first: number, end: number): boolean {
    const { entries } = this.tables;
    for (let gfn = first; gfn < end; gfn++)
      for (let index = this.rmap.first(gfn); index >= 0; index = this.rmap.after(index))
        if ((entries[index]! & SPTE_A) !== 0) return true;
    return false;
  }

  /** How many entries show pages [first, end); those alone that may write, if asked. */
  count(first: number, end: number, writable: boolean): number {
    const { entries } = this.tables;
    let nr = 0;
    for (let gfn = first; gfn < end; gfn++)
      for (let index = this.rmap.first(gfn); index >= 0; index = this.rmap.after(index))
        if (!writable || (entries[index]! & SPTE_W) !== 0) nr++;
    return nr;
  }

  /** Code decoded from the page goes: the page leaves its frame, or others have written it. */
  dropCode(gfn: number): void {
    if (this.codes[gfn] === 0) return;
    this.hart.dropCode(this.codes[gfn]!);
    this.codes[gfn] = 0;
  }
}

/** First byte of a virtual page of Sv39, sign-extended from bit 38. */
export function vpnToVa(vpn: number): number {
  return ((vpn << 5) >> 5) * 4096;
}
