import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { checkHost, Host, MAP_ANONYMOUS, MAP_PRIVATE } from '../../src/mm/index.js';
import { openFileSwap } from '../../src/node/index.js';

const PAGE = 4096;
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'unpin-swap-'));
const file = path.join(folder, 'swap');

afterEach(() => fs.rmSync(file, { force: true }));

function frames(nr: number, value: number): Uint8Array[] {
  const shared = new Uint8Array(new SharedArrayBuffer(nr * PAGE));
  return [...Array(nr).keys()].map((k) => shared.subarray(k * PAGE, (k + 1) * PAGE).fill(value + k));
}

test('pages go out and come back, in runs and scattered, both ways', async () => {
  const swap = await openFileSwap(file, { sizeBytes: 64 * PAGE });
  expect(fs.statSync(file).mode & 0o777).toBe(0o600);
  await swap.write([1, 2, 3, 9, 20, 21], frames(6, 1));
  const back = frames(4, 99);
  await swap.read([2, 3, 9, 21], back);
  expect(back.map((b) => [b[0], b[PAGE - 1]])).toEqual([
    [2, 2],
    [3, 3],
    [4, 4],
    [6, 6],
  ]);
  swap.writeSync([60, 61], frames(2, 30));
  swap.readSync([20, 61], back.slice(0, 2));
  expect([back[0]![5], back[1]![5]]).toEqual([5, 31]);
  await swap.close();
  await swap.close();
  expect(fs.existsSync(file)).toBe(false);
});

test('a run that is too long to block for goes by the pool, and is the same', async () => {
  const swap = await openFileSwap(file, { sizeBytes: 64 * PAGE });
  const slots = [...Array(40).keys()].map((k) => k + 8);
  await swap.write(slots, frames(40, 100));
  const back = frames(40, 0);
  await swap.read(slots, back);
  expect(back.map((b) => b[PAGE - 1])).toEqual(slots.map((slot) => slot + 92));
  await swap.close();
});

test('a file with something in it is refused and left alone', async () => {
  fs.writeFileSync(file, 'old');
  await expect(openFileSwap(file, { sizeBytes: 4 * PAGE })).rejects.toThrow(
    /EEXIST: openFileSwap: swap file .*, with 3 bytes that would be lost; it must be new or empty/,
  );
  expect(fs.readFileSync(file, 'utf8')).toBe('old');
});

test('without a name it works the same, and a file that took the name since is not touched', async () => {
  const swap = await openFileSwap(file, { sizeBytes: 4 * PAGE, unlinked: true });
  expect(fs.existsSync(file)).toBe(false);
  fs.writeFileSync(file, 'another');
  await swap.write([3], frames(1, 7));
  const back = frames(1, 0);
  await swap.read([3], back);
  expect(back[0]![9]).toBe(7);
  await swap.close();
  expect(fs.readFileSync(file, 'utf8')).toBe('another');
});

test('an empty file that was there before is taken over, and emptied at the end', async () => {
  fs.writeFileSync(file, '');
  const swap = await openFileSwap(file, { sizeBytes: 4 * PAGE });
  expect(fs.statSync(file).size).toBe(4 * PAGE);
  await swap.close();
  expect(fs.statSync(file).size).toBe(0);
});

test('unlinkSync removes the file at once, for signal handlers, and may come twice', async () => {
  const swap = await openFileSwap(file, { sizeBytes: 4 * PAGE });
  swap.unlinkSync();
  swap.unlinkSync();
  expect(fs.existsSync(file)).toBe(false);
  await swap.close();
});

test('what cannot be used is refused by name, with the path', async () => {
  await expect(openFileSwap(path.join(folder, 'no', 'swap'), { sizeBytes: PAGE })).rejects.toThrow(
    /ENOENT: openFileSwap: swap file .*\/no\/swap must be new or empty, .*: no such file or folder/,
  );
  await expect(openFileSwap(folder, { sizeBytes: PAGE })).rejects.toThrow(
    /EISDIR: openFileSwap: swap file .*: it is a folder/,
  );
  await expect(openFileSwap('/dev/null', { sizeBytes: PAGE })).rejects.toThrow(
    /EINVAL: openFileSwap: swap path .* regular file/,
  );
  await expect(openFileSwap(file, { sizeBytes: 100 })).rejects.toThrow(/EINVAL: openFileSwap: sizeBytes 100/);
});

test('a file cut short while in use is EIO, with the path', async () => {
  const swap = await openFileSwap(file, { sizeBytes: 8 * PAGE });
  await swap.write([6], frames(1, 1));
  fs.truncateSync(file, 6 * PAGE + 100);
  await expect(swap.read([6], frames(1, 0))).rejects.toThrow(
    /EIO: read: swap file .*: the file ends before byte 24676/,
  );
  expect(() => swap.readSync([7], frames(1, 0))).toThrow(/EIO/);
  await swap.close();
});

test('a full disk is ENOSPC, with the path', async () => {
  if (!fs.existsSync('/dev/full')) return;
  const swap = await openFileSwap(file, { sizeBytes: 8 * PAGE });
  const { fd } = swap as unknown as { fd: number };
  const full = fs.openSync('/dev/full', 'r+');
  Object.assign(swap, { fd: full });
  await expect(swap.write([0], frames(1, 1))).rejects.toThrow(/ENOSPC: write: swap file .*: the disk is full/);
  expect(() => swap.writeSync([0], frames(1, 1))).toThrow(/ENOSPC/);
  fs.closeSync(full);
  Object.assign(swap, { fd });
  await swap.close();
});

test('a host lives on it: memory three times the frames, then a damaged file', async () => {
  const swap = await openFileSwap(file, { sizeBytes: 512 * PAGE });
  const host = new Host({
    frames: 64,
    arenaBytes: 65536,
    swap,
    sameFilled: false,
    debug: true,
    defer: (fn) => setImmediate(fn),
  });
  const mm = host.createMm();
  const va = mm.mmap(0, 192 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  const page = new Uint8Array(PAGE);
  for (let p = 0; p < 192; p++) await mm.write(va + p * PAGE, page.fill(p + 1));
  for (let p = 0; p < 192; p++) {
    await mm.read(va + p * PAGE, page);
    expect([page[0], page[PAGE - 1]]).toEqual([p + 1, p + 1]);
  }
  checkHost(host);
  await host.writeback.drain();
  fs.writeFileSync(file, new Uint8Array(512 * PAGE).fill(0xee));
  let nrLost = 0;
  for (let p = 0; p < 192; p++) {
    await mm.read(va + p * PAGE, page).then(
      () => expect(page[7]).toBe(p + 1),
      (error) => {
        expect(error.code).toBe('EHWPOISON');
        nrLost++;
      },
    );
  }
  expect(nrLost).toBeGreaterThan(100);
  checkHost(host);
  await host.stop();
  expect(fs.existsSync(file)).toBe(false);
});

test('direct: the file is opened past the page cache, and a host swaps to it, blocking and not', async () => {
  const swap = await openFileSwap(file, { sizeBytes: 512 * PAGE, direct: true });
  if (process.platform === 'linux') {
    const open = fs.readdirSync('/proc/self/fd').find((fd) => linkOf(`/proc/self/fd/${fd}`) === fs.realpathSync(file));
    const flags = /flags:\s+(\d+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${open}`, 'utf8'))![1]!;
    expect(Number.parseInt(flags, 8) & fs.constants.O_DIRECT).not.toBe(0);
  }
  const host = new Host({ frames: 64, arenaBytes: 65536, swap, sameFilled: false, defer: (fn) => setImmediate(fn) });
  const mm = host.createMm();
  const va = mm.mmap(0, 200 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  for (let p = 0; p < 200; p++) await mm.write(va + p * PAGE, new Uint8Array(PAGE).fill(p));
  const page = new Uint8Array(PAGE);
  for (let p = 0; p < 200; p++) {
    if (p % 2 === 0) mm.readSync(va + p * PAGE, page);
    else await mm.read(va + p * PAGE, page);
    expect([page[0], page[PAGE - 1]]).toEqual([p, p]);
  }
  expect(host.vmstat.pswpin).toBeGreaterThan(100);
  checkHost(host);
  await host.stop();
  expect(fs.existsSync(file)).toBe(false);
});

function linkOf(name: string): string {
  try {
    return fs.readlinkSync(name);
  } catch {
    return '';
  }
}
