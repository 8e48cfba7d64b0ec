import type { Host } from '../mm/index.js';
import { DIRECT_V, DIRECT_W } from './memslot.js';
import { type GfnLookup, Rmap } from './rmap.js';
import { ENTRIES, MIN_SHADOW_PAGES, PAGE_SUPER, PAGE_VPN, type ShadowDescriptor, ShadowPool } from './shadowpool.js';

/**
 * Shadow page tables: for each root of the guest (a value of satp) a tree of the guest's own shape, three levels of 512
 * entries, whose leaves map the guest's virtual pages straight to host frames (Linux: arch/x86/kvm/mmu, shadow paging).
 *
 * A shadow entry is derived from a guest pte and a direct entry (memslot.ts) and is dropped as soon as either may have
 * changed: by `fence` for the first (sfence.vma), by the notifier for the second, which finds it by the reverse map
 * (`zapChain`).
 *
 * Shadow pages come from a pool of fixed size; when it is empty the least recently used root is freed whole.
 *
 * All state is in shared words: another thread makes its own object by `attach` from the `descriptor`, and both work on the
 * same tables. Whoever calls anything here holds the VM's mmu lock. A root is a number that stays its own: `isLive` says
 * whether the pool has taken it back; then `getRoot` again.
 *
 * TLBs hang on direct entries, not on shadow entries: one may outlive its shadow entry. So `onZap` is told of entries
 * that go because their direct entry goes or was young, in this thread; TLBs of other threads are their owners' to flush, by request.
 */

/** Shadow entries: pfn in bits 31..12, and these. The rights are the guest's own, less what the direct entry lacks. */
export const SPTE_V = 1;
export const SPTE_R = 2;
export const SPTE_W = 4;
export const SPTE_X = 8;
export const SPTE_U = 16;
/** Set when a translation through the entry is handed out; taken by aging. */
export const SPTE_A = 64;

/** Told of each virtual page (27 bits of its number), of whatever root, whose translation this thread's TLBs must forget. */
export type OnZap = (vpn: number) => void;

export class ShadowPages {
  private readonly pool: ShadowPool;
  private readonly slots: GfnLookup;
  private readonly rmap: Rmap;
  private readonly onZap: OnZap;

  private constructor(pool: ShadowPool, slots: GfnLookup, onZap: OnZap) {
    this.pool = pool;
    this.slots = slots;
    this.onZap = onZap;
    this.rmap = new Rmap(slots, pool.gfns, pool.next, pool.prev);
  }

  /** Throws KernelError EINVAL for an impossible number of pages, ENOMEM where the arena has not so much. */
  static create(host: Host, slots: GfnLookup, nrPages: number, onZap: OnZap): ShadowPages {
    return new ShadowPages(ShadowPool.create(host, nrPages), slots, onZap);
  }

  /** The same tables in another thread; `slots` is that thread's view of the memslots. */
  static attach(
    memory: { buffer: SharedArrayBuffer },
    descriptor: ShadowDescriptor,
    slots: GfnLookup,
    onZap: OnZap,
  ): ShadowPages {
    return new ShadowPages(new ShadowPool(memory, descriptor), slots, onZap);
  }

  get descriptor(): ShadowDescriptor {
    return this.pool.descriptor;
  }

  /** Drops everything, and gives the memory back: nobody else is attached any more. */
  free(host: Host): void {
    for (let root = this.pool.firstRoot(); root >= 0; root = this.pool.firstRoot()) this.zapRoot(root);
    this.pool.destroy(host);
  }

  /** Handle of the root for a value of satp. */
  getRoot(satp: bigint): number {
    let root = this.pool.findRoot(satp);
    if (root < 0) {
      this.reserve(MIN_SHADOW_PAGES, -1);
      root = this.pool.addRoot(satp);
    }
    this.pool.touch(root);
    return this.pool.handle(root);
  }

  isLive(handle: number): boolean {
    return this.pool.isLive(handle);
  }

  /** Index of the leaf entry of `vpn` (27 bits), or -1 while the tree does not reach it. The root is live. */
  leafIndex(handle: number, vpn: number): number {
    const { entries } = this.pool;
    const middle = entries.readOnce(this.pool.pageOf(handle) * ENTRIES + (vpn >>> 18));
    if (middle === 0) return -1;
    const leaf = entries.readOnce((middle >>> 1) * ENTRIES + ((vpn >>> 9) & 511));
    return leaf === 0 ? -1 : (leaf >>> 1) * ENTRIES + (vpn & 511);
  }

  /** The leaf entry at `index` of `leafIndex`; 0 where there is none. */
  spte(index: number): number {
    return index < 0 ? 0 : this.pool.entries.readOnce(index);
  }

  /** Calls `fn` for each leaf entry of all roots. */
  forEachLeaf(fn: (index: number, spte: number) => void): void {
    for (let root = this.pool.firstRoot(); root >= 0; root = this.pool.nextRoot(root)) {
      this.forEachLink(root, (middle) => {
        this.forEachLink(middle, (leaf) => {
          for (let index = leaf * ENTRIES; index < (leaf + 1) * ENTRIES; index++)
            if (this.spte(index) !== 0) fn(index, this.spte(index));
        });
      });
    }
  }

  private forEachLink(page: number, fn: (below: number) => void): void {
    for (let i = page * ENTRIES; i < (page + 1) * ENTRIES; i++) {
      const link = this.pool.entries.readOnce(i);
      if (link !== 0) fn(link >>> 1);
    }
  }

  /** Entries of the chain that begins with link `head`. */
  chain(head: number): number[] {
    const indices: number[] = [];
    for (let index = head - 1; index >= 0; index = this.rmap.after(index)) indices.push(index);
    return indices;
  }

  /** Guest frame that the leaf entry at `index` shows. */
  gfn(index: number): number {
    return this.rmap.gfn(index);
  }

  markAccessed(index: number): void {
    this.pool.entries.writeOnce(index, this.pool.entries.readOnce(index) | SPTE_A);
  }

  /**
   * Maps `vpn` to guest frame `gfn` by its direct entry, with the guest's rights `flags` (SPTE_R, _W, _X, _U; W only where
   * the guest's pte is dirty) less what the direct entry lacks; `level` is that of the guest's leaf pte (0: a 4 KiB page).
   * Returns the entry, or 0 where the direct entry has gone meanwhile: the translation begins again.
   */
  install(handle: number, vpn: number, gfn: number, flags: number, level: number): number {
    const slot = this.slots.find(gfn);
    const direct = slot === undefined ? 0 : slot.direct.readOnce(gfn - slot.baseGfn);
    if ((direct & DIRECT_V) === 0) return 0;
    const root = this.pool.pageOf(handle);
    this.reserve(MIN_SHADOW_PAGES - 1, root);
    const middle = this.descend(root, vpn >>> 18, vpn & ~0x3ffff);
    const leaf = this.descend(middle, (vpn >>> 9) & 511, vpn & ~511);
    if (level > 0) this.pool.set(level === 1 ? leaf : middle, PAGE_SUPER, 1);
    const index = leaf * ENTRIES + (vpn & 511);
    if (this.spte(index) !== 0) this.zapEntry(index);
    const lacking = (direct & DIRECT_W) === 0 ? SPTE_W : 0;
    const spte = (direct & ~0xfff) | (flags & ~lacking) | SPTE_V | SPTE_A;
    this.pool.entries.writeOnce(index, spte);
    this.rmap.add(index, gfn);
    return spte;
  }

  /** The page that entry `slot` of `page` links to (a link is page number << 1 | V), taken from the pool if need be. */
  private descend(page: number, slot: number, firstVpn: number): number {
    const link = this.pool.entries.readOnce(page * ENTRIES + slot);
    if (link !== 0) return link >>> 1;
    const below = this.pool.alloc(firstVpn);
    this.pool.entries.writeOnce(page * ENTRIES + slot, (below << 1) | SPTE_V);
    return below;
  }

  /** Makes `nrPages` free, at the expense of other roots first, then of `keep`'s own tree. */
  private reserve(nrPages: number, keep: number): void {
    while (this.pool.nrFree < nrPages) {
      const victim = this.pool.leastRecentlyUsed(keep);
      if (victim < 0) this.zapTree(keep);
      else this.zapRoot(victim);
    }
  }

  private zapRoot(root: number): void {
    this.zapTree(root);
    this.pool.removeRoot(root);
  }

  /** Drops everything below the top of `root`, which stays in use. */
  private zapTree(root: number): void {
    this.forEachLink(root, (middle) => {
      this.forEachLink(middle, (leaf) => {
        this.zapLeaf(leaf);
        this.pool.free(leaf);
      });
      this.pool.free(middle);
    });
    this.pool.clear(root);
  }

  private zapLeaf(leaf: number): void {
    for (let i = leaf * ENTRIES; i < (leaf + 1) * ENTRIES; i++) {
      if (this.pool.entries.readOnce(i) !== 0) this.zapEntry(i);
    }
  }

  /** `sfence.vma`, for one page or all, of one address space or all. The hart's own TLB is the hart's to flush. */
  fence(vpn: number | undefined, asid: number | undefined): void {
    for (let root = this.pool.firstRoot(); root >= 0; root = this.pool.nextRoot(root)) {
      if (asid !== undefined && this.pool.asid(root) !== asid) continue;
      if (vpn === undefined) this.zapTree(root);
      else this.zapVpn(root, vpn);
    }
  }

  /** An entry made from a superpage goes with the whole superpage. */
  private zapVpn(root: number, vpn: number): void {
    const middle = this.pool.entries.readOnce(root * ENTRIES + (vpn >>> 18));
    if (middle !== 0 && this.pool.get(middle >>> 1, PAGE_SUPER) === 1) {
      this.zapTree(root);
      return;
    }
    const index = this.leafIndex(root, vpn);
    if (index < 0) return;
    if (this.pool.get(index >>> 9, PAGE_SUPER) === 1) this.zapLeaf(index >>> 9);
    else if (this.spte(index) !== 0) this.zapEntry(index);
  }

  /** Drops every entry of the chain that begins with link `head` (a word of the memslot's reverse map). */
  zapChain(head: number): void {
    for (let index = head - 1; index >= 0; ) {
      const after = this.rmap.after(index);
      this.zapEntry(index);
      index = after;
    }
  }

  /** Takes the right to write from every entry of a chain. Who calls it flushes all TLBs. */
  protectChain(head: number): void {
    for (let index = head - 1; index >= 0; index = this.rmap.after(index))
      this.pool.entries.writeOnce(index, this.spte(index) & ~SPTE_W);
  }

  /** Takes the accessed bits of a chain; entries that were young leave the TLBs, so that their next use shows. */
  clearYoungChain(head: number): boolean {
    let young = false;
    for (let index = head - 1; index >= 0; index = this.rmap.after(index)) {
      const spte = this.spte(index);
      if ((spte & SPTE_A) === 0) continue;
      young = true;
      this.pool.entries.writeOnce(index, spte & ~SPTE_A);
      this.tellZap(index);
    }
    return young;
  }

  private zapEntry(index: number): void {
    this.rmap.remove(index);
    this.pool.entries.writeOnce(index, 0);
    this.tellZap(index);
  }

  private tellZap(index: number): void {
    this.onZap(this.pool.get(index >>> 9, PAGE_VPN) + (index & 511));
  }
}
