import { MODE_USER } from './exits.js';
import type { Hart } from './hart.js';
import {
  type Access,
  type HartMmu,
  MMU_ACCESS_FAULT,
  MMU_MMIO,
  MMU_OK,
  type MmuResult,
  RIGHT_R,
  RIGHT_W,
  RIGHT_X,
} from './mmu.js';
import { PTE_D, PTE_G, PTE_R, PTE_W, PTE_X, type PteSource, permits, Sv39Walk } from './sv39.js';

/**
 * Bare memory: guest-physical [ramBase, ramBase + lenBytes) lies in one piece at `hostBase`; all else are devices. No mm, no
 * paging of the host: for the ISA tests, and as the baseline that benchmarks compare with.
 */
export class FlatMmu implements HartMmu, PteSource {
  private readonly ramBase: number;
  private readonly lenBytes: number;
  private readonly hostBase: number;
  private readonly walk: Sv39Walk;
  /** Some translation came from a superpage: an sfence.vma of one of its addresses is for all of them. */
  private superpages = false;

  /** `i32` is all of the host's memory; all three numbers are multiples of 4096. */
  constructor(i32: Int32Array, ramBase: number, lenBytes: number, hostBase: number) {
    this.ramBase = ramBase;
    this.lenBytes = lenBytes;
    this.hostBase = hostBase;
    this.walk = new Sv39Walk(i32);
  }

  /** Host address of a guest-physical one, or -1. */
  host(gpa: number): number {
    const offset = gpa - this.ramBase;
    return offset >= 0 && offset < this.lenBytes ? this.hostBase + offset : -1;
  }

  pteAddress(gpa: number): number {
    const host = this.host(gpa);
    return host < 0 ? -MMU_ACCESS_FAULT : host;
  }

  translate(hart: Hart, va: number, access: Access): MmuResult {
    let gpa = va;
    let rights = RIGHT_R | RIGHT_W | RIGHT_X;
    let global = false;
    if (hart.paging) {
      const user = hart.mode === MODE_USER;
      const result = this.walk.walk(this, hart.satpPpn, va, access, user, hart.sum, hart.mxr);
      if (result !== MMU_OK) return result;
      gpa = this.walk.gpa;
      if (this.walk.level > 0) this.superpages = true;
      global = (this.walk.flags & PTE_G) !== 0;
      rights = rightsOf(this.walk.flags, user, hart.sum, hart.mxr);
    }
    const host = this.host(gpa);
    if (host < 0) {
      hart.mmioGpa = gpa;
      return access === 2 ? MMU_ACCESS_FAULT : MMU_MMIO;
    }
    hart.tlbFill(va, host >>> 12, rights, access, global);
    return MMU_OK;
  }

  sfenceVma(hart: Hart, va: number | undefined, asid: number | undefined): void {
    if (va !== undefined && this.superpages) hart.tlbFlushAll();
    else if (va !== undefined || asid !== undefined) return;
    this.superpages = false;
  }

  satpWritten(): void {}
}

/** RIGHT_* that a leaf with PTE_* `flags` gives now: writing only once it is dirty, so that the first write is seen. */
export function rightsOf(flags: number, user: boolean, sum: boolean, mxr: boolean): number {
  const read = permits(flags, 0, user, sum, mxr) && (flags & (PTE_R | PTE_X)) !== 0 ? RIGHT_R : 0;
  const write = permits(flags, 1, user, sum, mxr) && (flags & (PTE_W | PTE_D)) === (PTE_W | PTE_D) ? RIGHT_W : 0;
  return read | write | (permits(flags, 2, user, sum, mxr) ? RIGHT_X : 0);
}
