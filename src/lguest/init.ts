import { KernelError } from '../base/index.js';
import { PAGE_SIZE, VA_SIZE } from '../mm/index.js';

/** LHREQ_INITIALIZE: what a launcher tells of its guest. */
export interface LguestInit {
  /** Host virtual address of the guest's memory, one mapping of the launcher's mm: guest-physical 0. A multiple of 4096. */
  readonly base: number;
  /** Pages of guest memory. */
  readonly pfnLimit: number;
  /** Where it begins, a virtual address, even. */
  readonly start: number | bigint;
  /** Guest-physical address of the first root table; without it the guest begins with its memory shown one to one. */
  readonly pgdir?: number;
  /**
   * Pages [pfnLimit, deviceLimit) of guest-physical memory are devices: an access through the guest's page tables is a pending trap for the launcher. Default
   * pfnLimit, none. A page table that names anything beyond kills the guest.
   */
  readonly deviceLimit?: number;
  /** Locks the guest's memory, as lguest of 2007 did: refused unless the mm's memlock limit allows it. Default false: nothing is locked. */
  readonly pin?: boolean;
}

/** Pages of a guest, at most: what the frames of a host could hold, many times over. */
const MAX_PFN_LIMIT = 2 ** 24;

/** Throws KernelError EINVAL. */
export function checkInit({ base, pfnLimit, deviceLimit = pfnLimit, pgdir = 0, start }: LguestInit): void {
  const refuse = (what: string) => {
    throw new KernelError('EINVAL', 'initialize', what);
  };
  if (!Number.isInteger(pfnLimit) || pfnLimit < 1 || pfnLimit > MAX_PFN_LIMIT)
    refuse(`pfnLimit ${pfnLimit} must be an integer from 1 to ${MAX_PFN_LIMIT} pages`);
  if (!Number.isInteger(base) || base < 0 || base % PAGE_SIZE !== 0 || base + pfnLimit * PAGE_SIZE > VA_SIZE)
    refuse(`base ${base} must be a multiple of ${PAGE_SIZE} with the guest's memory behind it`);
  if (!Number.isInteger(deviceLimit) || deviceLimit < pfnLimit || deviceLimit > MAX_PFN_LIMIT)
    refuse(`deviceLimit ${deviceLimit} must be an integer from pfnLimit ${pfnLimit} to ${MAX_PFN_LIMIT} pages`);
  if (!Number.isInteger(pgdir) || pgdir < 0 || pgdir % PAGE_SIZE !== 0 || pgdir >= pfnLimit * PAGE_SIZE)
    refuse(`pgdir ${pgdir} must be a multiple of ${PAGE_SIZE} in the guest's memory`);
  if (typeof start !== 'bigint' && !Number.isSafeInteger(start)) refuse(`start ${start} must be an address`);
  if ((BigInt(start) & 1n) !== 0n) refuse(`start ${start} must be even, as all addresses of instructions`);
}
