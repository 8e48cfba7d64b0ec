import { FAULT_FLAG_WRITE, type Mm, PAGE_SIZE, pfnToPa } from '../mm/index.js';
import { type Fate, LG_OK, LG_WAIT } from './death.js';

/**
 * Guest memory as the driver itself reaches it, by guest-physical address (Linux: lgread, lgwrite). An address beyond the guest's memory kills the guest.
 *
 * Nothing of it is kept: each access asks the mm for the page, and where that is absent says LG_WAIT; `waitHva` and `waitFlags` say for what. So what is
 * built of several accesses is written to be done again from the start: it changes nothing that it would read again before its last access.
 */
export class GuestAccess {
  /** Host virtual address of guest-physical 0. */
  readonly base: number;
  readonly pfnLimit: number;
  waitHva = 0;
  waitFlags = 0;
  /** What was read. */
  low = 0;
  high = 0;
  private readonly mm: Mm;
  private readonly fate: Fate;
  private readonly i32: Int32Array;
  private readonly u8: Uint8Array;
  private readonly written: (gfn: number) => void;

  /** `i32` is all of the host's memory. `written`: the page `gfn` is about to be written. */
  constructor(mm: Mm, i32: Int32Array, base: number, pfnLimit: number, fate: Fate, written: (gfn: number) => void) {
    this.mm = mm;
    this.i32 = i32;
    this.u8 = mm.host.u8;
    this.base = base;
    this.pfnLimit = pfnLimit;
    this.fate = fate;
    this.written = written;
  }

  /** Host virtual address of a page of guest memory. */
  hva(gfn: number): number {
    return this.base + gfn * PAGE_SIZE;
  }

  wait(gfn: number, flags: number): typeof LG_WAIT {
    this.waitHva = this.hva(gfn);
    this.waitFlags = flags;
    return LG_WAIT;
  }

  /** Host physical address of `gpa`, good until the next access; or LG_WAIT, LG_DEAD. */
  address(gpa: number, write: boolean): number {
    const gfn = Math.floor(gpa / PAGE_SIZE);
    if (!(gfn >= 0 && gfn < this.pfnLimit)) return this.fate.kill(this.describeWild(gpa, write));
    const flags = write ? FAULT_FLAG_WRITE : 0;
    const pfn = this.mm.tryGetPage(this.hva(gfn), flags);
    if (pfn <= 0) return this.wait(gfn, flags);
    this.mm.putPage(pfn);
    if (write) this.written(gfn);
    return pfnToPa(pfn) + (gpa % PAGE_SIZE);
  }

  private describeWild(gpa: number, write: boolean): string {
    const end = this.pfnLimit * PAGE_SIZE;
    return `bad ${write ? 'write' : 'read'} address 0x${gpa.toString(16)}: guest memory ends at 0x${end.toString(16)}`;
  }

  /** The doubleword at `gpa`, a multiple of 8, into `low` and `high`. */
  read64(gpa: number): number {
    const at = this.address(gpa, false);
    if (at < 0) return at;
    this.low = this.i32[at >>> 2]!;
    this.high = this.i32[(at >>> 2) + 1]!;
    return LG_OK;
  }

  write64(gpa: number, low: number, high: number): number {
    const at = this.address(gpa, true);
    if (at < 0) return at;
    this.i32[at >>> 2] = low;
    this.i32[(at >>> 2) + 1] = high;
    return LG_OK;
  }

  /** The word at `gpa`, a multiple of 4, into `low`. */
  read32(gpa: number): number {
    const at = this.address(gpa, false);
    if (at < 0) return at;
    this.low = this.i32[at >>> 2]!;
    return LG_OK;
  }

  write32(gpa: number, value: number): number {
    const at = this.address(gpa, true);
    if (at < 0) return at;
    this.i32[at >>> 2] = value;
    return LG_OK;
  }

  /** Into `low`. */
  read8(gpa: number): number {
    const at = this.address(gpa, false);
    if (at < 0) return at;
    this.low = this.u8[at]!;
    return LG_OK;
  }

  write8(gpa: number, value: number): number {
    const at = this.address(gpa, true);
    if (at < 0) return at;
    this.u8[at] = value;
    return LG_OK;
  }
}
