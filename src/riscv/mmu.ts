import type { Hart } from './hart.js';

/**
 * How a hart reaches memory: the interface between a hart and whoever owns its memory (a hypervisor, or FlatMmu).
 */

export const ACCESS_READ = 0;
export const ACCESS_WRITE = 1;
export const ACCESS_EXEC = 2;
export type Access = typeof ACCESS_READ | typeof ACCESS_WRITE | typeof ACCESS_EXEC;

export const RIGHT_R = 1;
export const RIGHT_W = 2;
export const RIGHT_X = 4;

/** Answers of `HartMmu.translate`. */
export const MMU_OK = 0;
/** The guest's page tables do not allow it: a page fault for the guest. */
export const MMU_PAGE_FAULT = 1;
/** Nothing is there, or it may not be used so: an access fault for the guest. */
export const MMU_ACCESS_FAULT = 2;
/** A device: `hart.mmioGpa` is set. */
export const MMU_MMIO = 3;
/** Not to be had now: the hart leaves with HART_EXIT_WAIT and nothing done; run it again later. */
export const MMU_WAIT = 4;
export type MmuResult =
  | typeof MMU_OK
  | typeof MMU_PAGE_FAULT
  | typeof MMU_ACCESS_FAULT
  | typeof MMU_MMIO
  | typeof MMU_WAIT;

export interface HartMmu {
  /**
   * The TLB lacks `va` for `access` in the hart's present mode. Either calls `hart.tlbFill` with that right and answers
   * MMU_OK, or says why not. `va` is a number: with Sv39 sign-extended from bit 38 (so negative in the upper half),
   * without paging the physical address.
   */
  translate(hart: Hart, va: number, access: Access): MmuResult;
  /**
   * `sfence.vma`; undefined stands for all addresses, all address spaces. The hart's own TLB has lost already the page of `va`, in all spaces,
   * or all of the address space (but what is global), or all; what else came from the same superpage is for the MMU to flush.
   */
  sfenceVma(hart: Hart, va: number | undefined, asid: number | undefined): void;
  /** satp has another value. What the hart's own TLB has of other address spaces it keeps, for when they come back. */
  satpWritten(hart: Hart): void;
}
