import { LGUEST_DATA, LGUEST_DATA_BYTES, LGUEST_HCALL_BYTES, LHCALL_RING_SIZE } from './abi.js';
import { LG_OK } from './death.js';
import type { GuestAccess } from './guestaccess.js';

/**
 * struct lguest_data: the words that guest and host share, in the guest's memory. Nothing of it is believed, nor kept. Before LHCALL_LGUEST_INIT there is
 * none: then interrupts are off, and the ring is empty.
 */
export class LguestData {
  /** Guest-physical address; -1 before LHCALL_LGUEST_INIT. */
  gpa = -1;
  private readonly access: GuestAccess;

  constructor(access: GuestAccess) {
    this.access = access;
  }

  /** Whether it would fit at `gpa`. */
  fits(gpa: number): boolean {
    return gpa % 8 === 0 && gpa + LGUEST_DATA_BYTES <= this.access.pfnLimit * 4096;
  }

  /** A u32 into `access.low`, or a u64 into its halves; LG_OK, LG_WAIT or LG_DEAD. */
  read32(field: number): number {
    return this.access.read32(this.gpa + field);
  }

  read64(field: number): number {
    return this.access.read64(this.gpa + field);
  }

  write32(field: number, value: number): number {
    return this.access.write32(this.gpa + field, value);
  }

  write64(field: number, low: number, high: number): number {
    return this.access.write64(this.gpa + field, low, high);
  }

  /** Status of an entry of the ring, into `access.low`. */
  readStatus(entry: number): number {
    return this.access.read8(this.gpa + LGUEST_DATA.hcallStatus + entry);
  }

  writeStatus(entry: number, status: number): number {
    return this.access.write8(this.gpa + LGUEST_DATA.hcallStatus + entry, status);
  }

  /** Number and arguments of an entry, low and high halves in turn, into `args`. */
  readHcall(entry: number, args: Int32Array): number {
    const gpa = this.gpa + LGUEST_DATA.hcalls + (entry % LHCALL_RING_SIZE) * LGUEST_HCALL_BYTES;
    for (let i = 0; i < args.length / 2; i++) {
      const read = this.access.read64(gpa + 8 * i);
      if (read !== LG_OK) return read;
      args[2 * i] = this.access.low;
      args[2 * i + 1] = this.access.high;
    }
    return LG_OK;
  }
}
