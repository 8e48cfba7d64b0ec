import { type Host, PAGE_SIZE } from '../mm/index.js';
import { DIRECT_A, DIRECT_T, DIRECT_V, DIRECT_W } from './memslot.js';
import type { GfnLookup, GfnSlot } from './rmap.js';
import { LeafCache } from './shadowcache.js';
import { ShadowFences } from './shadowfence.js';
import {
  COUNTER_DROPPED,
  COUNTER_EVICTIONS,
  COUNTER_INSTALLS,
  COUNTER_PREFETCHED,
  COUNTER_SYNCS,
  directRole,
  ENTRIES,
  NO_VPN,
  PAGE_FENCED,
  PAGE_ROLE,
  PAGE_SYNCED,
  PAGE_USED,
  POOL_GENERATION,
  roleIsDirect,
  rootRole,
  type ShadowDescriptor,
  ShadowPool,
  tableRole,
} from './shadowpool.js';
import { ShadowSync } from './shadowsync.js';
import { ShadowTree } from './shadowtree.js';
import { SPTE_A, SPTE_G, SPTE_R, SPTE_U, SPTE_V, SPTE_W, SPTE_X } from './spte.js';

/**
 * Shadow page tables: trees of the guest's own shape, three levels of 512 entries, whose leaves map the guest's virtual pages
 * straight to host frames (Linux: arch/x86/kvm/mmu, shadow paging).
 *
 * A shadow page belongs to a page of the guest's tables, not to an address space: where two of these share a table, as all
 * of a kernel's do for its own half, they share its shadow, and a new one finds it filled. A superpage of the guest is shadowed by
 * a page of its own ("direct"), shared by all who map the same guest frames with the same rights.
 *
 * A shadow entry is made from a guest pte and a direct entry (memslot.ts). When the direct entry goes, it goes
 * (`zapGfn`, by the reverse map). When the guest changes its pte, nothing happens until it fences: the guest's tables are not
 * write-protected. A fence counts up a generation and nothing else (shadowfence.ts); the next look-up through a page whose generation is
 * too old compares it with the guest's ptes and drops only what differs (shadowsync.ts). What this rests on:
 *
 *  - Everything on the way of a look-up was compared since the last fence that concerns its ASID or address, so its
 *    translation was valid at some time since then, which is what the privileged manual asks (section 12.2.1).
 *  - A page that a new link leads to is compared first, and all below it: an address space to which it is new has not
 *    fenced for what the page was before, nor had to.
 *  - What a walk of the guest's tables found is entered only if no fence came between, of whatever hart: else it serves
 *    that one access (`install`).
 *
 * Pages are few; when none is free, one that was not used lately is taken out of its parents and given away. A root may
 * go too: its handle is dead then (`isLive`), `getRoot` again.
 *
 * All state is in shared words: another thread makes its own object by `attach` from the `descriptor`, and both work on the
 * same tables. Whoever calls anything here holds the VM's mmu lock. Use: `getRoot(satp)`; on a TLB miss `peek`; `lookup`, `spte`,
 * `markAccessed`; or, if there is none, `generation`, the lock given up, a walk of the guest's tables, `install`.
 *
 * TLBs hang on direct entries, not on shadow entries: a translation may stay in a TLB when its shadow entry is gone. `onZap` is
 * told what this thread's TLBs must forget because the direct entry goes or its use was taken note of; those of other
 * threads are their owners' to flush, by request of the caller.
 */

export type { ShadowDescriptor } from './shadowpool.js';

/** Told of a virtual page (27 bits of its number), in whatever address space, that TLBs must forget; ANY_VPN: it may be any. */
export type OnZap = (vpn: number) => void;
export const ANY_VPN = NO_VPN;

/** What a walk of the guest's tables found (Sv39Walk). */
export interface GuestWalk {
  readonly gpa: number;
  /** PTE_* flags of the leaf. */
  readonly flags: number;
  readonly level: number;
  /** ppn of the table of each level that was walked. */
  readonly tables: ArrayLike<number>;
}

const RIGHTS = SPTE_R | SPTE_W | SPTE_X | SPTE_U | SPTE_G;
const PTE_D = 128;
/** Room for what one call counts up. */
const MAX_GENERATION = 0x7fff0000;

export class ShadowPages {
  /** For `checkShadowPages`, as is `tree`. */
  readonly pool: ShadowPool;
  readonly tree: ShadowTree;
  private readonly slots: GfnLookup;
  private readonly sync: ShadowSync;
  private readonly fences: ShadowFences;
  private readonly onZap: OnZap;
  private readonly cache = new LeafCache();
  /** Level of the guest's pte that the last look-up's entry comes from. */
  level = 0;
  /** The leaf page of the last look-up, and the generation that it was good for. */
  leaf = -1;
  leafGeneration = 0;
  /** Where the last `install` has entered what it returned; -1: nowhere. */
  installed = -1;
  private readonly syncPath = (root: number, vpn: number): void => this.sync.syncPath(root, vpn);

  private constructor(memory: { buffer: SharedArrayBuffer }, pool: ShadowPool, slots: GfnLookup, onZap: OnZap) {
    this.pool = pool;
    this.slots = slots;
    this.onZap = onZap;
    this.tree = new ShadowTree(pool, slots);
    this.sync = new ShadowSync(memory, pool, this.tree, slots);
    this.fences = new ShadowFences(pool);
  }

  /** Throws KernelError EINVAL for an impossible number of pages, ENOMEM where the arena has not so much. */
  static create(host: Host, slots: GfnLookup, nrPages: number, onZap: OnZap): ShadowPages {
    return new ShadowPages(host.memory, ShadowPool.create(host, nrPages), slots, onZap);
  }

  /** The same tables in another thread; `slots` is that thread's view of the memslots. */
  static attach(
    memory: { buffer: SharedArrayBuffer },
    descriptor: ShadowDescriptor,
    slots: GfnLookup,
    onZap: OnZap,
  ): ShadowPages {
    return new ShadowPages(memory, new ShadowPool(memory, descriptor), slots, onZap);
  }

  get descriptor(): ShadowDescriptor {
    return this.pool.descriptor;
  }

  /** Gives the memory back, when nobody is attached any more and the memslots go too. */
  free(host: Host): void {
    this.pool.destroy(host);
  }

  // Look-up.

  /**
   * Handle of the root for a value of satp, now that of hart `hart` (below 64). To a hart in which it was not before, all
   * of it is new: what others found there is compared first, for that hart had nothing to fence for.
   */
  getRoot(satp: bigint, hart: number): number {
    const ppn = Number(satp & 0xfffffffffffn);
    const role = rootRole(ppn, Number((satp >> 44n) & 0xffffn));
    const gfn = ppn % 2 ** 32;
    const found = this.pool.find(gfn, role);
    this.tree.protect(-1, -1);
    const root = found < 0 ? this.tree.take(gfn, role, 0) : found;
    if (!this.pool.noteHart(root, hart) && found >= 0) this.pool.set(root, PAGE_FENCED, this.pool.nextGeneration());
    return this.pool.handle(root);
  }

  isLive(handle: number): boolean {
    return this.pool.isLive(handle);
  }

  /**
   * The shadow entry of `vpn` (27 bits), or 0, without the lock: 0 may mean that it takes the lock to know. For a thread whose TLB
   * is flushed by request, and who acknowledges that later: the entry may be going. Its use shows: who takes the entry away sees SPTE_A in what he takes.
   *
   * The twin of riscv/refill.ts, which does the same in WebAssembly, and tells why the generation is not looked at again after the mark.
   */
  peek(handle: number, vpn: number): number {
    const { pool } = this;
    const generation = pool.words.load(POOL_GENERATION);
    const leaf = this.cache.get(handle, vpn >>> 9, generation);
    if (leaf < 0) return 0;
    const index = leaf * ENTRIES + (vpn & 511);
    const spte = pool.entries.load(index);
    if (spte === 0 || !this.isStill(handle, generation)) return 0;
    if ((spte & SPTE_A) === 0 && pool.entries.compareExchange(index, spte, spte | SPTE_A) !== spte) return 0;
    this.level = this.cache.level(handle, vpn >>> 9);
    this.leaf = leaf;
    this.leafGeneration = generation;
    return spte;
  }

  /** A leaf page may have been evicted, and be another's by now: then the generation has moved, or begun anew without the root. */
  private isStill(handle: number, generation: number): boolean {
    return this.pool.words.load(POOL_GENERATION) === generation && this.pool.isLive(handle);
  }

  /** Index of the leaf entry of `vpn` (27 bits), or -1 where there is none. The root is live. Takes note of the fences. Sets `level`. */
  lookup(handle: number, vpn: number): number {
    let leaf = this.cache.get(handle, vpn >>> 9, this.pool.generation);
    if (leaf < 0) leaf = this.lookupSlow(handle, vpn);
    else this.level = this.cache.level(handle, vpn >>> 9);
    if (leaf < 0) return -1;
    this.leaf = leaf;
    this.leafGeneration = this.pool.generation;
    const index = leaf * ENTRIES + (vpn & 511);
    return this.pool.entries.readOnce(index) === 0 ? -1 : index;
  }

  /** The leaf page, after all on the way has been compared as far as fences demand it; or -1. */
  private lookupSlow(handle: number, vpn: number): number {
    const { pool, tree } = this;
    const root = pool.pageOf(handle);
    if (this.fences.isBehind(root)) this.fences.catchUp(root, this.syncPath);
    let needed = this.fences.needed(root);
    if (!this.isCurrent(root, needed)) return -1;
    const middle = tree.below(root, vpn >>> 18);
    if (middle < 0) return -1;
    needed = Math.max(needed, pool.get(middle, PAGE_FENCED));
    if (!this.isCurrent(middle, needed)) return -1;
    const leaf = tree.below(middle, (vpn >>> 9) & 511);
    if (leaf < 0 || !this.isCurrent(leaf, Math.max(needed, pool.get(leaf, PAGE_FENCED)))) return -1;
    this.level = this.isDirect(middle) ? 2 : this.isDirect(leaf) ? 1 : 0;
    this.cache.put(handle, vpn >>> 9, pool.generation, leaf, this.level);
    return leaf;
  }

  /** Whether the page agrees with the guest's ptes as of generation `needed`, after a comparison if need be. */
  private isCurrent(page: number, needed: number): boolean {
    this.pool.set(page, PAGE_USED, 1);
    return this.pool.get(page, PAGE_SYNCED) >= needed || this.sync.syncPage(page);
  }

  private isDirect(page: number): boolean {
    return roleIsDirect(this.pool.get(page, PAGE_ROLE));
  }

  /** The leaf entry at `index` of `lookup`; 0 where there is none. */
  spte(index: number): number {
    return index < 0 ? 0 : this.pool.entries.readOnce(index);
  }

  markAccessed(index: number): void {
    this.pool.entries.writeOnce(index, this.pool.entries.readOnce(index) | SPTE_A);
  }

  // Entering.

  /** For `install`: read in the same hold of the lock as the look-up that found nothing. */
  get generation(): number {
    return this.pool.generation;
  }

  /**
   * Maps `vpn` by what a walk of the guest's tables found, with the guest's rights less what the direct entry lacks; W only where the
   * guest's pte is dirty. Returns the shadow entry, or 0 where the direct entry has gone since: begin again.
   * `generation` is from before the walk; if a fence came between, or a page was evicted, the entry returned is good for a TLB alone and is not kept:
   *
   *   hart A                                    hart B
   *   walks: reads the pte
   *                                             changes the pte, fences: generation
   *                                             looks up: compares the page with the guest's table
   *   install: the generation has moved
   *
   * Required outcome: B does not find what A read. Test: `a walk that a fence overtook leaves nothing behind`.
   */
  install(handle: number, vpn: number, walk: GuestWalk, generation: number): number {
    const gfn = Math.floor(walk.gpa / PAGE_SIZE);
    const slot = this.slots.find(gfn);
    const direct = slot === undefined ? 0 : slot.direct.readOnce(gfn - slot.baseGfn);
    this.installed = -1;
    if ((direct & DIRECT_V) === 0) return 0;
    const flags = walk.flags & RIGHTS & ((walk.flags & PTE_D) === 0 ? ~SPTE_W : ~0);
    const lacking = (direct & DIRECT_W) === 0 ? SPTE_W : 0;
    const spte = (direct & ~0xfff) | (flags & ~lacking) | SPTE_V | SPTE_A;
    if (generation !== this.pool.generation) {
      this.tree.mayBeInTlbs(gfn);
      return spte;
    }
    const leaf = this.descend(this.pool.pageOf(handle), vpn, gfn, flags, walk);
    this.installed = leaf * ENTRIES + (vpn & 511);
    this.tree.put(this.installed, gfn, spte);
    return spte;
  }

  /** The page of the leaf entry, with what leads to it. The next look-up compares what is new here. */
  private descend(root: number, vpn: number, gfn: number, flags: number, { level, tables }: GuestWalk): number {
    const { tree } = this;
    const upper = vpn >>> 18;
    const lower = (vpn >>> 9) & 511;
    tree.protect(root, -1);
    const middle =
      level === 2
        ? tree.descend(root, upper, (gfn & ~0x3ffff) >>> 0, directRole(1, flags))
        : tree.descend(root, upper, tables[1]!, tableRole(1));
    tree.protect(root, middle);
    return level > 0
      ? tree.descend(middle, lower, (gfn & ~0x1ff) >>> 0, directRole(0, flags))
      : tree.descend(middle, lower, tables[0]!, tableRole(0));
  }

  /** Index in the words of the host's memory of the guest's table in frame `gfn`, or -1 while it is not there. */
  tableAt(gfn: number): number {
    return this.sync.frameAt(gfn);
  }

  // Taking away.

  /** `sfence.vma`, of one page (27 bits of vpn) or all, of one address space or all. The hart's own TLB is the hart's to flush. */
  fence(vpn: number | undefined, asid: number | undefined): void {
    if (this.pool.generation > MAX_GENERATION) this.reset();
    this.fences.fence(vpn, asid);
  }

  /** Begins with nothing, and counts generations from the first. */
  private reset(): void {
    for (let page = 0; page < this.pool.nrPages; page++) if (this.pool.isUsed(page)) this.tree.evict(page);
    this.fences.reset();
  }

  /** Drops every shadow entry of page `i` of a memslot; the caller zaps the direct entry, under the same lock. */
  zapGfn(slot: GfnSlot, i: number): void {
    for (let head = slot.rmap.readOnce(i); head !== 0; head = slot.rmap.readOnce(i)) {
      this.onZap(this.tree.vpn(head - 1));
      this.tree.remove(head - 1, slot, i);
    }
    if ((slot.direct.readOnce(i) & DIRECT_T) !== 0) this.onZap(ANY_VPN);
  }

  /** Takes the right to write from every entry of a chain, and no mark that `peek` may be setting. Who calls it flushes all TLBs. */
  protectChain(head: number): void {
    for (let index = head - 1; index >= 0; index = this.tree.rmap.after(index))
      this.pool.entries.fetchAnd(index, ~SPTE_W);
  }

  /**
   * Takes the accessed bits of page `i` of a memslot; returns whether there was one. What was young leaves this thread's TLBs, so that
   * its next use shows; the caller has others flush theirs.
   */
  clearYoung(slot: GfnSlot, i: number): boolean {
    let young = false;
    for (let index = slot.rmap.readOnce(i) - 1; index >= 0; index = this.tree.rmap.after(index)) {
      const spte = this.spte(index);
      if ((spte & SPTE_A) === 0) continue;
      young = true;
      this.pool.entries.writeOnce(index, spte & ~SPTE_A);
      this.onZap(this.tree.vpn(index));
    }
    const direct = slot.direct.readOnce(i);
    if ((direct & DIRECT_T) === 0) return young;
    slot.direct.fetchAnd(i, ~DIRECT_T);
    this.onZap(ANY_VPN);
    return true;
  }

  /** Whether page `i` of a memslot was used, directly or by a shadow entry, since `clearYoung`: changes nothing. */
  testYoung(slot: GfnSlot, i: number): boolean {
    if ((slot.direct.readOnce(i) & (DIRECT_A | DIRECT_T)) !== 0) return true;
    for (let index = slot.rmap.readOnce(i) - 1; index >= 0; index = this.tree.rmap.after(index))
      if ((this.spte(index) & SPTE_A) !== 0) return true;
    return false;
  }

  // For tests and statistics.

  stats(): { installs: number; prefetched: number; syncs: number; dropped: number; evictions: number } {
    const { pool } = this;
    return {
      installs: pool.counter(COUNTER_INSTALLS),
      prefetched: pool.counter(COUNTER_PREFETCHED),
      syncs: pool.counter(COUNTER_SYNCS),
      dropped: pool.counter(COUNTER_DROPPED),
      evictions: pool.counter(COUNTER_EVICTIONS),
    };
  }

  /** Calls `fn` for each leaf entry. */
  forEachLeaf(fn: (index: number, spte: number) => void): void {
    const { pool } = this;
    for (let page = 0; page < pool.nrPages; page++) {
      if (!pool.isUsed(page) || (pool.get(page, PAGE_ROLE) & 3) !== 0) continue;
      for (let index = page * ENTRIES; index < (page + 1) * ENTRIES; index++)
        if (this.spte(index) !== 0) fn(index, this.spte(index));
    }
  }

  /** Entries of the chain that begins with link `head`. */
  chain(head: number): number[] {
    const indices: number[] = [];
    for (let index = head - 1; index >= 0; index = this.tree.rmap.after(index)) indices.push(index);
    return indices;
  }

  /** Guest frame that the leaf entry at `index` shows. */
  gfn(index: number): number {
    return this.tree.rmap.gfn(index);
  }
}
