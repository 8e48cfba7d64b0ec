import { PAGE_SIZE } from '../mm/index.js';
import { PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from '../riscv/index.js';
import { type Fate, LG_OK } from './death.js';
import type { GuestAccess } from './guestaccess.js';
import { hex64, hexAddress } from './words64.js';

/**
 * The walk of a guest's own page tables (privileged manual, section 12.4, Sv39), which the host does in its place. A table that makes no sense, or names
 * memory that the guest has not, kills the guest (Linux: check_gpgd, check_gpte): its own tables are the one thing a guest kernel must get right.
 *
 * Use: `walk`; where that answers LG_OK, the fields are the entry.
 */

/** The guest has nothing there: its own page fault. */
export const LG_ABSENT = 1;

const LEVELS = 3;
const RESERVED_HIGH = 22;

export class GuestWalk {
  /** Guest-physical address of the entry, its low half, and the page of the address that was asked for. Without tables there is no entry: -1. */
  pteGpa = -1;
  low = 0;
  gfn = 0;
  private readonly access: GuestAccess;
  private readonly fate: Fate;
  readonly deviceLimit: number;

  constructor(access: GuestAccess, fate: Fate, deviceLimit: number) {
    this.access = access;
    this.fate = fate;
    this.deviceLimit = deviceLimit;
  }

  /** `root`: guest-physical address of the root table, -1 for memory one to one. `vpn`: 27 bits. LG_OK, LG_ABSENT, LG_WAIT or LG_DEAD. */
  walk(root: number, vpn: number): number {
    if (root < 0) return this.linear(vpn);
    let table = root;
    for (let level = LEVELS - 1; ; level--) {
      const gpa = table + ((vpn >>> (9 * level)) & 511) * 8;
      const read = this.access.read64(gpa);
      if (read !== LG_OK) return read;
      const { low, high } = this.access;
      if ((low & PTE_V) === 0) return LG_ABSENT;
      const leaf = (low & (PTE_R | PTE_W | PTE_X)) !== 0;
      if (!this.sound(low, high, level, leaf)) return this.wild(low, high, level, vpn);
      const ppn = (high & 0x3fffff) * 2 ** 22 + (low >>> 10);
      if (leaf) return this.leaf(gpa, low, high, ppn + (vpn & pagesMask(level)), level, vpn);
      if (ppn >= this.access.pfnLimit) return this.wild(low, high, level, vpn);
      table = ppn * PAGE_SIZE;
    }
  }

  /** Whether the entry may stand in a table of `level`, wherever it leads. */
  sound(low: number, high: number, level: number, leaf: boolean): boolean {
    if (high >>> RESERVED_HIGH !== 0) return false;
    if (!leaf) return level > 0 && (low & (PTE_A | PTE_D | PTE_U)) === 0;
    return (low & (PTE_R | PTE_W)) !== PTE_W && ((low >>> 10) & pagesMask(level)) === 0;
  }

  private leaf(gpa: number, low: number, high: number, gfn: number, level: number, vpn: number): number {
    if (gfn >= this.deviceLimit) return this.wild(low, high, level, vpn);
    this.pteGpa = gpa;
    this.low = low;
    this.gfn = gfn;
    return LG_OK;
  }

  private linear(vpn: number): number {
    if (vpn >= this.deviceLimit) return LG_ABSENT;
    this.pteGpa = -1;
    this.low = PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D;
    this.gfn = vpn;
    return LG_OK;
  }

  wild(low: number, high: number, level: number, vpn: number): number {
    const entry = `bad page table entry ${hex64(low, high)} for ${hexAddress(((vpn << 5) >> 5) * PAGE_SIZE)}`;
    return this.fate.kill(`${entry}, level ${level}: guest memory has 0x${this.access.pfnLimit.toString(16)} pages`);
  }
}

/** Which bits of a page number lie within an entry of the level. */
function pagesMask(level: number): number {
  return (1 << (9 * level)) - 1;
}
