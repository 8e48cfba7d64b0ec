import { describe, expect, it } from 'vitest';
import { createMemory, instantiate, ModuleBuilder } from '../../src/base/index.js';
import { emitFpFunctions } from '../../src/riscv/fp/functions.js';
import * as reference from './fp-reference.js';
import { DOUBLE, type Format, type Outcome, SINGLE } from './fp-reference.js';

/** The generated floating-point functions against exact arithmetic in big integers: bits and flags, five rounding modes. */

type Fp = Record<string, (...operands: (bigint | number)[]) => [bigint, number]>;

function build(): Fp {
  const module = new ModuleBuilder();
  emitFpFunctions(module);
  return instantiate(module.toBytes(), { env: { memory: createMemory(65536) } }) as Fp;
}

const fp = build();
const BOX = 0xffffffffn << 32n;

/** xorshift64*: the same cases every time. */
function random(seed: bigint): () => bigint {
  let s = seed;
  return () => {
    s ^= s >> 12n;
    s = BigInt.asUintN(64, s ^ (s << 25n));
    s ^= s >> 27n;
    return BigInt.asUintN(64, s * 0x2545f4914f6cdd1dn);
  };
}

/** Zeros, subnormals, the ends of the normal range, powers of two and their neighbours, infinities, NaNs. */
function edges(f: Format): bigint[] {
  const one = 1n << BigInt(f.fractionBits);
  const half = BigInt(2 ** (f.exponentBits - 1) - 1);
  const top = (1n << BigInt(f.exponentBits)) - 1n;
  const exps = [1n, 2n, half - 1n, half, half + 1n, half + BigInt(f.fractionBits), top - 2n, top - 1n];
  const values = [0n, 1n, 2n, one - 1n, one / 2n, top * one, top * one + 1n, top * one + one / 2n];
  for (const e of exps) values.push(e * one, e * one + 1n, e * one + one - 1n);
  return values.flatMap((v) => [v, v | (1n << BigInt(f.fractionBits + f.exponentBits))]);
}

/** Random bits, random with near exponents (so that sums cancel and halves are met), small integers, edges. */
function operands(f: Format, count: number, arity: number, seed: bigint): bigint[][] {
  const next = random(seed);
  const special = edges(f);
  const mask = (1n << BigInt(f.fractionBits + f.exponentBits + 1)) - 1n;
  const bias = BigInt(2 ** (f.exponentBits - 1) - 1);
  const pick = (): bigint => {
    const kind = next() % 5n;
    if (kind === 0n) return special[Number(next() % BigInt(special.length))]!;
    const bits = next() & mask;
    if (kind === 1n) return bits;
    const sign = bits & (mask ^ (mask >> 1n));
    const near = (bias - 4n + (next() & 7n)) << BigInt(f.fractionBits);
    const fraction = bits & ((1n << BigInt(f.fractionBits)) - 1n);
    if (kind === 2n) return sign | near | fraction;
    return sign | near | ((fraction >> BigInt(f.fractionBits - 6)) << BigInt(f.fractionBits - 6));
  };
  return Array.from({ length: count }, () => Array.from({ length: arity }, pick));
}

const hex = (o: Outcome) => `${BigInt.asUintN(64, o.bits).toString(16)} flags ${o.flags}`;

function check(name: string, args: (bigint | number)[], expected: Outcome, what: unknown[]): void {
  const [bits, flags] = fp[name]!(...args);
  if (BigInt.asUintN(64, bits) === expected.bits && flags === expected.flags) return;
  const shown = what.map((w) => (typeof w === 'bigint' ? w.toString(16) : String(w))).join(' ');
  expect(hex({ bits, flags }), `${name} ${shown}`).toBe(hex(expected));
}

for (const [suffix, f] of [
  ['d', DOUBLE],
  ['s', SINGLE],
] as const) {
  const box = (x: bigint) => (f === SINGLE ? x | BOX : x);
  const boxed = (o: Outcome) => ({ bits: box(o.bits), flags: o.flags });
  const one = f === DOUBLE ? 0x3ffn << 52n : 0x7fn << 23n;
  const sign = 1n << BigInt(f.fractionBits + f.exponentBits);
  const each = (arity: number, count: number, body: (x: bigint[], rm: number) => void) => {
    for (const x of operands(f, count, arity, 88172645463325252n + BigInt(arity))) {
      for (let rm = 0; rm < 5; rm++) body(x, rm);
    }
  };
  describe(`fp, ${suffix}`, () => {
    it('adds', () => {
      each(2, 4000, ([x, y], rm) =>
        check(`fadd.${suffix}`, [box(x!), box(y!), rm], boxed(reference.fma(x!, one, y!, f, rm)), [x, y, rm]),
      );
    });
    it('multiplies', () => {
      each(2, 4000, ([x, y], rm) => {
        const zero = (x! ^ y!) & sign;
        check(`fmul.${suffix}`, [box(x!), box(y!), rm], boxed(reference.fma(x!, y!, zero, f, rm)), [x, y, rm]);
      });
    });
    it('multiplies and adds', () => {
      each(3, 6000, ([x, y, z], rm) => {
        const expected = boxed(reference.fma(x!, y!, z!, f, rm));
        check(`fmadd.${suffix}`, [box(x!), box(y!), box(z!), rm], expected, [x, y, z, rm]);
      });
    });
    it('divides', () => {
      each(2, 4000, ([x, y], rm) =>
        check(`fdiv.${suffix}`, [box(x!), box(y!), rm], boxed(reference.div(x!, y!, f, rm)), [x, y, rm]),
      );
    });
    it('takes square roots', () => {
      each(1, 800, ([x], rm) => check(`fsqrt.${suffix}`, [box(x!), rm], boxed(reference.sqrt(x!, f, rm)), [x, rm]));
    });
    it('converts to and from integers', () => {
      const next = random(77n);
      each(1, 1500, ([x], rm) => {
        const wide = f === DOUBLE ? x! : (fp['fp.widen']!(box(x!)) as unknown as bigint);
        for (let kind = 0; kind < 4; kind++) {
          const expected = reference.toInteger(x!, f, rm, kind & 2 ? 32 : 64, (kind & 1) === 1);
          check('fp.toInteger', [wide, rm, kind], expected, [x, rm, kind]);
        }
        const integer = BigInt.asIntN(64, next() >> (next() & 63n)) * (rm & 1 ? -1n : 1n);
        const control = rm | (f === SINGLE ? 8 : 0);
        const signed = BigInt.asIntN(64, integer);
        check('fp.fromLong', [signed, control], boxed(reference.fromInteger(signed, f, rm)), [signed, rm]);
        const unsigned = BigInt.asUintN(64, integer);
        const expected = boxed(reference.fromInteger(unsigned, f, rm));
        check('fp.fromUnsignedLong', [unsigned, control], expected, [unsigned, rm]);
      });
    });
  });
}

describe('fp, between the formats', () => {
  it('narrows a double', () => {
    for (const [x] of [
      ...operands(DOUBLE, 3000, 1, 5n),
      ...edges(SINGLE).map((s) => [reference.convert(s, SINGLE, DOUBLE, 0).bits]),
    ]) {
      for (let rm = 0; rm < 5; rm++) {
        for (const near of [x!, x! + 1n, x! ^ (1n << 28n)].map((v) => BigInt.asUintN(64, v))) {
          const { bits, flags } = reference.convert(near, DOUBLE, SINGLE, rm);
          check('fcvt.s.d', [near, rm], { bits: bits | BOX, flags }, [near, rm]);
        }
      }
    }
  });
  it('widens a single, and takes what is not boxed for a NaN', () => {
    for (const [x] of operands(SINGLE, 2000, 1, 6n)) {
      check('fcvt.d.s', [x! | BOX], reference.convert(x!, SINGLE, DOUBLE, 0), [x]);
      check(
        'fadd.s',
        [x!, x! | BOX, 0],
        { bits: BOX | 0x7fc00000n, flags: reference.decode(x!, SINGLE).kind === 'signalling' ? 16 : 0 },
        [x],
      );
    }
  });
});
