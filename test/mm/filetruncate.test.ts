import { expect, test } from 'vitest';
import {
  checkHost,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FAULT_SIGBUS,
  type HostOptions,
  MAP_PRIVATE,
  MAP_SHARED,
  MemorySwap,
  MMU_NOTIFY_NAMES,
  type Mm,
  mmuNotifierRegister,
  VA_SIZE,
} from '../../src/mm/index.js';
import { FaultyStore } from './faultystore.js';
import { TestDriver } from './testdriver.js';
import { byteAt, fill, twoMms } from './twomms.js';

const PAGE = 4096;
const RW = 3;
const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

const setUp = (options: Partial<HostOptions> = {}) =>
  twoMms({ frames: 128, swap: new MemorySwap({ sizeBytes: 256 * PAGE }), ...options });

/** Brackets of an mm from now on, with the pages counted from `va`, and what `probe` says in each. */
function record(mm: Mm, va: number, probe: () => unknown = () => ''): string[] {
  const events: string[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: (_sub, range) => {
      const pages = [...range.ranges.subarray(0, 2 * range.nrRanges)].map((vpn) => vpn - va / PAGE);
      events.push(`${MMU_NOTIFY_NAMES[range.event]} ${pages.join(' ')} ${probe()}`.trim());
    },
  });
  return events;
}

test('N23: truncation brackets each mapping VMA, while the pages are still in the cache; then accesses are SIGBUS', async () => {
  const { host, mm, other } = setUp();
  const file = host.openFile(new FaultyStore(fill(8 * PAGE, 7)));
  const a = mm.mmap(0, 8 * PAGE, RW, MAP_SHARED, file);
  const b = other.mmap(0, 4 * PAGE, 1, MAP_SHARED, file, 3 * PAGE);
  const c = other.mmap(0, 2 * PAGE, 1, MAP_SHARED, file);
  for (let p = 0; p < 8; p++) await mm.write(a + p * PAGE, fill(1, p));
  for (let p = 0; p < 4; p++) expect(await byteAt(other, b + p * PAGE)).toBe(p + 3);
  await byteAt(other, c);
  const driver = new TestDriver(mm);
  await driver.store(a + 6 * PAGE, 9);
  const cached = () => host.stats().nrFilePages;
  const [ea, eb] = [record(mm, a, cached), record(other, b, cached)];
  await file.truncate(4 * PAGE + 5);
  expect([ea, eb]).toEqual([['CLEAR 5 8 8'], ['CLEAR 2 4 8']]);
  expect(host.stats().nrFilePages).toBe(5);
  expect([mm.tryGetPage(a + 5 * PAGE, 0), other.tryGetPage(b + 2 * PAGE, 0)]).toEqual([FAULT_SIGBUS, FAULT_SIGBUS]);
  expect(driver.tryFault(a + 6 * PAGE, true)).toBe(FAULT_SIGBUS);
  expect([await byteAt(mm, a + 4 * PAGE), await byteAt(mm, a + 4 * PAGE + 5)]).toEqual([4, 0]);
  checkHost(host);
  await file.truncate(8 * PAGE);
  expect([await byteAt(mm, a + 6 * PAGE), await byteAt(other, b + 3 * PAGE)]).toEqual([0, 0]);
  checkHost(host);
  await host.stop();
});

test('truncation takes private copies beyond the end, swapped ones too; a hole leaves them', async () => {
  const { host, mm } = setUp();
  const file = host.openFile(new FaultyStore(fill(8 * PAGE, 7)));
  const va = mm.mmap(0, 8 * PAGE, RW, MAP_PRIVATE, file);
  for (const p of [1, 2, 5, 6]) await mm.write(va + p * PAGE, fill(1, 50 + p));
  await byteAt(mm, va + 3 * PAGE);
  await file.fallocate(PUNCH, 2 * PAGE, 2 * PAGE);
  expect([await byteAt(mm, va + 2 * PAGE), await byteAt(mm, va + 2 * PAGE + 1)]).toEqual([52, 7]);
  expect(await byteAt(mm, va + 3 * PAGE)).toBe(0);
  checkHost(host);
  for (let i = 0; i < 20; i++) {
    host.reclaim.shrink(true, false, true);
    await host.writeback.drain();
  }
  expect(host.stats().swapSlotsUsed).toBe(4);
  await file.truncate(6 * PAGE);
  expect(host.stats().swapSlotsUsed).toBe(3);
  expect(mm.tryGetPage(va + 6 * PAGE, 0)).toBe(FAULT_SIGBUS);
  await file.truncate(8 * PAGE);
  expect([await byteAt(mm, va + 5 * PAGE), await byteAt(mm, va + 6 * PAGE)]).toEqual([55, 0]);
  checkHost(host);
  await host.stop();
});

test('N23: a hole brackets the mappings of its whole pages, and zeroes the others in place', async () => {
  const { host, mm, other } = setUp();
  const store = new FaultyStore(fill(8 * PAGE, 7));
  const file = host.openFile(store);
  const a = mm.mmap(0, 8 * PAGE, RW, MAP_SHARED, file);
  const b = other.mmap(0, 8 * PAGE, RW, MAP_PRIVATE, file);
  for (let p = 0; p < 8; p++) await byteAt(mm, a + p * PAGE);
  await other.write(b + 3 * PAGE, fill(1, 1));
  const [ea, eb] = [record(mm, a), record(other, b)];
  await file.fallocate(PUNCH, PAGE + 100, 3 * PAGE);
  expect([ea, eb]).toEqual([['CLEAR 2 4'], ['CLEAR 2 4']]);
  const bytes = new Uint8Array(8 * PAGE);
  await mm.read(a, bytes);
  const expected = fill(8 * PAGE, 7).fill(0, PAGE + 100, 4 * PAGE + 100);
  expect(bytes.every((byte, i) => byte === expected[i])).toBe(true);
  expect([await byteAt(other, b + 3 * PAGE), await byteAt(other, b + 3 * PAGE + 1)]).toEqual([1, 7]);
  await file.fsync();
  expect(store.inner.contents().every((byte, i) => byte === expected[i])).toBe(true);
  checkHost(host);
  await host.stop();
});

test('N4: a page that somebody holds stays his when it leaves the cache', async () => {
  const { host, mm } = setUp();
  const file = host.openFile(new FaultyStore(fill(2 * PAGE, 7)));
  const va = mm.mmap(0, 2 * PAGE, RW, MAP_SHARED, file);
  await mm.faultIn(va + PAGE, 0);
  const pfn = mm.tryGetPage(va + PAGE, 0);
  await file.truncate(0);
  expect(host.u8[pfn * PAGE]).toBe(7);
  checkHost(host, 1);
  await file.truncate(2 * PAGE);
  expect(await byteAt(mm, va + PAGE)).toBe(0);
  mm.putPage(pfn);
  checkHost(host);
  await host.stop();
});

test('a fault that waits for a page that is cut away ends with SIGBUS', async () => {
  const { host, mm } = setUp();
  const store = new FaultyStore(fill(4 * PAGE, 7));
  const file = host.openFile(store);
  const va = mm.mmap(0, 4 * PAGE, RW, MAP_SHARED, file);
  store.held = true;
  const fault = mm.faultIn(va + 3 * PAGE, 0).catch((error) => error.code);
  await new Promise((resolve) => setTimeout(resolve, 2));
  const cut = file.truncate(PAGE);
  await new Promise((resolve) => setTimeout(resolve, 2));
  store.held = false;
  store.pump();
  expect(await fault).toBe('EFAULT');
  await cut;
  checkHost(host);
  await host.stop();
});

test('mlocked pages of a file stay through reclaim, and go by truncation', async () => {
  const { host, mm } = setUp();
  const file = host.openFile(new FaultyStore(fill(6 * PAGE, 7)));
  const va = mm.mmap(0, 4 * PAGE, RW, MAP_SHARED, file);
  await mm.mlock(va, 4 * PAGE);
  await file.read(new Uint8Array(6 * PAGE), 0);
  for (let i = 0; i < 10; i++) host.reclaim.shrink(true, false, true);
  expect(host.stats()).toMatchObject({ nrFilePages: 4, nrDirty: 0, pinnedFrames: 4 });
  checkHost(host);
  await file.truncate(PAGE);
  expect(host.stats()).toMatchObject({ nrFilePages: 1, pinnedFrames: 1 });
  checkHost(host);
  mm.munlock(va, 4 * PAGE);
  checkHost(host);
  await host.stop();
});

test('reclaim of a page that two mms map: a bracket each; clean it is dropped, dirty it is written first', async () => {
  const { host, mm, other } = setUp();
  const store = new FaultyStore(fill(2 * PAGE, 7));
  const file = host.openFile(store);
  const [a, b] = [mm.mmap(0, 2 * PAGE, RW, MAP_SHARED, file), other.mmap(0, 2 * PAGE, RW, MAP_SHARED, file)];
  const [da, db] = [new TestDriver(mm), new TestDriver(other)];
  await da.store(a, 1);
  await db.load(b + PAGE);
  await db.load(b);
  const [ea, eb] = [record(mm, a), record(other, b)];
  host.reclaim.shrink(true, false, true);
  expect([ea, eb]).toEqual([['CLEAR 0 1'], ['CLEAR 0 2']]);
  expect(host.stats()).toMatchObject({ nrFilePages: 1, nrWriteback: 1 });
  checkHost(host);
  await host.pageCache.writeback.drain();
  expect(host.stats()).toMatchObject({ nrFilePages: 0, nrDirty: 0 });
  expect([store.inner.contents()[0], await da.load(a), await db.load(b + PAGE)]).toEqual([1, 1, 7]);
  checkHost(host);
  await host.stop();
});

test('migration moves pages of files, dirty and mapped', async () => {
  const { host, mm, other } = setUp();
  const store = new FaultyStore(fill(20 * PAGE, 7));
  const file = host.openFile(store);
  const filler = mm.mmap(0, 40 * PAGE, RW, 0x22);
  for (let p = 0; p < 40; p++) await mm.write(filler + p * PAGE, fill(1, 1));
  const [a, b] = [mm.mmap(0, 20 * PAGE, RW, MAP_SHARED, file), other.mmap(0, 20 * PAGE, RW, MAP_PRIVATE, file)];
  for (let p = 0; p < 20; p++) await mm.write(a + p * PAGE, fill(1, p));
  for (let p = 0; p < 20; p++) expect(await byteAt(other, b + p * PAGE)).toBe(p);
  store.pages!.setPrivate(5, 1234);
  const before = file.mapping.pages.get(5);
  mm.munmap(filler, 40 * PAGE);
  expect(host.compact().nrMigrated).toBeGreaterThan(10);
  expect(file.mapping.pages.get(5)).not.toBe(before);
  expect(store.pages!.getPrivate(5)).toBe(1234);
  checkHost(host);
  for (let p = 0; p < 20; p++) expect(await byteAt(mm, a + p * PAGE)).toBe(p);
  await file.fsync();
  for (let p = 0; p < 20; p++) expect(store.inner.contents()[p * PAGE]).toBe(p);
  checkHost(host);
  await host.stop();
});
