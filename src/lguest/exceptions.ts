import {
  CSR,
  decode,
  disassemble,
  EXC_ILLEGAL,
  EXC_LOAD_ACCESS,
  EXC_STORE_ACCESS,
  type Hart,
  MODE_SUPERVISOR,
  MODE_USER,
} from '../riscv/index.js';
import type { LgCpu } from './cpu.js';
import { type Fate, LG_OK } from './death.js';
import type { GuestAccess } from './guestaccess.js';
import type { LguestPending } from './lguest.js';
import { type GuestMmu, LG_FAULT } from './mmu.js';
import type { Traps } from './traps.js';
import { hex64, toAddress } from './words64.js';

/**
 * What the hart came out for with an exception (Linux: lguest_arch_handle_trap): a privileged instruction of the kernel is its end; an access to a device is
 * the launcher's; all else the guest's own, and handed to its kernel. Page faults that were the host's have not come here: demand_page has served them.
 *
 * Use: `take` after HART_EXIT_TRAP, or `inject`; `deliver` until it answers LG_OK; then `device`, where it is set, is for the launcher.
 */
const NONE = -1;

export class Exceptions {
  device: LguestPending | undefined;
  private cause = NONE;
  private tvalLow = 0;
  private tvalHigh = 0;
  private deviceGpa = NONE;
  private readonly hart: Hart;
  private readonly mmu: GuestMmu;
  private readonly traps: Traps;
  private readonly access: GuestAccess;
  private readonly fate: Fate;

  constructor(cpu: LgCpu) {
    this.hart = cpu.hart;
    this.mmu = cpu.mmu;
    this.traps = cpu.traps;
    this.access = cpu.access;
    this.fate = cpu.fate;
  }

  get isWaiting(): boolean {
    return this.cause !== NONE;
  }

  /** The hart has left with an exception. */
  take(): void {
    const { csr } = this.hart;
    csr.read(CSR.scause);
    const cause = csr.low;
    csr.read(CSR.stval);
    this.inject(cause, csr.low, csr.high);
    this.deviceGpa = cause === EXC_LOAD_ACCESS || cause === EXC_STORE_ACCESS ? this.mmu.iomemGpa : NONE;
    this.mmu.iomemGpa = NONE;
  }

  /** The guest gets this exception before it goes on. */
  inject(cause: number, tvalLow: number, tvalHigh: number): void {
    this.cause = cause;
    this.tvalLow = tvalLow;
    this.tvalHigh = tvalHigh;
    this.deviceGpa = NONE;
  }

  /** LG_OK, LG_WAIT or LG_DEAD. */
  deliver(): number {
    const { cause, tvalLow, tvalHigh } = this;
    if (cause === EXC_ILLEGAL && this.hart.mode === MODE_SUPERVISOR && isPrivileged(tvalLow)) return this.kill(tvalLow);
    const done = this.deviceGpa < 0 ? this.traps.deliver(cause, tvalLow, tvalHigh) : this.reportDevice();
    if (done === LG_OK) this.cause = NONE;
    return done;
  }

  private kill(word: number): number {
    const { pcLow, pcHigh } = this.hart;
    const what = disassemble(word, this.hart.pc);
    return this.fate.kill(`privileged instruction ${what} at pc ${hex64(pcLow, pcHigh)}: a guest asks by hypercalls`);
  }

  private reportDevice(): number {
    const insn = this.instruction();
    if (insn < 0) return insn === LG_FAULT ? this.fate.kill('its code is gone from its page tables') : insn;
    this.device = { trap: this.cause, addr: BigInt(this.deviceGpa), insn };
    return LG_OK;
  }

  /** The bits of the instruction at pc, or LG_FAULT, LG_WAIT, LG_DEAD. */
  private instruction(): number {
    const pc = toAddress(this.hart.pcLow, this.hart.pcHigh);
    const low = this.parcel(pc);
    if (low < 0 || (low & 3) !== 3) return low;
    const high = this.parcel(pc + 2);
    return high < 0 ? high : high * 0x10000 + low;
  }

  private parcel(va: number): number {
    const gpa = this.mmu.codeGpa(va, this.hart.mode === MODE_USER);
    if (gpa < 0) return gpa;
    const at = this.access.address(gpa, false);
    return at < 0 ? at : this.hart.engine.u16[at >>> 1]!;
  }
}

/** Whether it would be legal in the S-mode of a machine of one's own. */
function isPrivileged(word: number): boolean {
  const name = decode(word)?.instruction.name;
  if (name === undefined) return false;
  if (name === 'sret' || name === 'wfi' || name === 'sfence.vma') return true;
  return name.startsWith('csr') && SUPERVISOR_CSRS.has(word >>> 20);
}

const SUPERVISOR_CSRS = new Set<number>(Object.values(CSR).filter((csr) => ((csr >>> 8) & 3) === MODE_SUPERVISOR));
