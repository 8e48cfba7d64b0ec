import { FAULT_FLAG_WRITE, PAGE_SIZE, pfnToPa, REMOTE_ZERO } from '../mm/index.js';
import {
  ACCESS_EXEC,
  ACCESS_WRITE,
  type Access,
  type Hart,
  type HartMmu,
  MMU_ACCESS_FAULT,
  MMU_MMIO,
  MMU_OK,
  MMU_WAIT,
  type MmuResult,
  MODE_USER,
  type PteSource,
  permits,
  RIGHT_R,
  RIGHT_W,
  RIGHT_X,
  rightsOf,
  Sv39Walk,
} from '../riscv/index.js';
import { markDirty } from './dirtylog.js';
import { FastFault, NEEDS_FAULT } from './fastfault.js';
import type { HostPages } from './hostpages.js';
import { KVM_MEM_READONLY } from './memregion.js';
import { DIRECT_A, DIRECT_V, DIRECT_W, type Memslot } from './memslot.js';
import { neighbourLoopOf } from './neighbourloop.js';
import { Prefetch } from './prefetch.js';
import { ANY_VPN } from './shadow.js';
import { SPTE_G } from './spte.js';
import { SuperpageRange } from './superpages.js';
import type { VmTables } from './vmtables.js';

/**
 * How a vCPU reaches memory (Linux: kvm_mmu_page_fault and what it calls). On a TLB miss:
 *
 *  1. the shadow table of the present root has the page: done, the guest's own tables are not looked at;
 *  2. else the guest's tables are walked; the guest gets its page fault, or we get a guest frame;
 *  3. the frame's direct entry lacks the right: an external fault, by collision and retry against the notifier (N8);
 *  4. a shadow entry with the guest's rights, less what the direct entry lacks, is installed, and neighbours with it (prefetch.ts).
 *
 * All this is one hold of the lock, as long as the host has every page with its right (fastfault.ts). Where it has not, the walk begins again, and each page that
 * it comes to is looked up and entered by a hold of its own.
 *
 * What cannot be had without waiting makes the hart leave with MMU_WAIT; `waitHva` and `waitFlags` say for what.
 */

/** Guest-physical addresses have 44 bits, as far as memslots reach. */
const MAX_GFN = 2 ** 32;
const VPN_MASK = 2 ** 27 - 1;
/** In place of an entry: a bracket came between. */
const STALE = 0;
const PTE_D = 128;

export class KvmMmu implements HartMmu, PteSource {
  hart!: Hart;
  /** What of the TLB was filled from superpages. */
  private readonly superpages = new SuperpageRange();
  /** The TLB may have guest-physical pages, from before paging. */
  private hasBare = false;
  waitHva = 0;
  waitFlags = 0;
  waitGpa = 0;
  /** When the guest first ran in user mode, by the environment's clock. */
  firstUserMs: number | undefined;
  /** External faults that took more than one hold of the lock and no waiting, and those that a bracket came between. */
  private nrSlow = 0;
  nrRetries = 0;
  /** Handle of the present root; -1 without paging. */
  private root = -1;
  private readonly tables: VmTables;
  private readonly pages: HostPages;
  private readonly nowMs: () => number;
  private readonly walk: Sv39Walk;
  protected readonly fast: FastFault;
  private readonly prefetch: Prefetch;

  /** @param i32 all of the host's memory. */
  constructor(tables: VmTables, i32: Int32Array, pages: HostPages, nowMs: () => number) {
    this.tables = tables;
    this.pages = pages;
    this.nowMs = nowMs;
    this.walk = new Sv39Walk(i32);
    this.fast = new FastFault(tables, pages);
    this.prefetch = new Prefetch(tables, tables.shadow, this.fast, i32, neighbourLoopOf(tables.memory));
  }

  /** External faults served without waiting. */
  get nrMinor(): number {
    return this.nrSlow + this.fast.nrFaults;
  }

  translate(hart: Hart, va: number, access: Access): MmuResult {
    if (!hart.paging) return this.translateBare(hart, va, access);
    const user = hart.mode === MODE_USER;
    const spte = this.tables.shadow.peek(this.root, vpnOf(va));
    if (spte === 0 || !permits(spte, access, user, hart.sum, hart.mxr))
      return this.translateLocked(hart, va, access, user);
    this.noteRegion(hart, va);
    return this.fill(hart, va, spte, access, user);
  }

  /** The next TLB miss of the region of `va`, which was looked up just now, need not come here. */
  private noteRegion(hart: Hart, va: number): void {
    const { leaf, leafGeneration, level, pool } = this.tables.shadow;
    hart.refill.put(vpnOf(va) >>> 9, leafGeneration, pool.addrOf(leaf), level);
  }

  /** A shadow entry is writable only where the guest's pte is dirty already. */
  private fill(hart: Hart, va: number, spte: number, access: Access, user: boolean): MmuResult {
    const { level } = this.tables.shadow;
    if (level > 0) this.noteSuperpage(hart, vpnOf(va), level);
    const rights = rightsOf(spte | PTE_D, user, hart.sum, hart.mxr);
    hart.tlbFill(va, spte >>> 12, rights, access, (spte & SPTE_G) !== 0);
    return MMU_OK;
  }

  private noteSuperpage(hart: Hart, vpn: number, level: number): void {
    this.superpages.note(vpn, level);
    hart.refill.setSuperpages(this.superpages.first, this.superpages.last);
  }

  private forgetSuperpages(): void {
    this.superpages.clear();
    this.hart.refill.setSuperpages(this.superpages.first, this.superpages.last);
  }

  private setRoot(handle: number): void {
    const { pool } = this.tables.shadow;
    this.root = handle;
    if (handle < 0) this.hart.refill.setRoot(0, 0);
    else this.hart.refill.setRoot(pool.idOf(handle), pool.idAddrOf(pool.pageOf(handle)));
  }

  /** By the shadow table, else by the guest's, in one hold of the lock as long as every page that it takes is there. */
  private translateLocked(hart: Hart, va: number, access: Access, user: boolean): MmuResult {
    const { tables } = this;
    const { shadow } = tables;
    if (user && this.firstUserMs === undefined) this.firstUserMs = this.nowMs();
    tables.lock();
    if (this.root < 0 || !shadow.isLive(this.root)) this.setRoot(shadow.getRoot(hart.satp, hart.hartId));
    const index = shadow.lookup(this.root, vpnOf(va));
    let spte = shadow.spte(index);
    let result: number = MMU_OK;
    const { generation } = shadow;
    if (spte !== 0 && permits(spte, access, user, hart.sum, hart.mxr)) {
      shadow.markAccessed(index);
      this.noteRegion(hart, va);
    } else {
      result = this.walk.walk(this.fast, hart.satpPpn, va, access, user, hart.sum, hart.mxr);
      spte = result === MMU_OK ? this.enterLocked(va, access, generation) : 0;
    }
    tables.unlock();
    this.prefetch.warm();
    if (result !== MMU_OK && result !== NEEDS_FAULT) return result as MmuResult;
    if (spte === 0) return this.translateWalk(hart, va, access, user, generation);
    return this.fill(hart, va, spte, access, user);
  }

  /** Enters what the walk has found, and neighbours; the shadow entry, or 0 where the host has to be asked. */
  private enterLocked(va: number, access: Access, generation: number): number {
    const { walk } = this;
    const { shadow } = this.tables;
    if (this.fast.direct(walk.gpa, access === ACCESS_WRITE) === 0) return 0;
    const spte = shadow.install(this.root, vpnOf(va), walk, generation);
    shadow.level = walk.level;
    this.enterNeighbours(va, access);
    return spte;
  }

  /** With the lock held, when `install` has entered a page. */
  private enterNeighbours(va: number, access: Access): void {
    const { installed } = this.tables.shadow;
    if (installed >= 0) this.prefetch.after(installed, vpnOf(va), va & (PAGE_SIZE - 1), access === ACCESS_WRITE);
  }

  private translateBare(hart: Hart, gpa: number, access: Access): MmuResult {
    const direct = this.direct(gpa, access === ACCESS_WRITE);
    if (direct <= 0) return this.failed(-direct, gpa, access);
    this.hasBare = true;
    hart.tlbFill(gpa, direct >>> 12, RIGHT_R | RIGHT_X | ((direct & DIRECT_W) !== 0 ? RIGHT_W : 0), access);
    return MMU_OK;
  }

  private translateWalk(hart: Hart, va: number, access: Access, user: boolean, generation: number): MmuResult {
    const { walk, tables } = this;
    const result = walk.walk(this, hart.satpPpn, va, access, user, hart.sum, hart.mxr);
    if (result !== MMU_OK) return result;
    const direct = this.direct(walk.gpa, access === ACCESS_WRITE);
    if (direct <= 0) return this.failed(-direct, walk.gpa, access);
    tables.lock();
    const spte = tables.shadow.install(this.root, vpnOf(va), walk, generation);
    this.enterNeighbours(va, access);
    tables.unlock();
    this.prefetch.warm();
    // Taken away since it was looked up, or by the dirty log the right to write: once more, which waits if it must.
    if (spte === 0 || !permits(spte, access, user, hart.sum, hart.mxr)) return this.translate(hart, va, access);
    tables.shadow.level = walk.level;
    return this.fill(hart, va, spte, access, user);
  }

  private failed(result: number, gpa: number, access: Access): MmuResult {
    if (result !== MMU_MMIO) return result as MmuResult;
    this.hart.mmioGpa = gpa;
    return access === ACCESS_EXEC ? MMU_ACCESS_FAULT : MMU_MMIO;
  }

  /** The direct entry for `gpa`, made if need be and writable if asked; 0 or less: the negative of an MmuResult. */
  private direct(gpa: number, write: boolean): number {
    const { tables } = this;
    const gfn = Math.floor(gpa / PAGE_SIZE);
    tables.lock();
    const slot = gfn < MAX_GFN ? tables.slots.find(gfn) : undefined;
    const refused = slot === undefined || (write && (slot.flags & KVM_MEM_READONLY) !== 0);
    const entry = refused ? 0 : slot.direct.readOnce(gfn - slot.baseGfn);
    const wanted = write ? DIRECT_V | DIRECT_W : DIRECT_V;
    const there = (entry & wanted) === wanted;
    if (there && (entry & DIRECT_A) === 0) slot!.direct.writeOnce(gfn - slot!.baseGfn, entry | DIRECT_A);
    tables.unlock();
    if (there) return entryValue(entry);
    return refused ? -MMU_MMIO : this.fault(slot, gfn, write);
  }

  /** The external fault (Linux: kvm_faultin_pfn and direct_map): pairs with notify.ts. A copy-on-write of its own moves seq: tried twice. */
  private fault(slot: Memslot, gfn: number, write: boolean): number {
    const entry = this.tryFault(slot, gfn, write);
    return entry === STALE ? this.tryFaultAgain(slot, gfn, write) : entry;
  }

  private tryFaultAgain(slot: Memslot, gfn: number, write: boolean): number {
    const entry = this.tryFault(slot, gfn, write);
    return entry === STALE ? this.retry(slot.hva(gfn), write ? FAULT_FLAG_WRITE : 0, gfn * PAGE_SIZE) : entry;
  }

  /** As `direct`; or STALE, when a bracket covered the page meanwhile. */
  private tryFault(slot: Memslot, gfn: number, write: boolean): number {
    const { tables, pages } = this;
    const hva = slot.hva(gfn);
    const flags = write ? FAULT_FLAG_WRITE : 0;
    const seq = tables.invalidate.readBegin();
    const pfn = pages.tryGetPage(hva, flags);
    if (pfn < REMOTE_ZERO) return this.wait(hva, flags, gfn * PAGE_SIZE);
    tables.lock();
    const retry = tables.invalidate.readRetry(seq, hva) || !tables.slots.isCurrent(slot);
    const mapped = retry || pfn !== REMOTE_ZERO ? pfn : pages.mapZero!(hva);
    const entry = (mapped << 12) | DIRECT_V | DIRECT_A | (write ? DIRECT_W : 0);
    if (!retry && mapped > 0) {
      tables.installDirect(slot, gfn - slot.baseGfn, entry);
      if (write) markDirty(slot, gfn - slot.baseGfn);
    }
    tables.unlock();
    pages.putPage(pfn);
    if (retry) return STALE;
    if (mapped <= 0) return this.wait(hva, flags, gfn * PAGE_SIZE);
    this.nrSlow++;
    return entryValue(entry);
  }

  private wait(hva: number, flags: number, gpa: number): number {
    this.waitHva = hva;
    this.waitFlags = flags;
    this.waitGpa = gpa;
    return -MMU_WAIT;
  }

  private retry(hva: number, flags: number, gpa: number): number {
    this.nrRetries++;
    return this.wait(hva, flags, gpa);
  }

  /** Guest page tables are guest memory like any other, and may be swapped out. */
  pteAddress(gpa: number, write: boolean): number {
    const direct = this.direct(gpa, write);
    if (direct <= 0) return direct === -MMU_MMIO ? -MMU_ACCESS_FAULT : direct;
    return pfnToPa(direct >>> 12) + (gpa % PAGE_SIZE);
  }

  /** Host address of guest-physical `gpa` for one page's worth of bytes, or the negative of an MmuResult. */
  hostAddress(gpa: number, write: boolean): number {
    const address = this.pteAddress(gpa, write);
    if (address > 0 && write) this.hart.dropCode(address >>> 12);
    return address;
  }

  /** Walks the guest's tables without filling anything; `gpa` of the result, or the negative of an MmuResult. */
  walkForRead(va: number): number {
    const { hart, walk } = this;
    if (!hart.paging) return va;
    const result = walk.walk(this, hart.satpPpn, va, 0, false, true, false);
    return result === MMU_OK ? walk.gpa : -result;
  }

  /** The hart has flushed from its TLB what was named; a superpage goes as a whole. */
  sfenceVma(_hart: Hart, va: number | undefined, asid: number | undefined): void {
    const { tables } = this;
    if (va !== undefined && this.superpages.covers(vpnOf(va))) this.flushTlb();
    if (va === undefined && asid === undefined) this.allForgotten();
    tables.lock();
    tables.shadow.fence(va === undefined ? undefined : vpnOf(va), asid);
    tables.unlock();
  }

  satpWritten(hart: Hart): void {
    this.tables.lock();
    this.setRoot(hart.paging ? this.tables.shadow.getRoot(hart.satp, hart.hartId) : -1);
    this.tables.unlock();
  }

  /** What `ShadowPages` tells by `onZap`: a virtual page (27 bits of its number) that the TLB must forget, or ANY_VPN. */
  flushVpn(vpn: number): void {
    if (vpn === ANY_VPN) this.flushTlb();
    else this.hart.tlbFlushPage(vpnToVa(vpn));
  }

  /** What the TLB may have of a guest frame from when there was no paging. */
  flushBarePage(gfn: number): void {
    if (this.hasBare) this.hart.tlbFlushPage(gfn * PAGE_SIZE);
  }

  flushTlb(): void {
    this.hart.tlbFlushAll();
    this.allForgotten();
  }

  /** The TLB is empty. */
  private allForgotten(): void {
    this.forgetSuperpages();
    this.hasBare = false;
  }

  /** While it is outside: satp may have changed behind its back, by another hart's start. */
  forgetRoot(): void {
    this.setRoot(-1);
  }
}

/** The 27 bits of a virtual page number that the tables resolve. */
function vpnOf(va: number): number {
  return Math.floor(va / PAGE_SIZE) & VPN_MASK;
}

/** pfns have 20 bits, so an entry may be negative as an int32; answers of this file are not. */
function entryValue(entry: number): number {
  return entry >>> 0;
}

/** First byte of a virtual page of Sv39, sign-extended from bit 38. */
function vpnToVa(vpn: number): number {
  return ((vpn << 5) >> 5) * 4096;
}
