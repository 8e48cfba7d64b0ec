import { expect, test } from 'vitest';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  FAULT_RETRY,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  MemoryStore,
  MemorySwap,
  MMU_NOTIFY_NAMES,
  type Mm,
  mmuNotifierRegister,
  VA_SIZE,
} from '../../src/mm/index.js';
import { PG_SWAPCACHE } from '../../src/mm/page/frames.js';
import { FaultyStore } from './faultystore.js';
import { TestDriver } from './testdriver.js';

const PAGE = 4096;
const NR_PAGES = 40;

function setUp() {
  const swap = new MemorySwap({ sizeBytes: 2 ** 22 });
  // Pages of one value repeated take slots too.
  const host = new Host({ frames: 64, arenaBytes: 65536, swap, sameFilled: false, debug: true });
  const mm = host.createMm();
  const va = mm.mmap(0, NR_PAGES * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  return { host, mm, va };
}

const write = (mm: Mm, va: number, value: number) => mm.writeSync(va, new Uint8Array(PAGE).fill(value));

function read(mm: Mm, va: number): number {
  const byte = new Uint8Array(1);
  mm.readSync(va + 100, byte);
  return byte[0]!;
}

function pfnOf(mm: Mm, va: number): number {
  const pfn = mm.tryGetPage(va, 0);
  mm.putPage(pfn);
  return pfn;
}

/** Moves the page at `va` to a new frame. */
function migrate(host: Host, mm: Mm, va: number, blockable = true): { from: number; to: number; nrMoved: number } {
  const from = pfnOf(mm, va);
  const to = host.frames.alloc(0);
  return { from, to, nrMoved: host.migration.migrate([from], [to], blockable) };
}

test('N22: a page moves: one CLEAR bracket of one page for each mm that maps it, and contents, rights and counts stay', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 7);
  const child = mm.fork();
  const events: unknown[] = [];
  for (const [name, m] of [
    ['parent', mm],
    ['child', child],
  ] as const) {
    mmuNotifierRegister(m, 0, VA_SIZE, {
      invalidateRangeStart: (_sub, r) =>
        void events.push([name, MMU_NOTIFY_NAMES[r.event], r.start - va, r.end - r.start]),
      invalidateRangeEnd: () => void events.push([name, 'end']),
    });
  }
  const { from, to, nrMoved } = migrate(host, mm, va);
  expect(nrMoved).toBe(1);
  expect(events).toEqual([
    ['parent', 'CLEAR', 0, PAGE],
    ['child', 'CLEAR', 0, PAGE],
    ['parent', 'end'],
    ['child', 'end'],
  ]);
  expect([pfnOf(mm, va), pfnOf(child, va), host.frames.isFree(from)]).toEqual([to, to, true]);
  checkHost(host);
  expect([read(mm, va), read(child, va)]).toEqual([7, 7]);
});

test('M23 M27: an external writer loses its entry, writes again to the new frame, and no write is lost when it is swapped out', async () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  driver.tryFault(va, true);
  host.u8[driver.access(va, true)! + 100] = 1;
  migrate(host, mm, va);
  expect(driver.access(va, false)).toBeUndefined();
  checkHost(host);
  driver.tryFault(va, true);
  host.u8[driver.access(va, true)! + 100]! += 1;
  host.reclaim.shrink(true, true, true);
  host.reclaim.shrink(true, true, true);
  expect(mm.residentPages).toBe(0);
  expect(read(mm, va)).toBe(2);
});

test('M27: a page that was written before it moved, and by nobody after, is not dropped as clean', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 9);
  migrate(host, mm, va);
  host.reclaim.shrink(true, true, true);
  expect(mm.residentPages).toBe(0);
  expect(read(mm, va)).toBe(9);
});

test('N22: while the page is on its way, an external fault waits and installs nothing', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  const driver = new TestDriver(mm);
  const inside: unknown[] = [];
  const { copy } = host.pageOps;
  Object.defineProperty(host, 'pageOps', {
    value: {
      ...host.pageOps,
      copy: (dst: number, src: number) => {
        inside.push(mm.tryGetPage(va, 0), mm.tryGetPage(va, FAULT_FLAG_WRITE), driver.access(va, false));
        copy(dst, src);
      },
    },
  });
  migrate(host, mm, va);
  expect(inside).toEqual([FAULT_RETRY, FAULT_RETRY, undefined]);
  expect(read(mm, va)).toBe(1);
});

test('N12: a driver that refuses keeps its page where it is; one that is held stays as well', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  const driver = new TestDriver(mm);
  driver.refuse = true;
  const { from, to, nrMoved } = migrate(host, mm, va, false);
  expect([nrMoved, pfnOf(mm, va), host.frames.isFree(to)]).toEqual([0, from, true]);
  checkHost(host);
  driver.refuse = false;
  const held = mm.tryGetPage(va, 0);
  expect(migrate(host, mm, va).nrMoved).toBe(0);
  mm.putPage(held);
  expect(migrate(host, mm, va).nrMoved).toBe(1);
  expect([host.vmstat.pgmigrate_success, host.vmstat.pgmigrate_fail]).toEqual([1, 2]);
  checkHost(host);
});

test('N22: a locked page moves and stays locked; one in the swap cache keeps its slot', async () => {
  const { host, mm, va } = setUp();
  await mm.mlock(va, PAGE);
  write(mm, va + PAGE, 3);
  host.reclaim.shrink(true, true, true);
  expect(read(mm, va + PAGE)).toBe(3);
  expect(host.frames.flags[pfnOf(mm, va + PAGE)]! & PG_SWAPCACHE).not.toBe(0);
  expect(migrate(host, mm, va).nrMoved).toBe(1);
  expect(migrate(host, mm, va + PAGE).nrMoved).toBe(1);
  expect(host.nrMlocked).toBe(1);
  checkHost(host);
  const before = host.vmstat.pswpout;
  host.reclaim.shrink(true, true, true);
  expect([host.vmstat.pswpout - before, mm.residentPages]).toEqual([0, 1]);
  expect(read(mm, va + PAGE)).toBe(3);
});

test('compaction leaves what is free in one run, and every page what it was', () => {
  const { host, mm, va } = setUp();
  for (let k = 0; k < NR_PAGES; k++) write(mm, va + k * PAGE, k + 1);
  for (let k = 0; k < NR_PAGES; k += 2) mm.madviseDontneed(va + k * PAGE, PAGE);
  const held = mm.tryGetPage(va + PAGE, 0);
  const result = host.compact();
  expect(result.nrFailed).toBe(0);
  expect(result.nrMigrated).toBeGreaterThan(5);
  expect(result.longestFreeRun).toBeGreaterThanOrEqual(64 - NR_PAGES / 2 - 1);
  expect(pfnOf(mm, va + PAGE)).toBe(held);
  mm.putPage(held);
  checkHost(host);
  for (let k = 0; k < NR_PAGES; k++) expect(read(mm, va + k * PAGE)).toBe(k % 2 === 0 ? 0 : k + 1);
  expect(host.compact().longestFreeRun).toBe(64 - NR_PAGES / 2);
});

test('compaction of more than one batch; refused by a driver, everything stays, and what was free is free', () => {
  const host = new Host({ frames: 512, arenaBytes: 65536, debug: true });
  const mm = host.createMm();
  const va = mm.mmap(0, 400 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  for (let k = 0; k < 400; k++) write(mm, va + k * PAGE, (k % 255) + 1);
  mm.madviseDontneed(va, 200 * PAGE);
  const driver = new TestDriver(mm);
  driver.refuse = true;
  const before = pfnOf(mm, va + 399 * PAGE);
  expect(host.compact(false).nrMigrated).toBe(0);
  expect([pfnOf(mm, va + 399 * PAGE), host.frames.nrFree]).toEqual([before, 312]);
  checkHost(host);
  const result = host.compact();
  expect(result.nrMigrated).toBeGreaterThan(100);
  expect(result.longestFreeRun).toBe(312);
  checkHost(host);
  for (let k = 200; k < 400; k++) expect(read(mm, va + k * PAGE)).toBe((k % 255) + 1);
});

test('N22: pages of files and of shared memory move as well, dirty ones too, under the ptes of all who map them', async () => {
  const { host, mm } = setUp();
  const store = new MemoryStore({ contents: new Uint8Array(4 * PAGE).fill(7) });
  const file = host.openFile(store);
  const va = mm.mmap(0, 4 * PAGE, 3, MAP_SHARED, file);
  const copy = mm.mmap(0, 4 * PAGE, 3, MAP_PRIVATE, file);
  const shm = mm.mmap(0, 4 * PAGE, 3, MAP_SHARED | MAP_ANONYMOUS);
  for (let k = 0; k < 4; k++) {
    await mm.faultIn(va + k * PAGE, 0);
    await mm.faultIn(copy + k * PAGE, 0);
  }
  write(mm, va + PAGE, 1);
  write(mm, copy + 2 * PAGE, 2);
  write(mm, shm + 3 * PAGE, 3);
  const child = mm.fork();
  for (const at of [va, va + PAGE, copy + 2 * PAGE, copy + 3 * PAGE, shm + 3 * PAGE]) {
    expect(migrate(host, mm, at).nrMoved).toBe(1);
    checkHost(host);
  }
  for (const m of [mm, child]) {
    expect([0, 1, 2, 3].map((k) => read(m, va + k * PAGE))).toEqual([7, 1, 7, 7]);
    expect([0, 1, 2, 3].map((k) => read(m, copy + k * PAGE))).toEqual([7, 1, 2, 7]);
    expect(read(m, shm + 3 * PAGE)).toBe(3);
  }
  write(child, va, 9);
  expect(read(mm, va)).toBe(9);
  await file.fsync();
  const bytes = new Uint8Array(1);
  await store.read(PAGE, [bytes]);
  expect(bytes[0]).toBe(1);
  checkHost(host);
});

test('N22: a page of a file that is being written stays where it is', async () => {
  const { host, mm } = setUp();
  const store = new FaultyStore(PAGE);
  const file = host.openFile(store, { mode: 'rw' });
  const va = mm.mmap(0, PAGE, 3, MAP_SHARED, file);
  await mm.write(va, new Uint8Array([5]));
  store.held = true;
  const writing = file.fsync();
  while (store.nrHeld === 0) await new Promise((resolve) => setImmediate(resolve));
  const { from, nrMoved } = migrate(host, mm, va);
  expect([nrMoved, pfnOf(mm, va)]).toEqual([0, from]);
  store.held = false;
  store.pump();
  await writing;
  expect(migrate(host, mm, va).nrMoved).toBe(1);
  checkHost(host);
});

test('N19 N22: a page that a poisoned driver may be using stays where it is', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  const sub = mmuNotifierRegister(mm, va, va + PAGE, {
    invalidateRangeStart: () => {
      throw new Error('oops');
    },
  });
  const { from, to, nrMoved } = migrate(host, mm, va);
  expect(sub.poisoned).toBeDefined();
  expect([nrMoved, pfnOf(mm, va), host.frames.isFree(to)]).toEqual([0, from, true]);
  expect(migrate(host, mm, va).nrMoved).toBe(0);
  checkHost(host);
});
