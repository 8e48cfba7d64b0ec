import { type AtomicName, type Code, F64, I32, I64, type Label, type MemName, type OpName } from '../base/index.js';
import { CSR_WRITE } from './csrhelpers.js';
import * as L from './layout.js';
import type { CsrKind, Emit } from './table/index.js';

/**
 * What every emitter of the table's meanings shares, wherever its operands come from: memory through the hart's TLB, atomics, flags,
 * helpers and scratch locals. RecordEmitter extends it with operands from records, for the interpreter; a compiler of hot code will with constants.
 *
 * An emitter's code runs in a function whose local 0 is the hart. Where an access cannot be done inline it branches to `slow`,
 * with the address in `va`.
 *
 * For test builds, after each access: `checkTag` (taggedhart.ts).
 */

export interface EmitOptions {
  /** See EngineOptions. */
  readonly hostIsTso?: boolean;
  readonly tagsAddr?: number;
}

/** The local that has the hart's address. */
export const HART = 0;
/** In the sets of a `fence`: W before, R after. */
const FENCE_STORE_LOAD = 0x12;

export abstract class Emitter implements Emit {
  readonly c: Code;
  protected readonly va: number;
  /** Low word of va, then the host address. */
  protected readonly address: number;
  protected readonly entry: number;
  protected slow!: Label;
  private readonly helpers: ReadonlyMap<string, number>;
  private readonly hostIsTso: boolean;
  private readonly tagsAddr: number | undefined;
  private readonly temps64: readonly number[];
  private readonly temps32: readonly number[];
  private readonly tempsF64: readonly number[];

  constructor(code: Code, helpers: ReadonlyMap<string, number>, { hostIsTso = false, tagsAddr }: EmitOptions = {}) {
    this.hostIsTso = hostIsTso;
    this.tagsAddr = tagsAddr;
    this.c = code;
    this.helpers = helpers;
    const four = (type: number) => [0, 1, 2, 3].map(() => code.local(type));
    [this.va, this.address, this.entry] = [code.local(I64), code.local(I32), code.local(I32)];
    [this.temps64, this.temps32, this.tempsF64] = [four(I64), four(I32), four(F64)];
  }

  abstract rs1(): void;
  abstract rs2(): void;
  abstract rs1w(): void;
  abstract rs2w(): void;
  abstract frs1(): void;
  abstract frs2(): void;
  abstract frs3(): void;
  abstract imm(): void;
  abstract imm32(): void;
  abstract pc(): void;
  abstract nextPc(): void;
  abstract rd(value: () => void): void;
  abstract frd(value: () => void): void;
  abstract rm(): void;
  abstract jump(): void;
  abstract jumpRegister(target: () => void): void;
  /** Pushes the 5 bits of rs1's field as i64. */
  protected abstract zimm(): void;
  /** Pushes other than 0 where rs1's field is not 0. */
  protected abstract rs1IsNamed(): void;
  /** The tables of the TLB for data may be others now. */
  protected abstract contextChanged(): void;
  /** Pushes the address of the present context's data TLB. */
  protected abstract dtlb(): void;

  accrue(flags: () => void): void {
    this.c.get(HART).get(HART).mem('i32Load', L.FFLAGS);
    flags();
    this.c.op('i32Or').mem('i32Store', L.FFLAGS).get(HART).i32(3).mem('i32Store', L.FS);
  }

  branch(condition: () => void): void {
    condition();
    this.c.if();
    this.jump();
    this.c.end();
  }

  // Memory.

  /** Byte offset in a TLB table of the entry for the address whose low word `low` pushes. */
  protected tlbOffset(low: () => void): void {
    low();
    this.c
      .i32(8)
      .op('i32ShrU')
      .i32((L.TLB_ENTRIES - 1) * L.TLB_ENTRY_BYTES)
      .op('i32And');
  }

  /** With va's low word on the stack: leaves by `miss` unless all of its bytes are in the TLB; sets `address`. */
  private translate(table: number, lenBytes: number): void {
    const { c } = this;
    c.set(this.address);
    this.tlbOffset(() => c.get(this.address));
    this.dtlb();
    c.op('i32Add').tee(this.entry).mem('i64Load', table);
    c.get(this.va);
    // An access that ends in the next page carries its last byte's page, which cannot be in this entry.
    if (lenBytes > 1) c.i64(lenBytes - 1).op('i64Add');
    c.i64(-4096)
      .op('i64And')
      .op('i64Ne')
      .brIf(this.miss(table === L.TLB_WRITE));
    c.get(this.address)
      .get(this.entry)
      .mem('i32Load', table + 8)
      .op('i32Add')
      .set(this.address);
  }

  /**
   * After an access to `address` by an entry of `table`: the frame's tag must be what it was when the entry was made. After, and not before: what
   * takes a frame away changes its tag first, and waits for this hart before that, so an access that came later is seen, and one that is right never accused.
   */
  private checkTag(table: number): void {
    const { c, tagsAddr } = this;
    if (tagsAddr === undefined) return;
    // A store is in memory before the tag is read.
    if (table === L.TLB_WRITE) c.atomicFence();
    c.get(this.address).i32(12).op('i32ShrU').i32(2).op('i32Shl').atomic('i32Load', tagsAddr);
    c.get(this.entry)
      .mem('i32Load', table + L.TLB_TAG)
      .op('i32Ne')
      .if();
    c.get(HART).get(this.va).get(this.address);
    this.call('stale');
    c.end();
  }

  /** Where to go when the TLB lacks the page of `va`. */
  protected miss(_write: boolean): Label {
    return this.slow;
  }

  private effectiveAddress(): void {
    this.rs1();
    this.imm();
    this.c.op('i64Add').tee(this.va).op('i32WrapI64');
  }

  load(mem: MemName, lenBytes: number, dest: 'x' | 'f'): void {
    this.effectiveAddress();
    this.translate(0, lenBytes);
    const value = () => this.c.get(this.address).mem(mem);
    if (dest === 'x') this.rd(value);
    else if (lenBytes === 8) this.frd(value);
    else
      this.frd(() =>
        value()
          .i64(-1n << 32n)
          .op('i64Or'),
      );
    this.checkTag(0);
  }

  store(mem: MemName, lenBytes: number, value: () => void): void {
    this.effectiveAddress();
    this.translate(L.TLB_WRITE, lenBytes);
    this.c.get(this.address);
    value();
    this.c.mem(mem);
    this.checkTag(L.TLB_WRITE);
  }

  /** va = rs1, which must be aligned. */
  private alignedAddress(lenBytes: number): void {
    this.rs1();
    this.c
      .tee(this.va)
      .op('i32WrapI64')
      .i32(lenBytes - 1)
      .op('i32And')
      .brIf(this.slow);
  }

  private atomicAddress(table: number, lenBytes: number): void {
    this.alignedAddress(lenBytes);
    this.c.get(this.va).op('i32WrapI64');
    this.translate(table, lenBytes);
  }

  amo(op: AtomicName, lenBytes: 4 | 8): void {
    this.atomicAddress(L.TLB_WRITE, lenBytes);
    this.rd(() => {
      this.c.get(this.address);
      if (lenBytes === 4) this.rs2w();
      else this.rs2();
      this.c.atomic(op);
      if (lenBytes === 4) this.c.op('i64ExtendI32S');
    });
    this.checkTag(L.TLB_WRITE);
  }

  /** A loop of compare-exchange. */
  amoUnless(keeps: OpName, lenBytes: 4 | 8): void {
    const { c } = this;
    const wide = lenBytes === 8;
    const [old, seen] = wide ? [this.temps64[0]!, this.temps64[1]!] : [this.temps32[0]!, this.temps32[1]!];
    const operand = () => (wide ? this.rs2() : this.rs2w());
    this.atomicAddress(L.TLB_WRITE, lenBytes);
    c.get(this.address)
      .atomic(wide ? 'i64Load' : 'i32Load')
      .set(old);
    const again = c.loop();
    c.get(this.address).get(old).get(old);
    operand();
    c.get(old);
    operand();
    c.op(keeps)
      .op('select')
      .atomic(wide ? 'i64Cmpxchg' : 'i32Cmpxchg')
      .tee(seen)
      .get(old)
      .get(seen)
      .set(old);
    c.op(wide ? 'i64Ne' : 'i32Ne')
      .brIf(again)
      .end();
    this.rd(() => {
      c.get(old);
      if (!wide) c.op('i64ExtendI32S');
    });
    this.checkTag(L.TLB_WRITE);
  }

  /**
   * WHY two forms: on a host that orders like x86 (total store order) only a load after a store needs a fence, and that one costs 10 ns;
   * WebAssembly does not say what host it is on, so the engine is told.
   */
  fence(): void {
    const { c } = this;
    if (!this.hostIsTso) {
      c.atomicFence();
      return;
    }
    this.imm32();
    c.i32(FENCE_STORE_LOAD).op('i32And').i32(FENCE_STORE_LOAD).op('i32Eq').if();
    c.atomicFence().end();
  }

  loadReserved(lenBytes: 4 | 8): void {
    const value = this.temps64[0]!;
    this.atomicAddress(0, lenBytes);
    this.c.get(this.address);
    if (lenBytes === 4) this.c.atomic('i32Load').op('i64ExtendI32S');
    else this.c.atomic('i64Load');
    this.c.set(value).get(HART).get(this.va).mem('i64Store', L.RESERVED_VA);
    this.c.get(HART).get(value).mem('i64Store', L.RESERVED_VALUE);
    this.rd(() => this.c.get(value));
    this.checkTag(0);
  }

  /** 0 where memory still held what LR saw, and now holds rs2; else 1. */
  storeConditional(lenBytes: 4 | 8): void {
    const { c } = this;
    const failed = this.temps64[0]!;
    const reserved = this.temps64[1]!;
    // A misaligned one traps, reserved or not.
    this.alignedAddress(lenBytes);
    c.i64(1).set(failed).get(HART).mem('i64Load', L.RESERVED_VALUE).set(reserved);
    c.get(this.va).get(HART).mem('i64Load', L.RESERVED_VA).op('i64Eq').if();
    c.get(this.va).op('i32WrapI64');
    this.translate(L.TLB_WRITE, lenBytes);
    c.get(this.address).get(reserved);
    if (lenBytes === 4) {
      c.op('i32WrapI64');
      this.rs2w();
      c.atomic('i32Cmpxchg').op('i64ExtendI32S');
    } else {
      this.rs2();
      c.atomic('i64Cmpxchg');
    }
    c.get(reserved).op('i64Ne').op('i64ExtendI32U').set(failed);
    this.checkTag(L.TLB_WRITE);
    c.end();
    c.get(HART).i64(-1).mem('i64Store', L.RESERVED_VA);
    this.rd(() => c.get(failed));
  }

  csr(kind: CsrKind, immediate: boolean): void {
    const { c } = this;
    c.get(HART);
    this.imm32();
    if (immediate) this.zimm();
    else this.rs1();
    c.i32(kind);
    if (kind === CSR_WRITE) c.i32(1);
    else this.rs1IsNamed();
    this.call('csr');
    c.op('i32Eqz').brIf(this.slow);
    this.contextChanged();
    this.rd(() => c.get(HART).mem('i64Load', L.CSR_OLD));
  }

  sret(): void {
    this.c.get(HART);
    this.call('sret');
    this.c.op('i32Eqz').brIf(this.slow);
    this.jumpRegister(() => this.c.get(HART).mem('i64Load', L.CSR_SEPC));
  }

  call(helper: string): void {
    const index = this.helpers.get(helper);
    if (index === undefined) throw new Error(`the instruction table calls '${helper}', which helpers.ts lacks`);
    this.c.call(index);
  }

  temp64(n: number): number {
    return this.temps64[n]!;
  }

  temp32(n: number): number {
    return this.temps32[n]!;
  }

  tempF64(n: number): number {
    return this.tempsF64[n]!;
  }
}
