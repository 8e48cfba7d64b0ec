import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readInput, releaseInput } from '../../src/cli/files.js';

test('an input is read whole, and takes no memory once it is released', () => {
  const folder = mkdtempSync(join(tmpdir(), 'unpin-files-'));
  const content = Uint8Array.from({ length: 100_000 }, (_, i) => i * 7);
  writeFileSync(join(folder, 'kernel'), content);
  const bytes = readInput('kernel', join(folder, 'kernel'));
  expect(bytes).toEqual(content);
  releaseInput(bytes);
  expect(bytes.buffer.byteLength).toBe(0);
  rmSync(folder, { recursive: true });
});
