import { type Code, I32, type Label, ModuleBuilder } from '../../src/base/index.js';
import { emitCsrHelpers } from '../../src/riscv/csrhelpers.js';
import { Emitter, HART } from '../../src/riscv/emitter.js';
import { emitFpFunctions } from '../../src/riscv/fp/functions.js';
import { emitHelpers } from '../../src/riscv/helpers.js';
import type { Decoded } from '../../src/riscv/index.js';
import * as L from '../../src/riscv/layout.js';

/**
 * The table's meanings with constants for operands, as a compiler of hot code will have them: one function for one
 * instruction at one address, registers at constant offsets, immediates and targets folded.
 *
 * Function n is `f<n>(hart)`. It answers DONE with pc stored, or SLOW with nothing done at all; the address of a slow
 * access is in the hart then.
 */

export const DONE = 0;
export const SLOW = 1;

export interface Site {
  readonly decoded: Decoded;
  readonly pc: bigint;
}

/** A module of one function for each instruction; those without a meaning in the table just answer SLOW. */
export function compileConstants(sites: readonly Site[]): Uint8Array {
  const module = new ModuleBuilder();
  const helpers = new Map([...emitHelpers(module), ...emitCsrHelpers(module), ...emitFpFunctions(module)]);
  for (const [n, site] of sites.entries()) {
    const { code } = module.func(`f${n}`, [I32], [I32]);
    new ConstantEmit(code, helpers, site).emitFunction();
  }
  return module.toBytes();
}

class ConstantEmit extends Emitter {
  private readonly d: Decoded;
  private readonly at: bigint;
  private done!: Label;

  constructor(code: Code, helpers: Map<string, number>, { decoded, pc }: Site) {
    super(code, helpers);
    this.d = decoded;
    this.at = pc;
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

  protected zimm(): void {
    this.c.i64(this.d.rs1);
  }

  protected rs1IsNamed(): void {
    this.c.i32(this.d.rs1);
  }

  protected contextChanged(): void {}

  jump(): void {
    this.setPc(() => this.c.i64(this.at + BigInt(this.d.imm)));
    this.c.br(this.done);
  }

  jumpRegister(target: () => void): void {
    this.setPc(target);
    this.c.br(this.done);
  }

  protected dtlb(): void {
    this.c.get(HART).get(HART).mem('i32Load', L.DATA_CTX).op('i32Add');
  }
}
