import { type Code, I32, I64, type ModuleBuilder, type OpName } from '../../base/index.js';
import {
  BITS_AND_FLAGS,
  CANONICAL_NAN,
  call,
  define,
  type Functions,
  isNan,
  NV,
  signallingFlag,
  when,
} from './format.js';

/** Comparisons, minimum and maximum, classification (unprivileged manual, sections 21.6, 21.8, 21.9). */
export function emitComparisons(module: ModuleBuilder, functions: Functions): void {
  const emit = (name: string, params: readonly number[], results: readonly number[], body: (c: Code) => void) =>
    define(module, functions, name, params, results, body);
  emit('fp.eq', [I64, I64], BITS_AND_FLAGS, (c) => compare(c, 'f64Eq', true));
  emit('fp.lt', [I64, I64], BITS_AND_FLAGS, (c) => compare(c, 'f64Lt', false));
  emit('fp.le', [I64, I64], BITS_AND_FLAGS, (c) => compare(c, 'f64Le', false));
  emit('fp.minMax', [I64, I64, I64, I64, I32, I32], BITS_AND_FLAGS, (c) => minMax(c, functions));
  emit('fp.class', [I64, I64], [I64], classify);
}

/** (x, y), doubles. Equality is quiet: only a signalling NaN raises NV; the orders raise it for any. */
function compare(c: Code, op: OpName, quiet: boolean): void {
  isNan(c, 0);
  isNan(c, 1).op('i32Or');
  when(c, () => {
    c.i64(0);
    if (quiet) signallingFlag(c, [0, 1]);
    else c.i32(NV);
    c.op('return');
  });
  c.get(0).op('f64ReinterpretI64').get(1).op('f64ReinterpretI64').op(op).op('i64ExtendI32U').i32(0);
}

/** (x, y, x as double, y as double, maximum?, control): x or y; -0 is less than +0; a NaN gives way to a number. */
function minMax(c: Code, f: Functions): void {
  const [x, y, wideX, wideY, maximum, control] = [0, 1, 2, 3, 4, 5];
  const give = (bits: number) => signallingFlag(c.get(bits), [wideX, wideY]).op('return');
  isNan(c, wideX);
  when(c, () => {
    isNan(c, wideY);
    when(c, () => {
      c.i64(CANONICAL_NAN).get(control);
      call(c, f, 'fp.narrow');
      signallingFlag(c, [wideX, wideY]).op('return');
    });
    give(y);
  });
  isNan(c, wideY);
  when(c, () => give(x));
  const wide = (op: OpName) => c.get(wideX).op('f64ReinterpretI64').get(wideY).op('f64ReinterpretI64').op(op);
  c.get(x).get(y);
  wide('f64Lt');
  wide('f64Eq').get(wideX).i64(0).op('i64LtS').op('i32And').op('i32Or');
  c.get(maximum).op('i32Xor').op('select').i32(0);
}

/** (bits, aligned to the top; width of the exponent): the class, one bit of ten. */
function classify(c: Code): void {
  const [x, width] = [0, 1];
  const [exp, fraction, kind] = [c.local(I64), c.local(I64), c.local(I64)];
  c.get(x).i64(1).op('i64Shl').i64(64).get(width).op('i64Sub').op('i64ShrU').set(exp);
  c.get(x).get(width).i64(1).op('i64Add').op('i64Shl').set(fraction);
  c.i64(1).set(kind);
  c.get(exp).i64(1).get(width).op('i64Shl').i64(1).op('i64Sub').op('i64Eq');
  when(c, () => {
    c.get(fraction).op('i64Eqz').op('i32Eqz');
    when(c, () => c.i64(0x100).get(fraction).i64(63).op('i64ShrU').op('i64Shl').op('return'));
    c.i64(0).set(kind);
  });
  c.get(exp).op('i64Eqz');
  when(c, () => c.i64(3).i64(2).get(fraction).op('i64Eqz').op('select').set(kind));
  // Negative: infinity 0, normal 1, subnormal 2, zero 3; positive the other way round, from 7.
  c.i64(1).get(kind).i64(7).get(kind).op('i64Sub').get(x).i64(0).op('i64LtS').op('select').op('i64Shl');
}
