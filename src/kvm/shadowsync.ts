import { pfnToPa } from '../mm/index.js';
import { PTE_A, PTE_D, PTE_G, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from '../riscv/index.js';
import { DIRECT_V } from './memslot.js';
import type { GfnLookup } from './rmap.js';
import {
  COUNTER_SYNCS,
  ENTRIES,
  PAGE_GFN,
  PAGE_ROLE,
  PAGE_SYNCED,
  roleIsDirect,
  roleLevel,
  roleRights,
  type ShadowPool,
} from './shadowpool.js';
import type { ShadowTree } from './shadowtree.js';
import { SPTE_R, SPTE_W, SPTE_X } from './spte.js';

/**
 * Compares shadow entries with the guest's ptes (KVM: sync_page), and drops what differs: an entry stays as long as the pte it was
 * made from would make it again, or one with more rights.
 *
 * The guest's table is read where its direct entry says. Another hart may be writing it: of the two halves of a pte that
 * are read, each that does not agree drops the entry, and if both do, the pte was that one at some time since the fence.
 * Where the table is not in host memory, nothing can be said: the caller waits for it, or drops.
 */
export class ShadowSync {
  private readonly pool: ShadowPool;
  private readonly tree: ShadowTree;
  private readonly slots: GfnLookup;
  private readonly i32: Int32Array;

  constructor(memory: { buffer: SharedArrayBuffer }, pool: ShadowPool, tree: ShadowTree, slots: GfnLookup) {
    this.pool = pool;
    this.tree = tree;
    this.slots = slots;
    this.i32 = new Int32Array(memory.buffer);
  }

  /** All entries of a page; false, and nothing is done, where the guest's table is absent. */
  syncPage(page: number): boolean {
    const { pool } = this;
    const table = this.tableAt(page);
    if (table < 0) return false;
    const first = page * ENTRIES;
    for (let slot = 0; slot < ENTRIES; slot++)
      if (pool.entries.readOnce(first + slot) !== 0) this.compare(first + slot, table + 2 * slot);
    pool.set(page, PAGE_SYNCED, pool.generation);
    pool.count(COUNTER_SYNCS, 1);
    return true;
  }

  /** The entries on the way to `vpn`. */
  syncPath(root: number, vpn: number): void {
    let page = root;
    for (let level = 2; level >= 0; level--) {
      const slot = (vpn >>> (9 * level)) & (ENTRIES - 1);
      if (roleIsDirect(this.pool.get(page, PAGE_ROLE)) || !this.syncEntry(page, slot)) return;
      page = this.tree.below(page, slot);
    }
  }

  /** Whether there is an entry, which agrees. */
  private syncEntry(page: number, slot: number): boolean {
    const index = page * ENTRIES + slot;
    if (this.pool.entries.readOnce(index) === 0) return false;
    const table = this.tableAt(page);
    if (table >= 0) return this.compare(index, table + 2 * slot);
    this.tree.drop(index);
    return false;
  }

  /** Index in `i32` of the guest's table that a page shadows, or -1 while it is not in host memory. */
  private tableAt(page: number): number {
    const role = this.pool.get(page, PAGE_ROLE);
    const gfn = this.pool.get(page, PAGE_GFN) >>> 0;
    // A root beyond what memslots reach has no entries.
    return roleLevel(role) === 2 && role >>> 20 !== 0 ? -1 : this.frameAt(gfn);
  }

  /** Index in `i32` of guest frame `gfn`, or -1 while it is not in host memory. */
  frameAt(gfn: number): number {
    const slot = this.slots.find(gfn);
    const direct = slot === undefined ? 0 : slot.direct.readOnce(gfn - slot.baseGfn);
    return (direct & DIRECT_V) === 0 ? -1 : pfnToPa(direct >>> 12) >>> 2;
  }

  /** Drops the entry at `index` unless the pte at `at` makes it. */
  private compare(index: number, at: number): boolean {
    const low = this.i32[at]!;
    const high = this.i32[at + 1]!;
    const wellFormed = (low & PTE_V) !== 0 && (low & (PTE_R | PTE_W)) !== PTE_W && high >>> 22 === 0;
    if (wellFormed && this.agrees(index, low, (high & 0x3fffff) * 2 ** 22 + (low >>> 10))) return true;
    this.tree.drop(index);
    return false;
  }

  private agrees(index: number, low: number, ppn: number): boolean {
    const { pool } = this;
    const entry = pool.entries.readOnce(index);
    if (roleLevel(pool.get(index >>> 9, PAGE_ROLE)) === 0) return this.leafAgrees(index, entry, low, ppn);
    const below = entry >>> 1;
    if (ppn !== pool.get(below, PAGE_GFN) >>> 0) return false;
    const role = pool.get(below, PAGE_ROLE);
    if (roleIsDirect(role))
      return (low & PTE_A) !== 0 && (low & (PTE_R | PTE_X)) !== 0 && rights(low) === roleRights(role);
    return (low & (PTE_R | PTE_X | PTE_A | PTE_D | PTE_U)) === 0;
  }

  private leafAgrees(index: number, spte: number, low: number, ppn: number): boolean {
    if (ppn !== this.tree.rmap.gfn(index) || (low & PTE_A) === 0) return false;
    return ((spte ^ low) & (PTE_U | PTE_G)) === 0 && (spte & (SPTE_R | SPTE_W | SPTE_X) & ~rights(low)) === 0;
  }
}

/** R, W, X, U and G that a leaf pte gives: W only where it is dirty, so that the first store is seen. */
function rights(low: number): number {
  return low & (PTE_R | PTE_X | PTE_U | PTE_G | ((low & PTE_D) !== 0 ? PTE_W : 0));
}
