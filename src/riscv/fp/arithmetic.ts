import { type Code, F32, F64, I32, I64, type ModuleBuilder } from '../../base/index.js';
import {
  BITS_AND_FLAGS,
  BOX,
  CANONICAL_NAN_SINGLE,
  call,
  define,
  exponentField,
  type Functions,
  RNE,
  SIGN,
  SINGLE,
  significand,
  when,
} from './format.js';

/**
 * Arithmetic as instructions call it: (operands, rounding mode) to bits and flags.
 *
 * The host computes when rounding is to nearest-even and the result is ordinary; whether it was exact is learnt from an
 * error-free transformation or from the significands' product modulo 2^64. Anything else goes to soft.ts. An exponent
 * field of 1 is not ordinary, because a number that was rounded up to it is tiny.
 */
export function emitArithmetic(module: ModuleBuilder, functions: Functions): void {
  const emit = (name: string, params: readonly number[], results: readonly number[], body: (c: Code) => void) =>
    define(module, functions, name, params, results, body);
  const use = (body: (c: Code, f: Functions) => void) => (c: Code) => body(c, functions);
  emit('fp.unbox', [I64], [I64], unbox);
  emit('fp.widen', [I64], [I64], use(widen));
  emit('fp.productInexact', [I64, I64, I64], [I32], productInexact);
  emit('fadd.d', [I64, I64, I32], BITS_AND_FLAGS, use(addDouble));
  emit('fmul.d', [I64, I64, I32], BITS_AND_FLAGS, use(mulDouble));
  emit('fdiv.d', [I64, I64, I32], BITS_AND_FLAGS, use(divDouble));
  emit('fsqrt.d', [I64, I32], BITS_AND_FLAGS, use(sqrtDouble));
  emit('fmadd.d', [I64, I64, I64, I32], BITS_AND_FLAGS, use(fmaDouble));
  emit('fadd.s', [I64, I64, I32], BITS_AND_FLAGS, use(addSingle));
  emit('fmul.s', [I64, I64, I32], BITS_AND_FLAGS, use(mulSingle));
  emit('fdiv.s', [I64, I64, I32], BITS_AND_FLAGS, use(divSingle));
  emit('fsqrt.s', [I64, I32], BITS_AND_FLAGS, use(sqrtSingle));
  emit('fmadd.s', [I64, I64, I64, I32], BITS_AND_FLAGS, use(fmaSingle));
}

/** What is not a NaN-boxed single is taken for the canonical NaN (section 22.2). */
function unbox(c: Code): void {
  c.get(0).i64(CANONICAL_NAN_SINGLE).get(0).i64(BOX).op('i64GeU').op('select');
}

/** (register): the single in it as a double; a signalling NaN stays one. */
function widen(c: Code, f: Functions): void {
  c.get(0);
  call(c, f, 'fp.unbox');
  c.set(0);
  c.get(0).i64(0x7f800000).op('i64And').i64(0x7f800000).op('i64Eq');
  when(c, () => {
    c.get(0)
      .i64(0x80000000n)
      .op('i64And')
      .i64(32)
      .op('i64Shl')
      .i64(0x7ffn << 52n)
      .op('i64Or');
    c.get(0).i64(0x7fffff).op('i64And').i64(29).op('i64Shl').op('i64Or').op('return');
  });
  c.get(0).op('i32WrapI64').op('f32ReinterpretI32').op('f64PromoteF32').op('i64ReinterpretF64');
}

const asDouble = (c: Code, bits: number) => c.get(bits).op('f64ReinterpretI64');
const isNearestEven = (c: Code, rm: number) => c.get(rm).i32(RNE).op('i32Eq');

/** Push whether the double in `bits` has an exponent field of `least` to `most`. */
function hasExponent(c: Code, bits: number, least: number, most: number): Code {
  return exponentField(c, bits)
    .i32(least)
    .op('i32Sub')
    .i32(most - least)
    .op('i32LeU');
}

/** Push the error of sum = x + y, rounded to nearest (Knuth's TwoSum); exact unless the sum overflows. */
function twoSumError(c: Code, op: 'f64' | 'f32', x: number, y: number, sum: number): void {
  const part = c.local(op === 'f64' ? F64 : F32);
  c.get(sum).get(x).op(`${op}Sub`).set(part);
  c.get(x).get(sum).get(part).op(`${op}Sub`).op(`${op}Sub`);
  c.get(y).get(part).op(`${op}Sub`).op(`${op}Add`);
}

function addDouble(c: Code, f: Functions): void {
  const [x, y, sum, bits] = [c.local(F64), c.local(F64), c.local(F64), c.local(I64)];
  isNearestEven(c, 2);
  when(c, () => {
    asDouble(c, 0).tee(x);
    asDouble(c, 1).tee(y).op('f64Add').tee(sum).op('i64ReinterpretF64').set(bits);
    hasExponent(c, bits, 0, 2045);
    when(c, () => {
      c.get(bits);
      twoSumError(c, 'f64', x, y, sum);
      c.f64(0).op('f64Ne').op('return');
    });
  });
  c.get(0)
    .i64(0x3ffn << 52n)
    .get(1)
    .get(2);
  call(c, f, 'fp.fmaSlow');
}

/** (x, y, host's x * y): 0 exact, 1 inexact, 2 not ordinary. */
function productInexact(c: Code): void {
  const [x, y, product] = [0, 1, 2];
  const low = c.local(I64);
  hasExponent(c, product, 2, 2045);
  exponentField(c, x).i32(0).op('i32Ne').op('i32And');
  exponentField(c, y).i32(0).op('i32Ne').op('i32And');
  when(c, () => {
    significand(c, x);
    significand(c, y).op('i64Mul').tee(low).i64(12).op('i64Shl').i64(0).op('i64Ne');
    // A product of 106 bits loses one more than one of 105.
    c.get(low).i64(52).op('i64ShrU').op('i32WrapI64').i32(1).op('i32And');
    exponentField(c, x);
    exponentField(c, y).op('i32Add').i32(1023).op('i32Sub');
    exponentField(c, product).op('i32Ne').op('i32And').op('i32Or').op('return');
  });
  const isZero = (bits: number) => c.get(bits).i64(1).op('i64Shl').op('i64Eqz');
  c.i32(0).i32(2);
  isZero(product);
  isZero(x);
  isZero(y).op('i32Or').op('i32And').op('select');
}

function mulDouble(c: Code, f: Functions): void {
  const [product, inexact] = [c.local(I64), c.local(I32)];
  isNearestEven(c, 2);
  when(c, () => {
    asDouble(c, 0);
    asDouble(c, 1).op('f64Mul').op('i64ReinterpretF64').set(product);
    c.get(0).get(1).get(product);
    call(c, f, 'fp.productInexact');
    c.tee(inexact).i32(2).op('i32Ne');
    when(c, () => c.get(product).get(inexact).op('return'));
  });
  c.get(0).get(1).get(0).get(1).op('i64Xor').i64(SIGN).op('i64And').get(2);
  call(c, f, 'fp.fmaSlow');
}

function divDouble(c: Code, f: Functions): void {
  const quotient = c.local(I64);
  isNearestEven(c, 2);
  when(c, () => {
    asDouble(c, 0);
    asDouble(c, 1).op('f64Div').op('i64ReinterpretF64').set(quotient);
    hasExponent(c, quotient, 2, 2046);
    hasExponent(c, 0, 1, 2046).op('i32And');
    hasExponent(c, 1, 1, 2046).op('i32And');
    when(c, () => {
      c.get(quotient);
      significand(c, 0);
      // The dividend times 2^52, or 2^53 if the quotient of the significands is below 1.
      exponentField(c, 0);
      exponentField(c, 1)
        .op('i32Sub')
        .i32(1023 + 52)
        .op('i32Add');
      exponentField(c, quotient).op('i32Sub');
      c.op('i64ExtendI32U').op('i64Shl');
      significand(c, quotient);
      significand(c, 1).op('i64Mul').op('i64Ne').op('return');
    });
  });
  c.get(0).get(1).get(2);
  call(c, f, 'fp.divSlow');
}

function sqrtDouble(c: Code, f: Functions): void {
  const root = c.local(I64);
  isNearestEven(c, 1);
  when(c, () => {
    asDouble(c, 0).op('f64Sqrt').op('i64ReinterpretF64').set(root);
    hasExponent(c, 0, 1, 2046);
    hasExponent(c, root, 1, 2046).op('i32And');
    when(c, () => {
      c.get(root);
      significand(c, root);
      significand(c, root).op('i64Mul');
      // The radicand times 2^52, or 2^53 if its exponent is odd, that is if the field is even.
      significand(c, 0).i64(53).get(0).i64(52).op('i64ShrU').i64(1).op('i64And').op('i64Sub').op('i64Shl');
      c.op('i64Ne').op('return');
    });
  });
  c.get(0).get(1);
  call(c, f, 'fp.sqrtSlow');
}

/** If the product is exact, it is a sum. */
function fmaDouble(c: Code, f: Functions): void {
  const product = c.local(I64);
  isNearestEven(c, 3);
  when(c, () => {
    asDouble(c, 0);
    asDouble(c, 1).op('f64Mul').op('i64ReinterpretF64').set(product);
    c.get(0).get(1).get(product);
    call(c, f, 'fp.productInexact');
    c.op('i32Eqz');
    when(c, () => {
      c.get(product).get(2).i32(RNE);
      call(c, f, 'fadd.d');
      c.op('return');
    });
  });
  c.get(0).get(1).get(2).get(3);
  call(c, f, 'fp.fmaSlow');
}

/** Push the single in register `bits`; the canonical NaN if it is not boxed. */
function single(c: Code, f: Functions, bits: number): Code {
  c.get(bits);
  call(c, f, 'fp.unbox');
  return c.op('i32WrapI64').op('f32ReinterpretI32');
}

const box = (c: Code, result: number) => c.get(result).op('i32ReinterpretF32').op('i64ExtendI32U').i64(BOX).op('i64Or');

/** Push whether the single in local `result` has an exponent field of `least` to `most`. */
function hasExponentSingle(c: Code, result: number, least: number, most: number): Code {
  c.get(result).op('i32ReinterpretF32').i32(23).op('i32ShrU').i32(0xff).op('i32And').i32(least).op('i32Sub');
  return c.i32(most - least).op('i32LeU');
}

/** The same by the exact path; `operands` pushes them widened. */
function slowSingle(c: Code, f: Functions, operands: readonly (number | (() => void))[], rm: number, to: string): void {
  for (const operand of operands) {
    if (typeof operand === 'number') {
      c.get(operand);
      call(c, f, 'fp.widen');
    } else operand();
  }
  c.get(rm).i32(SINGLE).op('i32Or');
  call(c, f, to);
}

function addSingle(c: Code, f: Functions): void {
  const [x, y, sum] = [c.local(F32), c.local(F32), c.local(F32)];
  isNearestEven(c, 2);
  when(c, () => {
    single(c, f, 0).tee(x);
    single(c, f, 1).tee(y).op('f32Add').set(sum);
    hasExponentSingle(c, sum, 0, 253);
    when(c, () => {
      box(c, sum);
      twoSumError(c, 'f32', x, y, sum);
      c.f32(0).op('f32Ne').op('return');
    });
  });
  slowSingle(c, f, [0, () => c.i64(0x3ffn << 52n), 1], 2, 'fp.fmaSlow');
}

/** Return the double in `exact` rounded to nearest as a single, if that is ordinary. `inexact` pushes what is lost already. */
function giveDemoted(c: Code, exact: number, inexact: () => void): void {
  const result = c.local(F32);
  c.get(exact).op('f32DemoteF64').set(result);
  hasExponentSingle(c, result, 2, 254).get(exact).f64(0).op('f64Eq').op('i32Or');
  when(c, () => {
    box(c, result).get(result).op('f64PromoteF32').get(exact).op('f64Ne');
    inexact();
    c.op('i32Or').op('return');
  });
}

/** The product of two singles is exact as a double. */
function mulSingle(c: Code, f: Functions): void {
  const product = c.local(F64);
  isNearestEven(c, 2);
  when(c, () => {
    single(c, f, 0).op('f64PromoteF32');
    single(c, f, 1).op('f64PromoteF32').op('f64Mul').set(product);
    giveDemoted(c, product, () => c.i32(0));
  });
  const zero = () => c.get(0).get(1).op('i64Xor').i64(32).op('i64Shl').i64(SIGN).op('i64And');
  slowSingle(c, f, [0, 1, zero], 2, 'fp.fmaSlow');
}

function divSingle(c: Code, f: Functions): void {
  const [x, y, quotient] = [c.local(F32), c.local(F32), c.local(F32)];
  isNearestEven(c, 2);
  when(c, () => {
    single(c, f, 0).tee(x);
    single(c, f, 1).tee(y).op('f32Div').set(quotient);
    hasExponentSingle(c, quotient, 2, 254).get(y).f32(0).op('f32Ne').op('i32And');
    when(c, () => {
      box(c, quotient).get(quotient).op('f64PromoteF32').get(y).op('f64PromoteF32').op('f64Mul');
      c.get(x).op('f64PromoteF32').op('f64Ne').op('return');
    });
  });
  slowSingle(c, f, [0, 1], 2, 'fp.divSlow');
}

function sqrtSingle(c: Code, f: Functions): void {
  const [x, root] = [c.local(F32), c.local(F32)];
  isNearestEven(c, 1);
  when(c, () => {
    single(c, f, 0).tee(x).op('f32Sqrt').set(root);
    hasExponentSingle(c, root, 2, 254);
    when(c, () => {
      box(c, root).get(root).op('f64PromoteF32').get(root).op('f64PromoteF32').op('f64Mul');
      c.get(x).op('f64PromoteF32').op('f64Ne').op('return');
    });
  });
  slowSingle(c, f, [0], 1, 'fp.sqrtSlow');
}

/** The product is exact as a double; the sum is rounded to odd, so that rounding it once more is as good as once. */
function fmaSingle(c: Code, f: Functions): void {
  const [product, addend, sum, error, bits] = [c.local(F64), c.local(F64), c.local(F64), c.local(F64), c.local(I64)];
  isNearestEven(c, 3);
  when(c, () => {
    single(c, f, 0).op('f64PromoteF32');
    single(c, f, 1).op('f64PromoteF32').op('f64Mul').tee(product);
    single(c, f, 2).op('f64PromoteF32').tee(addend).op('f64Add').tee(sum).op('i64ReinterpretF64').set(bits);
    twoSumError(c, 'f64', product, addend, sum);
    c.tee(error).f64(0).op('f64Ne').get(bits).i64(1).op('i64And').op('i64Eqz').op('i32And');
    when(c, () => {
      c.get(bits).i64(1).i64(-1).get(error).op('i64ReinterpretF64').get(bits).op('i64Xor').i64(0).op('i64GeS');
      c.op('select').op('i64Add').op('f64ReinterpretI64').set(sum);
    });
    giveDemoted(c, sum, () => c.get(error).f64(0).op('f64Ne'));
  });
  slowSingle(c, f, [0, 1, 2], 3, 'fp.fmaSlow');
}
