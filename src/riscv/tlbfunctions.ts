import { type Code, I32, I64, type ModuleBuilder } from '../base/index.js';
import * as L from './layout.js';

/**
 * What the generated module does with the TLB's tables (tlb.ts) beyond the look-up that stands in each instruction.
 *
 * WHY second places in a function of their own: an instruction looks at one place; only where it misses is the other one looked at, and the
 * entry changed over, for 10 ns instead of the 200 of a way through TypeScript.
 */

/**
 * Returns the function `secondPlace(table, tag)`: 1 where the entry was in its second place, and is in its first now.
 * Also exports, by name: `forbidPage(table, hostPage)` empties the entries that lead to the page; `forgetPage(first, end, low)` those of a virtual page in tables that follow each other.
 */
export function emitTlbFunctions(module: ModuleBuilder): number {
  emitForbidPage(module);
  emitForgetPage(module);
  return emitSecondPlace(module);
}

/** Byte offset in a table of the first place of the address whose low word is in a local. `orNone`: no place at all where that is not a page's. */
export function pushFirst(c: Code, low: number, orNone = false): void {
  const places = (L.TLB_ENTRIES - 1) * L.TLB_ENTRY_BYTES;
  c.get(low)
    .i32(8)
    .op('i32ShrU')
    .i32(orNone ? places | 15 : places)
    .op('i32And');
}

/** What the second place differs in from the first, as `secondPlace` of tlb.ts. */
export function pushOther(c: Code, low: number): void {
  c.get(low)
    .i32(L.TLB_SECOND_SHIFT)
    .op('i32ShrU')
    .i32(L.TLB_SECOND_MASK)
    .op('i32And')
    .i32(L.TLB_SECOND_FLIP)
    .op('i32Or');
}

function pushSecond(c: Code, low: number): void {
  pushFirst(c, low);
  pushOther(c, low);
  c.op('i32Xor');
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

function emitSecondPlace(module: ModuleBuilder): number {
  const [table, tag] = [0, 1];
  const { index, code: c } = module.func(undefined, [I32, I64], [I32]);
  const [low, place, slot, second] = [c.local(I32), c.local(I32), c.local(I32), c.local(I32)];
  const rest = c.local(I64);
  c.get(tag).op('i32WrapI64').set(low);
  pushFirst(c, low);
  c.tee(place);
  pushOther(c, low);
  c.op('i32Xor').get(table).op('i32Add').tee(second).mem('i64Load', 0).get(tag).op('i64Ne').if();
  c.i32(0).op('return').end();
  c.get(second).mem('i64Load', 8).set(rest);
  // Emptied first: what is in the first place may have its second here.
  c.get(second).i64(-1).mem('i64Store', 0).get(table).get(place).op('i32Add').set(slot);
  emitMoveAway(c, { table, place, slot }, 0);
  c.get(slot).get(tag).mem('i64Store', 0).get(slot).get(rest).mem('i64Store', 8).i32(1);
  return index;
}

/** Locals: the address of a table, a first place's byte offset in it, and the sum of both. */
export interface Slot {
  readonly table: number;
  readonly place: number;
  readonly slot: number;
}

/** What is in the slot, if that is its first place, goes to its second; all of it `offset` bytes further. */
export function emitMoveAway(c: Code, { table, place, slot }: Slot, offset: number): void {
  const [old, low, to] = [c.local(I64), c.local(I32), c.local(I32)];
  c.get(slot).mem('i64Load', offset).tee(old).op('i32WrapI64').set(low);
  pushFirst(c, low, true);
  c.get(place).op('i32Eq').if();
  c.get(place);
  pushOther(c, low);
  c.op('i32Xor').get(table).op('i32Add').tee(to).get(old).mem('i64Store', offset);
  c.get(to)
    .get(slot)
    .mem('i64Load', offset + 8)
    .mem('i64Store', offset + 8)
    .end();
}
