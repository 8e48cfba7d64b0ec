import { type Code, I32, I64, type ModuleBuilder } from '../../base/index.js';
import {
  BITS_AND_FLAGS,
  BOX,
  call,
  define,
  exponentField,
  type Functions,
  NX,
  OF,
  RDN,
  RMM,
  RNE,
  RUP,
  SIGN,
  SINGLE,
  significand,
  when,
} from './format.js';

/**
 * Rounding: from an exact value to bits and flags of either format.
 *
 * An exact value is a sign (i64, SIGN or 0), an exponent (i32) and a significand of 64 bits whose top bit is set:
 * value = significand * 2^(exponent - 63). Bits below the 64 are kept as "jam": bit 0 is set if any of them is.
 * Tininess is detected after rounding, as RISC-V requires (unprivileged manual, section 21.2).
 */
export function emitRounding(module: ModuleBuilder, functions: Functions): void {
  define(module, functions, 'fp.increment', [I64, I64, I32, I64], [I64], increment);
  define(module, functions, 'fp.shiftJam', [I64, I32], [I64], shiftJam);
  define(module, functions, 'fp.round', [I64, I32, I64, I32], BITS_AND_FLAGS, (c) => round(c, functions));
  define(module, functions, 'fp.narrow', [I64, I32], [I64], narrow);
  define(module, functions, 'fp.exponent', [I64], [I32], exponent);
  define(module, functions, 'fp.significand', [I64], [I64], normalSignificand);
}

/** (sig, drop, rm, sign): 1 if `sig` without its low `drop` bits is to be rounded up in magnitude, else 0. */
function increment(c: Code): void {
  const [sig, drop, rm, sign] = [0, 1, 2, 3];
  const low = c.local(I64);
  const half = c.local(I64);
  c.get(sig).i64(1).get(drop).op('i64Shl').i64(1).op('i64Sub').op('i64And').set(low);
  c.i64(1).get(drop).i64(1).op('i64Sub').op('i64Shl').set(half);
  c.get(rm).i32(RNE).op('i32Eq');
  when(c, () => {
    c.get(low).get(half).op('i64GtU').op('i64ExtendI32U');
    c.get(low).get(half).op('i64Eq').op('i64ExtendI32U').get(sig).get(drop).op('i64ShrU').op('i64And');
    c.op('i64Or').op('return');
  });
  c.get(rm).i32(RMM).op('i32Eq');
  when(c, () => c.get(low).get(half).op('i64GeU').op('i64ExtendI32U').op('return'));
  c.get(low).i64(0).op('i64Ne');
  c.get(rm).get(sign).op('i64Eqz').op('i32Eqz').i32(RUP).op('i32Xor').op('i32Eq').op('i32And').op('i64ExtendI32U');
}

/** (sig, n >= 0): sig >>> n, with bit 0 set if a bit was lost. */
function shiftJam(c: Code): void {
  const [sig, n] = [0, 1];
  c.get(n).i32(64).op('i32GeU');
  when(c, () => c.get(sig).i64(0).op('i64Ne').op('i64ExtendI32U').op('return'));
  const shifted = c.local(I64);
  c.get(sig).get(n).op('i64ExtendI32U').op('i64ShrU').tee(shifted);
  c.get(shifted).get(n).op('i64ExtendI32U').op('i64Shl').get(sig).op('i64Ne').op('i64ExtendI32U').op('i64Or');
}

/** (sign, exp, sig, control): the rounded bits and its flags. */
function round(c: Code, functions: Functions): void {
  const [sign, exp, sig, control] = [0, 1, 2, 3];
  const rm = c.local(I32);
  const drop = c.local(I64);
  const fraction = c.local(I64);
  const above = c.local(I32);
  const result = c.local(I64);
  const flags = c.local(I32);
  const tiny = c.local(I32);
  const isSingle = () => c.get(control).i32(SINGLE).op('i32And');
  const rounded = () => {
    c.get(sig).get(drop).op('i64ShrU').get(sig).get(drop).get(rm).get(sign);
    call(c, functions, 'fp.increment');
    c.op('i64Add');
  };
  c.get(control).i32(7).op('i32And').set(rm);
  c.i64(40).i64(11);
  isSingle().op('select').set(drop);
  c.i64(63).get(drop).op('i64Sub').set(fraction);
  c.get(exp).i32(126).i32(1022);
  isSingle().op('select').op('i32Add').tee(above).i32(0).op('i32LtS');
  when(c, () => {
    rounded();
    c.get(fraction).i64(1).op('i64Add').op('i64ShrU').op('i64Eqz').get(above).i32(-1).op('i32Ne').op('i32Or').set(tiny);
    c.get(sig).i32(0).get(above).op('i32Sub');
    call(c, functions, 'fp.shiftJam');
    c.set(sig).i32(0).set(above);
  });
  // NX is 1 and UF 2: tiny and inexact is both.
  c.get(sig).i64(1).get(drop).op('i64Shl').i64(1).op('i64Sub').op('i64And').op('i64Eqz').op('i32Eqz').set(flags);
  c.get(flags).get(flags).get(tiny).op('i32And').i32(1).op('i32Shl').op('i32Or').set(flags);
  c.get(above).op('i64ExtendI32U').get(fraction).op('i64Shl');
  rounded();
  c.op('i64Add').set(result);
  overflow(c, { sign, rm, fraction, result, flags, isSingle });
  isSingle();
  when(c, () => {
    c.get(result).get(sign).i64(32).op('i64ShrU').op('i64Or').i64(BOX).op('i64Or').get(flags).op('return');
  });
  c.get(result).get(sign).op('i64Or').get(flags);
}

interface Rounded {
  sign: number;
  rm: number;
  fraction: number;
  result: number;
  flags: number;
  isSingle: () => Code;
}

/** Beyond the largest finite number: that number or infinity, whichever the mode says. */
function overflow(c: Code, r: Rounded): void {
  const infinity = () => {
    c.i64(0xff).i64(0x7ff);
    r.isSingle().op('select').get(r.fraction).op('i64Shl');
  };
  c.get(r.result);
  infinity();
  c.op('i64GeU');
  when(c, () => {
    c.i32(OF | NX).set(r.flags);
    infinity();
    c.get(r.rm).i32(RNE).op('i32Eq').get(r.rm).i32(RMM).op('i32Eq').op('i32Or');
    c.get(r.rm).i32(RUP).i32(RDN).get(r.sign).op('i64Eqz').op('select').op('i32Eq').op('i32Or');
    c.op('i32Eqz').op('i64ExtendI32U').op('i64Sub').set(r.result);
  });
}

/** (bits): the exponent of a finite double other than 0, as if it were normal. */
function exponent(c: Code): void {
  exponentField(c, 0);
  when(c, () => exponentField(c, 0).i32(1023).op('i32Sub').op('return'));
  c.i32(-1011).get(0).i64(~SIGN).op('i64And').op('i64Clz').op('i32WrapI64').op('i32Sub');
}

/** (bits): the significand of a finite double other than 0, its top bit set. */
function normalSignificand(c: Code): void {
  exponentField(c, 0);
  when(c, () => significand(c, 0).i64(11).op('i64Shl').op('return'));
  const magnitude = c.local(I64);
  c.get(0).i64(~SIGN).op('i64And').tee(magnitude).get(magnitude).op('i64Clz').op('i64Shl');
}

/** (bits, control): a zero, infinity or canonical NaN, in the format that the control word asks for. */
function narrow(c: Code): void {
  c.get(1).i32(SINGLE).op('i32And').op('i32Eqz');
  when(c, () => c.get(0).op('return'));
  c.get(0).i64(32).op('i64ShrU').i64(0x80000000n).op('i64And');
  c.get(0).i64(29).op('i64ShrU').i64(0x7fffffffn).op('i64And').op('i64Or').i64(BOX).op('i64Or');
}
