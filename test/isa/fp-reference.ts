/**
 * IEEE 754 arithmetic as RISC-V wants it, in big integers: slow, plain, and independent of the implementation it checks.
 * A finite number is numerator / denominator * sign; rounding is by exact division.
 */

export interface Format {
  readonly fractionBits: number;
  readonly exponentBits: number;
}

export const DOUBLE: Format = { fractionBits: 52, exponentBits: 11 };
export const SINGLE: Format = { fractionBits: 23, exponentBits: 8 };

export interface Outcome {
  readonly bits: bigint;
  readonly flags: number;
}

const shl = (x: bigint, n: number) => (n >= 0 ? x << BigInt(n) : x >> BigInt(-n));
const bias = (f: Format) => 2 ** (f.exponentBits - 1) - 1;
const infinity = (f: Format) => ((1n << BigInt(f.exponentBits)) - 1n) << BigInt(f.fractionBits);
export const nan = (f: Format) => infinity(f) | (1n << BigInt(f.fractionBits - 1));
const signBit = (f: Format) => 1n << BigInt(f.fractionBits + f.exponentBits);

interface Number_ {
  readonly kind: 'zero' | 'finite' | 'infinity' | 'quiet' | 'signalling';
  readonly negative: boolean;
  /** In units of 2^-1100, signed. */
  readonly value: bigint;
}

const UNIT = 1100;

export function decode(bits: bigint, f: Format): Number_ {
  const negative = (bits & signBit(f)) !== 0n;
  const magnitude = bits & (signBit(f) - 1n);
  const exp = Number(magnitude >> BigInt(f.fractionBits));
  const fraction = magnitude & ((1n << BigInt(f.fractionBits)) - 1n);
  if (magnitude > infinity(f)) {
    return { kind: fraction >> BigInt(f.fractionBits - 1) ? 'quiet' : 'signalling', negative, value: 0n };
  }
  if (magnitude === infinity(f)) return { kind: 'infinity', negative, value: 0n };
  if (magnitude === 0n) return { kind: 'zero', negative, value: 0n };
  const significand = exp === 0 ? fraction : fraction | (1n << BigInt(f.fractionBits));
  const value = shl(significand, Math.max(exp, 1) - bias(f) - f.fractionBits + UNIT);
  return { kind: 'finite', negative, value: negative ? -value : value };
}

/** num / den, rounded to an integer by the mode, and whether that was inexact. */
function roundQuotient(num: bigint, den: bigint, negative: boolean, rm: number): [bigint, boolean] {
  const q = num / den;
  const twice = 2n * (num % den);
  if (twice === 0n) return [q, false];
  const nearest = twice > den || (twice === den && (rm === 4 || (q & 1n) === 1n));
  const up = rm === 0 || rm === 4 ? nearest : rm === 2 ? negative : rm === 3 ? !negative : false;
  return [up ? q + 1n : q, true];
}

/** The positive num / den * 2^scale with a sign, rounded to the format. */
export function encode(num: bigint, den: bigint, scale: number, negative: boolean, f: Format, rm: number): Outcome {
  const length = (x: bigint) => x.toString(2).length;
  let exp = length(num) - length(den) + scale;
  const below = (e: number) => shl(num, Math.max(scale - e, 0)) < shl(den, Math.max(e - scale, 0));
  if (below(exp)) exp -= 1;
  const least = 1 - bias(f);
  const at = (e: number) => {
    const shift = scale - e + f.fractionBits;
    return roundQuotient(shl(num, Math.max(shift, 0)), shl(den, Math.max(-shift, 0)), negative, rm);
  };
  const unbounded = at(exp)[0];
  const tiny = exp < least && !(exp === least - 1 && unbounded === 1n << BigInt(f.fractionBits + 1));
  const [q, inexact] = at(Math.max(exp, least));
  let magnitude = (BigInt(Math.max(exp, least) - least) << BigInt(f.fractionBits)) + q;
  let flags = inexact ? (tiny ? 3 : 1) : 0;
  if (magnitude >= infinity(f)) {
    flags = 5;
    const toInfinity = rm === 0 || rm === 4 || rm === (negative ? 2 : 3);
    magnitude = toInfinity ? infinity(f) : infinity(f) - 1n;
  }
  return { bits: magnitude | (negative ? signBit(f) : 0n), flags };
}

const signed = (magnitude: bigint, negative: boolean, f: Format, flags = 0): Outcome => ({
  bits: magnitude | (negative ? signBit(f) : 0n),
  flags,
});

function nanOf(operands: Number_[], f: Format): Outcome | undefined {
  if (operands.some((o) => o.kind === 'signalling')) return { bits: nan(f), flags: 16 };
  return operands.some((o) => o.kind === 'quiet') ? { bits: nan(f), flags: 0 } : undefined;
}

export function fma(xBits: bigint, yBits: bigint, zBits: bigint, f: Format, rm: number): Outcome {
  const [x, y, z] = [xBits, yBits, zBits].map((b) => decode(b, f)) as [Number_, Number_, Number_];
  const kinds = [x.kind, y.kind];
  const invalid = { bits: nan(f), flags: 16 };
  if (kinds.includes('infinity') && kinds.includes('zero')) return invalid;
  const special = nanOf([x, y, z], f);
  if (special) return special;
  const negative = x.negative !== y.negative;
  if (kinds.includes('infinity')) {
    if (z.kind === 'infinity' && z.negative !== negative) return invalid;
    return signed(infinity(f), negative, f);
  }
  if (z.kind === 'infinity') return { bits: zBits, flags: 0 };
  const sum = x.value * y.value + shl(z.value, UNIT);
  if (sum !== 0n) return encode(sum < 0n ? -sum : sum, 1n, -2 * UNIT, sum < 0n, f, rm);
  const productZero = x.value * y.value === 0n;
  return signed(0n, productZero && negative === z.negative ? negative : rm === 2, f);
}

export function div(xBits: bigint, yBits: bigint, f: Format, rm: number): Outcome {
  const [x, y] = [decode(xBits, f), decode(yBits, f)];
  const special = nanOf([x, y], f);
  if (special) return special;
  const negative = x.negative !== y.negative;
  if (x.kind === y.kind && x.kind !== 'finite') return { bits: nan(f), flags: 16 };
  if (x.kind === 'infinity') return signed(infinity(f), negative, f);
  if (y.kind === 'infinity' || x.kind === 'zero') return signed(0n, negative, f);
  if (y.kind === 'zero') return signed(infinity(f), negative, f, 8);
  const abs = (v: bigint) => (v < 0n ? -v : v);
  return encode(abs(x.value), abs(y.value), 0, negative, f, rm);
}

function integerRoot(n: bigint): bigint {
  let x = 1n << BigInt((n.toString(2).length + 1) >> 1);
  for (;;) {
    const y = (x + n / x) >> 1n;
    if (y >= x) return x;
    x = y;
  }
}

export function sqrt(bits: bigint, f: Format, rm: number): Outcome {
  const x = decode(bits, f);
  const special = nanOf([x], f);
  if (special) return special;
  if (x.kind === 'zero' || (x.kind === 'infinity' && !x.negative)) return { bits, flags: 0 };
  if (x.negative) return { bits: nan(f), flags: 16 };
  // 128 more bits than needed, and one that says whether anything is left.
  const scaled = x.value << 512n;
  const root = integerRoot(scaled);
  const sticky = root * root === scaled ? 0n : 1n;
  return encode((root << 1n) | sticky, 1n, -(UNIT + 512) / 2 - 1, false, f, rm);
}

/** To an integer of `width` bits: its bits, sign-extended from 32. */
export function toInteger(bits: bigint, f: Format, rm: number, width: 32 | 64, unsigned: boolean): Outcome {
  const x = decode(bits, f);
  const most = (1n << BigInt(unsigned ? width : width - 1)) - 1n;
  const least = unsigned ? 0n : -most - 1n;
  const asResult = (v: bigint, flags: number) => ({ bits: BigInt.asUintN(64, BigInt.asIntN(width, v)), flags });
  if (x.kind === 'quiet' || x.kind === 'signalling') return asResult(most, 16);
  if (x.kind === 'infinity') return asResult(x.negative ? least : most, 16);
  const [q, inexact] = roundQuotient(x.negative ? -x.value : x.value, 1n << BigInt(UNIT), x.negative, rm);
  const v = x.negative ? -q : q;
  if (v > most || v < least) return asResult(v > most ? most : least, 16);
  return asResult(v, inexact ? 1 : 0);
}

export function fromInteger(v: bigint, f: Format, rm: number): Outcome {
  return v === 0n ? { bits: 0n, flags: 0 } : encode(v < 0n ? -v : v, 1n, 0, v < 0n, f, rm);
}

export function convert(bits: bigint, from: Format, to: Format, rm: number): Outcome {
  const x = decode(bits, from);
  const special = nanOf([x], to);
  if (special) return special;
  if (x.kind === 'infinity') return signed(infinity(to), x.negative, to);
  if (x.kind === 'zero') return signed(0n, x.negative, to);
  return encode(x.negative ? -x.value : x.value, 1n, -UNIT, x.negative, to, rm);
}
