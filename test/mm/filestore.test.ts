import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { checkHost, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, Host, MAP_SHARED } from '../../src/mm/index.js';
import { openFileStore } from '../../src/node/index.js';

const PAGE = 4096;
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'unpin-store-'));
const file = path.join(folder, 'file');

afterEach(() => fs.rmSync(file, { force: true, recursive: true }));

const pattern = (nrBytes: number) => Uint8Array.from({ length: nrBytes }, (_, i) => (i * 31 + (i >>> 12) * 7) & 255);
const setUp = () => new Host({ frames: 128, arenaBytes: 65536, debug: true, defer: (fn) => setImmediate(fn) });
const same = (a: Uint8Array, b: Uint8Array) => expect(Buffer.compare(a, b)).toBe(0);

test('a real file is read, mapped, written and cut, to the byte', async () => {
  const bytes = pattern(300 * PAGE + 77);
  fs.writeFileSync(file, bytes);
  const host = setUp();
  const opened = host.openFile(await openFileStore(file));
  const mm = host.createMm();
  const found = new Uint8Array(bytes.length);
  expect(await opened.read(found, 0)).toBe(bytes.length);
  same(found, bytes);
  const va = mm.mmap(0, 301 * PAGE, 3, MAP_SHARED, opened);
  await mm.write(va + 299 * PAGE + 4090, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  bytes.set([1, 2, 3, 4, 5, 6, 7, 8], 299 * PAGE + 4090);
  mm.writeSync(va + 5, Uint8Array.of(9));
  bytes[5] = 9;
  await opened.fsync();
  same(fs.readFileSync(file), bytes);
  await opened.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * PAGE - 5, 70 * PAGE);
  bytes.fill(0, 10 * PAGE - 5, 80 * PAGE - 5);
  await opened.write(pattern(10), 400 * PAGE);
  await opened.fsync();
  const longer = new Uint8Array(400 * PAGE + 10);
  longer.set(bytes);
  longer.set(pattern(10), 400 * PAGE);
  same(fs.readFileSync(file), longer);
  await opened.truncate(100);
  expect(fs.statSync(file).size).toBe(100);
  checkHost(host);
  await host.stop();
  same(fs.readFileSync(file), longer.subarray(0, 100));
});

test('blocking faults over a real file', async () => {
  fs.writeFileSync(file, pattern(200 * PAGE));
  const host = setUp();
  const mm = host.createMm();
  const va = mm.mmap(0, 200 * PAGE, 3, MAP_SHARED, host.openFile(await openFileStore(file)));
  const expected = pattern(200 * PAGE);
  const byte = new Uint8Array(1);
  for (let p = 0; p < 200; p++) {
    mm.readSync(va + p * PAGE + p, byte);
    expect(byte[0]).toBe(expected[p * PAGE + p]);
    mm.writeSync(va + p * PAGE, Uint8Array.of(p));
    expected[p * PAGE] = p;
  }
  checkHost(host);
  await host.stop();
  same(fs.readFileSync(file), expected);
});

test('a file that somebody cut behind our back is EIO, and the rest is read', async () => {
  fs.writeFileSync(file, pattern(64 * PAGE));
  const host = setUp();
  const opened = host.openFile(await openFileStore(file, 'r'));
  fs.truncateSync(file, 10 * PAGE);
  const bytes = new Uint8Array(PAGE);
  await expect(opened.read(bytes, 20 * PAGE)).rejects.toThrow(/EIO: read: file .* bytes moved at/);
  expect(await opened.read(bytes, 9 * PAGE)).toBe(PAGE);
  same(bytes, pattern(10 * PAGE).subarray(9 * PAGE));
  await expect(opened.write(bytes, 0)).rejects.toThrow(/EBADF: write/);
  checkHost(host);
  await host.stop();
});

test('what cannot be opened is refused by name', async () => {
  await expect(openFileStore(path.join(folder, 'none'))).rejects.toThrow(/ENOENT: open: file .*\/none/);
  await expect(openFileStore(folder, 'r')).rejects.toThrow(/ENODEV: open: .* must be a regular file/);
  await expect(openFileStore(folder)).rejects.toThrow(/EISDIR: open/);
  fs.writeFileSync(file, '');
  await expect(openFileStore(file, 'wx+')).rejects.toThrow(/EEXIST: open/);
  const host = setUp();
  const store = await openFileStore(file, 'r');
  expect(() => host.openFile(store, { mode: 'rw' })).toThrow(/EROFS: openFile/);
  await host.stop();
});
