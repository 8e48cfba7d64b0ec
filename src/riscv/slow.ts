import * as C from './csr.js';
import { HART_EXIT_ECALL, HART_EXIT_MMIO, HART_EXIT_WAIT, HART_EXIT_WFI, MODE_USER } from './exits.js';
import { formOf, HANDLER_DECODE, type Handler } from './handlers.js';
import type { Hart } from './hart.js';
import { FETCH_LEAVE, FETCH_TRAPPED, SLOW_AGAIN, SLOW_LEAVE, SLOW_RETIRED, SLOW_TRAPPED } from './interp.js';
import * as L from './layout.js';
import {
  ACCESS_EXEC,
  ACCESS_READ,
  ACCESS_WRITE,
  type Access,
  MMU_ACCESS_FAULT,
  MMU_MMIO,
  MMU_OK,
  MMU_PAGE_FAULT,
  MMU_WAIT,
} from './mmu.js';
import type { Access as TableAccess } from './table/index.js';
import { Traps } from './trap.js';

/**
 * What the interpreter leaves to TypeScript: decoding, TLB misses, accesses across pages and to devices, CSRs, traps,
 * fences. Each method answers SLOW_*: whether the instruction retired, with pc moved on, or is to be tried again (a filled TLB,
 * a trap taken), and whether the interpreter must come back to its caller. A trap uses up budget like an instruction, so that a
 * guest whose trap handler traps cannot keep the thread.
 */

const NON_CANONICAL = Number.NaN;

export class Slow {
  private readonly hart: Hart;
  private readonly traps: Traps;
  private readonly i32: Int32Array;
  private readonly u16: Uint16Array;
  private readonly u8: Uint8Array;
  private readonly base: number;
  /** Address of the 4-byte instruction across two pages whose scratch record the next fetch goes to, else NaN. */
  private crossing = Number.NaN;
  private readonly bytes = new DataView(new ArrayBuffer(8));
  /** A device's register is being read into this register. */
  private mmioForm: Handler | undefined;
  private mmioRd = 0;

  constructor(hart: Hart) {
    this.hart = hart;
    this.traps = new Traps(hart);
    const { i32, u16, u8 } = hart.engine;
    [this.i32, this.u16, this.u8, this.base] = [i32, u16, u8, hart.base];
  }

  /** Before a run: the world may have changed since the last one. */
  begin(): void {
    this.crossing = Number.NaN;
    this.traps.takeInterrupt();
  }

  private word(offset: number): number {
    return this.i32[(this.base + offset) >>> 2]!;
  }

  /** The canonical address in a 64-bit field, NaN where it is not canonical (or, without paging, beyond 2^53). */
  private address(offset: number): number {
    const low = this.word(offset);
    const high = this.word(offset + 4);
    const canonical = this.hart.paging ? (high << 25) >> 25 === high : high >>> 21 === 0;
    return canonical ? high * 2 ** 32 + (low >>> 0) : NON_CANONICAL;
  }

  private leave(exit: number, answer: number): number {
    this.hart.exit = exit;
    return answer | SLOW_LEAVE;
  }

  private trap(cause: number, tvalLow: number, tvalHigh: number): number {
    this.traps.exception(cause, tvalLow, tvalHigh);
    return SLOW_TRAPPED;
  }

  private advancePc(lenBytes: number): void {
    const at = (this.base + L.PC) >>> 2;
    const low = this.i32[at]!;
    this.i32[at] = low + lenBytes;
    if (low >>> 0 > 0xffffffff - lenBytes) this.i32[at + 1]!++;
  }

  // Fetching and decoding.

  /** Address of the records for pc, or FETCH_*. */
  fetch(): number {
    const va = this.address(L.PC);
    const crossing = this.crossing === va;
    this.crossing = Number.NaN;
    const low = va | 0;
    if (crossing) return this.scratch(low, this.word(L.PC + 4), L.SCRATCH_RECORDS);
    const page = this.translateFetch(va);
    if (page < 0) return this.fetchFailed(page);
    const records = this.hart.engine.recordsOf(page);
    this.hart.itlbFill(va, records);
    this.setFetch(low & ~0xfff, this.word(L.PC + 4), L.PAGE_RECORD_BYTES);
    return records;
  }

  /** Host page of `va` for execution, or the negative of an MmuResult. */
  private translateFetch(va: number): number {
    if (Number.isNaN(va)) return this.hart.paging ? -MMU_PAGE_FAULT : -MMU_ACCESS_FAULT;
    const result = this.hart.mmu.translate(this.hart, va, ACCESS_EXEC);
    return result === MMU_OK ? this.hart.execHostPage : -result;
  }

  private fetchFailed(page: number): number {
    const result = -page;
    if (result === MMU_WAIT) {
      this.hart.exit = HART_EXIT_WAIT;
      return FETCH_LEAVE;
    }
    const cause = result === MMU_PAGE_FAULT ? C.EXC_INST_PAGE_FAULT : C.EXC_INST_ACCESS;
    this.traps.exception(cause, this.word(L.PC), this.word(L.PC + 4));
    return FETCH_TRAPPED;
  }

  private setFetch(low: number, high: number, limit: number): void {
    this.i32[(this.base + L.FETCH_VA) >>> 2] = low;
    this.i32[(this.base + L.FETCH_VA + 4) >>> 2] = high;
    this.i32[(this.base + L.FETCH_LIMIT) >>> 2] = limit;
  }

  private scratch(low: number, high: number, offset: number): number {
    this.setFetch(low, high, 0);
    return this.base + offset;
  }

  private decode(record: number): number {
    const offset = this.word(L.PC) & 0xfff;
    if (this.hart.engine.records.decodeAt(record, offset)) return SLOW_AGAIN;
    return this.decodeCrossing();
  }

  /** Both halves are translated before the instruction is looked at; a fault of the second has its own address in stval. */
  private decodeCrossing(): number {
    const va = this.address(L.PC);
    const first = this.translateFetch(va);
    const second = first < 0 ? first : this.translateFetch(va + 2);
    if (second < 0) return this.crossingFailed(-second, first < 0 ? 0 : 2);
    const word = this.u16[first * 2048 + 2047]! | (this.u16[second * 2048]! << 16);
    this.hart.engine.records.decodeTo(this.base + L.SCRATCH_RECORDS, word);
    this.crossing = va;
    // Of the fetch TLB alone: the instruction may use data of its own page.
    this.hart.itlbFlushPage(va);
    return SLOW_AGAIN;
  }

  private crossingFailed(result: number, offset: number): number {
    if (result === MMU_WAIT) return this.leave(HART_EXIT_WAIT, SLOW_AGAIN);
    const cause = result === MMU_PAGE_FAULT ? C.EXC_INST_PAGE_FAULT : C.EXC_INST_ACCESS;
    const low = this.word(L.PC) + offset;
    return this.trap(cause, low | 0, this.word(L.PC + 4) + (low > 0xffffffff ? 1 : 0));
  }

  // Instructions.

  execute(record: number): number {
    const handler = this.u16[record >>> 1]!;
    if (handler === HANDLER_DECODE) return this.decode(record);
    const form = formOf(handler);
    if (form === undefined) return this.illegal();
    // A floating-point instruction that computes comes here only when it is illegal: FS is Off, or frm reserved.
    if (form.instruction.fp && (form.instruction.access === undefined || this.word(L.FS) === 0)) return this.illegal();
    const { access } = form.instruction;
    return access !== undefined ? this.access(form, access, record) : this.system(form, record);
  }

  private illegal(): number {
    const va = this.address(L.PC);
    const first = this.translateFetch(va);
    if (first < 0) return this.crossingFailed(-first, 0);
    const low = this.u16[(first * 4096 + (va & 0xfff)) >>> 1]!;
    if ((low & 3) !== 3) return this.trap(C.EXC_ILLEGAL, low, 0);
    const second = this.translateFetch(va + 2);
    if (second < 0) return this.crossingFailed(-second, 2);
    const high = this.u16[(second * 4096 + ((va + 2) & 0xfff)) >>> 1]!;
    return this.trap(C.EXC_ILLEGAL, low | (high << 16), 0);
  }

  // Loads and stores.

  private access(form: Handler, access: TableAccess, record: number): number {
    const va = this.address(L.SLOW_VA);
    const kind: Access = access.write ? ACCESS_WRITE : ACCESS_READ;
    if (Number.isNaN(va)) return this.accessFailed(this.hart.paging ? MMU_PAGE_FAULT : MMU_ACCESS_FAULT, access, 0);
    const offset = va & 0xfff;
    if (access.atomic && offset % access.lenBytes !== 0) return this.misaligned(access);
    if (offset + access.lenBytes > 4096) return this.accessCrossing(form, access, record, va, kind);
    this.hart.droppedCode = false;
    const host = this.hart.hostAddress(va, kind);
    if (host < 0) return this.hostFailed(-host, form, access, record);
    if (form.instruction.emit !== undefined && !this.hart.droppedCode) return SLOW_AGAIN;
    return this.perform(form, access, record, host);
  }

  /**
   * Does the access here. An instruction that writes into the page it is in must not be tried again: fetching it anew would
   * take the write permission back, for ever.
   */
  private perform(form: Handler, access: TableAccess, record: number, host: number): number {
    const rd = this.base + L.X + this.u8[record + L.REC_RD]!;
    if (form.instruction.name.startsWith('sc.')) this.storeConditional(form, record, host, rd);
    else if (access.atomic) this.amo(form, record, host, rd);
    else this.storeBytes(form, record, access.lenBytes, host, host, access.lenBytes);
    this.advancePc(form.lenBytes);
    return SLOW_RETIRED;
  }

  private storeConditional(form: Handler, record: number, host: number, rd: number): void {
    const { i64 } = this.hart.engine;
    const reserved = (this.base + L.RESERVED_VA) / 8;
    const same = i64[reserved] === i64[(this.base + L.SLOW_VA) / 8];
    const expected = i64[reserved + 1]!;
    const value = i64[(this.base + L.X + this.u8[record + L.REC_RS2]!) / 8]!;
    const stored = same && this.exchangeIf(form, host, expected, value);
    i64[reserved] = -1n;
    if (!form.zero) i64[rd / 8] = stored ? 0n : 1n;
  }

  private exchangeIf(form: Handler, host: number, expected: bigint, value: bigint): boolean {
    if (form.instruction.access!.lenBytes === 8) {
      return Atomics.compareExchange(this.hart.engine.i64, host / 8, expected, value) === expected;
    }
    const word = Number(BigInt.asIntN(32, expected));
    return Atomics.compareExchange(this.i32, host >>> 2, word, Number(BigInt.asIntN(32, value))) === word;
  }

  private misaligned(access: TableAccess): number {
    const cause = access.write ? C.EXC_STORE_MISALIGNED : C.EXC_LOAD_MISALIGNED;
    return this.trap(cause, this.word(L.SLOW_VA), this.word(L.SLOW_VA + 4));
  }

  private hostFailed(result: number, form: Handler, access: TableAccess, record: number): number {
    if (result === MMU_MMIO && !access.atomic) return this.mmio(form, access, record);
    return this.accessFailed(result, access, 0);
  }

  /** stval is the address of the first byte that could not be reached, `offset` from the access's own. */
  private accessFailed(result: number, access: TableAccess, offset: number): number {
    if (result === MMU_WAIT) return this.leave(HART_EXIT_WAIT, SLOW_AGAIN);
    const page = result === MMU_PAGE_FAULT;
    const load = page ? C.EXC_LOAD_PAGE_FAULT : C.EXC_LOAD_ACCESS;
    const store = page ? C.EXC_STORE_PAGE_FAULT : C.EXC_STORE_ACCESS;
    const low = (this.word(L.SLOW_VA) >>> 0) + offset;
    return this.trap(access.write ? store : load, low | 0, this.word(L.SLOW_VA + 4) + (low > 0xffffffff ? 1 : 0));
  }

  /** An access across two pages: both are there, and writable, before a byte is touched (N26). */
  private accessCrossing(form: Handler, access: TableAccess, record: number, va: number, kind: Access): number {
    const split = 4096 - (va & 0xfff);
    const firstTry = this.hart.hostAddress(va, kind);
    if (firstTry < 0) return this.accessFailed(firstTry === -MMU_MMIO ? MMU_ACCESS_FAULT : -firstTry, access, 0);
    const second = this.hart.hostAddress(va + split, kind);
    if (second < 0) return this.accessFailed(second === -MMU_MMIO ? MMU_ACCESS_FAULT : -second, access, split);
    // Getting the second page may have taken the first one away.
    const first = this.hart.tlbLookup(va, kind);
    if (first < 0) return SLOW_AGAIN;
    if (access.write) this.storeBytes(form, record, access.lenBytes, first, second, split);
    else this.loadBytes(form, access, record, first, second, split);
    this.advancePc(form.lenBytes);
    return SLOW_RETIRED;
  }

  private storeBytes(form: Handler, record: number, len: number, first: number, second: number, split: number): void {
    const file = form.instruction.fp ? L.F : L.X;
    const register = this.base + file + this.u8[record + L.REC_RS2_BS]!;
    for (let i = 0; i < len; i++) this.u8[i < split ? first + i : second + i - split] = this.u8[register + i]!;
  }

  private loadBytes(
    form: Handler,
    access: TableAccess,
    rec: number,
    first: number,
    second: number,
    split: number,
  ): void {
    for (let i = 0; i < 8; i++) {
      const from = i < split ? first + i : second + i - split;
      this.bytes.setUint8(i, i < access.lenBytes ? this.u8[from]! : 0);
    }
    this.setLoaded(form, access, this.u8[rec + L.REC_RD]!, this.bytes.getInt32(0, true), this.bytes.getInt32(4, true));
  }

  /** Sets the register at byte offset `rd` to what was loaded, extended as the instruction says. */
  private setLoaded(form: Handler, access: TableAccess, rd: number, low: number, high: number): void {
    if (form.zero) return;
    const float = form.instruction.dest === 'f';
    const at = (this.base + (float ? L.F : L.X) + rd) >>> 2;
    if (access.lenBytes < 8) {
      const unused = 32 - access.lenBytes * 8;
      low = access.signed ? (low << unused) >> unused : (low << unused) >>> unused;
      high = float ? -1 : access.signed && low < 0 ? -1 : 0;
    }
    this.i32[at] = low;
    this.i32[at + 1] = high;
    if (float) this.i32[(this.base + L.FS) >>> 2] = 3;
  }

  private mmio(form: Handler, access: TableAccess, record: number): number {
    const { hart } = this;
    hart.mmioLen = access.lenBytes;
    hart.mmioIsWrite = access.write;
    this.mmioForm = form;
    this.mmioRd = this.u8[record + L.REC_RD]!;
    if (access.write) {
      const file = form.instruction.fp ? L.F : L.X;
      const at = (this.base + file + this.u8[record + L.REC_RS2_BS]!) >>> 2;
      const value = (BigInt(this.i32[at + 1]! >>> 0) << 32n) | BigInt(this.i32[at]! >>> 0);
      hart.mmioValue = BigInt.asUintN(access.lenBytes * 8, value);
    }
    this.advancePc(form.lenBytes);
    return this.leave(HART_EXIT_MMIO, SLOW_RETIRED);
  }

  completeMmioRead(value: bigint): void {
    const form = this.mmioForm!;
    const low = Number(BigInt.asIntN(32, value));
    const high = Number(BigInt.asIntN(32, value >> 32n));
    this.setLoaded(form, form.instruction.access!, this.mmioRd, low, high);
  }

  /** An AMO that writes into the page it is in, by compare-exchange. */
  private amo(form: Handler, record: number, host: number, rd: number): void {
    const { i64 } = this.hart.engine;
    const wide = form.instruction.access!.lenBytes === 8;
    const rs2 = i64[(this.base + L.X + this.u8[record + L.REC_RS2]!) / 8]!;
    const operand = wide ? rs2 : BigInt.asIntN(32, rs2);
    for (;;) {
      const old = wide ? Atomics.load(i64, host / 8) : BigInt(Atomics.load(this.i32, host >>> 2));
      if (!this.exchangeIf(form, host, old, combine(form.instruction.name, old, operand))) continue;
      if (!form.zero) i64[rd / 8] = old;
      return;
    }
  }

  // CSRs, traps, fences.

  private system(form: Handler, record: number): number {
    const { name } = form.instruction;
    switch (name) {
      case 'ecall':
        return this.ecall();
      case 'ebreak':
        return this.trap(C.EXC_BREAKPOINT, this.word(L.PC), this.word(L.PC + 4));
      case 'sret':
        return this.sret();
      case 'wfi':
        return this.wfi();
      case 'fence.i':
        // Code that was stored to has lost its records already.
        this.advancePc(4);
        return SLOW_RETIRED;
      case 'sfence.vma':
        return this.sfenceVma(record);
      default:
        return name.startsWith('csr') ? this.csr(form, record) : this.illegal();
    }
  }

  private get user(): boolean {
    return this.hart.mode === MODE_USER;
  }

  private ecall(): number {
    if (this.user) return this.trap(C.EXC_ECALL_U, 0, 0);
    this.advancePc(4);
    return this.leave(HART_EXIT_ECALL, SLOW_RETIRED);
  }

  private sret(): number {
    if (this.user) return this.illegal();
    this.traps.sret();
    this.traps.takeInterrupt();
    return SLOW_RETIRED;
  }

  private wfi(): number {
    if (this.user) return this.illegal();
    this.advancePc(4);
    return this.hart.interruptPending() ? SLOW_RETIRED : this.leave(HART_EXIT_WFI, SLOW_RETIRED);
  }

  private sfenceVma(record: number): number {
    if (this.user) return this.illegal();
    const { hart } = this;
    const rs1 = this.u8[record + L.REC_RS1]!;
    const rs2 = this.u8[record + L.REC_RS2]!;
    const va = rs1 === 0 ? undefined : this.address(L.X + rs1);
    const asid = rs2 === 0 ? undefined : this.word(L.X + rs2) & ((1 << C.ASID_BITS) - 1);
    if (va === undefined || Number.isNaN(va)) hart.tlbFlushAll();
    else hart.tlbFlushPage(va);
    hart.mmu.sfenceVma(hart, va !== undefined && Number.isNaN(va) ? undefined : va, asid);
    this.advancePc(4);
    return SLOW_RETIRED;
  }

  private csr(form: Handler, record: number): number {
    const { csr } = this.hart;
    const { name, format } = form.instruction;
    const number = this.i32[(record + L.REC_IMM) >>> 2]!;
    const rs1 = this.u8[record + L.REC_RS1]!;
    const writes = name.startsWith('csrrw') || rs1 !== 0;
    if (!csr.accessible(number, writes)) return this.illegal();
    csr.read(number);
    const { low, high } = csr;
    const operandLow = format === 'CSRI' ? rs1 >>> 3 : this.word(L.X + rs1);
    const operandHigh = format === 'CSRI' ? 0 : this.word(L.X + rs1 + 4);
    if (writes) this.writeCsr(name, number, low, high, operandLow, operandHigh);
    if (!form.zero) {
      const at = (this.base + L.X + this.u8[record + L.REC_RD]!) >>> 2;
      this.i32[at] = low;
      this.i32[at + 1] = high;
    }
    this.advancePc(4);
    if (writes) this.traps.takeInterrupt();
    return SLOW_RETIRED;
  }

  private writeCsr(name: string, csr: number, low: number, high: number, opLow: number, opHigh: number): void {
    if (name.startsWith('csrrw')) this.hart.csr.write(csr, opLow, opHigh);
    else if (name.startsWith('csrrs')) this.hart.csr.write(csr, low | opLow, high | opHigh);
    else this.hart.csr.write(csr, low & ~opLow, high & ~opHigh);
  }
}

/** What an AMO leaves in memory. */
function combine(name: string, old: bigint, operand: bigint): bigint {
  switch (name.slice(0, name.indexOf('.'))) {
    case 'amoswap':
      return operand;
    case 'amoadd':
      return BigInt.asIntN(64, old + operand);
    case 'amoxor':
      return old ^ operand;
    case 'amoand':
      return old & operand;
    case 'amoor':
      return old | operand;
    case 'amomin':
      return old < operand ? old : operand;
    case 'amomax':
      return old > operand ? old : operand;
    case 'amominu':
      return BigInt.asUintN(64, old) < BigInt.asUintN(64, operand) ? old : operand;
    default:
      return BigInt.asUintN(64, old) > BigInt.asUintN(64, operand) ? old : operand;
  }
}
