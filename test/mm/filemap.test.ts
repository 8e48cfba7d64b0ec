import { expect, test } from 'vitest';
import { filemapIsResident, filemapWillneed } from '../../src/mm/file/filemap.js';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  FAULT_RETRY,
  FAULT_SIGBUS,
  FAULT_SIGSEGV,
  type Host,
  type HostOptions,
  MAP_PRIVATE,
  MAP_SHARED,
  MemoryStore,
  MemorySwap,
  type Mm,
} from '../../src/mm/index.js';
import { FaultyStore } from './faultystore.js';
import { byteAt, fill, twoMms } from './twomms.js';

const PAGE = 4096;
const [R, RW] = [1, 3];

const setUp = (options: Partial<HostOptions> = {}) =>
  twoMms({ frames: 256, swap: new MemorySwap({ sizeBytes: 256 * PAGE }), ...options });

async function evictAll(host: Host): Promise<void> {
  for (let i = 0; i < 60; i++) {
    host.reclaim.shrink(true, false, true);
    await host.writeback.drain();
    await host.pageCache.writeback.drain();
  }
}

test('a shared mapping shows the file, and what is written through it is seen by reads and other mappings, and gets to the store', async () => {
  const { host, mm, other } = setUp();
  const store = new MemoryStore({ contents: fill(3 * PAGE, 7) });
  const file = host.openFile(store);
  const [a, b] = [mm.mmap(0, 3 * PAGE, RW, MAP_SHARED, file), other.mmap(0, 2 * PAGE, RW, MAP_SHARED, file, PAGE)];
  expect(await byteAt(mm, a + PAGE)).toBe(7);
  await mm.write(a + PAGE + 5, fill(2, 1));
  expect(await byteAt(other, b + 5)).toBe(1);
  const bytes = new Uint8Array(2);
  await file.read(bytes, PAGE + 4);
  expect([...bytes]).toEqual([7, 1]);
  await file.write(fill(1, 9), 2 * PAGE);
  expect([await byteAt(mm, a + 2 * PAGE), await byteAt(other, b + PAGE)]).toEqual([9, 9]);
  checkHost(host);
  await mm.msync(a, 3 * PAGE, 4);
  expect([store.contents()[PAGE + 5], store.contents()[2 * PAGE]]).toEqual([1, 9]);
  file.close();
  expect(await byteAt(mm, a)).toBe(7);
  checkHost(host);
  await host.stop();
  expect(host.stats()).toMatchObject({ framesFree: 256, tableBytes: 0, nrFilePages: 0 });
});

test('a private mapping shows the file until it is written; the file never sees what is', async () => {
  const { host, mm, other } = setUp();
  const store = new MemoryStore({ contents: fill(4 * PAGE, 7) });
  const file = host.openFile(store, { mode: 'r' });
  const a = mm.mmap(0, 4 * PAGE, RW, MAP_PRIVATE, file);
  const b = other.mmap(0, 4 * PAGE, R, MAP_PRIVATE, file);
  expect(await byteAt(mm, a)).toBe(7);
  await mm.write(a, fill(1, 1));
  await mm.write(a + PAGE, fill(1, 2));
  expect([await byteAt(mm, a), await byteAt(mm, a + 1), await byteAt(mm, a + PAGE)]).toEqual([1, 7, 2]);
  expect([await byteAt(other, b), await byteAt(other, b + PAGE)]).toEqual([7, 7]);
  const writer = host.openFile(store);
  await writer.write(fill(4 * PAGE, 5), 0);
  expect([await byteAt(mm, a + 1), await byteAt(mm, a + 2 * PAGE)]).toEqual([7, 5]);
  checkHost(host);
  await evictAll(host);
  expect([await byteAt(mm, a), await byteAt(mm, a + PAGE), await byteAt(mm, a + 2 * PAGE)]).toEqual([1, 2, 5]);
  const child = mm.fork();
  await child.write(a, fill(1, 3));
  expect([await byteAt(mm, a), await byteAt(child, a + PAGE), await byteAt(child, a + 3 * PAGE)]).toEqual([1, 2, 5]);
  checkHost(host);
  await writer.fsync();
  expect(store.contents()).toEqual(fill(4 * PAGE, 5));
  await host.stop();
});

test('a write to a private page beyond the end leaves the anonVma behind, on which later merges depend', async () => {
  const { host, mm } = setUp();
  const file = host.openFile(new MemoryStore({ contents: fill(PAGE, 7) }));
  const va = mm.mmap(0, 4 * PAGE, RW, MAP_PRIVATE, file);
  expect(mm.tryGetPage(va + 2 * PAGE, 0)).toBe(FAULT_SIGBUS);
  expect(mm.findVma(va)!.anonVma).toBe(undefined);
  expect(mm.tryGetPage(va + 2 * PAGE, FAULT_FLAG_WRITE)).toBe(FAULT_SIGBUS);
  expect(mm.findVma(va)!.anonVma).toBeDefined();
  checkHost(host);
  await host.stop();
});

test('beyond the end of the file is SIGBUS, and by call EFAULT; the rest of the last page is zeros', async () => {
  const { host, mm } = setUp();
  const file = host.openFile(new MemoryStore({ contents: fill(PAGE + 10, 7) }));
  const va = mm.mmap(0, 4 * PAGE, RW, MAP_SHARED, file);
  expect(await byteAt(mm, va + PAGE + 9)).toBe(7);
  expect(await byteAt(mm, va + PAGE + 10)).toBe(0);
  expect(mm.tryGetPage(va + 2 * PAGE, 0)).toBe(FAULT_SIGBUS);
  expect(mm.tryGetPage(va + 2 * PAGE, FAULT_FLAG_WRITE)).toBe(FAULT_SIGBUS);
  expect(mm.tryGetPage(va + 4 * PAGE, 0)).toBe(FAULT_SIGSEGV);
  await expect(byteAt(mm, va + 2 * PAGE)).rejects.toThrow(/EFAULT: faultIn: address .* beyond the end of the file/);
  // What is written behind the end is nobody's, and gone when the file grows.
  await mm.write(va + PAGE + 10, fill(5, 9));
  await file.truncate(3 * PAGE);
  expect([await byteAt(mm, va + PAGE + 10), await byteAt(mm, va + 2 * PAGE)]).toEqual([0, 0]);
  checkHost(host);
  await host.stop();
});

test('refusals of mmap: EBADF, EACCES, EINVAL, EOVERFLOW', async () => {
  const { host, mm } = setUp();
  const store = new MemoryStore({ sizeBytes: PAGE });
  const [r, w, closed] = [
    host.openFile(store, { mode: 'r' }),
    host.openFile(store, { mode: 'w' }),
    host.openFile(store),
  ];
  closed.close();
  const refuse = (...args: Parameters<Mm['mmap']>) => expect(() => mm.mmap(...args));
  refuse(0, PAGE, R, MAP_SHARED).toThrow(/EBADF: mmap/);
  refuse(0, PAGE, R, MAP_SHARED, closed).toThrow(/EBADF: mmap/);
  refuse(0, PAGE, RW, MAP_SHARED, r).toThrow(/EACCES: mmap: memory file must be open for writing/);
  refuse(0, PAGE, R, MAP_PRIVATE, w).toThrow(/EACCES: mmap: memory file must be open for reading/);
  refuse(0, PAGE, R, MAP_PRIVATE, r, 100).toThrow(/EINVAL: mmap: offset 100/);
  refuse(0, 2 * PAGE, R, MAP_PRIVATE, r, 2 ** 43 - PAGE).toThrow(/EOVERFLOW: mmap/);
  refuse(0, PAGE, R, 0, r).toThrow(/EINVAL: mmap/);
  refuse(0, 0, R, MAP_PRIVATE, r).toThrow(/EINVAL: mmap: length 0/);
  expect(mm.findVma(mm.mmap(0, PAGE, R, MAP_SHARED, r))).toMatchObject({ shared: false, mayWrite: false });
  expect(mm.findVma(mm.mmap(0, PAGE, RW, MAP_PRIVATE, r))).toMatchObject({ shared: false, mayWrite: true });
  checkHost(host);
  await host.stop();
});

test('a fault that has to read counts as a major one, and reads what is around it', async () => {
  const { host, mm } = setUp();
  const store = new FaultyStore(fill(64 * PAGE, 3));
  const va = mm.mmap(0, 64 * PAGE, R, MAP_PRIVATE, host.openFile(store));
  expect(mm.tryGetPage(va + 30 * PAGE, 0)).toBe(FAULT_RETRY);
  await mm.faultIn(va + 30 * PAGE, 0);
  expect([host.vmstat.pgmajfault, store.nrReads, host.stats().nrFilePages]).toEqual([1, 1, 32]);
  const vma = mm.findVma(va)!;
  expect([filemapIsResident(vma, vma.startVpn + 20), filemapIsResident(vma, vma.startVpn + 60)]).toEqual([true, false]);
  expect(await byteAt(mm, va + 20 * PAGE)).toBe(3);
  expect(host.vmstat.pgmajfault).toBe(1);
  filemapWillneed(vma, vma.startVpn + 50, vma.startVpn + 64);
  await host.pageCache.reads.drain();
  expect(filemapIsResident(vma, vma.startVpn + 60)).toBe(true);
  checkHost(host);
  await host.stop();
});

test('blocking faults read files too, where the store can', async () => {
  const { host, mm } = setUp();
  const store = new FaultyStore(fill(100 * PAGE, 3));
  const file = host.openFile(store);
  const va = mm.mmap(0, 100 * PAGE, RW, MAP_SHARED, file);
  const bytes = new Uint8Array(1);
  for (let p = 0; p < 100; p++) {
    mm.readSync(va + p * PAGE, bytes);
    expect(bytes[0]).toBe(3);
    mm.writeSync(va + p * PAGE + 1, fill(1, p));
  }
  store.failReads = 2;
  checkHost(host);
  await file.fsync();
  for (let p = 0; p < 100; p++) expect(store.inner.contents()[p * PAGE + 1]).toBe(p);
  await host.stop();
});

test('memory that is dropped and moved: munmap, MADV_DONTNEED, mremap, split and merge', async () => {
  const { host, mm } = setUp();
  const store = new MemoryStore({ contents: fill(8 * PAGE, 1) });
  const file = host.openFile(store);
  const va = mm.mmap(0, 8 * PAGE, RW, MAP_SHARED, file);
  for (let p = 0; p < 8; p++) await mm.write(va + p * PAGE, fill(1, p));
  mm.madviseDontneed(va, 8 * PAGE);
  checkHost(host);
  for (let p = 0; p < 8; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p);
  mm.munmap(va + 3 * PAGE, PAGE);
  checkHost(host);
  expect(mm.mmap(va + 3 * PAGE, PAGE, RW, MAP_SHARED | 0x10, file, 3 * PAGE)).toBe(va + 3 * PAGE);
  expect(mm.vmas.length).toBe(1);
  checkHost(host);
  const twin = host.openFile(store);
  mm.mmap(va + 8 * PAGE, PAGE, RW, MAP_SHARED | 0x10, twin, 8 * PAGE);
  expect(mm.vmas.length).toBe(2);
  mm.munmap(va + 8 * PAGE, PAGE);
  const moved = mm.mremap(va + 2 * PAGE, 2 * PAGE, 4 * PAGE, 1);
  expect(await byteAt(mm, moved + PAGE)).toBe(3);
  expect(await byteAt(mm, moved + 3 * PAGE)).toBe(5);
  checkHost(host);
  const part = mm.mmap(0x3000_0000, 2 * PAGE, RW, MAP_SHARED, file);
  expect(mm.mremap(part, 2 * PAGE, 6 * PAGE)).toBe(part);
  checkHost(host);
  expect(await byteAt(mm, part + 5 * PAGE)).toBe(5);
  mm.munmap(part + 2 * PAGE, PAGE);
  checkHost(host);
  await evictAll(host);
  expect(host.stats().nrFilePages).toBe(0);
  for (let p = 0; p < 8; p++) expect(store.contents()[p * PAGE]).toBe(p);
  checkHost(host);
  await host.stop();
});
