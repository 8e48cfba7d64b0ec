import { I32, type MemName } from '../base/index.js';
import { Emitter, HART } from './emitter.js';
import type { Handler } from './handlers.js';
import * as L from './layout.js';

/**
 * An emitter whose operands come from a record (records.ts): its fields are offsets of registers in the hart and the immediate, looked at when the code runs.
 * What depends on the form alone, such as whether rd is x0 or how long the instruction is, is known when it is generated.
 */
export abstract class RecordEmitter extends Emitter {
  /** Locals: the record of the instruction, the first of its page, and that page's address. */
  protected abstract readonly rec: number;
  protected abstract readonly recBase: number;
  protected abstract readonly pageVa: number;
  /** Of the instruction that is emitted. */
  protected form!: Handler;

  private register(field: number, mem: MemName, offset: number): void {
    this.c.get(this.rec).mem('i32Load8U', field).get(HART).op('i32Add').mem(mem, offset);
  }

  private get rs2Field(): number {
    const { format } = this.form.instruction;
    return format === 'S' || format === 'B' ? L.REC_RS2_BS : L.REC_RS2;
  }

  rs1(): void {
    this.register(L.REC_RS1, 'i64Load', L.X);
  }

  rs2(): void {
    this.register(this.rs2Field, 'i64Load', L.X);
  }

  rs1w(): void {
    this.register(L.REC_RS1, 'i32Load', L.X);
  }

  rs2w(): void {
    this.register(this.rs2Field, 'i32Load', L.X);
  }

  frs1(): void {
    this.register(L.REC_RS1, 'i64Load', L.F);
  }

  frs2(): void {
    this.register(this.rs2Field, 'i64Load', L.F);
  }

  frs3(): void {
    this.register(L.REC_RS3, 'i64Load', L.F);
  }

  imm(): void {
    this.c.get(this.rec).mem('i64Load32S', L.REC_IMM);
  }

  imm32(): void {
    this.c.get(this.rec).mem('i32Load', L.REC_IMM);
  }

  protected zimm(): void {
    this.rs1IsNamed();
    this.c.i32(3).op('i32ShrU').op('i64ExtendI32U');
  }

  protected rs1IsNamed(): void {
    this.c.get(this.rec).mem('i32Load8U', L.REC_RS1);
  }

  pc(): void {
    this.c.get(this.pageVa).get(this.rec).get(this.recBase).op('i32Sub').i32(2).op('i32ShrS');
    this.c.op('i64ExtendI32S').op('i64Add');
  }

  nextPc(): void {
    this.pc();
    this.c.i64(this.form.lenBytes).op('i64Add');
  }

  rd(value: () => void): void {
    if (this.form.zero) {
      value();
      this.c.op('drop');
      return;
    }
    this.c.get(this.rec).mem('i32Load8U', L.REC_RD).get(HART).op('i32Add');
    value();
    this.c.mem('i64Store', L.X);
  }

  frd(value: () => void): void {
    this.c.get(this.rec).mem('i32Load8U', L.REC_RD).get(HART).op('i32Add');
    value();
    this.c.mem('i64Store', L.F).get(HART).i32(3).mem('i32Store', L.FS);
  }

  rm(): void {
    const rm = this.temp32(3);
    this.c.get(this.rec).mem('i32Load8U', L.REC_RM).tee(rm).i32(7).op('i32Eq').if(I32);
    this.c.get(HART).mem('i32Load', L.FRM).else().get(rm).end();
  }
}
