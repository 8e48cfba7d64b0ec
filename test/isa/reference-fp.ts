import * as exact from './fp-reference.js';
import { DOUBLE, type Format, type Outcome, SINGLE } from './fp-reference.js';
import { field, type ReferenceState, s32, s64, u32 } from './reference-state.js';

/** F and D of the reference hart (unprivileged manual, chapters 21 and 22), on exact arithmetic (fp-reference.ts). */

const BOX = 0xffffffffn << 32n;
const signBit = (f: Format) => 1n << BigInt(f.fractionBits + f.exponentBits);
const one = (f: Format) => BigInt(2 ** (f.exponentBits - 1) - 1) << BigInt(f.fractionBits);

/** Section 22.2: a single that is not properly boxed counts as the canonical NaN. */
function operand(h: ReferenceState, n: number, f: Format): bigint {
  const bits = h.f[n]!;
  if (f === DOUBLE) return bits;
  return bits >> 32n === 0xffffffffn ? bits & 0xffffffffn : exact.nan(SINGLE);
}

function result(h: ReferenceState, rd: number, f: Format, { bits, flags }: Outcome): void {
  h.f[rd] = f === SINGLE ? bits | BOX : bits;
  h.fflags |= flags;
}

function formatOf(h: ReferenceState, w: number, code: number): Format {
  if (code > 1) h.illegal(w);
  return code === 0 ? SINGLE : DOUBLE;
}

/** The rounding mode in force; reserved ones are illegal. */
function rounding(h: ReferenceState, w: number): number {
  const rm = field(w, 14, 12);
  const mode = rm === 7 ? h.frm : rm;
  return mode > 4 ? h.illegal(w) : mode;
}

export function fpFused(h: ReferenceState, w: number): void {
  const f = formatOf(h, w, field(w, 26, 25));
  h.needFs(w);
  const rm = rounding(h, w);
  const [x, y, z] = [field(w, 19, 15), field(w, 24, 20), field(w, 31, 27)].map((n) => operand(h, n, f));
  const kind = field(w, 3, 2);
  // fmadd, fmsub, fnmsub, fnmadd: the product is negated in the last two, the addend in the second and the last.
  const product = kind >= 2 ? x! ^ signBit(f) : x!;
  const addend = kind === 1 || kind === 3 ? z! ^ signBit(f) : z!;
  result(h, field(w, 11, 7), f, exact.fma(product, y!, addend, f, rm));
}

export function fpOperation(h: ReferenceState, w: number): void {
  const f = formatOf(h, w, field(w, 26, 25));
  h.needFs(w);
  const [rd, rs2, f3] = [field(w, 11, 7), field(w, 24, 20), field(w, 14, 12)];
  const x = operand(h, field(w, 19, 15), f);
  const y = operand(h, rs2, f);
  switch (field(w, 31, 27)) {
    case 0x00:
      return result(h, rd, f, exact.fma(x, one(f), y, f, rounding(h, w)));
    case 0x01:
      return result(h, rd, f, exact.fma(x, one(f), y ^ signBit(f), f, rounding(h, w)));
    case 0x02:
      return result(h, rd, f, exact.fma(x, y, (x ^ y) & signBit(f), f, rounding(h, w)));
    case 0x03:
      return result(h, rd, f, exact.div(x, y, f, rounding(h, w)));
    case 0x0b:
      if (rs2 !== 0) h.illegal(w);
      return result(h, rd, f, exact.sqrt(x, f, rounding(h, w)));
    case 0x04:
      return signInjection(h, w, rd, f3, x, y, f);
    case 0x05:
      if (f3 > 1) h.illegal(w);
      return result(h, rd, f, minMax(x, y, f, f3 === 1));
    case 0x08:
      return betweenFormats(h, w, rd, rs2, f);
    case 0x14:
      return comparison(h, w, rd, f3, x, y, f);
    case 0x18:
      return toInteger(h, w, rd, rs2, x, f);
    case 0x1a:
      return fromInteger(h, w, rd, rs2, f);
    case 0x1c:
      return classOrMove(h, w, rd, rs2, f3, x, f);
    case 0x1e:
      if (rs2 !== 0 || f3 !== 0) h.illegal(w);
      h.f[rd] = f === DOUBLE ? h.x[field(w, 19, 15)]! : u32(h.x[field(w, 19, 15)]!) | BOX;
      return;
    default:
      h.illegal(w);
  }
}

function signInjection(h: ReferenceState, w: number, rd: number, f3: number, x: bigint, y: bigint, f: Format): void {
  if (f3 > 2) h.illegal(w);
  const sign = f3 === 0 ? y : f3 === 1 ? ~y : x ^ y;
  result(h, rd, f, { bits: (x & (signBit(f) - 1n)) | (sign & signBit(f)), flags: 0 });
}

const kindOf = (bits: bigint, f: Format) => exact.decode(bits, f).kind;
const isNan = (bits: bigint, f: Format) => ['quiet', 'signalling'].includes(kindOf(bits, f));
const invalidIf = (signalling: boolean) => (signalling ? 16 : 0);

/** Sign and magnitude as one number: -0 is below +0 by `zeros`. */
function order(bits: bigint, f: Format, zeros: boolean): bigint {
  const magnitude = bits & (signBit(f) - 1n);
  return (bits & signBit(f)) === 0n ? magnitude : -magnitude - (zeros ? 1n : 0n);
}

/** Section 21.6: -0 is less than +0; a NaN gives way; only a signalling one is invalid. */
function minMax(x: bigint, y: bigint, f: Format, maximum: boolean): Outcome {
  const flags = invalidIf([x, y].some((v) => kindOf(v, f) === 'signalling'));
  if (isNan(x, f)) return { bits: isNan(y, f) ? exact.nan(f) : y, flags };
  if (isNan(y, f)) return { bits: x, flags };
  const less = order(x, f, true) < order(y, f, true);
  return { bits: less !== maximum ? x : y, flags };
}

function comparison(h: ReferenceState, w: number, rd: number, f3: number, x: bigint, y: bigint, f: Format): void {
  if (f3 > 2) h.illegal(w);
  const unordered = isNan(x, f) || isNan(y, f);
  const signalling = [x, y].some((v) => kindOf(v, f) === 'signalling');
  h.fflags |= invalidIf(f3 === 2 ? signalling : unordered);
  const [a, b] = [order(x, f, false), order(y, f, false)];
  const holds = [a <= b, a < b, a === b][f3]!;
  h.set(rd, !unordered && holds ? 1n : 0n);
}

function betweenFormats(h: ReferenceState, w: number, rd: number, rs2: number, to: Format): void {
  if (rs2 !== (to === SINGLE ? 1 : 0)) h.illegal(w);
  const from = to === SINGLE ? DOUBLE : SINGLE;
  const rm = rounding(h, w);
  result(h, rd, to, exact.convert(operand(h, field(w, 19, 15), from), from, to, rm));
}

function toInteger(h: ReferenceState, w: number, rd: number, rs2: number, x: bigint, f: Format): void {
  if (rs2 > 3) h.illegal(w);
  const { bits, flags } = exact.toInteger(x, f, rounding(h, w), rs2 < 2 ? 32 : 64, (rs2 & 1) === 1);
  h.set(rd, bits);
  h.fflags |= flags;
}

function fromInteger(h: ReferenceState, w: number, rd: number, rs2: number, f: Format): void {
  if (rs2 > 3) h.illegal(w);
  const v = h.x[field(w, 19, 15)]!;
  const value = [s32(v), u32(v), s64(v), v][rs2]!;
  result(h, rd, f, exact.fromInteger(value, f, rounding(h, w)));
}

function classOrMove(h: ReferenceState, w: number, rd: number, rs2: number, f3: number, x: bigint, f: Format): void {
  if (rs2 !== 0 || f3 > 1) h.illegal(w);
  const bits = h.f[field(w, 19, 15)]!;
  if (f3 === 0) h.set(rd, f === DOUBLE ? bits : s32(bits));
  else h.set(rd, 1n << BigInt(classOf(x, f)));
}

/** Section 21.9. */
function classOf(bits: bigint, f: Format): number {
  const { kind, negative } = exact.decode(bits, f);
  if (kind === 'signalling') return 8;
  if (kind === 'quiet') return 9;
  const subnormal = (bits & (signBit(f) - 1n)) >> BigInt(f.fractionBits) === 0n;
  const positive = kind === 'infinity' ? 7 : kind === 'zero' ? 4 : subnormal ? 5 : 6;
  return negative ? 7 - positive : positive;
}
