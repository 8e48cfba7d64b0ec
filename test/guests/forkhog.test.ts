import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { FlatBoard } from '../isa/flatboard.js';

/**
 * The kernel of the lguest guest where it has a hart of its own, on flat memory: fork, copy-on-write, demand paging, preemption, and the exact accessed and
 * dirty bits of what was shared. test/guests/lguest.test.ts has it without privilege.
 */

const image = readFileSync(new URL('../../guests/images/forkhog-native.img', import.meta.url));
const MAX_INSTRUCTIONS = 400_000_000;

function boot(bootargs: string) {
  return new FlatBoard(image, { ramBytes: 8 * 2 ** 20, bootargs }).run(MAX_INSTRUCTIONS);
}

describe('forkhog on a hart of its own', () => {
  test('verifies all it wrote, in seven processes, and has every page again at the end', () => {
    const { end, console } = boot('passes=1 mib=3');
    expect(console).toMatch(
      /3 MiB in 768 pages: verified 8331300 words and 0 blocks, 0 errors, checksum 0xf4fab17bd18f4e20\n$/,
    );
    expect(end).toBe('shutdown');
  });

  test('says what and where when a bit was flipped behind its back', () => {
    const { end, console } = boot('passes=1 mib=1 children=1 flip=33');
    expect(console).toMatch(/FAILED: all processes: 1 of \d+ words wrong, the first at va 0x400/);
    expect(end).toBe('failure');
  });

  test('refuses more children than it has room for', () => {
    expect(boot('children=16').console).toContain('children= at most 15');
  });
});
