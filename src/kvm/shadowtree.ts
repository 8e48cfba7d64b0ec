import { DIRECT_T } from './memslot.js';
import { Chains, type GfnLookup, type GfnSlot, Rmap } from './rmap.js';
import {
  COUNTER_DROPPED,
  COUNTER_EVICTIONS,
  COUNTER_INSTALLS,
  ENTRIES,
  NO_VPN,
  PAGE_FENCED,
  PAGE_PARENTS,
  PAGE_ROLE,
  PAGE_SYNCED,
  PAGE_VPN,
  roleIsDirect,
  roleLevel,
  type ShadowPool,
  WORDS_PER_PAGE,
} from './shadowpool.js';
import { SPTE_A, SPTE_V } from './spte.js';

/**
 * How shadow pages hang together. An entry of level 0 is a shadow entry, in the reverse map's chain of its guest frame; one
 * of a higher level is a link, page number << 1 | V, in the chain of all links to that page. So a page can be taken out of
 * the middle of everything: the links to it go first, then its own entries.
 *
 * A page may have several parents, or none (after one of them changed): it stays for the next who comes to the same
 * guest frame. Where a page has one place only in the address spaces it is in, PAGE_VPN says which; what a TLB has by way of it
 * can be told then. An entry by which a TLB may have been filled leaves DIRECT_T behind when it goes before its direct
 * entry does.
 *
 * Same rules as shadow.ts: shared words, under the VM's mmu lock.
 */
export class ShadowTree {
  readonly rmap: Rmap;
  private readonly pool: ShadowPool;
  private readonly slots: GfnLookup;
  private readonly chains: Chains;
  /** Pages that must not be evicted now. */
  private keep = -1;
  private keepToo = -1;

  constructor(pool: ShadowPool, slots: GfnLookup) {
    this.pool = pool;
    this.slots = slots;
    this.chains = new Chains(pool.next, pool.prev);
    this.rmap = new Rmap(slots, pool.gfns, this.chains);
  }

  /** The page that entry `slot` of `page` links to, or -1. */
  below(page: number, slot: number): number {
    const link = this.pool.entries.readOnce(page * ENTRIES + slot);
    return link === 0 ? -1 : link >>> 1;
  }

  // Links.

  /**
   * The page of a guest frame in a role, linked from entry `slot` of `page`, made if need be; if it was there
   * already, it and what is below it must be compared again: the guest may have used the frame for something else meanwhile.
   */
  descend(page: number, slot: number, gfn: number, role: number): number {
    const { pool } = this;
    const index = page * ENTRIES + slot;
    const found = pool.find(gfn, role);
    const present = this.below(page, slot);
    if (present >= 0) {
      if (present === found) return found;
      this.unlink(index);
    }
    const vpn = this.placeOf(page, slot);
    if (found < 0) return this.link(index, this.take(gfn, role, vpn));
    if (!roleIsDirect(role)) pool.set(found, PAGE_FENCED, pool.nextGeneration());
    this.place(found, vpn);
    return this.link(index, found);
  }

  private link(index: number, below: number): number {
    this.pool.entries.writeOnce(index, (below << 1) | SPTE_V);
    this.chains.add(this.pool.pages, below * WORDS_PER_PAGE + PAGE_PARENTS, index);
    return below;
  }

  unlink(index: number): void {
    const below = this.pool.entries.readOnce(index) >>> 1;
    this.chains.remove(this.pool.pages, below * WORDS_PER_PAGE + PAGE_PARENTS, index);
    this.pool.entries.writeOnce(index, 0);
    this.pool.nextGeneration();
  }

  /** Calls `fn` for the index of each link to `page`. */
  forEachParent(page: number, fn: (index: number) => void): void {
    for (let i = this.pool.get(page, PAGE_PARENTS) - 1; i >= 0; i = this.chains.after(i)) fn(i);
  }

  // Places.

  /** First vpn that what entry `slot` of `page` links to translates, or NO_VPN. */
  placeOf(page: number, slot: number): number {
    const vpn = this.pool.get(page, PAGE_VPN);
    return vpn === NO_VPN ? NO_VPN : vpn + slot * ENTRIES ** roleLevel(this.pool.get(page, PAGE_ROLE));
  }

  /** The page is about to be linked at `vpn`. */
  private place(page: number, vpn: number): void {
    const { pool } = this;
    if (pool.get(page, PAGE_VPN) === vpn) return;
    if (pool.get(page, PAGE_PARENTS) !== 0) {
      this.spread(page);
      return;
    }
    this.empty(page);
    pool.set(page, PAGE_VPN, vpn);
  }

  /** The page, and with it what is below, has several places. */
  private spread(page: number): void {
    const { pool } = this;
    if (pool.get(page, PAGE_VPN) === NO_VPN) return;
    pool.set(page, PAGE_VPN, NO_VPN);
    if (roleLevel(pool.get(page, PAGE_ROLE)) === 0) return;
    for (let slot = 0; slot < ENTRIES; slot++) {
      const below = this.below(page, slot);
      if (below >= 0) this.spread(below);
    }
  }

  /** The virtual page that the leaf entry at `index` translates, or NO_VPN where there are several. */
  vpn(index: number): number {
    const first = this.pool.get(index >>> 9, PAGE_VPN);
    return first === NO_VPN ? NO_VPN : first + (index & (ENTRIES - 1));
  }

  // Leaf entries.

  /** Puts a leaf entry in place of what was there. */
  put(index: number, gfn: number, spte: number): void {
    const { pool } = this;
    const old = pool.entries.readOnce(index);
    pool.count(COUNTER_INSTALLS, 1);
    if (old !== 0 && this.rmap.gfn(index) === gfn) {
      pool.entries.writeOnce(index, spte);
      return;
    }
    if (old !== 0) this.drop(index);
    const slot = this.slots.find(gfn)!;
    this.enter(index, slot, gfn - slot.baseGfn, spte);
  }

  /** Puts a leaf entry where there is none, of page `i` of the slot. */
  enter(index: number, slot: GfnSlot, i: number, spte: number): void {
    this.pool.entries.writeOnce(index, spte);
    this.rmap.add(index, slot, i);
  }

  /** Takes an entry away, of whatever level; its direct entry stays. */
  drop(index: number): void {
    const { pool } = this;
    pool.count(COUNTER_DROPPED, 1);
    if (roleLevel(pool.get(index >>> 9, PAGE_ROLE)) > 0) {
      this.unlink(index);
      return;
    }
    this.rmap.remove(index);
    // By exchange: `peek` marks it without the lock.
    if ((pool.entries.exchange(index, 0) & SPTE_A) !== 0) this.mayBeInTlbs(this.rmap.gfn(index));
  }

  /** Takes a leaf entry away, of page `i` of the slot, whose direct entry goes too. */
  remove(index: number, slot: GfnSlot, i: number): void {
    this.rmap.removeFrom(index, slot, i);
    this.pool.entries.writeOnce(index, 0);
  }

  /** No shadow entry tells where a TLB may have this frame. */
  mayBeInTlbs(gfn: number): void {
    const slot = this.slots.find(gfn)!;
    slot.direct.fetchOr(gfn - slot.baseGfn, DIRECT_T);
  }

  // Pages.

  /** A page from the pool, of which another is evicted if need be; `protect` says which not. */
  take(gfn: number, role: number, vpn: number): number {
    if (this.pool.isFull) {
      this.evict(this.pool.victim(this.keep, this.keepToo));
      this.pool.count(COUNTER_EVICTIONS, 1);
    }
    return this.pool.alloc(gfn, role, vpn);
  }

  /** Pages that `take` leaves alone from now on; -1: none. */
  protect(page: number, other: number): void {
    this.keep = page;
    this.keepToo = other;
  }

  /** Takes all entries of a page away. It agrees with the guest's ptes then, whatever they are. */
  empty(page: number): void {
    const { pool } = this;
    for (let index = page * ENTRIES; index < (page + 1) * ENTRIES; index++)
      if (pool.entries.readOnce(index) !== 0) this.drop(index);
    if (!roleIsDirect(pool.get(page, PAGE_ROLE))) pool.set(page, PAGE_SYNCED, pool.generation);
  }

  /** Takes a page out of everything and gives it back to the pool. */
  evict(page: number): void {
    for (let parent = this.pool.get(page, PAGE_PARENTS); parent !== 0; parent = this.pool.get(page, PAGE_PARENTS))
      this.unlink(parent - 1);
    this.empty(page);
    this.pool.free(page);
  }
}
