import * as C from './csr.js';
import { HART_EXIT_TRAP, MODE_SUPERVISOR, MODE_USER } from './exits.js';
import type { Hart } from './hart.js';
import * as L from './layout.js';

/**
 * Traps into S-mode, and back (privileged manual, section 12.1.1). Everything that concerns the guest is delegated to
 * S-mode: machine mode is the hypervisor's. Of a deprivileged hart nothing is: it leaves.
 */

/** Interrupts by priority, highest first (section 12.1.3). */
const BY_PRIORITY = [C.IRQ_S_EXT, C.IRQ_S_SOFT, C.IRQ_S_TIMER];

export class Traps {
  private readonly hart: Hart;
  private readonly i32: Int32Array;

  constructor(hart: Hart) {
    this.hart = hart;
    this.i32 = hart.engine.i32;
  }

  private at(offset: number): number {
    return (this.hart.base + offset) >>> 2;
  }

  private set64(offset: number, low: number, high: number): void {
    this.i32[this.at(offset)] = low;
    this.i32[this.at(offset) + 1] = high;
  }

  /** An exception of the instruction at pc, with stval. Whether the hart leaves: a deprivileged one does, for its embedder to take it. */
  exception(cause: number, tvalLow: number, tvalHigh: number): boolean {
    this.hart.nrTraps++;
    if (this.hart.deprivileged) return this.leave(cause, tvalLow, tvalHigh);
    this.enter(cause, 0, tvalLow, tvalHigh);
    return false;
  }

  private leave(cause: number, tvalLow: number, tvalHigh: number): boolean {
    this.set64(L.CSR_SCAUSE, cause, 0);
    this.set64(L.CSR_STVAL, tvalLow, tvalHigh);
    this.hart.exit = HART_EXIT_TRAP;
    return true;
  }

  private enter(cause: number, causeHigh: number, tvalLow: number, tvalHigh: number): void {
    const { i32, hart } = this;
    const status = i32[this.at(L.CSR_SSTATUS)]!;
    this.set64(L.CSR_SEPC, i32[this.at(L.PC)]!, i32[this.at(L.PC) + 1]!);
    this.set64(L.CSR_SCAUSE, cause, causeHigh);
    this.set64(L.CSR_STVAL, tvalLow, tvalHigh);
    this.set64(L.RESERVED_VA, -1, -1);
    const saved = (hart.mode === MODE_USER ? 0 : C.SSTATUS_SPP) | ((status & C.SSTATUS_SIE) !== 0 ? C.SSTATUS_SPIE : 0);
    i32[this.at(L.CSR_SSTATUS)] = (status & ~(C.SSTATUS_SPP | C.SSTATUS_SPIE | C.SSTATUS_SIE)) | saved;
    const vector = i32[this.at(L.CSR_STVEC)]!;
    const vectored = (vector & 1) !== 0 && causeHigh !== 0;
    this.setPc((vector & ~3) + (vectored ? 4 * cause : 0), i32[this.at(L.CSR_STVEC) + 1]!);
    hart.setMode(MODE_SUPERVISOR);
  }

  private setPc(low: number, high: number): void {
    this.set64(L.PC, low | 0, high);
  }

  /** Takes the pending interrupt of the highest priority, if one may be taken now. */
  takeInterrupt(): boolean {
    const pending = this.i32[this.at(L.CSR_SIP)]! & this.i32[this.at(L.CSR_SIE)]!;
    if (pending === 0 || this.hart.deprivileged) return false;
    const enabled = this.hart.mode === MODE_USER || (this.i32[this.at(L.CSR_SSTATUS)]! & C.SSTATUS_SIE) !== 0;
    if (!enabled) return false;
    const cause = BY_PRIORITY.find((c) => (pending & (1 << c)) !== 0)!;
    this.enter(cause, 1 << 31, 0, 0);
    return true;
  }

  sret(): void {
    const { i32, hart } = this;
    const status = i32[this.at(L.CSR_SSTATUS)]!;
    const enabled = (status & C.SSTATUS_SPIE) !== 0 ? C.SSTATUS_SIE : 0;
    i32[this.at(L.CSR_SSTATUS)] = (status & ~(C.SSTATUS_SIE | C.SSTATUS_SPP)) | C.SSTATUS_SPIE | enabled;
    this.set64(L.RESERVED_VA, -1, -1);
    this.setPc(i32[this.at(L.CSR_SEPC)]!, i32[this.at(L.CSR_SEPC) + 1]!);
    hart.setMode((status & C.SSTATUS_SPP) !== 0 ? MODE_SUPERVISOR : MODE_USER);
  }
}
