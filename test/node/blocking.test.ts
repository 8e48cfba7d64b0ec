import { expect, test } from 'vitest';
import { Blocking } from '../../src/node/blocking.js';

/** Transfers that take what `took` says, one after the other: which of them blocked. */
function tryAll(took: readonly number[], nrPages = 1): string {
  let now = 0;
  const blocking = new Blocking(() => now);
  const blocked = (ms: number) =>
    blocking.tried(nrPages, () => {
      now += ms;
    });
  return took.map((ms) => (blocked(ms) ? 'b' : '.')).join('');
}

test('what is quick blocks', () => {
  expect(tryAll(Array(5).fill(0.01))).toBe('bbbbb');
});

test('after a slow one the next are left to the pool, and one quick one forgives it', () => {
  expect(tryAll([1, ...Array(20).fill(0.01)])).toBe(`b${'.'.repeat(16)}bbbb`);
});

test('each slow try makes the pause twice as long, up to a limit', () => {
  const pauses = tryAll(Array(20_000).fill(1))
    .split('b')
    .map((pause) => pause.length);
  expect(pauses.slice(1, 12)).toEqual([16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096]);
});

test('a long transfer is never tried here', () => {
  expect(tryAll([0.01, 0.01], 65)).toBe('..');
});

test('of a longer one the copy counts by itself: a microsecond a page', () => {
  expect(tryAll([0.12, 0.12], 64)).toBe('bb');
  expect(tryAll([0.13, 0.01], 64)).toBe('b.');
  expect(tryAll([0.07, 0.01], 4)).toBe('b.');
});

test('what fails, fails where it was asked for', () => {
  const blocking = new Blocking();
  expect(() =>
    blocking.tried(1, () => {
      throw new Error('EIO');
    }),
  ).toThrow('EIO');
  expect(blocking.tried(1, () => {})).toBe(true);
});
