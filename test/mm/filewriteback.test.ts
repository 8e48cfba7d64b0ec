import { expect, test } from 'vitest';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  type File,
  type HostOptions,
  MAP_SHARED,
  MemoryStore,
  MMU_NOTIFY_NAMES,
  type Mm,
  MS_ASYNC,
  MS_INVALIDATE,
  MS_SYNC,
  mmuNotifierRegister,
  POSIX_FADV_DONTNEED,
  VA_SIZE,
} from '../../src/mm/index.js';
import { FaultyStore } from './faultystore.js';
import { TestDriver } from './testdriver.js';
import { byteAt, fill, twoMms } from './twomms.js';

const PAGE = 4096;
const RW = 3;

const setUp = (options: Partial<HostOptions> = {}) => twoMms({ frames: 128, ...options });

const turns = () => new Promise((resolve) => setTimeout(resolve, 3));

/** Names and pages of the brackets of an mm, from now on. */
function record(mm: Mm): string[] {
  const events: string[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: (_sub, range) => {
      const pages = [...range.ranges.subarray(0, 2 * range.nrRanges)].map((vpn) => vpn - 0x10000);
      events.push(`${MMU_NOTIFY_NAMES[range.event]} ${pages.join(' ')}`);
    },
  });
  return events;
}

async function code(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'ok',
    (error) => error.code,
  );
}

test('N15: after cleaning nobody has the right to write, external writers included; their next write faults, and is written again', async () => {
  const { host, mm, other } = setUp();
  const store = new FaultyStore(fill(4 * PAGE, 0));
  const file = host.openFile(store);
  const [a, b] = [mm.mmap(0, 4 * PAGE, RW, MAP_SHARED, file), other.mmap(0, 4 * PAGE, RW, MAP_SHARED, file)];
  const [da, db] = [new TestDriver(mm), new TestDriver(other)];
  await da.store(a, 1);
  await db.store(b + 1, 2);
  await da.load(a + PAGE);
  await file.fsync();
  expect([...store.inner.contents().subarray(0, 2)]).toEqual([1, 2]);
  expect([da.access(a, true), db.access(b + 1, true), da.access(a, false)]).toEqual([undefined, undefined, undefined]);
  expect(da.access(a + PAGE, false)).toBeDefined();
  checkHost(host);
  expect(host.stats().nrDirty).toBe(0);
  await da.store(a, 3);
  expect(host.stats().nrDirty).toBe(1);
  expect(await db.load(b)).toBe(3);
  await file.fsync();
  expect(store.inner.contents()[0]).toBe(3);
  checkHost(host);
  await host.stop();
});

test('N15: cleaning brackets the pages that are writable, those of one mm together, and no others', async () => {
  const { host, mm, other } = setUp();
  const file = host.openFile(new MemoryStore({ sizeBytes: 8 * PAGE }));
  const [a, b] = [mm.mmap(0, 8 * PAGE, RW, MAP_SHARED, file), other.mmap(0, 8 * PAGE, RW, MAP_SHARED, file)];
  for (const p of [0, 1, 5]) await mm.write(a + p * PAGE, fill(1, 1));
  await byteAt(mm, a + 3 * PAGE);
  await other.write(b + 5 * PAGE, fill(1, 1));
  await byteAt(other, b);
  const [ea, eb] = [record(mm), record(other)];
  await file.fsync();
  expect([ea, eb]).toEqual([['PROTECTION_PAGE 0 2 5 6'], ['PROTECTION_PAGE 5 6']]);
  await file.fsync();
  expect([ea.length, eb.length]).toEqual([1, 1]);
  await host.stop();
});

test('N27: a page that is dirtied while it is written stays dirty, and is written again', async () => {
  const { host, mm } = setUp();
  const store = new FaultyStore(fill(PAGE, 0));
  const file = host.openFile(store);
  const va = mm.mmap(0, PAGE, RW, MAP_SHARED, file);
  await mm.write(va, fill(1, 1));
  store.held = true;
  const synced = file.fsync();
  await turns();
  expect(store.nrHeld).toBe(1);
  const pfn = mm.tryGetPage(va, FAULT_FLAG_WRITE);
  store.held = false;
  store.pump();
  await synced;
  host.u8[pfn * PAGE] = 2;
  mm.putPage(pfn);
  expect(host.stats()).toMatchObject({ nrDirty: 1, nrWriteback: 0 });
  checkHost(host);
  await file.fsync();
  expect(store.inner.contents()[0]).toBe(2);
  await host.stop();
});

test('a page under write-back that is dirty again is written again by an fsync that comes then', async () => {
  const { host } = setUp();
  const store = new FaultyStore(fill(PAGE, 0));
  const file = host.openFile(store);
  await file.write(fill(1, 1), 0);
  store.held = true;
  const first = file.fsync();
  await turns();
  await file.write(fill(1, 2), 0);
  const second = file.fsync();
  file.fadvise(POSIX_FADV_DONTNEED);
  await turns();
  expect(store.nrHeld).toBe(1);
  store.held = false;
  store.pump();
  await Promise.all([first, second]);
  expect([store.nrWrites, store.inner.contents()[0]]).toEqual([2, 2]);
  await host.stop();
});

test('a lost write is reported once to each opener, keeps the data, and the next fsync writes it', async () => {
  const { host } = setUp();
  const store = new FaultyStore(fill(2 * PAGE, 0));
  const [a, b] = [host.openFile(store), host.openFile(store)];
  await a.write(fill(PAGE, 1), 0);
  store.failWrites = 1;
  expect(await code(a.fsync())).toBe('EIO');
  expect(host.stats().nrDirty).toBe(1);
  checkHost(host);
  expect(await code(b.fdatasync())).toBe('EIO');
  expect([await code(a.fsync()), await code(b.fsync())]).toEqual(['ok', 'ok']);
  expect(store.inner.contents()[0]).toBe(1);
  // An error that somebody has seen is not for those who open later; one that nobody has seen is.
  const c = host.openFile(store);
  expect(await code(c.fsync())).toBe('ok');
  await c.write(fill(PAGE, 2), 0);
  store.failWrites = 1;
  store.code = 'ENOSPC';
  await host.sync();
  c.close();
  const d = host.openFile(store);
  expect([await code(d.fsync()), await code(d.fsync())]).toEqual(['ENOSPC', 'ok']);
  expect(await code(a.fsync())).toBe('ENOSPC');
  await host.stop();
});

test('msync and fsync of one opener share the report; a failed sync of the store is one too', async () => {
  const { host, mm } = setUp();
  const store = new FaultyStore(fill(2 * PAGE, 0));
  const file = host.openFile(store);
  const va = mm.mmap(0, 2 * PAGE, RW, MAP_SHARED, file);
  await mm.write(va, fill(1, 1));
  store.failWrites = 1;
  expect(await code(mm.msync(va, PAGE, MS_SYNC))).toBe('EIO');
  expect(await code(file.fsync())).toBe('ok');
  store.failSyncs = 1;
  expect(await code(file.fsync())).toBe('EIO');
  expect(await code(mm.msync(va, PAGE, MS_SYNC))).toBe('ok');
  await host.stop();
});

test('a short write is a lost write of the pages that it did not reach', async () => {
  const { host } = setUp();
  const store = new FaultyStore(fill(8 * PAGE, 0));
  const file = host.openFile(store);
  await file.write(fill(8 * PAGE, 1), 0);
  store.shortWrites = 1;
  expect(await code(file.fsync())).toBe('EIO');
  expect(host.stats().nrDirty).toBe(4);
  expect(await code(file.fsync())).toBe('ok');
  expect(store.inner.contents()).toEqual(fill(8 * PAGE, 1));
  checkHost(host);
  await host.stop();
});

test('msync: EINVAL, ENOMEM for holes with what lies behind them written, EBUSY for locked memory', async () => {
  const { host, mm } = setUp();
  const store = new MemoryStore({ sizeBytes: 4 * PAGE });
  const file = host.openFile(store);
  const va = mm.mmap(0, 4 * PAGE, RW, MAP_SHARED, file);
  mm.munmap(va + PAGE, PAGE);
  await mm.write(va + 3 * PAGE, fill(1, 5));
  expect(await code(mm.msync(va, PAGE, MS_ASYNC | MS_SYNC))).toBe('EINVAL');
  expect(await code(mm.msync(va, PAGE, 8))).toBe('EINVAL');
  expect(await code(mm.msync(va + 1, PAGE, MS_SYNC))).toBe('EINVAL');
  expect(await code(mm.msync(va, 0, MS_SYNC))).toBe('ok');
  expect(await code(mm.msync(va, 4 * PAGE, MS_SYNC))).toBe('ENOMEM');
  expect(store.contents()[3 * PAGE]).toBe(5);
  expect(await code(mm.msync(va, 4 * PAGE, MS_ASYNC))).toBe('ENOMEM');
  expect(await code(mm.msync(va, PAGE, MS_ASYNC))).toBe('ok');
  expect(await code(mm.msync(va + 2 * PAGE, 9 * PAGE, MS_SYNC))).toBe('ENOMEM');
  expect(await code(mm.msync(va, PAGE, MS_SYNC | MS_INVALIDATE))).toBe('ok');
  await mm.mlock(va, PAGE);
  expect(await code(mm.msync(va, PAGE, MS_SYNC | MS_INVALIDATE))).toBe('EBUSY');
  // A range may reach beyond the address space: what comes first in it tells.
  expect(await code(mm.msync(va, 2 ** 39, MS_INVALIDATE))).toBe('EBUSY');
  expect(await code(mm.msync(va, PAGE, MS_SYNC))).toBe('ok');
  expect(await code(mm.msync(2 ** 39 - PAGE, PAGE, MS_SYNC))).toBe('ENOMEM');
  await host.stop();
});

/** Writes pages one after the other: how many were written until it had to wait, and all of it. */
async function writeUntilWaits(file: File, nrPages: number): Promise<[number, Promise<void>]> {
  let nr = 0;
  const all = (async () => {
    for (; nr < nrPages; nr++) await file.write(fill(PAGE, 1), nr * PAGE);
  })();
  await Promise.race([all, turns()]);
  return [nr, all];
}

test('write-back begins at the background ratio, and a writer waits at the dirty ratio', async () => {
  const { host } = setUp({ frames: 256, dirtyRatio: 20, dirtyBackgroundRatio: 10 });
  const store = new FaultyStore(0);
  const file = host.openFile(store);
  for (let p = 0; p < 25; p++) await file.write(fill(PAGE, 1), p * PAGE);
  await turns();
  expect(store.nrWrites).toBe(0);
  for (let p = 0; p < 5; p++) await file.write(fill(PAGE, 1), p * PAGE + 30 * PAGE);
  await turns();
  expect(store.nrWrites).toBeGreaterThan(0);
  await file.fsync();
  store.held = true;
  const [nr, all] = await writeUntilWaits(file, 200);
  expect(nr).toBeGreaterThan(40);
  expect(nr).toBeLessThan(60);
  expect(host.vmstat.dirtyThrottled).toBe(1);
  store.held = false;
  store.pump();
  await all;
  await file.fsync();
  expect(store.inner.sizeBytes).toBe(200 * PAGE);
  checkHost(host);
  await host.stop();
});

test('a fault for writing waits at the dirty ratio too; a store that fails holds up nobody', async () => {
  const { host, mm } = setUp({ frames: 256 });
  const store = new FaultyStore(fill(200 * PAGE, 0));
  const file = host.openFile(store);
  const va = mm.mmap(0, 200 * PAGE, RW, MAP_SHARED, file);
  store.failWrites = 1e9;
  for (let p = 0; p < 100; p++) await mm.write(va + p * PAGE, fill(1, p));
  expect(host.vmstat.dirtyThrottled).toBeGreaterThan(10);
  // The flusher gives up, until somebody makes another page dirty.
  await host.pageCache.throttle.idle();
  checkHost(host);
  store.failWrites = 0;
  expect(await code(file.fsync())).toBe('EIO');
  expect(await code(file.fsync())).toBe('ok');
  for (let p = 0; p < 100; p++) expect(store.inner.contents()[p * PAGE]).toBe(p);
  await host.stop();
});

/** A clock that the test turns. */
function testTimer() {
  const due: (() => void)[] = [];
  return {
    setTimer: (fn: () => void) => {
      due.push(fn);
      return () => void due.splice(due.indexOf(fn), 1);
    },
    ring: () => {
      for (const fn of due.splice(0)) fn();
    },
  };
}

test('a store that never answers gives EIO to those who wait for it, and the others go on', async () => {
  const timer = testTimer();
  const { host, mm } = setUp({ setTimer: timer.setTimer });
  const [bad, good] = [new FaultyStore(fill(8 * PAGE, 1)), new FaultyStore(fill(8 * PAGE, 2))];
  const [file, fine] = [host.openFile(bad), host.openFile(good)];
  await file.write(fill(PAGE, 7), 0);
  const va = mm.mmap(0, 8 * PAGE, RW, MAP_SHARED, file);
  bad.held = true;
  const results = [
    code(file.fsync()),
    code(file.read(new Uint8Array(1), 5 * PAGE)),
    code(mm.faultIn(va + 6 * PAGE, 0)),
  ];
  await turns();
  timer.ring();
  expect(await Promise.all(results)).toEqual(['EIO', 'EIO', 'EIO']);
  // Who comes later need not wait again; what is in memory is there.
  expect(await code(file.read(new Uint8Array(1), 5 * PAGE))).toBe('EIO');
  expect(await code(file.truncate(0))).toBe('EIO');
  expect(await byteAt(mm, va)).toBe(7);
  await fine.write(fill(PAGE, 9), 0);
  expect(await code(fine.fsync())).toBe('ok');
  checkHost(host);
  bad.held = false;
  bad.pump();
  await turns();
  expect(await byteAt(mm, va + 5 * PAGE)).toBe(1);
  expect(await code(file.fsync())).toBe('ok');
  expect(bad.inner.contents()[0]).toBe(7);
  checkHost(host);
  await host.stop();
});

test('nonsense from a store is EIO: a throw, a number out of range, undefined', async () => {
  const { host } = setUp();
  for (const answer of [-1, 2 ** 40, 0.5, undefined, Number.NaN, 'all']) {
    const store = new (class extends MemoryStore {
      override async read(): Promise<number> {
        return answer as number;
      }
      override write(): Promise<number> {
        throw new Error('no');
      }
    })({ sizeBytes: 2 * PAGE });
    const file = host.openFile(store);
    expect(await code(file.read(new Uint8Array(1), 0))).toBe('EIO');
    await file.write(fill(PAGE, 1), 0);
    expect(await code(file.fsync())).toBe('EIO');
    checkHost(host);
  }
  expect(await code(host.stop())).toBe('EIO');
});

test('a read of several pages that fails is tried for the page that is wanted alone', async () => {
  const { host } = setUp();
  const store = new FaultyStore(fill(64 * PAGE, 3));
  const file = host.openFile(store);
  store.failReads = 1;
  expect(await file.read(new Uint8Array(1), 0)).toBe(1);
  store.failReads = 1;
  expect(await code(file.read(new Uint8Array(1), 30 * PAGE))).toBe('EIO');
  expect(await file.read(new Uint8Array(1), 30 * PAGE)).toBe(1);
  store.shortReads = 1;
  expect(await file.read(new Uint8Array(40 * PAGE), 0)).toBe(40 * PAGE);
  checkHost(host);
  await host.stop();
});

test('fsync of a large clean file does not look at its pages', async () => {
  const { host } = setUp({ frames: 2048 });
  const file = host.openFile(new MemoryStore({ sizeBytes: 1500 * PAGE }));
  await file.read(new Uint8Array(1500 * PAGE), 0);
  const { pages } = file.mapping;
  let looked = 0;
  const { get } = pages;
  pages.get = (index) => {
    looked++;
    return get.call(pages, index);
  };
  await file.fsync();
  expect(looked).toBe(0);
  await host.stop();
});
