import { type Code, I32, I64, type ModuleBuilder } from '../base/index.js';
import * as L from './layout.js';

/**
 * What the generated module does with the TLB's tables (tlb.ts) beyond the look-up that stands in each instruction.
 *
 * WHY second places in a function of their own: an instruction looks at one place; only where it misses is the other one looked at, and the
 * entry changed over, for 10 ns instead of the 200 of a way through TypeScript.
 */

export interface TlbFunctions {
  /** (table, tag): 1 where the entry was in its second place, and is in its first now. */
  readonly secondPlace: number;
  /** (table, first): what is at `first`, if that is its first place, goes to its second. */
  readonly moveAway: number;
}

/** Also exports, by name: `forbidPage(table, hostPage)` empties the entries that lead to the page; `forgetPage(first, end, low)` those of a virtual page in tables that follow each other. */
export function emitTlbFunctions(module: ModuleBuilder): TlbFunctions {
  emitForbidPage(module);
  emitForgetPage(module);
  const moveAway = emitMoveAway(module);
  return { moveAway, secondPlace: emitSecondPlace(module, moveAway) };
}

/** Byte offset in a table of the first place of the address whose low word is in a local. */
function pushFirst(c: Code, low: number): void {
  c.get(low)
    .i32(8)
    .op('i32ShrU')
    .i32((L.TLB_ENTRIES - 1) * L.TLB_ENTRY_BYTES)
    .op('i32And');
}

/** Of the second place, as `secondPlace` of tlb.ts. */
function pushSecond(c: Code, low: number): void {
  pushFirst(c, low);
  c.get(low).i32(L.TLB_SECOND_SHIFT).op('i32ShrU').i32(L.TLB_SECOND_MASK).op('i32And').i32(L.TLB_SECOND_FLIP);
  c.op('i32Or').op('i32Xor');
}

function emitForbidPage(module: ModuleBuilder): void {
  const { code: c } = module.func('forbidPage', [I32, I32], []);
  const end = c.local(I32);
  c.get(0).i32(L.TLB_TABLE_BYTES).op('i32Add').set(end);
  const again = c.loop();
  c.get(0).mem('i32Load', 0).get(0).mem('i32Load', 8).op('i32Add').i32(12).op('i32ShrU').get(1).op('i32Eq').if();
  c.get(0).i64(-1).mem('i64Store', 0).end();
  c.get(0).i32(L.TLB_ENTRY_BYTES).op('i32Add').tee(0).get(end).op('i32Ne').brIf(again).end();
}

function emitForgetPage(module: ModuleBuilder): void {
  const [table, end, low] = [0, 1, 2];
  const { code: c } = module.func('forgetPage', [I32, I32, I32], []);
  const at = c.local(I32);
  const again = c.loop();
  for (const place of [pushFirst, pushSecond]) {
    c.get(table);
    place(c, low);
    c.op('i32Add').tee(at).mem('i32Load', 0).get(low).op('i32Eq').if();
    c.get(at).i64(-1).mem('i64Store', 0).end();
  }
  c.get(table).i32(L.TLB_TABLE_BYTES).op('i32Add').tee(table).get(end).op('i32Ne').brIf(again).end();
}

function emitSecondPlace(module: ModuleBuilder, moveAway: number): number {
  const [table, tag] = [0, 1];
  const { index, code: c } = module.func(undefined, [I32, I64], [I32]);
  const [low, first, second] = [c.local(I32), c.local(I32), c.local(I32)];
  const rest = c.local(I64);
  c.get(tag).op('i32WrapI64').set(low).get(table);
  pushSecond(c, low);
  c.op('i32Add').tee(second).mem('i64Load', 0).get(tag).op('i64Ne').if();
  c.i32(0).op('return').end();
  c.get(table);
  pushFirst(c, low);
  c.op('i32Add').set(first).get(second).mem('i64Load', 8).set(rest);
  // Emptied first: what is in the first place may have its second here.
  c.get(second).i64(-1).mem('i64Store', 0).get(table).get(first).call(moveAway);
  c.get(first).get(tag).mem('i64Store', 0).get(first).get(rest).mem('i64Store', 8).i32(1);
  return index;
}

function emitMoveAway(module: ModuleBuilder): number {
  const [table, first] = [0, 1];
  const { index, code: c } = module.func(undefined, [I32, I32], []);
  const [old, low, to] = [c.local(I64), c.local(I32), c.local(I32)];
  c.get(first).mem('i64Load', 0).tee(old).op('i32WrapI64').set(low).get(table);
  pushFirst(c, low);
  c.op('i32Add').get(first).op('i32Eq').get(old).i64(-1).op('i64Ne').op('i32And').if();
  c.get(table);
  pushSecond(c, low);
  c.op('i32Add').tee(to).get(old).mem('i64Store', 0).get(to).get(first).mem('i64Load', 8).mem('i64Store', 8).end();
  return index;
}
