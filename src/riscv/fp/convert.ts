import { type Code, I32, I64, type ModuleBuilder } from '../../base/index.js';
import {
  BITS_AND_FLAGS,
  BOX,
  CANONICAL_NAN,
  call,
  define,
  exponentField,
  type Functions,
  isNan,
  NV,
  RNE,
  RTZ,
  SIGN,
  SINGLE,
  signallingFlag,
  when,
} from './format.js';

/** Conversions between integers and floating point, and between the formats (unprivileged manual, sections 21.7, 22.5). */
export function emitConversions(module: ModuleBuilder, functions: Functions): void {
  const emit = (name: string, params: readonly number[], body: (c: Code, f: Functions) => void) =>
    define(module, functions, name, params, BITS_AND_FLAGS, (c) => body(c, functions));
  emit('fp.fromUnsigned', [I64, I64, I32], fromMagnitude);
  emit('fp.fromLong', [I64, I32], fromLong);
  emit('fp.fromUnsignedLong', [I64, I32], fromUnsignedLong);
  emit('fp.toInteger', [I64, I32, I32], toInteger);
  emit('fcvt.s.d', [I64, I32], doubleToSingle);
  emit('fcvt.d.s', [I64], singleToDouble);
}

/** What `fp.toInteger` converts to: bits of its last parameter. */
export const TO_UNSIGNED = 1;
export const TO_WORD = 2;

/** (sign, magnitude, control). */
function fromMagnitude(c: Code, f: Functions): void {
  const n = c.local(I64);
  c.get(1).op('i64Eqz');
  when(c, () => {
    c.i64(0).get(2);
    call(c, f, 'fp.narrow');
    c.i32(0).op('return');
  });
  c.get(0).i32(63).get(1).op('i64Clz').tee(n).op('i32WrapI64').op('i32Sub').get(1).get(n).op('i64Shl').get(2);
  call(c, f, 'fp.round');
}

/** (signed, control). */
function fromLong(c: Code, f: Functions): void {
  const [value, control] = [0, 1];
  c.get(value)
    .i64(1n << 24n)
    .op('i64Add')
    .i64(1n << 25n)
    .op('i64LeU');
  when(c, () => {
    c.get(control).i32(SINGLE).op('i32And');
    when(c, () => {
      c.get(value).op('f64ConvertI64S').op('f32DemoteF64').op('i32ReinterpretF32').op('i64ExtendI32U');
      c.i64(BOX).op('i64Or').i32(0).op('return');
    });
    c.get(value).op('f64ConvertI64S').op('i64ReinterpretF64').i32(0).op('return');
  });
  c.get(value).i64(SIGN).op('i64And');
  c.i64(0).get(value).op('i64Sub').get(value).get(value).i64(0).op('i64LtS').op('select').get(control);
  call(c, f, 'fp.fromUnsigned');
}

function fromUnsignedLong(c: Code, f: Functions): void {
  c.i64(0).get(0).get(1);
  call(c, f, 'fp.fromUnsigned');
}

/** (double, rm, kind): the integer, saturated with NV; a word is sign-extended even if it is unsigned. */
function toInteger(c: Code, f: Functions): void {
  const [x, rm] = [0, 1];
  const [exp, sig, q, limit] = [c.local(I32), c.local(I64), c.local(I64), c.local(I64)];
  const [drop, inexact] = [c.local(I64), c.local(I32)];
  truncateFast(c);
  setLimit(c, limit);
  isNan(c, x);
  when(c, () => {
    c.get(x).i64(~SIGN).op('i64And').set(x);
    setLimit(c, limit);
    giveInteger(
      c,
      () => c.get(limit),
      () => c.i32(NV),
    );
    c.op('return');
  });
  c.get(x).i64(1).op('i64Shl').op('i64Eqz');
  when(c, () => c.i64(0).i32(0).op('return'));
  c.get(x);
  call(c, f, 'fp.exponent');
  c.tee(exp).i32(63).op('i32GtS');
  c.if();
  c.i64(-1).set(q).i32(1).set(inexact);
  c.else();
  c.get(x);
  call(c, f, 'fp.significand');
  c.set(sig);
  c.get(exp).i32(0).op('i32LtS');
  when(c, () => {
    c.get(sig).i32(0).get(exp).op('i32Sub');
    call(c, f, 'fp.shiftJam');
    c.set(sig).i32(0).set(exp);
  });
  c.i32(63).get(exp).op('i32Sub').op('i64ExtendI32U').set(drop);
  c.get(sig).i64(1).get(drop).op('i64Shl').i64(1).op('i64Sub').op('i64And').i64(0).op('i64Ne').set(inexact);
  c.get(sig).get(drop).op('i64ShrU').get(sig).get(drop).get(rm).get(x).i64(SIGN).op('i64And');
  call(c, f, 'fp.increment');
  c.op('i64Add').set(q);
  c.end();
  c.get(q).get(limit).op('i64GtU').get(exp).i32(63).op('i32GtS').op('i32Or');
  when(c, () => c.get(limit).set(q).i32(NV).set(inexact));
  giveInteger(
    c,
    () => c.i64(0).get(q).op('i64Sub').get(q).get(x).i64(0).op('i64LtS').op('select'),
    () => c.get(inexact),
  );
}

/** Push the integer that `value` pushes, as its kind (local 2) wants it, and flags. */
function giveInteger(c: Code, value: () => void, flags: () => void): void {
  const result = c.local(I64);
  value();
  c.set(result);
  c.get(result).op('i64Extend32S').get(result).get(2).i32(TO_WORD).op('i32And').op('select');
  flags();
}

/** Of most code: rounding toward zero of what is well within all types. */
function truncateFast(c: Code): void {
  const value = c.local(I64);
  c.get(1).i32(RTZ).op('i32Eq');
  exponentField(c, 0)
    .i32(1023 + 31)
    .op('i32LtU')
    .op('i32And');
  c.get(0).i64(0).op('i64GeS').get(2).i32(TO_UNSIGNED).op('i32And').op('i32Eqz').op('i32Or').op('i32And');
  when(c, () => {
    c.get(0).op('f64ReinterpretI64').op('i64TruncF64S').tee(value);
    c.get(value).op('f64ConvertI64S').get(0).op('f64ReinterpretI64').op('f64Ne').op('return');
  });
}

/** The largest magnitude that the sign of local 0 allows: 2^(w-1) - 1, or one more if negative; 2^w - 1 or 0 if unsigned. */
function setLimit(c: Code, limit: number): void {
  const negative = () => c.get(0).i64(63).op('i64ShrU');
  c.i64(0).i64(-1);
  negative().op('i32WrapI64').op('select');
  c.i64(-1).i64(1).op('i64ShrU');
  negative().op('i64Add');
  c.get(2).i32(TO_UNSIGNED).op('i32And').op('select').set(limit);
  c.get(2).i32(TO_WORD).op('i32And');
  when(c, () => {
    c.i64(0).i64(0xffffffffn);
    negative().op('i32WrapI64').op('select');
    c.i64(0x7fffffff);
    negative().op('i64Add');
    c.get(2).i32(TO_UNSIGNED).op('i32And').op('select').set(limit);
  });
}

function doubleToSingle(c: Code, f: Functions): void {
  const result = c.local(I32);
  const promoted = () => c.get(result).op('f32ReinterpretI32').op('f64PromoteF32');
  c.get(1).i32(RNE).op('i32Eq');
  when(c, () => {
    c.get(0).op('f64ReinterpretI64').op('f32DemoteF64').op('i32ReinterpretF32').tee(result);
    c.i32(23).op('i32ShrU').i32(0xff).op('i32And').i32(2).op('i32Sub').i32(252).op('i32LeU');
    when(c, () => {
      c.get(result).op('i64ExtendI32U').i64(BOX).op('i64Or');
      promoted().get(0).op('f64ReinterpretI64').op('f64Ne').op('return');
    });
  });
  c.get(0)
    .i64(0x3ffn << 52n)
    .get(0)
    .i64(SIGN)
    .op('i64And')
    .get(1)
    .i32(SINGLE)
    .op('i32Or');
  call(c, f, 'fp.fmaSlow');
}

function singleToDouble(c: Code, f: Functions): void {
  c.get(0);
  call(c, f, 'fp.widen');
  c.set(0);
  isNan(c, 0);
  when(c, () => {
    c.i64(CANONICAL_NAN);
    signallingFlag(c, [0]).op('return');
  });
  c.get(0).i32(0);
}
