import * as C from './csr.js';
import { CSR } from './csr.js';
import { MODE_SUPERVISOR, MODE_USER } from './exits.js';
import type { Hart } from './hart.js';
import * as L from './layout.js';

/**
 * Reading and writing CSRs. Values travel as two 32-bit halves in `low` and `high`, so that nothing is allocated.
 */

/** CSRs that are plain 64-bit storage, with the bits of the low word that stay 0. */
const STORAGE: ReadonlyMap<number, readonly [offset: number, clear: number]> = new Map([
  [CSR.stvec, [L.CSR_STVEC, 2]],
  [CSR.sscratch, [L.CSR_SSCRATCH, 0]],
  [CSR.sepc, [L.CSR_SEPC, 1]],
  [CSR.scause, [L.CSR_SCAUSE, 0]],
  [CSR.stval, [L.CSR_STVAL, 0]],
]);

const KNOWN = new Set<number>(Object.values(CSR));
/** senvcfg.FIOM is its one field here. */
const SENVCFG_FIOM = 1;
const SCOUNTEREN_WRITABLE = 7;

export class CsrFile {
  low = 0;
  high = 0;
  private readonly hart: Hart;
  private readonly i32: Int32Array;
  private readonly base: number;
  private readonly now: () => number;

  constructor(hart: Hart, now: () => number) {
    this.hart = hart;
    this.i32 = hart.engine.i32;
    this.base = hart.base;
    this.now = now;
  }

  private word(offset: number): number {
    return this.i32[(this.base + offset) >>> 2]!;
  }

  private setWord(offset: number, value: number): void {
    this.i32[(this.base + offset) >>> 2] = value;
  }

  /** Whether the CSR exists and the present mode may read it, and write it if `write`. */
  accessible(csr: number, write: boolean): boolean {
    if (!KNOWN.has(csr) || (write && csr >>> 10 === 3)) return false;
    if (csr <= CSR.fcsr) return this.word(L.FS) !== 0;
    const user = this.hart.mode === MODE_USER;
    if (((csr >>> 8) & 3) === MODE_SUPERVISOR) return !user && !this.hart.deprivileged;
    return !user || (this.word(L.CSR_SCOUNTEREN) & (1 << (csr - CSR.cycle))) !== 0;
  }

  /** Sets `low` and `high`. */
  read(csr: number): void {
    const storage = STORAGE.get(csr);
    if (storage !== undefined) this.set(this.word(storage[0]), this.word(storage[0] + 4));
    else this.readSpecial(csr);
  }

  private set(low: number, high: number): void {
    this.low = low;
    this.high = high;
  }

  private setNumber(value: number): void {
    this.set(value | 0, Math.floor(value / 2 ** 32) | 0);
  }

  private readSpecial(csr: number): void {
    switch (csr) {
      case CSR.sstatus:
        return this.readStatus();
      case CSR.sie:
        return this.set(this.word(L.CSR_SIE), 0);
      case CSR.sip:
        return this.set(this.word(L.CSR_SIP), 0);
      case CSR.satp:
        return this.set(this.word(L.CSR_SATP), this.word(L.CSR_SATP + 4));
      case CSR.scounteren:
        return this.set(this.word(L.CSR_SCOUNTEREN), 0);
      case CSR.senvcfg:
        return this.set(this.word(L.CSR_SENVCFG), 0);
      case CSR.fflags:
        return this.set(this.word(L.FFLAGS), 0);
      case CSR.frm:
        return this.set(this.word(L.FRM), 0);
      case CSR.fcsr:
        return this.set(this.word(L.FFLAGS) | (this.word(L.FRM) << 5), 0);
      case CSR.time:
        return this.setNumber(this.now());
      default:
        // cycle and instret: the instruction that reads does not count itself yet.
        return this.setNumber(this.hart.instretNow() - 1);
    }
  }

  private readStatus(): void {
    const fs = this.word(L.FS);
    this.set(this.word(L.CSR_SSTATUS) | (fs << C.SSTATUS_FS_SHIFT), C.SSTATUS_UXL_64 | (fs === 3 ? C.SSTATUS_SD : 0));
  }

  /** Writes `low` and `high` of the caller's, as far as the CSR takes them. */
  write(csr: number, low: number, high: number): void {
    const storage = STORAGE.get(csr);
    if (storage === undefined) {
      this.writeSpecial(csr, low, high);
      return;
    }
    this.setWord(storage[0], low & ~storage[1]);
    this.setWord(storage[0] + 4, high);
  }

  private writeSpecial(csr: number, low: number, high: number): void {
    switch (csr) {
      case CSR.sstatus:
        return this.writeStatus(low);
      case CSR.sie:
        return this.setWord(L.CSR_SIE, low & C.INTERRUPTS);
      case CSR.sip:
        return this.writePending(low);
      case CSR.satp:
        return this.writeSatp(low, high);
      case CSR.scounteren:
        return this.setWord(L.CSR_SCOUNTEREN, low & SCOUNTEREN_WRITABLE);
      case CSR.senvcfg:
        return this.setWord(L.CSR_SENVCFG, low & SENVCFG_FIOM);
      case CSR.fflags:
        return this.writeFloat(low & 31, this.word(L.FRM));
      case CSR.frm:
        return this.writeFloat(this.word(L.FFLAGS), low & 7);
      case CSR.fcsr:
        return this.writeFloat(low & 31, (low >>> 5) & 7);
    }
  }

  private writeFloat(fflags: number, frm: number): void {
    this.setWord(L.FFLAGS, fflags);
    this.setWord(L.FRM, frm);
    this.setWord(L.FS, 3);
  }

  private writeStatus(low: number): void {
    const before = this.word(L.CSR_SSTATUS);
    this.setWord(L.CSR_SSTATUS, low & C.SSTATUS_WRITABLE);
    this.setWord(L.FS, (low & C.SSTATUS_FS) >>> C.SSTATUS_FS_SHIFT);
    if (((before ^ low) & C.SSTATUS_MXR) !== 0) this.hart.tlbFlushAll();
    this.hart.updateContext();
  }

  /** Software may raise and lower SSIP alone. */
  private writePending(low: number): void {
    const soft = 1 << C.IRQ_S_SOFT;
    const sip = (this.base + L.CSR_SIP) >>> 2;
    // Other threads raise the other bits.
    if ((low & soft) !== 0) Atomics.or(this.i32, sip, soft);
    else Atomics.and(this.i32, sip, ~soft);
  }

  /** An unsupported mode: the write is ignored whole, which is how Linux finds out what there is. */
  private writeSatp(low: number, high: number): void {
    const mode = high >>> 28;
    if (mode !== C.SATP_MODE_BARE && mode !== C.SATP_MODE_SV39) return;
    if (low === this.word(L.CSR_SATP) && high === this.word(L.CSR_SATP + 4)) return;
    const wasPaging = this.hart.paging;
    this.setWord(L.CSR_SATP, low);
    this.setWord(L.CSR_SATP + 4, high);
    this.hart.switchSpace(wasPaging);
    this.hart.mmu.satpWritten(this.hart);
  }
}
