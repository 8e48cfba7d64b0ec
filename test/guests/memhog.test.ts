import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { FlatBoard } from '../isa/flatboard.js';

/**
 * Our bundled guest on a hart with flat memory: Sv39 with 4 KiB pages and megapages, S- and U-mode, timer interrupts, demand
 * paging, address spaces, accessed and dirty bits. The checksum is the one that the same image prints in QEMU 7.2 with the
 * same parameters.
 */

const image = readFileSync(new URL('../../guests/images/memhog.img', import.meta.url));
const RAM_BYTES = 32 * 2 ** 20;
const MAX_INSTRUCTIONS = 200_000_000;

function boot(bootargs: string) {
  return new FlatBoard(image, { ramBytes: RAM_BYTES, bootargs }).run(MAX_INSTRUCTIONS);
}

describe('memhog', () => {
  test('verifies all it wrote and powers off', () => {
    const { end, console } = boot('mib=16 seed=7 passes=2');
    expect(console).toContain('16 MiB in 4096 pages: verified 7340032 words, 0 errors, checksum 0xc7487a4477d39b00');
    expect(end).toBe('shutdown');
  });

  test('says what and where when a bit was flipped behind its back', () => {
    const { end, console } = boot('mib=8 passes=1 flip=33');
    expect(console).toMatch(/FAILED: kernel, at the end: 1 of \d+ words wrong, the first at va 0x20000/);
    expect(end).toBe('failure');
  });

  test('refuses parameters that are none', () => {
    const { end, console } = boot('passes=many');
    expect(console).toContain('passes= must be a number');
    expect(end).toBe('failure');
  });
});
