import { type Code, I32, I64, type Label, ModuleBuilder } from '../base/index.js';
import { emitCsrHelpers } from './csrhelpers.js';
import { type EmitOptions, HART } from './emitter.js';
import { emitFpFunctions } from './fp/functions.js';
import {
  FIRST_HANDLER,
  FIRST_PAIR,
  FUSED,
  HANDLER_CROSSING,
  HANDLER_NOP2,
  HANDLER_NOP4,
  HANDLER_PAGE_END,
  HANDLERS,
  type Handler,
} from './handlers.js';
import { emitHelpers } from './helpers.js';
import * as L from './layout.js';
import { emitMemoryFunctions } from './memoryfunctions.js';
import { RecordEmitter } from './recordemitter.js';
import { emitMiss } from './refill.js';
import { emitTlbFunctions } from './tlbfunctions.js';

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
 *   $missRead, $missWrite   the TLB lacks the page of a load or store: refilled (refill.ts), and once more; else $slow
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

export function generateInterpreter(options: EmitOptions): Uint8Array {
  const module = new ModuleBuilder();
  const fetch = module.importFunc('fetch', [I32], [I32]);
  const slow = module.importFunc('slow', [I32, I32], [I32]);
  const stale = options.tagsAddr === undefined ? undefined : module.importFunc('stale', [I32, I64, I32], []);
  const helpers = new Map([...emitHelpers(module), ...emitCsrHelpers(module), ...emitFpFunctions(module)]);
  if (stale !== undefined) helpers.set('stale', stale);
  const secondPlace = emitTlbFunctions(module);
  const miss = emitMiss(module, secondPlace, options.tagsAddr);
  const { code } = module.func('run', [I32, I32], [I32]);
  new Interpreter(code, helpers, options).emit({ fetch, slow, miss, secondPlace });
  emitMemoryFunctions(module);
  return module.toBytes();
}

/** Functions that the interpreter calls, by index. */
interface Calls {
  readonly fetch: number;
  readonly slow: number;
  readonly miss: number;
  readonly secondPlace: number;
}

const LEFT = 1;

class Interpreter extends RecordEmitter {
  protected readonly rec: number;
  protected readonly recBase: number;
  private readonly limit: number;
  protected readonly pageVa: number;
  private readonly pcLocal: number;
  private readonly dtlbLocal: number;
  private readonly status: number;
  private leave!: Label;
  private top!: Label;
  private jumpOut!: Label;
  private dispatch!: Label;
  private missRead!: Label;
  private missWrite!: Label;

  constructor(code: Code, helpers: ReadonlyMap<string, number>, options: EmitOptions) {
    super(code, helpers, options);
    const i32 = () => code.local(I32);
    const i64 = () => code.local(I64);
    [this.rec, this.recBase, this.limit, this.dtlbLocal, this.status] = [i32(), i32(), i32(), i32(), i32()];
    [this.pageVa, this.pcLocal] = [i64(), i64()];
  }

  emit(calls: Calls): void {
    const { c } = this;
    c.get(HART).mem('i64Load', L.PC).set(this.pcLocal);
    this.leave = c.block();
    this.top = c.loop();
    this.emitFetch(calls);
    this.slow = c.block();
    this.jumpOut = c.block();
    this.dispatch = c.loop();
    this.missRead = c.block();
    this.missWrite = c.block();
    this.emitDispatch();
    c.end();
    this.emitMiss(calls, 1);
    c.end();
    this.emitMiss(calls, 0);
    c.end().op('unreachable').end();
    this.setPcFromRecord();
    c.br(this.top).end();
    this.emitSlow(calls);
    c.end().end();
    c.get(HART).get(this.pcLocal).mem('i64Store', L.PC).get(LEFT);
  }

  private emitFetch({ fetch, secondPlace }: Calls): void {
    const { c } = this;
    c.get(HART).atomic('i32Load', L.REQUEST).brIf(this.leave);
    this.contextChanged();
    c.get(HART).get(HART).mem('i32Load', L.FETCH_CTX).op('i32Add');
    this.tlbOffset(() => c.get(this.pcLocal).op('i32WrapI64'));
    c.op('i32Add').tee(this.entry).mem('i64Load');
    c.get(this.pcLocal).i64(-4096).op('i64And').tee(this.pageVa).op('i64Eq').if(I32);
    c.i32(1).else();
    c.get(HART).get(HART).mem('i32Load', L.FETCH_CTX).op('i32Add').get(this.pageVa).call(secondPlace).end().if();
    c.get(this.entry).mem('i32Load', 8).set(this.recBase);
    c.else();
    // A fetch that traps uses budget, so there must be some.
    c.get(LEFT).op('i32Eqz').brIf(this.leave);
    this.storeState();
    c.get(HART).call(fetch).tee(this.recBase).op('i32Eqz').brIf(this.leave);
    c.get(HART).mem('i64Load', L.PC).set(this.pcLocal);
    c.get(this.recBase).i32(FETCH_TRAPPED).op('i32Eq').if();
    c.get(LEFT).i32(1).op('i32Sub').tee(LEFT).op('i32Eqz').brIf(this.leave).br(this.top).end();
    c.end();
    c.i32(L.PAGE_RECORD_BYTES).set(this.limit);
    c.get(this.recBase).get(this.pcLocal).get(this.pageVa).op('i64Sub').op('i32WrapI64').i32(2).op('i32Shl');
    c.op('i32Add').set(this.rec);
  }

  protected contextChanged(): void {
    this.c.get(HART).get(HART).mem('i32Load', L.DATA_CTX).op('i32Add').set(this.dtlbLocal);
  }

  private storeState(): void {
    this.c.get(HART).get(this.pcLocal).mem('i64Store', L.PC).get(HART).get(LEFT).mem('i32Store', L.BUDGET_LEFT);
  }

  /** Looks at the second place, then at what the MMU has told; the instruction is done again, which then takes no more off the budget. */
  private emitMiss({ miss }: Calls, write: 0 | 1): void {
    const { c } = this;
    c.get(HART).get(this.va);
    this.dtlb();
    c.i32(write).call(miss).if();
    c.get(LEFT).i32(1).op('i32Add').set(LEFT).br(this.dispatch).end().br(this.slow);
  }

  private emitSlow({ slow }: Calls): void {
    const { c } = this;
    this.setPcFromRecord();
    c.get(HART).get(this.va).mem('i64Store', L.SLOW_VA);
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
    const nr = FIRST_PAIR + FUSED.length;
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
    const pair = FUSED[handler - FIRST_PAIR];
    const form = HANDLERS[handler - FIRST_HANDLER];
    if (pair !== undefined) {
      this.emitInstruction(pair.first);
      this.skip(pair.first.lenBytes);
      this.emitCount();
      this.emitInstruction(pair.second);
      this.advance(pair.second.lenBytes);
    } else if (handler === HANDLER_PAGE_END) {
      c.get(LEFT).i32(1).op('i32Add').set(LEFT).br(this.jumpOut);
    } else if (handler === HANDLER_CROSSING) {
      this.emitCrossing();
    } else if (handler === HANDLER_NOP2 || handler === HANDLER_NOP4) {
      this.advance(handler === HANDLER_NOP2 ? 2 : 4);
    } else if (form?.instruction.emit === undefined) {
      c.br(this.slow);
    } else {
      this.emitInstruction(form);
      this.advance(form.lenBytes);
    }
  }

  /** To the record of the instruction across the end of the page, if fetches of the next page still lead where it was decoded from. */
  private emitCrossing(): void {
    const { c } = this;
    c.get(HART).get(HART).mem('i32Load', L.FETCH_CTX).op('i32Add');
    this.tlbOffset(() => c.get(this.pageVa).op('i32WrapI64').i32(4096).op('i32Add'));
    c.op('i32Add').tee(this.entry).mem('i64Load').get(this.pageVa).i64(4096).op('i64Add').op('i64Ne').brIf(this.slow);
    c.get(this.entry).mem('i32Load', 8).tee(this.entry);
    c.get(this.recBase).mem('i32Load', L.CROSSING_NEXT).op('i32Ne').brIf(this.slow);
    c.get(this.entry).mem('i32Load', L.PAGE_STAMP);
    c.get(this.recBase).mem('i32Load', L.CROSSING_STAMP).op('i32Ne').brIf(this.slow);
    c.get(this.pageVa).i64(4094).op('i64Add').set(this.pageVa).i32(0).set(this.limit);
    c.get(this.recBase).i32(L.CROSSING_RECORD).op('i32Add').tee(this.recBase).set(this.rec);
    c.get(LEFT).i32(1).op('i32Add').set(LEFT).br(this.dispatch);
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

  // Jumps. A branch's immediate is kept times 4, as the distance between records.

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

  protected override miss(write: boolean): Label {
    return write ? this.missWrite : this.missRead;
  }

  protected dtlb(): void {
    this.c.get(this.dtlbLocal);
  }
}
