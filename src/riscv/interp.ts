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
} from '../base/index.js';
import { emitFpFunctions } from './fp/functions.js';
import {
  FIRST_HANDLER,
  FUSED,
  HANDLER_NOP2,
  HANDLER_NOP4,
  HANDLER_PAGE_END,
  HANDLERS,
  type Handler,
} from './handlers.js';
import { emitHelpers } from './helpers.js';
import * as L from './layout.js';
import type { Emit } from './table/index.js';

/**
 * Generates the interpreter: one WebAssembly function `run(hart, budget)`, which returns what is left of the budget.
 *
 * Code is executed from records, decoded once per code page (records.ts). The function is one loop with a `br_table` over
 * the record's handler. From the outside in:
 *
 *   $leave     out of the function: pc is stored
 *   $top       look up the records of the page that `pc` lies in; polls for requests
 *   $slow      the current instruction, or the decoding of it, is done by `env.slow` in TypeScript
 *   $jumpOut   a jump has left the page or met a request: compute pc, go to $top
 *   $dispatch  the next record
 *
 * WHY one br_table and records, and not a call for each instruction: measured 337 against 160 M instructions a second.
 */

/** What `env.slow` answers: bit 0, the instruction used no budget; bit 1, leave. */
export const SLOW_RETIRED = 0;
export const SLOW_TRAPPED = 0;
export const SLOW_AGAIN = 1;
export const SLOW_LEAVE = 2;
/** What `env.fetch` answers other than the address of a page's records. */
export const FETCH_LEAVE = 0;
export const FETCH_TRAPPED = 1;

export function generateInterpreter(): Uint8Array {
  const module = new ModuleBuilder();
  const fetch = module.importFunc('fetch', [I32], [I32]);
  const slow = module.importFunc('slow', [I32, I32], [I32]);
  const helpers = new Map([...emitHelpers(module), ...emitFpFunctions(module)]);
  const { code } = module.func('run', [I32, I32], [I32]);
  new Interpreter(code, helpers).emit(fetch, slow);
  emitFill(module);
  return module.toBytes();
}

/** `fill(address, byte, length)`: typed arrays over shared memory fill 20 times slower. */
function emitFill(module: ModuleBuilder): void {
  const { code } = module.func('fill', [I32, I32, I32], []);
  code.get(0).get(1).get(2).memoryFill();
}

const HART = 0;
const LEFT = 1;

class Interpreter implements Emit {
  readonly c: Code;
  private readonly helpers: Map<string, number>;
  private readonly rec: number;
  private readonly recBase: number;
  private readonly limit: number;
  private readonly pageVa: number;
  private readonly pcLocal: number;
  private readonly va: number;
  /** Low word of va, then the host address. */
  private readonly address: number;
  private readonly entry: number;
  private readonly dtlb: number;
  private readonly status: number;
  private readonly temps64: number[];
  private readonly temps32: number[];
  private readonly tempsF64: number[];
  private leave!: Label;
  private top!: Label;
  private slow!: Label;
  private jumpOut!: Label;
  private dispatch!: Label;
  private form!: Handler;

  constructor(code: Code, helpers: Map<string, number>) {
    this.c = code;
    this.helpers = helpers;
    const i32 = () => code.local(I32);
    const i64 = () => code.local(I64);
    [this.rec, this.recBase, this.limit, this.address] = [i32(), i32(), i32(), i32()];
    [this.entry, this.dtlb, this.status] = [i32(), i32(), i32()];
    [this.pageVa, this.pcLocal, this.va] = [i64(), i64(), i64()];
    this.temps64 = [i64(), i64(), i64(), i64()];
    this.temps32 = [i32(), i32(), i32(), i32()];
    this.tempsF64 = [0, 1, 2, 3].map(() => code.local(F64));
  }

  emit(fetch: number, slow: number): void {
    const { c } = this;
    c.get(HART).mem('i64Load', L.PC).set(this.pcLocal);
    this.leave = c.block();
    this.top = c.loop();
    this.emitFetch(fetch);
    this.slow = c.block();
    this.jumpOut = c.block();
    this.dispatch = c.loop();
    this.emitDispatch();
    c.end().op('unreachable').end();
    this.setPcFromRecord();
    c.br(this.top).end();
    this.emitSlow(slow);
    c.end().end();
    c.get(HART).get(this.pcLocal).mem('i64Store', L.PC).get(LEFT);
  }

  private emitFetch(fetch: number): void {
    const { c } = this;
    c.get(HART).atomic('i32Load', L.REQUEST).brIf(this.leave);
    c.get(HART).i32(L.DTLB).op('i32Add').get(HART).mem('i32Load', L.DATA_CTX).op('i32Add').set(this.dtlb);
    c.get(HART).i32(L.ITLB).op('i32Add').get(HART).mem('i32Load', L.FETCH_CTX).op('i32Add');
    this.tlbOffset(() => c.get(this.pcLocal).op('i32WrapI64'));
    c.op('i32Add').tee(this.entry).mem('i64Load');
    c.get(this.pcLocal).i64(-4096).op('i64And').tee(this.pageVa).op('i64Eq').if();
    c.get(this.entry).mem('i32Load', 8).set(this.recBase).i32(L.PAGE_RECORD_BYTES).set(this.limit);
    c.else();
    // A fetch that traps uses budget, so there must be some.
    c.get(LEFT).op('i32Eqz').brIf(this.leave);
    this.storeState();
    c.get(HART).call(fetch).tee(this.recBase).op('i32Eqz').brIf(this.leave);
    c.get(HART).mem('i64Load', L.PC).set(this.pcLocal);
    c.get(this.recBase).i32(FETCH_TRAPPED).op('i32Eq').if();
    c.get(LEFT).i32(1).op('i32Sub').tee(LEFT).op('i32Eqz').brIf(this.leave).br(this.top).end();
    c.get(HART).mem('i64Load', L.FETCH_VA).set(this.pageVa).get(HART).mem('i32Load', L.FETCH_LIMIT).set(this.limit);
    c.end();
    c.get(this.recBase).get(this.pcLocal).get(this.pageVa).op('i64Sub').op('i32WrapI64').i32(2).op('i32Shl');
    c.op('i32Add').set(this.rec);
  }

  private storeState(): void {
    this.c.get(HART).get(this.pcLocal).mem('i64Store', L.PC).get(HART).get(LEFT).mem('i32Store', L.BUDGET_LEFT);
  }

  private emitSlow(slow: number): void {
    const { c } = this;
    c.get(HART).get(this.va).mem('i64Store', L.SLOW_VA);
    this.setPcFromRecord();
    this.storeState();
    c.get(HART).get(this.rec).call(slow).tee(this.status).i32(1).op('i32And').get(LEFT).op('i32Add').set(LEFT);
    c.get(HART).mem('i64Load', L.PC).set(this.pcLocal);
    c.get(this.status).i32(SLOW_LEAVE).op('i32And').brIf(this.leave).br(this.top);
  }

  private setPcFromRecord(): void {
    this.pc();
    this.c.set(this.pcLocal);
  }

  private emitDispatch(): void {
    const { c } = this;
    this.emitCount();
    const nr = FIRST_HANDLER + HANDLERS.length + FUSED.length;
    // Handler 0 is the innermost block: its code comes first.
    const labels = Array.from({ length: nr }, () => c.block()).reverse();
    c.get(this.rec)
      .mem('i32Load16U', L.REC_HANDLER)
      .brTable(labels.slice(0, -1), labels[nr - 1]!);
    for (let handler = 0; handler < nr; handler++) {
      c.end();
      this.emitHandler(handler);
    }
  }

  /** Leaves if the budget is used up, and takes one instruction off it. */
  private emitCount(): void {
    const { c } = this;
    c.get(LEFT).op('i32Eqz').if();
    this.setPcFromRecord();
    c.br(this.leave).end();
    c.get(LEFT).i32(1).op('i32Sub').set(LEFT);
  }

  private emitHandler(handler: number): void {
    const { c } = this;
    const pair = FUSED[handler - FIRST_HANDLER - HANDLERS.length];
    const form = HANDLERS[handler - FIRST_HANDLER];
    if (pair !== undefined) {
      this.emitInstruction(pair.first);
      this.skip(pair.first.lenBytes);
      this.emitCount();
      this.emitInstruction(pair.second);
      this.advance(pair.second.lenBytes);
    } else if (handler === HANDLER_PAGE_END) {
      c.get(LEFT).i32(1).op('i32Add').set(LEFT).br(this.jumpOut);
    } else if (handler === HANDLER_NOP2 || handler === HANDLER_NOP4) {
      this.advance(handler === HANDLER_NOP2 ? 2 : 4);
    } else if (form?.instruction.emit === undefined) {
      c.br(this.slow);
    } else {
      this.emitInstruction(form);
      this.advance(form.lenBytes);
    }
  }

  private emitInstruction(form: Handler): void {
    const { c } = this;
    this.form = form;
    if (form.instruction.fp) c.get(HART).mem('i32Load', L.FS).op('i32Eqz').brIf(this.slow);
    if (form.instruction.rm) this.refuseReservedRounding();
    form.instruction.emit!(this);
  }

  /** A dynamic rounding mode with a reserved value in frm is illegal; decoding has refused the static ones. */
  private refuseReservedRounding(): void {
    const { c } = this;
    c.get(this.rec).mem('i32Load8U', L.REC_RM).i32(7).op('i32Eq');
    c.get(HART).mem('i32Load', L.FRM).i32(5).op('i32GeU').op('i32And').brIf(this.slow);
  }

  private skip(lenBytes: number): void {
    this.c
      .get(this.rec)
      .i32(lenBytes * 4)
      .op('i32Add')
      .set(this.rec);
  }

  private advance(lenBytes: number): void {
    this.skip(lenBytes);
    this.c.br(this.dispatch);
  }

  // Operands.

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
    const rm = this.temps32[3]!;
    this.c.get(this.rec).mem('i32Load8U', L.REC_RM).tee(rm).i32(7).op('i32Eq').if(I32);
    this.c.get(HART).mem('i32Load', L.FRM).else().get(rm).end();
  }

  accrue(flags: () => void): void {
    this.c.get(HART).get(HART).mem('i32Load', L.FFLAGS);
    flags();
    this.c.op('i32Or').mem('i32Store', L.FFLAGS).get(HART).i32(3).mem('i32Store', L.FS);
  }

  // Jumps. A branch's immediate is kept times 4, as the distance between records.

  branch(condition: () => void): void {
    condition();
    this.c.if();
    this.jump();
    this.c.end();
  }

  jump(): void {
    const { c } = this;
    this.imm32();
    c.get(this.rec).op('i32Add').tee(this.rec).get(this.recBase).op('i32Sub').get(this.limit).op('i32GeU');
    c.get(HART).atomic('i32Load', L.REQUEST).op('i32Or').brIf(this.jumpOut).br(this.dispatch);
  }

  jumpRegister(target: () => void): void {
    target();
    this.c.set(this.pcLocal).br(this.top);
  }

  // Memory.

  /** Byte offset in a TLB table of the entry for the address whose low word `low` pushes. */
  private tlbOffset(low: () => void): void {
    low();
    this.c
      .i32(8)
      .op('i32ShrU')
      .i32((L.TLB_ENTRIES - 1) * L.TLB_ENTRY_BYTES)
      .op('i32And');
  }

  /** With va's low word on the stack: leaves for $slow unless all of its bytes are in the TLB; sets `address`. */
  private translate(table: number, lenBytes: number): void {
    const { c } = this;
    c.set(this.address);
    this.tlbOffset(() => c.get(this.address));
    c.get(this.dtlb).op('i32Add').tee(this.entry).mem('i64Load', table);
    c.get(this.va);
    // An access that ends in the next page carries its last byte's page, which cannot be in this entry.
    if (lenBytes > 1) c.i64(lenBytes - 1).op('i64Add');
    c.i64(-4096).op('i64And').op('i64Ne').brIf(this.slow);
    c.get(this.address)
      .get(this.entry)
      .mem('i32Load', table + 8)
      .op('i32Add')
      .set(this.address);
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
  }

  store(mem: MemName, lenBytes: number, value: () => void): void {
    this.effectiveAddress();
    this.translate(L.TLB_WRITE, lenBytes);
    this.c.get(this.address);
    value();
    this.c.mem(mem);
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
    c.get(reserved).op('i64Ne').op('i64ExtendI32U').set(failed).end();
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
