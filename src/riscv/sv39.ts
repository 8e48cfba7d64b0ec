import { ACCESS_EXEC, ACCESS_WRITE, type Access, MMU_OK, MMU_PAGE_FAULT, type MmuResult } from './mmu.js';

/**
 * The walk of a guest's page tables (privileged manual, section 12.3.2 with 12.4, Sv39). Sets accessed and dirty bits
 * itself, as a hart with Svadu does.
 *
 * Guest-physical memory is reached through `PteSource` alone, so that a hypervisor can page it.
 */

export const PTE_V = 1;
export const PTE_R = 2;
export const PTE_W = 4;
export const PTE_X = 8;
export const PTE_U = 16;
export const PTE_G = 32;
export const PTE_A = 64;
export const PTE_D = 128;

const LEVELS = 3;
/** A pte changed under the walk. */
const MMU_AGAIN = -1;

export interface PteSource {
  /**
   * Host address of the 8 bytes at guest-physical `gpa`, for reading or also for writing; below 0: the negative of an
   * MmuResult.
   */
  pteAddress(gpa: number, write: boolean): number;
}

/** One walk and its result: an object of the hart's, used again for each walk, so that walking allocates nothing. */
export class Sv39Walk {
  /** Guest-physical address that va translates to. */
  gpa = 0;
  /** PTE_* flags of the leaf, with A and D as they are now. */
  flags = 0;
  /** Level of the leaf: 0 for a 4 KiB page, 1 for 2 MiB, 2 for 1 GiB. */
  level = 0;
  /** ppn of the table of each level, from the root's down to the leaf's. */
  readonly tables = new Float64Array(LEVELS);
  private readonly i32: Int32Array;

  /** @param i32 all of the host's memory. */
  constructor(i32: Int32Array) {
    this.i32 = i32;
  }

  /**
   * @param rootPpn satp.PPN. @param va canonical. @param user whether the access is of U-mode.
   * @param sum sstatus.SUM. @param mxr sstatus.MXR.
   */
  walk(
    source: PteSource,
    rootPpn: number,
    va: number,
    access: Access,
    user: boolean,
    sum: boolean,
    mxr: boolean,
  ): MmuResult {
    for (;;) {
      const result = this.walkOnce(source, rootPpn, va, access, user, sum, mxr);
      if (result !== MMU_AGAIN) return result;
    }
  }

  private walkOnce(
    source: PteSource,
    rootPpn: number,
    va: number,
    access: Access,
    user: boolean,
    sum: boolean,
    mxr: boolean,
  ): MmuResult | typeof MMU_AGAIN {
    const vpn = Math.floor(va / 4096);
    let table = rootPpn;
    for (let level = LEVELS - 1; level >= 0; level--) {
      this.tables[level] = table;
      const gpa = table * 4096 + ((vpn >> (9 * level)) & 511) * 8;
      const at = source.pteAddress(gpa, false);
      if (at < 0) return -at as MmuResult;
      const low = this.i32[at >>> 2]!;
      const high = this.i32[(at >>> 2) + 1]!;
      // Bits 63..54 belong to extensions that this hart lacks; W without R is reserved.
      if ((low & PTE_V) === 0 || (low & (PTE_R | PTE_W)) === PTE_W || high >>> 22 !== 0) return MMU_PAGE_FAULT;
      const ppn = (high & 0x3fffff) * 2 ** 22 + (low >>> 10);
      if ((low & (PTE_R | PTE_X)) !== 0) return this.leaf(source, gpa, low, ppn, level, va, access, user, sum, mxr);
      if ((low & (PTE_A | PTE_D | PTE_U)) !== 0) return MMU_PAGE_FAULT;
      table = ppn;
    }
    return MMU_PAGE_FAULT;
  }

  private leaf(
    source: PteSource,
    pteGpa: number,
    low: number,
    ppn: number,
    level: number,
    va: number,
    access: Access,
    user: boolean,
    sum: boolean,
    mxr: boolean,
  ): MmuResult | typeof MMU_AGAIN {
    if (!permits(low, access, user, sum, mxr)) return MMU_PAGE_FAULT;
    const within = (1 << (9 * level)) - 1;
    if (((low >>> 10) & within) !== 0) return MMU_PAGE_FAULT;
    const wanted = PTE_A | (access === ACCESS_WRITE ? PTE_D : 0);
    if ((low & wanted) !== wanted) {
      const at = source.pteAddress(pteGpa, true);
      if (at < 0) return -at as MmuResult;
      // Another hart may have changed the pte meanwhile: the bits are set in the one that was checked, or the walk begins again.
      if (Atomics.compareExchange(this.i32, at >>> 2, low, low | wanted) !== low) return MMU_AGAIN;
    }
    // WHY by bits: with remainders of doubles a walk took 97 ns instead of 31.
    this.gpa = (ppn + (Math.floor(va / 4096) & within)) * 4096 + (va & 4095);
    this.flags = low | wanted;
    this.level = level;
    return MMU_OK;
  }
}

/** Whether a leaf with PTE_* `flags` allows an access, apart from A and D. */
export function permits(flags: number, access: Access, user: boolean, sum: boolean, mxr: boolean): boolean {
  if ((flags & PTE_U) !== 0) {
    if (!user && (access === ACCESS_EXEC || !sum)) return false;
  } else if (user) {
    return false;
  }
  if (access === ACCESS_EXEC) return (flags & PTE_X) !== 0;
  if (access === ACCESS_WRITE) return (flags & PTE_W) !== 0;
  return (flags & PTE_R) !== 0 || (mxr && (flags & PTE_X) !== 0);
}
