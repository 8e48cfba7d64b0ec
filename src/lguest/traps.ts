import { type Hart, MODE_SUPERVISOR, MODE_USER } from '../riscv/index.js';
import {
  LGUEST_DATA,
  LGUEST_FRAME,
  LGUEST_FRAME_BYTES,
  LGUEST_NR_VECTORS,
  LGUEST_STATUS_PIE,
  LGUEST_STATUS_PP,
} from './abi.js';
import type { LgCpu } from './cpu.js';
import { type Fate, LG_OK } from './death.js';
import type { GuestAccess } from './guestaccess.js';
import type { LguestData } from './lguestdata.js';
import { type GuestMmu, LG_FAULT } from './mmu.js';
import { hex64, hexAddress, highOf, lowOf, toAddress } from './words64.js';

/**
 * How a trap reaches the guest's kernel, and how the kernel returns (Linux: interrupts_and_traps.c, set_guest_interrupt). No trap of the guest goes to the guest: the
 * host takes each, and those that are the guest's it pushes as a frame on the kernel's stack, and goes on at the vector for the cause.
 *
 * A frame is written by the kernel's own rights through its own tables: where that fails, no kernel is left to be told of it, and the guest dies.
 * Nothing of the hart changes before all that could have to be waited for is done.
 */

const REG_SP = 2;
const REG_A0 = 10;
const INTERRUPT = 1 << 31;
/** Words of a frame. */
const EPC = LGUEST_FRAME.epc / 4;
const SP = LGUEST_FRAME.sp / 4;
const A0 = LGUEST_FRAME.a0 / 4;
const STATUS = LGUEST_FRAME.status / 4;

export class Traps {
  nrDelivered = 0;
  /** By the environment's clock: when the kernel first returned to a process. */
  firstUserMs: number | undefined;
  /** Where frames go when a trap comes out of U-mode; NaN: nowhere yet. */
  stackTop = Number.NaN;
  private readonly handlers = new Float64Array(LGUEST_NR_VECTORS);
  private readonly hart: Hart;
  private readonly nowMs: () => number;
  private readonly mmu: GuestMmu;
  private readonly data: LguestData;
  private readonly access: GuestAccess;
  private readonly fate: Fate;
  private readonly i32: Int32Array;
  /** The frame that is returned to. */
  private readonly words = new Int32Array(LGUEST_FRAME_BYTES / 4);

  constructor(cpu: LgCpu) {
    this.hart = cpu.hart;
    this.nowMs = cpu.nowMs;
    this.mmu = cpu.mmu;
    this.data = cpu.data;
    this.access = cpu.access;
    this.fate = cpu.fate;
    this.i32 = cpu.hart.engine.i32;
  }

  /** LHCALL_LOAD_IDT_ENTRY; 0: none. */
  setHandler(vector: number, address: number): void {
    this.handlers[vector] = address;
  }

  hasHandler(vector: number): boolean {
    return this.handlers[vector] !== 0;
  }

  /** An exception of the guest's. Does nothing before it answers LG_OK. */
  deliver(cause: number, tvalLow: number, tvalHigh: number): number {
    if (!this.hasHandler(cause)) return this.unhandled(cause, tvalLow, tvalHigh);
    return this.push(cause, cause, 0, tvalLow, tvalHigh, false);
  }

  private unhandled(cause: number, tvalLow: number, tvalHigh: number): number {
    const { hart } = this;
    const who = hart.mode === MODE_USER ? 'a process' : 'the kernel';
    const where = `at pc ${hex64(hart.pcLow, hart.pcHigh)} of ${who}`;
    return this.fate.kill(`unhandled trap ${cause} ${where}, tval ${hex64(tvalLow, tvalHigh)}: no handler was loaded`);
  }

  /** An interrupt, which has a handler. `wasEnabled`: as of the halt that it ends, whatever irqEnabled says. */
  interrupt(irq: number, vector: number, wasEnabled: boolean): number {
    return this.push(vector, irq, INTERRUPT, 0, 0, wasEnabled);
  }

  private push(
    vector: number,
    cause: number,
    causeHigh: number,
    tvalLow: number,
    tvalHigh: number,
    wasEnabled: boolean,
  ): number {
    const { hart, data } = this;
    const enabled = this.readIrqEnabled();
    if (enabled < 0) return enabled;
    const status =
      (enabled > 0 || wasEnabled ? LGUEST_STATUS_PIE : 0) | (hart.mode === MODE_USER ? 0 : LGUEST_STATUS_PP);
    const frame = this.frameAddress();
    const at = Number.isNaN(frame) ? LG_FAULT : this.mmu.kernelAddress(frame, true);
    if (at === LG_FAULT) return this.noStack(frame, vector);
    if (at < 0) return at;
    this.writeFrame(at >>> 2, status, cause, causeHigh, tvalLow, tvalHigh);
    const disabled = data.gpa < 0 ? LG_OK : data.write32(LGUEST_DATA.irqEnabled, 0);
    if (disabled !== LG_OK) return disabled;
    const handler = this.handlers[vector]!;
    hart.setXWords(REG_SP, lowOf(frame), highOf(frame));
    hart.returnTo(MODE_SUPERVISOR, lowOf(handler), highOf(handler));
    this.nrDelivered++;
    return LG_OK;
  }

  /** 1 or 0, or LG_WAIT, LG_DEAD. */
  readIrqEnabled(): number {
    if (this.data.gpa < 0) return 0;
    const read = this.data.read32(LGUEST_DATA.irqEnabled);
    return read === LG_OK ? Number(this.access.low !== 0) : read;
  }

  private frameAddress(): number {
    const { hart } = this;
    const user = hart.mode === MODE_USER;
    const stack = user ? this.stackTop : toAddress(hart.xLow(REG_SP), hart.xHigh(REG_SP));
    const frame = Math.floor((stack - LGUEST_FRAME_BYTES) / LGUEST_FRAME_BYTES) * LGUEST_FRAME_BYTES;
    return Number.isNaN(frame) ? frame : toAddress(lowOf(frame), highOf(frame));
  }

  private noStack(frame: number, vector: number): number {
    const pc = hex64(this.hart.pcLow, this.hart.pcHigh);
    return this.fate.kill(
      `trap vector ${vector} at pc ${pc}: no frame can be written to the stack, at ${hexAddress(frame)}`,
    );
  }

  private writeFrame(
    at: number,
    status: number,
    cause: number,
    causeHigh: number,
    tvalLow: number,
    tvalHigh: number,
  ): void {
    const { hart } = this;
    this.put(at, LGUEST_FRAME.epc, hart.pcLow, hart.pcHigh);
    this.put(at, LGUEST_FRAME.sp, hart.xLow(REG_SP), hart.xHigh(REG_SP));
    this.put(at, LGUEST_FRAME.a0, hart.xLow(REG_A0), hart.xHigh(REG_A0));
    this.put(at, LGUEST_FRAME.status, status, 0);
    this.put(at, LGUEST_FRAME.cause, cause, causeHigh);
    this.put(at, LGUEST_FRAME.tval, tvalLow, tvalHigh);
  }

  private put(at: number, offset: number, low: number, high: number): void {
    this.i32[at + (offset >>> 2)] = low;
    this.i32[at + (offset >>> 2) + 1] = high;
  }

  /** LHCALL_SRET: goes on with the frame that sp names. */
  sret(): number {
    const { hart, i32, data, words } = this;
    const frame = toAddress(hart.xLow(REG_SP), hart.xHigh(REG_SP));
    const at = frame % LGUEST_FRAME_BYTES === 0 ? this.mmu.kernelAddress(frame, false) : LG_FAULT;
    if (at === LG_FAULT) return this.fate.kill(`bad trap frame to return to, at ${hexAddress(frame)}`);
    if (at < 0) return at;
    for (let i = 0; i < words.length; i++) words[i] = i32[(at >>> 2) + i]!;
    const status = words[STATUS]!;
    const enabled = data.write32(LGUEST_DATA.irqEnabled, (status & LGUEST_STATUS_PIE) !== 0 ? 1 : 0);
    if (enabled !== LG_OK) return enabled;
    hart.setXWords(REG_SP, words[SP]!, words[SP + 1]!);
    hart.setXWords(REG_A0, words[A0]!, words[A0 + 1]!);
    const user = (status & LGUEST_STATUS_PP) === 0;
    if (user && this.firstUserMs === undefined) this.firstUserMs = this.nowMs();
    hart.returnTo(user ? MODE_USER : MODE_SUPERVISOR, words[EPC]!, words[EPC + 1]!);
    return LG_OK;
  }
}
