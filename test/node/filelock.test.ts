import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openFileStore, openFileSwap } from '../../src/node/index.js';

/** Two processes and one file: who writes it has it alone, whoever dies. */

const NODE = new URL('../../dist/node/index.js', import.meta.url).href;

let folder: string;
let path: string;
const owners: ChildProcess[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'unpin-lock-'));
  path = join(folder, 'image');
  writeFileSync(path, 'image');
});
afterEach(async () => {
  await Promise.all(owners.splice(0).map(end));
  rmSync(folder, { recursive: true });
});

async function end(owner: ChildProcess): Promise<void> {
  const gone = once(owner, 'exit');
  if (owner.exitCode === null && owner.signalCode === null && owner.kill('SIGKILL')) await gone;
}

/** Another process that does `code` and stays; resolves with what it says. */
async function another(code: string): Promise<{ owner: ChildProcess; said: string }> {
  const script = `import { openFileStore, openFileSwap } from ${JSON.stringify(NODE)};
    const path = ${JSON.stringify(path)};
    console.log(await (async () => { ${code} })().catch((error) => error.message));
    setInterval(() => {}, 1000);`;
  const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  owners.push(owner);
  const [said] = await once(owner.stdout!, 'data');
  return { owner, said: String(said).trim() };
}

describe('a file that one process has locked', () => {
  test('is refused to a second until the first has ended, by SIGKILL too', async () => {
    const { owner, said } = await another(`return (await openFileStore(path)).tryLock('exclusive')`);
    expect(said).toBe('taken');
    const store = await openFileStore(path);
    expect([store.tryLock('exclusive'), store.tryLock('shared')]).toEqual(['held', 'held']);
    await end(owner);
    expect(store.tryLock('exclusive')).toBe('taken');
    await store.close();
    expect(readFileSync(path, 'utf8')).toBe('image');
  });

  test('is shared by readers, and no writer comes between', async () => {
    const { said } = await another(`return (await openFileStore(path, 'r')).tryLock('shared')`);
    expect(said).toBe('taken');
    const reader = await openFileStore(path, 'r');
    const writer = await openFileStore(path);
    expect([reader.tryLock('shared'), writer.tryLock('exclusive')]).toEqual(['taken', 'held']);
    await Promise.all([reader.close(), writer.close()]);
  });

  test('is free again when its owner closes it', async () => {
    const first = await openFileStore(path);
    expect(first.tryLock('exclusive')).toBe('taken');
    await first.close();
    const second = await openFileStore(path);
    expect(second.tryLock('exclusive')).toBe('taken');
    await second.close();
  });
});

test('where there is no flock(1) nobody claims to have a lock', async () => {
  const { PATH } = process.env;
  const store = await openFileStore(path);
  try {
    process.env.PATH = folder;
    expect(store.tryLock('exclusive')).toBe('unknown');
  } finally {
    process.env.PATH = PATH;
    await store.close();
  }
});

describe('a swap file', () => {
  test('that another process has just taken, and is empty still, is refused and left alone', async () => {
    writeFileSync(path, '');
    const { said, owner } = await another(`return (await openFileStore(path)).tryLock('exclusive')`);
    expect(said).toBe('taken');
    await expect(openFileSwap(path, { sizeBytes: 8192 })).rejects.toThrow(
      /^EBUSY: openFileSwap: swap file .* is in use/,
    );
    expect(existsSync(path)).toBe(true);
    await end(owner);
    await (await openFileSwap(path, { sizeBytes: 8192 })).close();
  });

  test('that a killed process has left is not taken over: what is in it may be wanted', async () => {
    rmSync(path);
    const { owner } = await another(`return (await openFileSwap(path, { sizeBytes: 8192 })).nrSlots`);
    const open = () => openFileSwap(path, { sizeBytes: 8192 });
    await expect(open()).rejects.toThrow(/^EBUSY/);
    await end(owner);
    await expect(open()).rejects.toThrow(/^EEXIST: .*with 8192 bytes that would be lost/);
  });
});
