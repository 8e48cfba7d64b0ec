import {
  type AtomicName,
  type Code,
  F64,
  I32,
  I64,
  type Label,
  type MemName,
  ModuleBuilder,
  type OpName,
} from '../../src/base/index.js';
import { emitFpFunctions } from '../../src/riscv/fp/functions.js';
import { emitHelpers } from '../../src/riscv/helpers.js';
import type { Decoded } from '../../src/riscv/index.js';
import * as L from '../../src/riscv/layout.js';
import type { Emit } from '../../src/riscv/table/index.js';

/**
 * The table's meanings with constants for operands, as a compiler of hot code will have them: one function for one
 * instruction at one address, registers at constant offsets, immediates and targets folded.
 *
 * Function n is `f<n>(hart)`. It answers DONE with pc stored, or SLOW with nothing done at all; the address of a slow
 * access is in the hart then.
 */

export const DONE = 0;
export const SLOW = 1;

const HART = 0;

export interface Site {
  readonly decoded: Decoded;
  readonly pc: bigint;
}

/** A module of one function for each instruction; those without a meaning in the table just answer SLOW. */
export function compileConstants(sites: readonly Site[]): Uint8Array {
  const module = new ModuleBuilder();
  const helpers = new Map([...emitHelpers(module), ...emitFpFunctions(module)]);
  for (const [n, site] of sites.entries()) {
    const { code } = module.func(`f${n}`, [I32], [I32]);
    new ConstantEmit(code, helpers, site).emitFunction();
  }
  return module.toBytes();
}

class ConstantEmit implements Emit {
  readonly c: Code;
  private readonly helpers: Map<string, number>;
  private readonly d: Decoded;
  private readonly at: bigint;
  private readonly va: number;
  private readonly address: number;
  private readonly entry: number;
  private readonly temps64: number[];
  private readonly temps32: number[];
  private readonly tempsF64: number[];
  private slow!: Label;
  private done!: Label;

  constructor(code: Code, helpers: Map<string, number>, { decoded, pc }: Site) {
    this.c = code;
    this.helpers = helpers;
    this.d = decoded;
    this.at = pc;
    const four = (type: number) => [0, 1, 2, 3].map(() => code.local(type));
    [this.va, this.address, this.entry] = [code.local(I64), code.local(I32), code.local(I32)];
    [this.temps64, this.temps32, this.tempsF64] = [four(I64), four(I32), four(F64)];
  }

  emitFunction(): void {
    const { c } = this;
    const { instruction, rm } = this.d;
    this.slow = c.block();
    this.done = c.block();
    if (instruction.emit === undefined) {
      c.br(this.slow);
    } else {
      if (instruction.fp) c.get(HART).mem('i32Load', L.FS).op('i32Eqz').brIf(this.slow);
      if (instruction.rm && rm === 7) c.get(HART).mem('i32Load', L.FRM).i32(5).op('i32GeU').brIf(this.slow);
      instruction.emit(this);
      this.setPc(() => this.nextPc());
    }
    c.end().i32(DONE).op('return').end();
    c.get(HART).get(this.va).mem('i64Store', L.SLOW_VA).i32(SLOW);
  }

  private setPc(value: () => void): void {
    this.c.get(HART);
    value();
    this.c.mem('i64Store', L.PC);
  }

  // Operands: x0 is the constant 0.

  private x(n: number): void {
    if (n === 0) this.c.i64(0);
    else this.c.get(HART).mem('i64Load', L.X + 8 * n);
  }

  private xw(n: number): void {
    if (n === 0) this.c.i32(0);
    else this.c.get(HART).mem('i32Load', L.X + 8 * n);
  }

  private f(n: number): void {
    this.c.get(HART).mem('i64Load', L.F + 8 * n);
  }

  rs1(): void {
    this.x(this.d.rs1);
  }

  rs2(): void {
    this.x(this.d.rs2);
  }

  rs1w(): void {
    this.xw(this.d.rs1);
  }

  rs2w(): void {
    this.xw(this.d.rs2);
  }

  frs1(): void {
    this.f(this.d.rs1);
  }

  frs2(): void {
    this.f(this.d.rs2);
  }

  frs3(): void {
    this.f(this.d.rs3);
  }

  imm(): void {
    this.c.i64(this.d.imm);
  }

  imm32(): void {
    this.c.i32(this.d.imm);
  }

  pc(): void {
    this.c.i64(this.at);
  }

  nextPc(): void {
    this.c.i64(this.at + BigInt(this.d.lenBytes));
  }

  rd(value: () => void): void {
    if (this.d.rd === 0) {
      value();
      this.c.op('drop');
      return;
    }
    this.c.get(HART);
    value();
    this.c.mem('i64Store', L.X + 8 * this.d.rd);
  }

  frd(value: () => void): void {
    this.c.get(HART);
    value();
    this.c
      .mem('i64Store', L.F + 8 * this.d.rd)
      .get(HART)
      .i32(3)
      .mem('i32Store', L.FS);
  }

  rm(): void {
    if (this.d.rm === 7) this.c.get(HART).mem('i32Load', L.FRM);
    else this.c.i32(this.d.rm);
  }

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

  jump(): void {
    this.setPc(() => this.c.i64(this.at + BigInt(this.d.imm)));
    this.c.br(this.done);
  }

  jumpRegister(target: () => void): void {
    this.setPc(target);
    this.c.br(this.done);
  }

  // Memory: through the hart's own TLB.

  /** Leaves by $slow unless all bytes at `va` are in the table; sets `address`. */
  private translate(table: number, lenBytes: number): void {
    const { c } = this;
    c.get(HART).get(HART).mem('i32Load', L.DATA_CTX).op('i32Add');
    c.get(this.va).op('i32WrapI64').i32(8).op('i32ShrU');
    c.i32((L.TLB_ENTRIES - 1) * L.TLB_ENTRY_BYTES)
      .op('i32And')
      .op('i32Add')
      .tee(this.entry);
    c.mem('i64Load', L.DTLB + table)
      .get(this.va)
      .i64(lenBytes - 1)
      .op('i64Add')
      .i64(-4096)
      .op('i64And');
    c.op('i64Ne').brIf(this.slow);
    c.get(this.va)
      .op('i32WrapI64')
      .get(this.entry)
      .mem('i32Load', L.DTLB + table + 8)
      .op('i32Add')
      .set(this.address);
  }

  private effectiveAddress(): void {
    this.rs1();
    this.imm();
    this.c.op('i64Add').set(this.va);
  }

  load(mem: MemName, lenBytes: number, dest: 'x' | 'f'): void {
    this.effectiveAddress();
    this.translate(0, lenBytes);
    const value = () => {
      this.c.get(this.address).mem(mem);
      if (dest === 'f' && lenBytes === 4) this.c.i64(-1n << 32n).op('i64Or');
    };
    if (dest === 'x') this.rd(value);
    else this.frd(value);
  }

  store(mem: MemName, lenBytes: number, value: () => void): void {
    this.effectiveAddress();
    this.translate(L.TLB_WRITE, lenBytes);
    this.c.get(this.address);
    value();
    this.c.mem(mem);
  }

  private alignedAddress(lenBytes: number): void {
    this.rs1();
    this.c
      .tee(this.va)
      .i64(lenBytes - 1)
      .op('i64And')
      .op('i64Eqz')
      .op('i32Eqz')
      .brIf(this.slow);
  }

  amo(op: AtomicName, lenBytes: 4 | 8): void {
    this.alignedAddress(lenBytes);
    this.translate(L.TLB_WRITE, lenBytes);
    this.rd(() => {
      this.c.get(this.address);
      if (lenBytes === 4) this.rs2w();
      else this.rs2();
      this.c.atomic(op);
      if (lenBytes === 4) this.c.op('i64ExtendI32S');
    });
  }

  amoUnless(keeps: OpName, lenBytes: 4 | 8): void {
    const { c } = this;
    const wide = lenBytes === 8;
    const [old, now] = wide ? [this.temps64[0]!, this.temps64[1]!] : [this.temps32[0]!, this.temps32[1]!];
    const operand = () => (wide ? this.rs2() : this.rs2w());
    this.alignedAddress(lenBytes);
    this.translate(L.TLB_WRITE, lenBytes);
    const again = c.loop();
    c.get(this.address)
      .atomic(wide ? 'i64Load' : 'i32Load')
      .tee(old);
    operand();
    c.get(old);
    operand();
    c.op(keeps).op('select').set(now).get(this.address).get(old).get(now);
    c.atomic(wide ? 'i64Cmpxchg' : 'i32Cmpxchg')
      .get(old)
      .op(wide ? 'i64Ne' : 'i32Ne')
      .brIf(again)
      .end();
    this.rd(() => {
      c.get(old);
      if (!wide) c.op('i64ExtendI32S');
    });
  }

  loadReserved(lenBytes: 4 | 8): void {
    const { c } = this;
    const value = this.temps64[0]!;
    this.alignedAddress(lenBytes);
    this.translate(0, lenBytes);
    c.get(this.address);
    if (lenBytes === 4) c.atomic('i32Load').op('i64ExtendI32S');
    else c.atomic('i64Load');
    c.set(value).get(HART).get(this.va).mem('i64Store', L.RESERVED_VA);
    c.get(HART).get(value).mem('i64Store', L.RESERVED_VALUE);
    this.rd(() => c.get(value));
  }

  storeConditional(lenBytes: 4 | 8): void {
    const { c } = this;
    const [failed, expected] = [this.temps64[0]!, this.temps64[1]!];
    this.alignedAddress(lenBytes);
    c.i64(1).set(failed).get(HART).mem('i64Load', L.RESERVED_VALUE).set(expected);
    c.get(this.va).get(HART).mem('i64Load', L.RESERVED_VA).op('i64Eq').if();
    this.translate(L.TLB_WRITE, lenBytes);
    c.get(this.address).get(expected);
    if (lenBytes === 4) c.op('i32WrapI64');
    if (lenBytes === 4) this.rs2w();
    else this.rs2();
    if (lenBytes === 4) c.atomic('i32Cmpxchg').op('i64ExtendI32S');
    else c.atomic('i64Cmpxchg');
    c.get(expected).op('i64Ne').op('i64ExtendI32U').set(failed).end();
    c.get(HART).i64(-1).mem('i64Store', L.RESERVED_VA);
    this.rd(() => c.get(failed));
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
