import { I32, I64, type ModuleBuilder, type OpName } from '../base/index.js';

/**
 * Functions of the generated module that instructions call: what is too long to stand in a handler. By name, so that the
 * table can ask for them.
 */
export function emitHelpers(module: ModuleBuilder): Map<string, number> {
  const helpers = new Map<string, number>();
  const mulhu = emitMulhu(module);
  helpers.set('mulhu', mulhu);
  helpers.set('mulh', emitMulhSigned(module, mulhu, true));
  helpers.set('mulhsu', emitMulhSigned(module, mulhu, false));
  helpers.set('div', emitDivS(module, 64, 'i64DivS'));
  helpers.set('rem', emitDivS(module, 64, 'i64RemS'));
  helpers.set('divu', emitDivU(module, 64, 'i64DivU'));
  helpers.set('remu', emitDivU(module, 64, 'i64RemU'));
  helpers.set('divw', emitDivS(module, 32, 'i32DivS'));
  helpers.set('remw', emitDivS(module, 32, 'i32RemS'));
  helpers.set('divuw', emitDivU(module, 32, 'i32DivU'));
  helpers.set('remuw', emitDivU(module, 32, 'i32RemU'));
  return helpers;
}

/** High half of a 64 by 64 product, from four 32 by 32 ones. */
function emitMulhu(module: ModuleBuilder): number {
  const { index, code: c } = module.func(undefined, [I64, I64], [I64]);
  const [aLow, aHigh, bLow, bHigh, middle, cross] = [0, 1, 2, 3, 4, 5].map(() => c.local(I64)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const split = (from: number, low: number, high: number) => {
    c.get(from).i64(0xffffffff).op('i64And').set(low);
    c.get(from).i64(32).op('i64ShrU').set(high);
  };
  const product = (a: number, b: number) => c.get(a).get(b).op('i64Mul');
  split(0, aLow, aHigh);
  split(1, bLow, bHigh);
  // middle = aHigh * bLow + (aLow * bLow >> 32), which cannot overflow.
  product(aHigh, bLow);
  product(aLow, bLow).i64(32).op('i64ShrU').op('i64Add').set(middle);
  product(aLow, bHigh);
  c.get(middle).i64(0xffffffff).op('i64And').op('i64Add').set(cross);
  product(aHigh, bHigh);
  c.get(middle).i64(32).op('i64ShrU').op('i64Add');
  c.get(cross).i64(32).op('i64ShrU').op('i64Add');
  return index;
}

/** From the unsigned high half: a negative operand counts as 2^64 too much, times the other one. */
function emitMulhSigned(module: ModuleBuilder, mulhu: number, bothSigned: boolean): number {
  const { index, code: c } = module.func(undefined, [I64, I64], [I64]);
  c.get(0).get(1).call(mulhu);
  c.get(0).i64(63).op('i64ShrS').get(1).op('i64And').op('i64Sub');
  if (bothSigned) c.get(1).i64(63).op('i64ShrS').get(0).op('i64And').op('i64Sub');
  return index;
}

/** By zero: quotient -1, remainder the dividend. The most negative by -1: quotient the dividend, remainder 0. */
function emitDivS(module: ModuleBuilder, width: 32 | 64, op: OpName): number {
  const type = width === 64 ? I64 : I32;
  const { index, code: c } = module.func(undefined, [type, type], [type]);
  const constant = (value: number) => (width === 64 ? c.i64(value) : c.i32(value));
  const isDiv = op.endsWith('DivS');
  c.get(1)
    .op(width === 64 ? 'i64Eqz' : 'i32Eqz')
    .if(type);
  if (isDiv) constant(-1);
  else c.get(0);
  c.else().get(1);
  constant(-1)
    .op(width === 64 ? 'i64Eq' : 'i32Eq')
    .if(type);
  // Division by -1 is negation, which wraps just as it must.
  constant(0);
  if (isDiv) c.get(0).op(width === 64 ? 'i64Sub' : 'i32Sub');
  c.else().get(0).get(1).op(op).end().end();
  return index;
}

function emitDivU(module: ModuleBuilder, width: 32 | 64, op: OpName): number {
  const type = width === 64 ? I64 : I32;
  const { index, code: c } = module.func(undefined, [type, type], [type]);
  c.get(1)
    .op(width === 64 ? 'i64Eqz' : 'i32Eqz')
    .if(type);
  if (op.endsWith('RemU')) c.get(0);
  else if (width === 64) c.i64(-1);
  else c.i32(-1);
  c.else().get(0).get(1).op(op).end();
  return index;
}
