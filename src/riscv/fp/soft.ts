import { type Code, F64, I32, I64, type ModuleBuilder } from '../../base/index.js';
import {
  BITS_AND_FLAGS,
  CANONICAL_NAN,
  call,
  DZ,
  define,
  type Functions,
  INFINITY,
  isNan,
  NV,
  RDN,
  SIGN,
  signallingFlag,
  when,
} from './format.js';

/**
 * The exact path: fused multiply-add, division and square root in integers, for all operands and rounding modes.
 *
 * Operands are doubles; single precision operands are widened first, which is exact. The control word (last parameter)
 * holds the rounding mode and the result's format. Sums and products are fused multiply-adds with 1 or a zero.
 */
export function emitSoft(module: ModuleBuilder, functions: Functions): void {
  const emit = (name: string, params: readonly number[], body: (s: Soft) => void) =>
    define(module, functions, name, params, BITS_AND_FLAGS, (c) => body({ c, functions, control: params.length - 1 }));
  emit('fp.addWide', [I64, I64, I64, I64, I64, I32, I32, I32], addWide);
  emit('fp.fmaSlow', [I64, I64, I64, I32], fma);
  emit('fp.divSlow', [I64, I64, I32], div);
  emit('fp.sqrtSlow', [I64, I32], sqrt);
}

interface Soft {
  readonly c: Code;
  readonly functions: Functions;
  /** The local of the control word. */
  readonly control: number;
}

const magnitude = (c: Code, bits: number) => c.get(bits).i64(~SIGN).op('i64And');
const isZero = (c: Code, bits: number) => magnitude(c, bits).op('i64Eqz');
const isInfinite = (c: Code, bits: number) => magnitude(c, bits).i64(INFINITY).op('i64Eq');
const signOf = (c: Code, bits: number) => c.get(bits).i64(SIGN).op('i64And');

/** Return the zero, infinity or NaN that `bits` pushes, and flags. */
function give({ c, functions, control }: Soft, bits: () => void, flags: () => void): void {
  bits();
  c.get(control);
  call(c, functions, 'fp.narrow');
  flags();
  c.op('return');
}

function giveInvalid(s: Soft): void {
  give(
    s,
    () => s.c.i64(CANONICAL_NAN),
    () => s.c.i32(NV),
  );
}

/** A NaN among the operands gives the canonical NaN; a signalling one also NV. */
function giveNans(s: Soft, operands: readonly number[]): void {
  const { c } = s;
  for (const operand of operands) {
    isNan(c, operand);
    when(c, () =>
      give(
        s,
        () => c.i64(CANONICAL_NAN),
        () => signallingFlag(c, operands),
      ),
    );
  }
}

/** Return sign local | `magnitude`, and flags. */
function giveSigned(s: Soft, sign: number, bits: bigint, flags = 0): void {
  give(
    s,
    () => s.c.get(sign).i64(bits).op('i64Or'),
    () => s.c.i32(flags),
  );
}

function unpack({ c, functions }: Soft, bits: number): { exp: number; sig: number } {
  const exp = c.local(I32);
  const sig = c.local(I64);
  c.get(bits);
  call(c, functions, 'fp.exponent');
  c.set(exp).get(bits);
  call(c, functions, 'fp.significand');
  c.set(sig);
  return { exp, sig };
}

function fma(s: Soft): void {
  const { c, functions, control } = s;
  const [x, y, z] = [0, 1, 2];
  const sign = c.local(I64);
  c.get(x).get(y).op('i64Xor').i64(SIGN).op('i64And').set(sign);
  fmaSpecial(s, sign);
  isZero(c, x);
  isZero(c, y).op('i32Or');
  when(c, () => {
    isZero(c, z);
    when(c, () =>
      give(
        s,
        () => zeroSum(s, sign),
        () => c.i32(0),
      ),
    );
    const addend = unpack(s, z);
    signOf(c, z).get(addend.exp).get(addend.sig).get(control);
    call(c, functions, 'fp.round');
    c.op('return');
  });
  const product = multiply(s);
  isZero(c, z);
  when(c, () => {
    c.get(sign).get(product.exp).get(product.hi).get(product.lo).i64(0).op('i64Ne').op('i64ExtendI32U').op('i64Or');
    c.get(control);
    call(c, functions, 'fp.round');
    c.op('return');
  });
  c.get(sign).get(product.hi).get(product.lo);
  signOf(c, z).get(z);
  call(c, functions, 'fp.significand');
  c.get(product.exp).get(z);
  call(c, functions, 'fp.exponent');
  c.get(control);
  call(c, functions, 'fp.addWide');
}

/** Push the sum of a zero of sign `sign` and the zero in local 2. */
function zeroSum({ c, control }: Soft, sign: number): void {
  c.get(sign).get(2).op('i64And').get(sign).get(2).op('i64Or');
  c.get(control).i32(7).op('i32And').i32(RDN).op('i32Ne').op('select').i64(SIGN).op('i64And');
}

function fmaSpecial(s: Soft, sign: number): void {
  const { c } = s;
  const [x, y, z] = [0, 1, 2];
  isInfinite(c, x);
  isZero(c, y).op('i32And');
  isInfinite(c, y);
  isZero(c, x).op('i32And').op('i32Or');
  when(c, () => giveInvalid(s));
  giveNans(s, [x, y, z]);
  isInfinite(c, x);
  isInfinite(c, y).op('i32Or');
  when(c, () => {
    isInfinite(c, z);
    c.get(z).get(sign).op('i64Xor').i64(0).op('i64LtS').op('i32And');
    when(c, () => giveInvalid(s));
    giveSigned(s, sign, INFINITY);
  });
  isInfinite(c, z);
  when(c, () =>
    give(
      s,
      () => c.get(z),
      () => c.i32(0),
    ),
  );
}

/** The product of locals 0 and 1, 128 bits with the top bit set. Their significands have 53 bits, so 22 at the bottom are 0. */
function multiply(s: Soft): { exp: number; hi: number; lo: number } {
  const { c } = s;
  const a = unpack(s, 0);
  const b = unpack(s, 1);
  const [hi, lo, middle, exp] = [c.local(I64), c.local(I64), c.local(I64), c.local(I32)];
  const high = (sig: number) => c.get(sig).i64(32).op('i64ShrU');
  const low = (sig: number) => c.get(sig).i64(0xffffffffn).op('i64And');
  const product = (p: () => void, q: () => void) => {
    p();
    q();
    c.op('i64Mul');
  };
  product(
    () => low(a.sig),
    () => low(b.sig),
  );
  c.set(lo);
  product(
    () => high(a.sig),
    () => low(b.sig),
  );
  c.get(lo).i64(32).op('i64ShrU').op('i64Add').set(middle);
  product(
    () => high(a.sig),
    () => high(b.sig),
  );
  c.get(middle).i64(32).op('i64ShrU').op('i64Add').set(hi);
  product(
    () => low(a.sig),
    () => high(b.sig),
  );
  low(middle).op('i64Add').set(middle);
  c.get(hi).get(middle).i64(32).op('i64ShrU').op('i64Add').set(hi);
  low(lo).get(middle).i64(32).op('i64Shl').op('i64Or').set(lo);
  c.get(a.exp).get(b.exp).op('i32Add').get(hi).i64(63).op('i64ShrU').op('i32WrapI64').op('i32Add').set(exp);
  c.get(hi).i64(0).op('i64GeS');
  when(c, () => {
    c.get(hi).i64(1).op('i64Shl').get(lo).i64(63).op('i64ShrU').op('i64Or').set(hi);
    c.get(lo).i64(1).op('i64Shl').set(lo);
  });
  return { exp, hi, lo };
}

/**
 * (sign1, hi1, lo1, sign2, hi2, exp1, exp2, control): the rounded sum of two exact values, the first of 128 bits.
 * At least 22 low bits of the first and 75 of the second are 0, so that bits lost in aligning only ever decide "inexact".
 */
function addWide(s: Soft): void {
  const { c, functions, control } = s;
  const [sign1, hi1, lo1, sign2, hi2, exp1, exp2] = [0, 1, 2, 3, 4, 5, 6];
  const [lo2, shift] = [c.local(I64), c.local(I32)];
  c.get(exp1).get(exp2).op('i32LtS').get(exp1).get(exp2).op('i32Eq');
  c.get(hi1).get(hi2).op('i64LtU').op('i32And').op('i32Or');
  when(c, () => {
    for (const [p, q] of [
      [sign1, sign2],
      [hi1, hi2],
      [lo1, lo2],
      [exp1, exp2],
    ] as const) {
      c.get(p).get(q).set(p).set(q);
    }
  });
  c.get(exp1).get(exp2).op('i32Sub').set(shift);
  alignWide(s, hi2, lo2, shift);
  c.get(sign1).get(sign2).op('i64Eq');
  c.if();
  addMagnitudes(c, hi1, lo1, hi2, lo2, exp1);
  c.else();
  subtractMagnitudes(s, hi2, lo2);
  c.end();
  c.get(sign1).get(exp1).get(hi1).get(lo1).i64(0).op('i64Ne').op('i64ExtendI32U').op('i64Or').get(control);
  call(c, functions, 'fp.round');
}

/** hi:lo >>>= shift, jamming. */
function alignWide({ c, functions }: Soft, hi: number, lo: number, shift: number): void {
  const n = c.local(I64);
  c.get(shift).i32(64).op('i32GeU');
  c.if();
  c.get(hi).get(shift).i32(64).op('i32Sub');
  call(c, functions, 'fp.shiftJam');
  c.get(lo).i64(0).op('i64Ne').op('i64ExtendI32U').op('i64Or').set(lo).i64(0).set(hi);
  c.else();
  c.get(shift);
  when(c, () => {
    c.get(shift).op('i64ExtendI32U').set(n);
    c.get(lo).get(shift);
    call(c, functions, 'fp.shiftJam');
    c.get(hi).i64(64).get(n).op('i64Sub').op('i64Shl').op('i64Or').set(lo);
    c.get(hi).get(n).op('i64ShrU').set(hi);
  });
  c.end();
}

function addMagnitudes(c: Code, hi1: number, lo1: number, hi2: number, lo2: number, exp: number): void {
  const [sum, carry] = [c.local(I64), c.local(I64)];
  c.get(lo1).get(lo2).op('i64Add').tee(lo2).get(lo1).op('i64LtU').op('i64ExtendI32U').set(carry);
  c.get(lo2).set(lo1);
  // hi2 is never all ones, so that a sum that wrapped round is below hi1 even with the carry.
  c.get(hi1).get(hi2).op('i64Add').get(carry).op('i64Add').tee(sum).get(hi1).op('i64LtU');
  c.if();
  c.get(lo1).i64(0).op('i64Ne').op('i64ExtendI32U').get(sum).i64(1).op('i64And').op('i64Or').set(lo1);
  c.get(sum).i64(1).op('i64ShrU').i64(SIGN).op('i64Or').set(hi1);
  c.get(exp).i32(1).op('i32Add').set(exp);
  c.else();
  c.get(sum).set(hi1);
  c.end();
}

/** The first minus the second, which is not larger, made normal again; returns if nothing is left. */
function subtractMagnitudes(s: Soft, hi2: number, lo2: number): void {
  const { c, control } = s;
  const [hi1, lo1, exp1] = [1, 2, 5];
  const n = c.local(I64);
  c.get(hi1).get(hi2).op('i64Sub').get(lo1).get(lo2).op('i64LtU').op('i64ExtendI32U').op('i64Sub').set(hi1);
  c.get(lo1).get(lo2).op('i64Sub').set(lo1);
  c.get(hi1).get(lo1).op('i64Or').op('i64Eqz');
  when(c, () =>
    give(
      s,
      () => c.i64(SIGN).i64(0).get(control).i32(7).op('i32And').i32(RDN).op('i32Eq').op('select'),
      () => c.i32(0),
    ),
  );
  c.get(hi1).op('i64Eqz');
  when(c, () => c.get(lo1).set(hi1).i64(0).set(lo1).get(exp1).i32(64).op('i32Sub').set(exp1));
  c.get(hi1).op('i64Clz').tee(n).op('i64Eqz').op('i32Eqz');
  when(c, () => {
    c.get(hi1).get(n).op('i64Shl').get(lo1).i64(64).get(n).op('i64Sub').op('i64ShrU').op('i64Or').set(hi1);
    c.get(lo1).get(n).op('i64Shl').set(lo1);
    c.get(exp1).get(n).op('i32WrapI64').op('i32Sub').set(exp1);
  });
}

function div(s: Soft): void {
  const { c, functions, control } = s;
  const [x, y] = [0, 1];
  const sign = c.local(I64);
  c.get(x).get(y).op('i64Xor').i64(SIGN).op('i64And').set(sign);
  divSpecial(s, sign);
  const a = unpack(s, x);
  const b = unpack(s, y);
  const [q, r, exp] = [c.local(I64), c.local(I64), c.local(I32)];
  for (const operand of [a, b]) c.get(operand.sig).i64(11).op('i64ShrU').set(operand.sig);
  c.get(a.exp).get(b.exp).op('i32Sub').set(exp);
  c.get(a.sig).get(b.sig).op('i64LtU');
  when(c, () => c.get(a.sig).i64(1).op('i64Shl').set(a.sig).get(exp).i32(1).op('i32Sub').set(exp));
  // WHY: the host's division gives 53 bits of the quotient, at most one too large; the remainder is exact modulo 2^64.
  c.get(a.sig)
    .op('f64ConvertI64S')
    .get(b.sig)
    .op('f64ConvertI64S')
    .op('f64Div')
    .f64(2 ** 52)
    .op('f64Mul');
  c.op('i64TruncF64S').set(q);
  c.get(a.sig).i64(52).op('i64Shl').get(q).get(b.sig).op('i64Mul').op('i64Sub').tee(r).i64(0).op('i64LtS');
  when(c, () => c.get(q).i64(1).op('i64Sub').set(q).get(r).get(b.sig).op('i64Add').set(r));
  c.get(r).i64(11).op('i64Shl').set(r);
  c.get(sign).get(exp);
  c.get(q).i64(11).op('i64Shl').get(r).get(b.sig).op('i64DivU').op('i64Or');
  c.get(r).get(b.sig).op('i64RemU').i64(0).op('i64Ne').op('i64ExtendI32U').op('i64Or').get(control);
  call(c, functions, 'fp.round');
}

function divSpecial(s: Soft, sign: number): void {
  const { c } = s;
  const [x, y] = [0, 1];
  giveNans(s, [x, y]);
  isInfinite(c, x);
  when(c, () => {
    isInfinite(c, y);
    when(c, () => giveInvalid(s));
    giveSigned(s, sign, INFINITY);
  });
  isInfinite(c, y);
  when(c, () => giveSigned(s, sign, 0n));
  isZero(c, y);
  when(c, () => {
    isZero(c, x);
    when(c, () => giveInvalid(s));
    giveSigned(s, sign, INFINITY, DZ);
  });
  isZero(c, x);
  when(c, () => giveSigned(s, sign, 0n));
}

function sqrt(s: Soft): void {
  const { c, functions, control } = s;
  giveNans(s, [0]);
  isZero(c, 0);
  isInfinite(c, 0).get(0).i64(0).op('i64GeS').op('i32And').op('i32Or');
  when(c, () =>
    give(
      s,
      () => c.get(0),
      () => c.i32(0),
    ),
  );
  c.get(0).i64(0).op('i64LtS');
  when(c, () => giveInvalid(s));
  const a = unpack(s, 0);
  const [q, r, n, root] = [c.local(I64), c.local(I64), c.local(I64), c.local(F64)];
  // The radicand times 2^52, or 2^53 if the exponent is odd, has a root of 53 bits.
  c.get(a.sig).i64(11).op('i64ShrU').get(a.exp).i32(1).op('i32And').op('i64ExtendI32U').op('i64Shl').set(n);
  c.get(n)
    .op('f64ConvertI64S')
    .f64(2 ** 52)
    .op('f64Mul')
    .op('f64Sqrt')
    .tee(root)
    .op('i64TruncF64S')
    .set(q);
  c.get(n).i64(52).op('i64Shl').get(q).get(q).op('i64Mul').op('i64Sub').tee(r).i64(0).op('i64LtS');
  when(c, () => {
    c.get(q).i64(1).op('i64Sub').tee(q).i64(1).op('i64Shl').i64(1).op('i64Add').get(r).op('i64Add').set(r);
  });
  c.i64(0).get(a.exp).i32(1).op('i32ShrS');
  c.get(q).i64(11).op('i64Shl');
  c.get(r).get(q).op('i64GtU').op('i64ExtendI32U').i64(10).op('i64Shl').op('i64Or');
  c.get(r).i64(0).op('i64Ne').op('i64ExtendI32U').op('i64Or').get(control);
  call(c, functions, 'fp.round');
}
