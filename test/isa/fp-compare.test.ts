import { expect, it } from 'vitest';
import { createMemory, instantiate, ModuleBuilder } from '../../src/base/index.js';
import { emitFpFunctions } from '../../src/riscv/fp/functions.js';
import { FLOAT } from '../../src/riscv/fp/table.js';

/** Comparisons, minimum, maximum and classes, at the values where they differ from the host's. */

const module = new ModuleBuilder();
emitFpFunctions(module);
const fp = instantiate(module.toBytes(), { env: { memory: createMemory(65536) } }) as Record<
  string,
  (...operands: (bigint | number)[]) => unknown
>;

const ONE = 0x3ffn << 52n;
const MINUS_ZERO = BigInt.asIntN(64, 1n << 63n);
const QUIET = 0x7ff8n << 48n;
const SIGNALLING = (0x7ffn << 52n) | 1n;

it('compares: equality is quiet, the orders are not', () => {
  expect(fp['fp.eq']!(MINUS_ZERO, 0n)).toEqual([1n, 0]);
  expect(fp['fp.eq']!(QUIET, ONE)).toEqual([0n, 0]);
  expect(fp['fp.eq']!(ONE, SIGNALLING)).toEqual([0n, 16]);
  expect(fp['fp.lt']!(QUIET, ONE)).toEqual([0n, 16]);
  expect(fp['fp.le']!(ONE, QUIET)).toEqual([0n, 16]);
  expect(fp['fp.lt']!(MINUS_ZERO, 0n)).toEqual([0n, 0]);
});

it('takes -0 for less than +0, and a number rather than a NaN', () => {
  const minMax = (x: bigint, y: bigint, maximum: number) => fp['fp.minMax']!(x, y, x, y, maximum, 0);
  for (const [x, y] of [
    [0n, MINUS_ZERO],
    [MINUS_ZERO, 0n],
  ] as const) {
    expect(minMax(x, y, 0)).toEqual([MINUS_ZERO, 0]);
    expect(minMax(x, y, 1)).toEqual([0n, 0]);
  }
  expect(minMax(QUIET, ONE, 0)).toEqual([ONE, 0]);
  expect(minMax(ONE, SIGNALLING, 1)).toEqual([ONE, 16]);
  expect(minMax(QUIET | 5n, QUIET, 0)).toEqual([QUIET, 0]);
});

it('classifies', () => {
  const doubles = [
    0xfffn << 52n,
    0xbffn << 52n,
    (1n << 63n) | 1n,
    1n << 63n,
    0n,
    1n,
    ONE,
    0x7ffn << 52n,
    SIGNALLING,
    QUIET,
  ];
  for (const [i, x] of doubles.entries()) expect(fp['fp.class']!(x, 11n)).toBe(1n << BigInt(i));
  const singles = [
    0xff800000n,
    0xbf800000n,
    0x80000001n,
    1n << 31n,
    0n,
    1n,
    0x3f800000n,
    0x7f800000n,
    0x7f800001n,
    0x7fc00000n,
  ];
  for (const [i, x] of singles.entries()) expect(fp['fp.class']!(x << 32n, 8n)).toBe(1n << BigInt(i));
});

it('has no two entries for one encoding', () => {
  for (const a of FLOAT) {
    for (const b of FLOAT)
      if (a !== b) expect((a.match ^ b.match) & a.mask & b.mask, `${a.name} ${b.name}`).not.toBe(0);
  }
});
