import * as C from './csr.js';
import { HART_EXIT_ECALL, HART_EXIT_WAIT, HART_EXIT_WFI, MODE_USER } from './exits.js';
import { formOf, HANDLER_CROSSING, HANDLER_DECODE, type Handler } from './handlers.js';
import type { Hart } from './hart.js';
import { FETCH_LEAVE, FETCH_TRAPPED, SLOW_AGAIN, SLOW_RETIRED } from './interp.js';
import * as L from './layout.js';
import { ACCESS_EXEC, MMU_ACCESS_FAULT, MMU_OK, MMU_PAGE_FAULT, MMU_WAIT } from './mmu.js';
import { SlowAccess } from './slowaccess.js';
import { SlowBase } from './slowbase.js';
import { Traps } from './trap.js';

/**
 * What the interpreter leaves to TypeScript: decoding, CSRs, traps, fences, and the loads and stores of slowaccess.ts. Each method answers SLOW_*: whether the instruction retired, with pc moved on, or is to be tried again (a filled TLB,
 * a trap taken), and whether the interpreter must come back to its caller. A trap uses up budget like an instruction, so that a
 * guest whose trap handler traps cannot keep the thread.
 */

export class Slow extends SlowBase {
  private readonly accesses: SlowAccess;

  constructor(hart: Hart) {
    super(hart, new Traps(hart));
    this.accesses = new SlowAccess(hart, this.traps);
  }

  /** Before a run: the world may have changed since the last one. */
  begin(): void {
    this.traps.takeInterrupt();
  }

  // Fetching and decoding.

  /** Address of the records for pc, or FETCH_*. */
  fetch(): number {
    const va = this.address(L.PC);
    const page = this.translateFetch(va);
    return page < 0 ? this.fetchFailed(page) : this.fillFetch(va, page);
  }

  private fillFetch(va: number, page: number): number {
    const records = this.hart.engine.recordsOf(page);
    this.hart.tlb.fillFetch(va, records, this.hart.execGlobal);
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
    if (!this.traps.exception(cause, this.word(L.PC), this.word(L.PC + 4))) return FETCH_TRAPPED;
    // Who leaves from a fetch uses no budget.
    this.hart.nrTraps--;
    return FETCH_LEAVE;
  }

  private decode(record: number): number {
    const offset = this.word(L.PC) & 0xfff;
    if (this.hart.engine.records.decodeAt(record, offset)) return SLOW_AGAIN;
    return this.decodeCrossing();
  }

  /** Both halves are translated before the instruction is looked at; a fault of the second has its own address in stval. */
  private decodeCrossing(): number {
    const { engine } = this.hart;
    const va = this.address(L.PC);
    const first = this.translateFetch(va);
    const second = first < 0 ? first : this.translateFetch(va + 2);
    if (second < 0) return this.crossingFailed(-second, first < 0 ? 0 : 2);
    const next = this.fillFetch(va + 2, second);
    const word = this.u16[first * 2048 + 2047]! | (this.u16[second * 2048]! << 16);
    // The second page's records may have taken the room of the first one's, which are then fetched anew.
    if (engine.records.has(first)) engine.records.decodeCrossing(engine.recordsOf(first), next, word);
    return SLOW_AGAIN;
  }

  private crossingFailed(result: number, offset: number): number {
    if (result === MMU_WAIT) return this.leave(HART_EXIT_WAIT, SLOW_AGAIN);
    const cause = result === MMU_PAGE_FAULT ? C.EXC_INST_PAGE_FAULT : C.EXC_INST_ACCESS;
    const low = this.word(L.PC) + offset;
    return this.trap(cause, low | 0, this.word(L.PC + 4) + (low > 0xffffffff ? 1 : 0));
  }

  completeMmioRead(value: bigint): void {
    this.accesses.completeMmioRead(value);
  }

  // Instructions.

  execute(record: number): number {
    const handler = this.u16[record >>> 1]!;
    if (handler === HANDLER_DECODE) return this.decode(record);
    if (handler === HANDLER_CROSSING) return this.decodeCrossing();
    const form = formOf(handler);
    if (form === undefined) return this.illegal();
    // A floating-point instruction that computes comes here only when it is illegal: FS is Off, or frm reserved.
    if (form.instruction.fp && (form.instruction.access === undefined || this.word(L.FS) === 0)) return this.illegal();
    const { access } = form.instruction;
    return access !== undefined ? this.accesses.access(form, access, record) : this.system(form, record);
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
        this.hart.engine.doubtCode();
        this.advancePc(4);
        return SLOW_RETIRED;
      case 'sfence.vma':
        return this.sfenceVma(record);
      default:
        return name.startsWith('csr') ? this.csr(form, record) : this.illegal();
    }
  }

  private get privileged(): boolean {
    return this.hart.mode !== MODE_USER && !this.hart.deprivileged;
  }

  private ecall(): number {
    if (this.hart.mode === MODE_USER) return this.trap(C.EXC_ECALL_U, 0, 0);
    this.advancePc(4);
    return this.leave(HART_EXIT_ECALL, SLOW_RETIRED);
  }

  private sret(): number {
    if (!this.privileged) return this.illegal();
    this.traps.sret();
    this.traps.takeInterrupt();
    return SLOW_RETIRED;
  }

  private wfi(): number {
    if (!this.privileged) return this.illegal();
    this.advancePc(4);
    return this.hart.interruptPending() ? SLOW_RETIRED : this.leave(HART_EXIT_WFI, SLOW_RETIRED);
  }

  private sfenceVma(record: number): number {
    if (!this.privileged) return this.illegal();
    const { hart } = this;
    const rs1 = this.u8[record + L.REC_RS1]!;
    const rs2 = this.u8[record + L.REC_RS2]!;
    const va = rs1 === 0 ? undefined : this.address(L.X + rs1);
    const asid = rs2 === 0 ? undefined : this.word(L.X + rs2) & ((1 << C.ASID_BITS) - 1);
    const page = va !== undefined && Number.isNaN(va) ? undefined : va;
    if (page !== undefined) hart.tlb.flushPage(page);
    else if (asid !== undefined) hart.tlb.flushAsid(asid);
    else hart.tlb.flushAll();
    hart.mmu.sfenceVma(hart, page, asid);
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
