import { type Code, I32, I64, type ModuleBuilder, VOID } from '../../base/index.js';

/**
 * What the floating-point functions share: constants of the two formats, the control word, and small emitters.
 *
 * Every function that can raise flags returns two results, the bits (i64; single precision NaN-boxed) and the flags (i32).
 */

/** fflags (unprivileged manual, section 21.2). */
export const NX = 1;
export const UF = 2;
export const OF = 4;
export const DZ = 8;
export const NV = 16;

/** Rounding modes; 5 and 6 are reserved. */
export const RNE = 0;
export const RTZ = 1;
export const RDN = 2;
export const RUP = 3;
export const RMM = 4;

/** In a control word, beside the rounding mode: the result is single precision. */
export const SINGLE = 8;

export const SIGN = 1n << 63n;
export const FRACTION = (1n << 52n) - 1n;
export const IMPLICIT = 1n << 52n;
export const INFINITY = 0x7ffn << 52n;
export const CANONICAL_NAN = 0x7ff8n << 48n;
export const BOX = 0xffffffffn << 32n;
export const CANONICAL_NAN_SINGLE = BOX | 0x7fc00000n;

export const BITS_AND_FLAGS = [I64, I32] as const;

/** The functions emitted so far, by name; later ones call earlier ones. */
export type Functions = Map<string, number>;

/** Adds a function to the module under `name`, its body written by `body`. */
export function define(
  module: ModuleBuilder,
  functions: Functions,
  name: string,
  params: readonly number[],
  results: readonly number[],
  body: (c: Code) => void,
): void {
  const { index, code } = module.func(name, params, results);
  functions.set(name, index);
  body(code);
}

/** Call a function defined before. */
export function call(c: Code, functions: Functions, name: string): void {
  const index = functions.get(name);
  if (index === undefined) throw new Error(`no floating-point function ${name} has been defined`);
  c.call(index);
}

/** if (what is on the stack) body. */
export function when(c: Code, body: () => void): void {
  c.if(VOID);
  body();
  c.end();
}

/** Push whether local `bits` (a double) is a NaN. */
export function isNan(c: Code, bits: number): Code {
  return c.get(bits).i64(~SIGN).op('i64And').i64(INFINITY).op('i64GtU');
}

/** Push whether local `bits` (a double) is a signalling NaN. */
export function isSignalling(c: Code, bits: number): Code {
  isNan(c, bits);
  return c
    .get(bits)
    .i64(1n << 51n)
    .op('i64And')
    .op('i64Eqz')
    .op('i32And');
}

/** Push NV if any of the locals (doubles) is a signalling NaN, else 0. */
export function signallingFlag(c: Code, operands: readonly number[]): Code {
  operands.forEach((operand, i) => {
    isSignalling(c, operand);
    if (i > 0) c.op('i32Or');
  });
  return c.i32(4).op('i32Shl');
}

/** Push the exponent field of local `bits` (a double) as i32. */
export function exponentField(c: Code, bits: number): Code {
  return c.get(bits).i64(52).op('i64ShrU').op('i32WrapI64').i32(0x7ff).op('i32And');
}

/** Push the significand of local `bits` (a normal double): an integer of 53 bits. */
export function significand(c: Code, bits: number): Code {
  return c.get(bits).i64(FRACTION).op('i64And').i64(IMPLICIT).op('i64Or');
}
