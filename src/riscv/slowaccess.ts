import * as C from './csr.js';
import { HART_EXIT_MMIO, HART_EXIT_WAIT } from './exits.js';
import type { Handler } from './handlers.js';
import { SLOW_AGAIN, SLOW_RETIRED } from './interp.js';
import * as L from './layout.js';
import { ACCESS_READ, ACCESS_WRITE, type Access, MMU_ACCESS_FAULT, MMU_MMIO, MMU_PAGE_FAULT, MMU_WAIT } from './mmu.js';
import { SlowBase } from './slowbase.js';
import type { Access as TableAccess } from './table/index.js';

/**
 * Loads, stores and atomics that the interpreter cannot do inline: TLB misses, accesses across pages, devices, and stores into the
 * page that they are fetched from. Answers SLOW_*.
 */
export class SlowAccess extends SlowBase {
  private readonly bytes = new DataView(new ArrayBuffer(8));
  /** A device's register is being read into this register. */
  private mmioForm: Handler | undefined;
  private mmioRd = 0;

  access(form: Handler, access: TableAccess, record: number): number {
    const va = this.address(L.SLOW_VA);
    const kind: Access = access.write ? ACCESS_WRITE : ACCESS_READ;
    if (Number.isNaN(va)) return this.accessFailed(this.hart.paging ? MMU_PAGE_FAULT : MMU_ACCESS_FAULT, access, 0);
    const offset = va & 0xfff;
    if (access.atomic && offset % access.lenBytes !== 0) return this.misaligned(access);
    if (offset + access.lenBytes > 4096) return this.accessCrossing(form, access, record, va, kind);
    this.hart.droppedCode = false;
    const host = this.hart.hostAddress(va, kind);
    if (host < 0) return this.hostFailed(-host, form, access, record);
    if (!this.hart.droppedCode) return SLOW_AGAIN;
    const result = this.perform(form, access, record, host);
    this.hart.accessed(va, kind, host);
    return result;
  }

  /** Does a write into a page with decoded code here: were it that of the instruction, fetching it anew would take the right back, for ever. */
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
    const first = this.hart.tlb.lookup(va, kind);
    if (first < 0) return SLOW_AGAIN;
    if (access.write) this.storeBytes(form, record, access.lenBytes, first, second, split);
    else this.loadBytes(form, access, record, first, second, split);
    this.hart.accessed(va, kind, first);
    this.hart.accessed(va + split, kind, second);
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
