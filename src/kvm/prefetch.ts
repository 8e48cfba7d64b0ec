import { PTE_A, PTE_D, PTE_R, PTE_V, PTE_W, PTE_X } from '../riscv/index.js';
import { type FastFault, type FaultTables, mayShowWritable } from './fastfault.js';
import { DIRECT_W } from './memslot.js';
import type { NeighbourLoop } from './neighbourloop.js';
import type { ShadowPages } from './shadow.js';
import { COUNTER_PREFETCHED, ENTRIES, PAGE_GFN, PAGE_ROLE, roleIsDirect, roleRights } from './shadowpool.js';
import { SPTE_G, SPTE_R, SPTE_U, SPTE_V, SPTE_W, SPTE_X } from './spte.js';

/**
 * A shadow fault enters neighbours of its page too (KVM: pte_prefetch, direct_pte_prefetch; Linux: fault-around): those of the same shadow page that
 * have no entry, in the hold of the lock that has entered the page itself. It waits for nothing and faults nothing in:
 *
 *  - the guest's pte is valid and has its accessed bit; what it may not be asked for yet (dirty) is no right (KVM: prefetch_gpte);
 *  - the host maps the page, and no bracket is under way (fastfault.ts), or the guest frame has its direct entry already;
 *  - for a store, only what a store may use; in a slot that logs, nothing that was not writable before.
 *
 * Neither direct nor shadow entry is marked as used: a page that nobody touches stays old, and its first use shows (N14). The entries are as any others:
 * in the reverse map, dropped by zap, fence and eviction.
 *
 * How many is told by the faults themselves, by region of 512 pages: one that goes on where the last one's neighbours ended is in sequence, and gets twice as many,
 * up to 256; one that is less than 8 pages away gets the 8 aligned ones around it; one far away gets none, and pays nothing but the look.
 *
 * In sequence the guest will next read of each page what it has read of this one, if it goes on as it does: `warm` reads that for all of them, so that the processor
 * fetches what no cache has side by side, and the guest does not wait for one after the other. WHY: 15 ns a page of 125 where caches are cold. What entries and pages
 * have become by then does not matter: nothing is made of it.
 *
 * Guest ptes in a row are gone through in WebAssembly (neighbourloop.ts), the parts of a superpage here. One thread's; `after` is called with the VM's mmu lock held, where no fence came since the guest's pte was read.
 */

const RIGHTS = SPTE_R | SPTE_W | SPTE_X | SPTE_U | SPTE_G;
const LEAF = PTE_R | PTE_X;
const VALID_USED = PTE_V | PTE_A;
const FEWEST = 8;
const MOST = 256;
const NR_STREAMS = 16;

export class Prefetch {
  private readonly tables: FaultTables;
  private readonly shadow: ShadowPages;
  private readonly fast: FastFault;
  private readonly i32: Int32Array;
  private readonly loop: NeighbourLoop | undefined;
  /** By region: the page that the next fault of a sequence has, and how many this one got. */
  private readonly expected = new Int32Array(NR_STREAMS).fill(-1);
  private readonly windows = new Int32Array(NR_STREAMS);
  /** What `warm` is to do. */
  private warmFrom = 0;
  private warmEnd = 0;
  private warmOffset = 0;

  /** @param i32 all of the host's memory. @param loop undefined: all is done here. */
  constructor(
    tables: FaultTables,
    shadow: ShadowPages,
    fast: FastFault,
    i32: Int32Array,
    loop: NeighbourLoop | undefined,
  ) {
    this.tables = tables;
    this.shadow = shadow;
    this.fast = fast;
    this.i32 = i32;
    this.loop = loop;
  }

  /** The entry at `index`, of page `vpn` (27 bits), was entered for a fault at byte `offset` of it. */
  after(index: number, vpn: number, offset: number, write: boolean): void {
    const window = this.windowOf(vpn);
    if (window === 0 || this.tables.invalidate.inProgress !== 0) return;
    const slot = index & (ENTRIES - 1);
    const around = window < 0;
    const from = around ? slot & -FEWEST : slot + 1;
    const end = around ? from + FEWEST : Math.min(from + window, ENTRIES);
    this.enter(index - slot, from, end, write);
    if (!around) this.note(index + 1, index - slot + end, offset & -4);
    this.expected[streamOf(vpn)] = vpn - slot + end;
  }

  /** Pages after `vpn` to enter; below 0: the aligned ones around it. Takes note of the fault. */
  private windowOf(vpn: number): number {
    const { expected, windows } = this;
    // A sequence may come out of the region before.
    const before = streamOf((vpn & (ENTRIES - 1)) === 0 ? vpn - 1 : vpn);
    const distance = vpn - expected[before]!;
    const window = distance === 0 ? Math.min(Math.max(windows[before]! * 2, FEWEST), MOST) : 0;
    const stream = streamOf(vpn);
    expected[stream] = vpn + 1;
    windows[stream] = window;
    return distance > -FEWEST && distance < FEWEST - 1 && window === 0 ? -1 : window;
  }

  /** For `warm`: entries [index, end), and a byte of their pages. */
  private note(index: number, end: number, offset: number): void {
    this.warmFrom = index;
    this.warmEnd = end;
    this.warmOffset = offset;
  }

  /** When the lock was given back: of the pages that `after` has entered in sequence, reads what the guest will read first if it goes on as it does. */
  warm(): void {
    const { warmFrom, warmEnd, warmOffset } = this;
    if (warmFrom === warmEnd) return;
    const { entriesAddr } = this.shadow.pool;
    this.loop?.warm(entriesAddr + 4 * warmFrom, entriesAddr + 4 * warmEnd, warmOffset);
    this.warmEnd = warmFrom;
  }

  /** Entries [from, end) of the shadow page that begins with entry `first`. */
  private enter(first: number, from: number, end: number, write: boolean): void {
    const { pool } = this.shadow;
    const page = first / ENTRIES;
    const role = pool.get(page, PAGE_ROLE);
    const gfn = pool.get(page, PAGE_GFN) >>> 0;
    const nr = roleIsDirect(role)
      ? this.enterParts(first, from, end, gfn, roleRights(role), write)
      : this.enterPtes(first, from, end, gfn, write);
    if (nr > 0) pool.count(COUNTER_PREFETCHED, nr);
  }

  /** Parts of a superpage. */
  private enterParts(first: number, from: number, end: number, gfn: number, rights: number, write: boolean): number {
    let nr = 0;
    for (let k = from; k < end; k++) nr += this.enterOne(first + k, gfn + k, rights, write);
    return nr;
  }

  private enterPtes(first: number, from: number, end: number, tableGfn: number, write: boolean): number {
    const table = this.shadow.tableAt(tableGfn);
    if (table < 0) return 0;
    if (this.loop !== undefined) return this.enterRuns(this.loop, first, from, end, table, write);
    let nr = 0;
    for (let k = from; k < end; k++) nr += this.enterPte(first + k, table + 2 * k, write);
    return nr;
  }

  /** As `enterPte` for each: those in a row of one slot and one leaf table of the host at once. They are counted there: 0. */
  private enterRuns(loop: NeighbourLoop, first: number, from: number, end: number, table: number, write: boolean): 0 {
    const { entriesAddr, stride, prefetchedAddr } = this.shadow.pool;
    const at = entriesAddr + 4 * first;
    const wanted = write ? SPTE_W : 0;
    for (let k = from; k < end; ) {
      const gfn = this.i32[table + 2 * k]! >>> 10;
      // One further at least, whatever another hart may write there meanwhile.
      const next = k + 1;
      const slot = this.tables.slots.find(gfn);
      if (slot === undefined) {
        k = next;
        continue;
      }
      const { baseGfn, nrPages, baseVpn, arenaAddr } = slot;
      const vpn = baseVpn + gfn - baseGfn;
      // biome-ignore format: fourteen words
      const stopped = loop.enter(at + 4 * k, at + 4 * end, 4 * table + 8 * k, baseGfn, nrPages, baseVpn, arenaAddr,
        vpn >>> 9, this.fast.tableAddr(vpn), prefetchedAddr, entriesAddr, stride, wanted, mayShowWritable(slot) ? DIRECT_W : 0);
      k = Math.max(next, ((stopped - at) | 0) >> 2);
    }
    return 0;
  }

  /** The entry at `index` by the guest's pte at `at`. The twin of neighbourloop.ts. */
  private enterPte(index: number, at: number, write: boolean): number {
    const { i32 } = this;
    const low = i32[at]!;
    if ((low & VALID_USED) !== VALID_USED || (low & LEAF) === 0 || (low & (PTE_R | PTE_W)) === PTE_W) return 0;
    // Another hart may be writing it: a pte of two halves that belong together, of frames below 2^22.
    if (i32[at + 1] !== 0 || i32[at] !== low) return 0;
    return this.enterOne(index, low >>> 10, low & RIGHTS & ((low & PTE_D) !== 0 ? ~0 : ~SPTE_W), write);
  }

  private enterOne(index: number, gfn: number, rights: number, write: boolean): number {
    const { entries } = this.shadow.pool;
    if (entries.readOnce(index) !== 0 || (write && (rights & SPTE_W) === 0)) return 0;
    const slot = this.tables.slots.find(gfn);
    if (slot === undefined) return 0;
    const i = gfn - slot.baseGfn;
    const direct = this.fast.prefetch(slot, i);
    const lacking = (direct & DIRECT_W) === 0 ? SPTE_W : 0;
    if (direct === 0 || (write && lacking !== 0)) return 0;
    this.shadow.tree.enter(index, slot, i, (direct & ~0xfff) | (rights & ~lacking) | SPTE_V);
    return 1;
  }
}

function streamOf(vpn: number): number {
  return (vpn >>> 9) & (NR_STREAMS - 1);
}
