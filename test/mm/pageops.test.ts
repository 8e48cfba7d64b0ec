import { expect, test } from 'vitest';
import xxhash from 'xxhash-wasm';
import { createMemory } from '../../src/base/index.js';
import { createPageOps } from '../../src/mm/page/pageops.js';

const PAGE = 4096;

function setUp() {
  const memory = createMemory(65536);
  const u8 = new Uint8Array(memory.buffer);
  for (let i = 0; i < PAGE; i++) u8[PAGE + i] = (i * 31) ^ (i >> 3);
  return { u8, ops: createPageOps(memory) };
}

test('the checksum of a page is XXH64, seeded with generation and slot', async () => {
  const { u8, ops } = setUp();
  const { h64Raw } = await xxhash();
  const page = u8.slice(PAGE, 2 * PAGE);
  for (const [slot, generation] of [
    [0, 0],
    [5, 1],
    [0xffffff, 0xffffffff],
  ] as const) {
    const expected = h64Raw(page, (BigInt(generation) << 32n) | BigInt(slot));
    expect(ops.checksum(PAGE, slot, generation) >>> 0).toBe(Number(BigInt.asUintN(32, expected)));
  }
});

test('the checksum tells slot, generation and any one bit apart', () => {
  const { u8, ops } = setUp();
  const sum = ops.checksum(PAGE, 3, 7);
  expect(ops.checksum(PAGE, 4, 7)).not.toBe(sum);
  expect(ops.checksum(PAGE, 3, 8)).not.toBe(sum);
  for (const at of [0, 31, 2048, PAGE - 1]) {
    u8[PAGE + at]! ^= 0x80;
    expect(ops.checksum(PAGE, 3, 7)).not.toBe(sum);
    u8[PAGE + at]! ^= 0x80;
  }
});

test('zero, fill and copy touch one page exactly', () => {
  const { u8, ops } = setUp();
  u8.fill(9);
  ops.zero(PAGE);
  ops.fill(3 * PAGE, 0xab);
  ops.copy(5 * PAGE, 3 * PAGE);
  const runs = [...Array(7).keys()].map((p) => [u8[p * PAGE], u8[p * PAGE + PAGE - 1]]);
  expect(runs).toEqual([
    [9, 9],
    [0, 0],
    [9, 9],
    [0xab, 0xab],
    [9, 9],
    [0xab, 0xab],
    [9, 9],
  ]);
});
