import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createMemory } from '../../../src/base/index.js';
import { CRC32C_SCRATCH_BYTES, createCrc32c } from '../../../src/rdma/wire/index.js';
import { hex, pattern, slowCrc32c } from './bytes.js';

const crc = createCrc32c();
const up = Uint8Array.from({ length: 32 }, (_, i) => i);
/** RFC 3720 appendix B.4: its bytes are the CRC's, lowest first. */
const VECTORS: [string, Uint8Array, number][] = [
  ['32 bytes of zeros', new Uint8Array(32), 0x8a91_36aa],
  ['32 bytes of ones', new Uint8Array(32).fill(0xff), 0x62a8_ab43],
  ['32 bytes counting up', up, 0x46dd_794e],
  ['32 bytes counting down', up.slice().reverse(), 0x113f_db5c],
  [
    'an iSCSI read command',
    hex('01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000'),
    0xd996_3a56,
  ],
  ['"123456789"', new TextEncoder().encode('123456789'), 0xe306_9283],
];

describe('CRC32C', () => {
  test.each(VECTORS)('%s', (_, bytes, wanted) => {
    expect(crc.update(0, bytes, 0, bytes.length)).toBe(wanted);
    expect(slowCrc32c(bytes)).toBe(wanted);
  });

  test('any part of any bytes, in any two pieces, is what the definition says', () => {
    const bytes = pattern(100_000);
    const cuts = fc.tuple(
      fc.nat(200),
      fc.oneof(fc.nat(300), fc.nat(3000), fc.nat(29_000), fc.nat(99_000)),
      fc.double({ min: 0, max: 1, noNaN: true }),
    );
    fc.assert(
      fc.property(cuts, ([start, lenBytes, at]) => {
        const end = start + lenBytes;
        const middle = start + Math.floor(at * lenBytes);
        const pieces = crc.update(crc.update(0, bytes, start, middle), bytes, middle, end);
        expect(pieces).toBe(slowCrc32c(bytes.subarray(start, end)));
      }),
      { numRuns: 60 },
    );
  });

  test('bytes that lie in the memory given are read where they are', () => {
    const memory = createMemory(CRC32C_SCRATCH_BYTES + 32_768);
    const scratch = 4096;
    const inside = createCrc32c(memory, scratch);
    const at = scratch + CRC32C_SCRATCH_BYTES + 3;
    const view = new Uint8Array(memory.buffer, 1);
    view.set(pattern(20_000), at - 1);
    expect(inside.update(0, view, at - 1, at + 19_999)).toBe(slowCrc32c(pattern(20_000)));
    expect(inside.update(0, pattern(20_000), 0, 20_000)).toBe(slowCrc32c(pattern(20_000)));
  });
});
