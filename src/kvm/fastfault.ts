import { PAGE_SIZE, pfnToPa } from '../mm/index.js';
import { MMU_WAIT, type PteSource } from '../riscv/index.js';
import { markDirty } from './dirtylog.js';
import type { HostPages } from './hostpages.js';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from './memregion.js';
import { DIRECT_A, DIRECT_V, DIRECT_W, type Memslot } from './memslot.js';
import type { VmTables } from './vmtables.js';

/**
 * External faults of pages that the host maps with the right already (Linux: get_user_pages_fast_only, gfn_to_pfn_prefetch): no fault of the host, no
 * reference, no way out of the VM's mmu lock, which the caller holds. So a walk of the guest's tables and all that follows from it is one hold.
 *
 *   mm thread                                vCPU
 *                                            lock; no bracket is under way
 *                                            reads the host's pte: present; direct entry, shadow entries; unlock
 *   start: lock; a bracket counts; zaps; unlock
 *   clears the pte                           lock; a bracket is under way: nothing is entered
 *
 * Required outcome: what is entered is what the host maps, until a bracket takes it away (N3): who holds the lock and sees no bracket knows
 * that none begins before he gives it back. Test: `N3 N8: a bracket under way keeps prefetch out`; model: `kvm: prefetch and reclaim`.
 *
 * A page that the host may write is dirty there already, so its entry may be writable without asking (N15); but not where the slot logs, for then each page's first
 * write has to show.
 */

/** What no walk answers: more than the lock is needed. */
export const NEEDS_FAULT = MMU_WAIT + 1;

/** Of `VmTables`, what faults of this kind and the neighbours' (prefetch.ts) look at. */
export interface FaultTables {
  readonly invalidate: { readonly inProgress: number };
  readonly slots: { find(gfn: number): Memslot | undefined };
}

/** Of `HostPages`, likewise. */
export type HostPtes = Pick<HostPages, 'ptesAddr' | 'peekTable' | 'peekPte'>;

export class FastFault implements PteSource {
  /** External faults served. */
  nrFaults = 0;
  private readonly tables: FaultTables & Pick<VmTables, 'installDirect'>;
  private readonly pages: HostPtes;

  constructor(tables: FaultTables & Pick<VmTables, 'installDirect'>, pages: HostPtes) {
    this.tables = tables;
    this.pages = pages;
  }

  /** As KvmMmu's, or -NEEDS_FAULT. */
  pteAddress(gpa: number, write: boolean): number {
    const direct = this.direct(gpa, write);
    return direct === 0 ? -NEEDS_FAULT : pfnToPa(direct >>> 12) + (gpa & (PAGE_SIZE - 1));
  }

  /** The direct entry for `gpa`, in use from now on and writable if asked; 0 where there is more to it. */
  direct(gpa: number, write: boolean): number {
    const gfn = Math.floor(gpa / PAGE_SIZE);
    const slot = this.tables.slots.find(gfn);
    if (slot === undefined || (write && (slot.flags & KVM_MEM_READONLY) !== 0)) return 0;
    const i = gfn - slot.baseGfn;
    const entry = slot.direct.readOnce(i);
    const wanted = write ? DIRECT_V | DIRECT_W : DIRECT_V;
    if ((entry & wanted) !== wanted) return this.fault(slot, i, write);
    if ((entry & DIRECT_A) === 0) slot.direct.writeOnce(i, entry | DIRECT_A);
    return entry >>> 0;
  }

  private fault(slot: Memslot, i: number, write: boolean): number {
    if (this.tables.invalidate.inProgress !== 0) return 0;
    const peeked = this.peek(slot.baseVpn + i);
    if (peeked === 0 || (write && (peeked & 1) === 0)) return 0;
    const entry = entryOf(slot, peeked) | DIRECT_A | (write ? DIRECT_W : 0);
    this.tables.installDirect(slot, i, entry);
    if (write) markDirty(slot, i);
    this.nrFaults++;
    return entry >>> 0;
  }

  private peek(vpn: number): number {
    const table = this.pages.peekTable(vpn);
    return table === 0 ? 0 : this.pages.peekPte(table + (vpn & 511));
  }

  /** Address of the first pte of the host's leaf table that has page `vpn`, or 0. */
  tableAddr(vpn: number): number {
    const table = this.pages.peekTable(vpn);
    return table === 0 ? 0 : this.pages.ptesAddr + 4 * table;
  }

  /** The direct entry of page `i` of the slot, made of what the host maps if need be, but not marked as used; 0 where there is none. No bracket is under way. */
  prefetch(slot: Memslot, i: number): number {
    const entry = slot.direct.readOnce(i);
    if ((entry & DIRECT_V) !== 0) return entry;
    const peeked = this.peek(slot.baseVpn + i);
    if (peeked === 0) return 0;
    const made = entryOf(slot, peeked);
    slot.direct.writeOnce(i, made);
    return made;
  }
}

/** Whether the slot may show a page writable that was not asked for to be written. */
export function mayShowWritable(slot: Memslot): boolean {
  return (slot.flags & (KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES)) === 0;
}

/** What a slot may show of a page that the host maps so. */
function entryOf(slot: Memslot, peeked: number): number {
  const mayWrite = (peeked & 1) !== 0 && mayShowWritable(slot);
  return ((peeked >>> 1) << 12) | DIRECT_V | (mayWrite ? DIRECT_W : 0);
}
