import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

/** The images of our own guests: what a loader must find in their headers, and that they come from their sources. */

const root = new URL('../../', import.meta.url);

const NOT_COMPARABLE = 3;

/** All images are built and compared at once. */
let checked: ReturnType<typeof guestsBuild> | undefined;

function guestsBuild(...args: string[]) {
  return spawnSync('guests/build', args, { cwd: root, encoding: 'utf8' });
}

describe.each(['memhog.img', 'smphog.img', 'forkhog.img', 'forkhog-native.img', 'rnichog.img'])('%s', (name) => {
  const image = readFileSync(new URL(`guests/images/${name}`, root));

  test('has the header of a Linux RISC-V Image', () => {
    expect(image.toString('latin1', 0x30, 0x38)).toBe('RISCV\0\0\0');
    expect(image.toString('latin1', 0x38, 0x3c)).toBe('RSC\x05');
    expect(image.readBigUInt64LE(0x08), 'text_offset').toBe(0x200000n);
    expect(image.readUInt32LE(0x20), 'version 0.2').toBe(2);
  });

  test('asks for memory beyond its file, for .bss and the stack, and stays small', () => {
    const imageSize = Number(image.readBigUInt64LE(0x10));
    expect(imageSize).toBeGreaterThan(image.length);
    expect(imageSize).toBeLessThanOrEqual(1024 * 1024);
  });

  test('comes bit for bit from its sources', (context) => {
    checked ??= guestsBuild('--check');
    const result = checked;
    if (result.status === NOT_COMPARABLE) context.skip(result.stderr.trim());
    expect(result.stderr + result.stdout).toContain(`${name}: the same`);
    expect(result.status).toBe(0);
  });
});

test('guests/build refuses arguments it does not know, and says which it knows', () => {
  const result = guestsBuild('--frobnicate');
  expect(result.status).toBe(2);
  expect(result.stderr).toContain('guests/build --check');
});
