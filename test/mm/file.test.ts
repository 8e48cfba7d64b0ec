import { expect, test } from 'vitest';
import {
  type BackingStore,
  checkHost,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  type File,
  Host,
  type HostOptions,
  MemoryStore,
  POSIX_FADV_DONTNEED,
  POSIX_FADV_RANDOM,
  POSIX_FADV_WILLNEED,
} from '../../src/mm/index.js';
import { FaultyStore } from './faultystore.js';

const PAGE = 4096;
const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

function setUp(options: Partial<HostOptions> = {}) {
  return new Host({ frames: 128, arenaBytes: 65536, debug: true, defer: (fn) => setImmediate(fn), ...options });
}

const fill = (nrBytes: number, value: number) => new Uint8Array(nrBytes).fill(value);

async function contentsOf(file: File, length = file.sizeBytes, position = 0): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  expect(await file.read(bytes, position)).toBe(length);
  return bytes;
}

/** As `toEqual`, which is slow for many bytes. */
function same(found: Uint8Array, expected: Uint8Array): void {
  const differs = found.findIndex((byte, i) => byte !== expected[i]);
  expect({ length: found.length, differs }).toEqual({ length: expected.length, differs: -1 });
}

/** Bytes that tell where they came from. */
const pattern = (nrBytes: number) => Uint8Array.from({ length: nrBytes }, (_, i) => (i * 31 + (i >>> 12) * 7) & 255);

test('what is written is read back at once, and is in the store after fsync', async () => {
  const host = setUp();
  const store = new MemoryStore();
  const file = host.openFile(store);
  expect(await file.write(pattern(3 * PAGE + 100), 0)).toBe(3 * PAGE + 100);
  expect(file.sizeBytes).toBe(3 * PAGE + 100);
  same(await contentsOf(file), pattern(3 * PAGE + 100));
  expect(store.sizeBytes).toBe(0);
  checkHost(host);
  await file.fsync();
  same(store.contents(), pattern(3 * PAGE + 100));
  expect(host.stats()).toMatchObject({ nrDirty: 0, nrWriteback: 0, nrFilePages: 4, nrWritten: 4 });
  checkHost(host);
  file.close();
  await host.stop();
  expect(host.stats().framesFree).toBe(128);
});

test('reads stop at the end of the file, and a hole reads as zeros', async () => {
  const host = setUp();
  const file = host.openFile(new MemoryStore({ contents: fill(100, 1) }));
  const bytes = fill(PAGE, 9);
  expect(await file.read(bytes, 90)).toBe(10);
  expect([bytes[9], bytes[10]]).toEqual([1, 9]);
  expect(await file.read(bytes, 100)).toBe(0);
  expect(await file.write(fill(1, 7), 1000 * PAGE)).toBe(1);
  expect(file.sizeBytes).toBe(1000 * PAGE + 1);
  expect(await contentsOf(file, 200, 0)).toEqual(Uint8Array.from([...fill(100, 1), ...fill(100, 0)]));
  same(await contentsOf(file, PAGE, 500 * PAGE), fill(PAGE, 0));
  await file.fsync();
  checkHost(host);
  await host.stop();
});

test('two openers see one file; each store has one cache', async () => {
  const host = setUp();
  const store = new MemoryStore({ sizeBytes: 2 * PAGE });
  const [a, b] = [host.openFile(store), host.openFile(store, { mode: 'r' })];
  await a.write(fill(10, 5), 4090);
  same(await contentsOf(b, 10, 4090), fill(10, 5));
  expect(host.stats().nrFilePages).toBe(2);
  await host.stop();
});

test('a page that is written in part is read first, one that is written as a whole is not', async () => {
  const host = setUp();
  const store = new FaultyStore(pattern(3 * PAGE));
  const file = host.openFile(store);
  await file.write(fill(PAGE, 1), 0);
  expect(store.nrReads).toBe(0);
  await file.write(fill(10, 2), PAGE + 5);
  expect(store.nrReads).toBe(1);
  const expected = pattern(3 * PAGE);
  expected.fill(1, 0, PAGE).fill(2, PAGE + 5, PAGE + 15);
  same(await contentsOf(file), expected);
  await host.stop();
});

test('a reader in sequence is read ahead for, and one at random is not', async () => {
  const host = setUp({ frames: 1024 });
  const bytes = pattern(256 * PAGE);
  const store = new FaultyStore(bytes);
  const sequential = host.openFile(store);
  for (let p = 0; p < 256; p++) expect((await contentsOf(sequential, 1, p * PAGE + 3))[0]).toBe(bytes[p * PAGE + 3]);
  expect(store.nrReads).toBeLessThan(16);
  expect(host.vmstat.filePagesRead).toBe(256);
  const other = new FaultyStore(bytes);
  const random = host.openFile(other);
  random.fadvise(POSIX_FADV_RANDOM);
  for (let p = 0; p < 50; p++) await contentsOf(random, 1, ((p * 101) % 256) * PAGE);
  expect(other.nrReads).toBe(50);
  checkHost(host);
  await host.stop();
});

test('fadvise: WILLNEED reads, DONTNEED drops what is clean and nobody maps', async () => {
  const host = setUp();
  const store = new FaultyStore(pattern(20 * PAGE));
  const file = host.openFile(store);
  file.fadvise(POSIX_FADV_WILLNEED, 0, 10 * PAGE);
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(host.stats().nrFilePages).toBe(10);
  await file.write(fill(1, 1), 0);
  await file.fsync();
  file.fadvise(POSIX_FADV_DONTNEED);
  expect(host.stats().nrFilePages).toBe(0);
  expect((await contentsOf(file, 1))[0]).toBe(1);
  expect(() => file.fadvise(9)).toThrow(/EINVAL: fadvise: advice 9/);
  checkHost(host);
  await host.stop();
});

test('N23: truncation cuts, and bytes beyond the end are zeros when the file grows again', async () => {
  const host = setUp();
  const store = new FaultyStore(pattern(5 * PAGE));
  const file = host.openFile(store);
  await contentsOf(file);
  await file.truncate(PAGE + 100);
  expect(store.sizeBytes).toBe(PAGE + 100);
  expect(host.stats().nrFilePages).toBe(2);
  checkHost(host);
  await file.truncate(3 * PAGE);
  const expected = new Uint8Array(3 * PAGE);
  expected.set(pattern(PAGE + 100));
  same(await contentsOf(file), expected);
  await file.fsync();
  same(store.inner.contents(), expected);
  checkHost(host);
  await host.stop();
});

test('N23: truncation waits for what is being written, and for the page that it cuts', async () => {
  const host = setUp();
  const store = new FaultyStore(pattern(4 * PAGE));
  const file = host.openFile(store);
  await file.write(fill(PAGE, 1), 3 * PAGE);
  store.held = true;
  const synced = file.fsync();
  await new Promise((resolve) => setTimeout(resolve, 2));
  const reading = file.read(new Uint8Array(10), 0);
  await new Promise((resolve) => setTimeout(resolve, 2));
  let done = false;
  const cut = file.truncate(50).then(() => {
    done = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect([done, store.nrHeld, file.sizeBytes]).toEqual([false, 2, 4 * PAGE]);
  store.held = false;
  store.pump();
  await Promise.all([synced, reading, cut]);
  same(store.inner.contents(), pattern(50));
  await file.truncate(100);
  expect(await contentsOf(file)).toEqual(Uint8Array.from([...pattern(50), ...fill(50, 0)]));
  checkHost(host);
  await host.stop();
});

test('a cut that the store refuses is made before anything else is written', async () => {
  const host = setUp();
  const store = new FaultyStore(pattern(3 * PAGE));
  const file = host.openFile(store);
  store.failTruncates = 2;
  await expect(file.truncate(10)).rejects.toThrow(/EIO: truncate: faulty/);
  expect([file.sizeBytes, store.sizeBytes]).toEqual([10, 3 * PAGE]);
  await file.write(fill(5, 1), 2 * PAGE);
  file.fadvise(POSIX_FADV_DONTNEED);
  expect([store.nrWrites, host.stats().nrWriteback]).toEqual([0, 0]);
  const expected = new Uint8Array(2 * PAGE + 5);
  expected.set(pattern(10));
  expected.fill(1, 2 * PAGE);
  same(await contentsOf(file), expected);
  await expect(file.fsync()).rejects.toThrow(/EIO/);
  await file.fsync();
  same(store.inner.contents(), expected);
  checkHost(host);
  await host.stop();
});

test('N23: a hole reads as zeros, here and in the store; the length stays', async () => {
  const host = setUp();
  const store = new FaultyStore(pattern(6 * PAGE));
  const file = host.openFile(store);
  await contentsOf(file, 3 * PAGE);
  await file.fallocate(PUNCH, PAGE - 100, 3 * PAGE);
  const expected = pattern(6 * PAGE);
  expected.fill(0, PAGE - 100, 4 * PAGE - 100);
  same(await contentsOf(file), expected);
  await file.fsync();
  same(store.inner.contents(), expected);
  await file.fallocate(PUNCH, 5 * PAGE + 7, 10);
  expected.fill(0, 5 * PAGE + 7, 5 * PAGE + 17);
  same(await contentsOf(file), expected);
  await file.fallocate(PUNCH, 4 * PAGE, 100 * PAGE);
  expected.fill(0, 4 * PAGE);
  same(await contentsOf(file), expected);
  expect(file.sizeBytes).toBe(6 * PAGE);
  checkHost(host);
  await host.stop();
});

test('N23: nobody reads from the store what a hole that is being punched is about to take', async () => {
  const host = setUp();
  const store = new FaultyStore(pattern(6 * PAGE));
  const file = host.openFile(store);
  store.held = true;
  const punched = file.fallocate(PUNCH, PAGE, 2 * PAGE);
  await new Promise((resolve) => setTimeout(resolve, 2));
  const read = contentsOf(file, 6 * PAGE);
  await new Promise((resolve) => setTimeout(resolve, 2));
  store.held = false;
  store.pump();
  const expected = pattern(6 * PAGE);
  expected.fill(0, PAGE, 3 * PAGE);
  same(await read, expected);
  await punched;
  checkHost(host);
  await host.stop();
});

test('a file that ends in a hole has its length in the store after fsync', async () => {
  const host = setUp();
  const store = new FaultyStore(0);
  const file = host.openFile(store);
  await file.write(fill(2 * PAGE, 1), 3 * PAGE + 9);
  await file.fallocate(PUNCH, 2 * PAGE, 100 * PAGE);
  expect([file.sizeBytes, store.sizeBytes]).toEqual([5 * PAGE + 9, 0]);
  await file.fsync();
  same(store.inner.contents(), new Uint8Array(5 * PAGE + 9));
  checkHost(host);
  await host.stop();
});

test('a page that was evicted is known again when it comes back', async () => {
  const host = setUp();
  const file = host.openFile(new MemoryStore({ contents: pattern(40 * PAGE) }));
  file.fadvise(POSIX_FADV_RANDOM);
  for (let p = 0; p < 10; p++) await contentsOf(file, 1, p * PAGE);
  expect(host.vmstat.workingsetRefault).toBe(0);
  for (let i = 0; i < 10; i++) host.reclaim.shrink(true, false, true);
  expect(host.stats().nrFilePages).toBe(0);
  checkHost(host);
  for (let p = 0; p < 10; p++) await contentsOf(file, 1, p * PAGE);
  expect(host.vmstat.workingsetRefault).toBe(10);
  for (let i = 0; i < 10; i++) host.reclaim.shrink(true, false, true);
  await file.truncate(0);
  expect(file.mapping.pages.size).toBe(0);
  checkHost(host);
  await host.stop();
});

test('fallocate: mode 0 makes the file longer, KEEP_SIZE alone does nothing', async () => {
  const host = setUp();
  const file = host.openFile(new MemoryStore({ contents: fill(10, 1) }));
  await file.fallocate(FALLOC_FL_KEEP_SIZE, 0, 5 * PAGE);
  expect(file.sizeBytes).toBe(10);
  await file.fallocate(0, PAGE, PAGE);
  expect(file.sizeBytes).toBe(2 * PAGE);
  await file.fallocate(0, 0, 5);
  expect(file.sizeBytes).toBe(2 * PAGE);
  await host.stop();
});

test('bad input: each call refuses with its errno and changes nothing', async () => {
  const host = setUp();
  const store = new MemoryStore({ contents: fill(100, 1) });
  const [r, w] = [host.openFile(store, { mode: 'r' }), host.openFile(store, { mode: 'w' })];
  const bytes = new Uint8Array(1);
  await expect(w.read(bytes, 0)).rejects.toThrow(/EBADF: read: memory file must be open for reading/);
  await expect(r.write(bytes, 0)).rejects.toThrow(/EBADF: write/);
  await expect(r.truncate(1)).rejects.toThrow(/EINVAL: ftruncate/);
  for (const bad of [-1, 0.5, Number.NaN]) {
    await expect(r.read(bytes, bad)).rejects.toThrow(/EINVAL: read: position/);
    await expect(w.write(bytes, bad)).rejects.toThrow(/EINVAL: write: position/);
    await expect(w.truncate(bad)).rejects.toThrow(/EINVAL: ftruncate/);
  }
  await expect(w.write(bytes, 2 ** 43)).rejects.toThrow(/EFBIG: write/);
  expect(await w.write(new Uint8Array(10), 2 ** 43 - 4)).toBe(4);
  await w.truncate(100);
  await expect(w.truncate(2 ** 43 + 1)).rejects.toThrow(/EFBIG: ftruncate/);
  await expect(w.fallocate(2, 0, 1)).rejects.toThrow(/EOPNOTSUPP: fallocate: mode 2/);
  await expect(w.fallocate(0, -1, 1)).rejects.toThrow(/EINVAL: fallocate/);
  await expect(w.fallocate(0, 0, 0)).rejects.toThrow(/EINVAL: fallocate/);
  await expect(w.fallocate(0, 2 ** 43, 1)).rejects.toThrow(/EFBIG: fallocate/);
  await expect(r.fallocate(0, 0, 1)).rejects.toThrow(/EBADF: fallocate/);
  const plain: BackingStore = {
    name: 'plain',
    sizeBytes: 0,
    readOnly: true,
    read: async () => 0,
    write: async () => 0,
    truncate: async () => {},
  };
  expect(() => host.openFile(plain, { mode: 'rw' })).toThrow(/EROFS: openFile: store plain is read-only/);
  expect(host.openFile(plain).mode).toBe('r');
  expect(() => host.openFile(store, { mode: 'x' as 'r' })).toThrow(/EINVAL: openFile/);
  await expect(host.openFile(plain, { mode: 'r' }).fallocate(PUNCH, 0, 1)).rejects.toThrow(/EOPNOTSUPP/);
  w.close();
  expect(() => w.close()).toThrow(/EBADF: close/);
  await expect(w.write(bytes, 0)).rejects.toThrow(/EBADF/);
  await expect(w.fsync()).rejects.toThrow(/EBADF: fsync/);
  expect(() => w.fadvise(0)).toThrow(/EBADF/);
  expect(() => setUp({ dirtyRatio: 0 })).toThrow(/EINVAL: Host: dirtyRatio 0/);
  expect(() => new MemoryStore({ sizeBytes: -1 })).toThrow(/EINVAL: MemoryStore/);
  same(store.contents(), fill(100, 1));
  checkHost(host);
  await host.stop();
});

test('closeStore writes what is dirty and closes; it refuses while the store is open', async () => {
  const host = setUp();
  let closed = 0;
  const store = new (class extends MemoryStore {
    async close() {
      closed++;
    }
  })();
  const file = host.openFile(store);
  await file.write(fill(10, 3), 0);
  await expect(host.closeStore(store)).rejects.toThrow(/EBUSY: closeStore/);
  file.close();
  await host.closeStore(store);
  expect([closed, store.contents()]).toEqual([1, fill(10, 3)]);
  expect(host.stats()).toMatchObject({ nrFilePages: 0, framesFree: 128 });
  const again = host.openFile(store);
  same(await contentsOf(again), fill(10, 3));
  await host.stop();
  expect(closed).toBe(2);
});

test('a file larger than memory is written and read back', async () => {
  const host = setUp({ frames: 64 });
  const store = new FaultyStore(0);
  const file = host.openFile(store);
  for (let p = 0; p < 300; p++) await file.write(fill(PAGE, p & 255), p * PAGE);
  checkHost(host);
  for (let p = 0; p < 300; p++) same(await contentsOf(file, PAGE, p * PAGE), fill(PAGE, p & 255));
  checkHost(host);
  await file.fsync();
  expect(store.sizeBytes).toBe(300 * PAGE);
  await host.stop();
  expect(host.stats().framesFree).toBe(64);
});

test("what was read of a page that has left the cache is nobody's", async () => {
  const host = setUp();
  const store = new FaultyStore(pattern(4 * PAGE));
  const file = host.openFile(store);
  store.held = true;
  const reading = file.read(new Uint8Array(PAGE), 2 * PAGE);
  await new Promise((resolve) => setTimeout(resolve, 2));
  const cut = file.truncate(0);
  await new Promise((resolve) => setTimeout(resolve, 2));
  store.held = false;
  store.pump();
  await cut;
  expect(await reading).toBe(0);
  await file.truncate(4 * PAGE);
  expect(await contentsOf(file)).toEqual(new Uint8Array(4 * PAGE));
  checkHost(host);
  await host.stop();
});
