import { FAULT_FLAG_WRITE, type InvalidateSeq, type Mm } from '../mm/index.js';
import {
  ACCESS_EXEC,
  ACCESS_READ,
  ACCESS_WRITE,
  type Access,
  type Hart,
  type HartMmu,
  MMU_ACCESS_FAULT,
  MMU_OK,
  MMU_PAGE_FAULT,
  MMU_WAIT,
  type MmuResult,
  MODE_USER,
  PTE_A,
  PTE_D,
  PTE_R,
  PTE_V,
  PTE_W,
  PTE_X,
  permits,
  rightsOf,
} from '../riscv/index.js';
import { type Fate, LG_OK } from './death.js';
import type { GuestAccess } from './guestaccess.js';
import { GuestWalk, LG_ABSENT } from './guestwalk.js';
import type { PageDirectories } from './pgdirs.js';
import { SPTE_A, SPTE_R, SPTE_U, SPTE_V, SPTE_W, SPTE_X } from './shadowtables.js';

/**
 * What the hart sees of memory (Linux: lguest's page_tables.c). A page fault of the hart is the host's first:
 *
 *  1. the shadow directory has the page with that right: it goes into the TLB;
 *  2. else `demandPage`: the guest's own tables are walked, and where they do not allow the access the fault is the guest's;
 *  3. accessed and, for a write, dirty are set in the guest's entry;
 *  4. the host is asked for the frame, by collision and retry against the notifier (N8), for writing only when the guest writes: a page that was
 *     read is shown read-only, so that the first write traps, is noted in the guest's entry, and marks the host's page dirty (N15);
 *  5. the shadow entry is made.
 *
 * What cannot be had without waiting makes the hart leave with MMU_WAIT; `access.waitHva` says for what, or the guest is dead.
 */

/** SUM is set: the kernel reaches the pages of its processes (x86: ring 1 does). */
const SUM = true;
const MXR = false;
const VPN_MASK = 2 ** 27 - 1;
/** A bracket comes between: once more, for a copy-on-write of its own is one. */
const MAX_TRIES = 2;

/** The kernel may not reach the address. */
export const LG_FAULT = -3;

export class GuestMmu implements HartMmu {
  /** Guest-physical address of the device that a load or store has just met; who takes it sets -1. */
  iomemGpa = -1;
  nrMinor = 0;
  private readonly mm: Mm;
  private readonly directories: PageDirectories;
  private readonly access: GuestAccess;
  private readonly invalidate: InvalidateSeq;
  private readonly walk: GuestWalk;

  constructor(
    mm: Mm,
    directories: PageDirectories,
    access: GuestAccess,
    fate: Fate,
    invalidate: InvalidateSeq,
    deviceLimit: number,
  ) {
    this.mm = mm;
    this.directories = directories;
    this.access = access;
    this.invalidate = invalidate;
    this.walk = new GuestWalk(access, fate, deviceLimit);
  }

  translate(hart: Hart, va: number, access: Access): MmuResult {
    const user = hart.mode === MODE_USER;
    const index = this.directories.find(vpnOf(va));
    const spte = index < 0 ? 0 : this.directories.tables.entries[index]!;
    if (spte !== 0 && permits(spte, access, user, SUM, MXR)) return this.fill(hart, va, index, access, user);
    return this.demandPage(hart, va, access, user);
  }

  private fill(hart: Hart, va: number, index: number, access: Access, user: boolean): MmuResult {
    const { tables, rmap, codes } = this.directories;
    const spte = tables.entries[index]! | SPTE_A;
    tables.entries[index] = spte;
    if (access === ACCESS_EXEC) codes[rmap.gfn(index)] = spte >>> 12;
    hart.tlbFill(va, spte >>> 12, rightsOf(spte | PTE_D, user, SUM, MXR), access);
    return MMU_OK;
  }

  /** Linux: demand_page. */
  private demandPage(hart: Hart, va: number, access: Access, user: boolean): MmuResult {
    const { walk, directories } = this;
    const vpn = vpnOf(va);
    const found = walk.walk(directories.root, vpn);
    if (found === LG_ABSENT) return MMU_PAGE_FAULT;
    if (found !== LG_OK) return MMU_WAIT;
    if (!permits(walk.low, access, user, SUM, MXR)) return MMU_PAGE_FAULT;
    if (walk.gfn >= this.access.pfnLimit) return this.device(va, access);
    const write = access === ACCESS_WRITE;
    if (this.touch(write) !== LG_OK) return MMU_WAIT;
    const index = this.show(vpn, walk.gfn, walk.low, write);
    if (index < 0) return MMU_WAIT;
    this.nrMinor++;
    return this.fill(hart, va, index, access, user);
  }

  private device(va: number, access: Access): MmuResult {
    if (access !== ACCESS_EXEC) this.iomemGpa = this.walk.gfn * 4096 + (va & 4095);
    return MMU_ACCESS_FAULT;
  }

  /** Accessed, and for a write dirty, in the guest's entry that the walk has found. */
  private touch(write: boolean): number {
    const { low, pteGpa } = this.walk;
    const wanted = write ? PTE_A | PTE_D : PTE_A;
    return (low & wanted) === wanted ? LG_OK : this.access.write32(pteGpa, low | wanted);
  }

  /** Makes the shadow entry for `vpn` with the guest's `rights`; its index, or LG_WAIT. Pairs with notify.ts. */
  private show(vpn: number, gfn: number, rights: number, write: boolean): number {
    const { mm, access, invalidate } = this;
    const hva = access.hva(gfn);
    const flags = write ? FAULT_FLAG_WRITE : 0;
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const seq = invalidate.readBegin();
      const pfn = mm.tryGetPage(hva, flags);
      if (pfn <= 0) return access.wait(gfn, flags);
      const stale = invalidate.readRetry(seq, hva);
      const index = stale ? -1 : this.directories.install(vpn, gfn, spteOf(pfn, rights, write));
      mm.putPage(pfn);
      if (!stale) return index;
    }
    mm.host.vmstat.retries++;
    return access.wait(gfn, flags);
  }

  /** Both are privileged, and not the guest's to do. */
  sfenceVma(): void {}

  satpWritten(): void {}

  /** Host physical address of the kernel's `va`, as `GuestAccess.address`; LG_FAULT where its tables do not allow it. For trap frames. */
  kernelAddress(va: number, write: boolean): number {
    const { walk, access } = this;
    const found = walk.walk(this.directories.root, vpnOf(va));
    if (found === LG_ABSENT) return LG_FAULT;
    if (found !== LG_OK) return found;
    const allowed = permits(walk.low, write ? ACCESS_WRITE : ACCESS_READ, false, SUM, MXR);
    if (!allowed || walk.gfn >= access.pfnLimit) return LG_FAULT;
    const { gfn } = walk;
    const touched = this.touch(write);
    return touched === LG_OK ? access.address(gfn * 4096 + (va & 4095), write) : touched;
  }

  /** Guest-physical address of the code at `va`, or LG_FAULT, LG_WAIT, LG_DEAD. */
  codeGpa(va: number, user: boolean): number {
    const found = this.walk.walk(this.directories.root, vpnOf(va));
    if (found !== LG_OK) return found === LG_ABSENT ? LG_FAULT : found;
    if (!permits(this.walk.low, ACCESS_EXEC, user, SUM, MXR)) return LG_FAULT;
    return this.walk.gfn * 4096 + (va & 4095);
  }

  // What the guest tells of its tables (hypercalls.ts). `root` is a guest-physical address.

  /** Linux: guest_set_pte. Where the address space has a shadow entry it goes; one that the guest has used already is shown at once. */
  setPte(root: number, va: number, low: number, high: number): number {
    const { directories } = this;
    const vpn = vpnOf(va);
    const directory = directories.directoryFor(directories.directoryOf(root), vpn);
    const index = directory < 0 ? -1 : directories.tables.find(directory, vpn);
    if (index < 0) return LG_OK;
    if (directories.tables.entries[index] !== 0) directories.clear(index);
    if ((low & USED) !== USED) return LG_OK;
    const gfn = (high & 0x3fffff) * 2 ** 22 + (low >>> 10);
    const leaf = (low & (PTE_R | PTE_X)) !== 0;
    if (!leaf || !this.walk.sound(low, high, 0, leaf) || gfn >= this.walk.deviceLimit)
      return this.walk.wild(low, high, 0, vpn);
    // What would have to be waited for is left to a fault.
    if (directories.isVisible(directory) && gfn < this.access.pfnLimit)
      this.show(vpn, gfn, low, (low & WRITTEN) === WRITTEN);
    return LG_OK;
  }
}

const USED = PTE_V | PTE_A;
const WRITTEN = PTE_W | PTE_D;

function spteOf(pfn: number, rights: number, write: boolean): number {
  return (pfn << 12) | SPTE_V | (rights & (SPTE_R | SPTE_X | SPTE_U)) | (write ? SPTE_W : 0);
}

export function vpnOf(va: number): number {
  return Math.floor(va / 4096) & VPN_MASK;
}
