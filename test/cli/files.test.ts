import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { OutputFile, readInput, releaseInput } from '../../src/cli/files.js';
import { openFileStore, openFileSwap, openFolder } from '../../src/node/index.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'unpin-files-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

test('an input is read whole, and takes no memory once it is released', () => {
  const content = Uint8Array.from({ length: 100_000 }, (_, i) => i * 7);
  writeFileSync(join(folder, 'kernel'), content);
  const bytes = readInput('kernel', join(folder, 'kernel'));
  expect(bytes).toEqual(content);
  releaseInput(bytes);
  expect(bytes.buffer.byteLength).toBe(0);
});

test('a device, which may have no end, is no input', () => {
  expect(() => readInput('kernel', '/dev/zero')).toThrow(
    "ENODEV: open: kernel '/dev/zero' must be a file that can be read: it is a device",
  );
});

test('links in a circle and names that are too long are told in plain words by whoever opens them', async () => {
  const loop = join(folder, 'loop');
  symlinkSync('loop', loop);
  const openings = [
    async (path: string) => readInput('kernel', path),
    async (path: string) => new OutputFile('report', path),
    (path: string) => openFileStore(path),
    (path: string) => openFileSwap(path, { sizeBytes: 4096 }),
    (path: string) => openFolder(path),
  ];
  for (const open of openings) {
    await expect(open(loop)).rejects.toThrow(/^ELOOP: \w+: [^:]*loop[^:]*: its links lead in a circle$/);
    await expect(open(join(folder, 'n'.repeat(300)))).rejects.toThrow(
      /^ENAMETOOLONG: \w+: [^:]*: its name is too long$/,
    );
  }
});
