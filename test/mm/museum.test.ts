import { expect, test } from 'vitest';
import {
  checkHost,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  MMU_NOTIFY_CLEAR,
  type Mm,
  type MmuNotifierRange,
  mmuNotifierRegister,
  mmuNotifierUnregister,
  VA_SIZE,
} from '../../src/mm/index.js';
import { PTE_WRITE } from '../../src/mm/pgtable/pte.js';
import { TestDriver } from './testdriver.js';

/** Bugs that others had (docs/contract.md, museum), and what holds for every bracket, on random operations. */

const PAGE = 4096;
const NR_PAGES = 96;
const NR_FRAMES = 64;

function setUp() {
  const swap = new MemorySwap({ sizeBytes: 2 ** 22 });
  const host = new Host({ frames: NR_FRAMES, arenaBytes: 65536, swap, debug: true });
  const mm = host.createMm();
  const va = mm.mmap(0, NR_PAGES * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  return { host, mm, va };
}

/** Numbers in [0, n), the same in each run. */
function random(seed: number): (n: number) => number {
  return (n) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
}

/** Opens a bracket over one page as an operation would. */
function openBracket(mm: Mm, va: number): void {
  mm.range.reset(MMU_NOTIFY_CLEAR, true);
  mm.range.add(va / PAGE, va / PAGE + 1);
  mm.notifiers.invalidateRangeStart(mm.range.seal());
}

/** Writes, reads, drops and evicts at random; blocking. */
function workload(mm: Mm, va: number, steps: number, seed = 1): void {
  const next = random(seed);
  const byte = new Uint8Array(1);
  for (let step = 0; step < steps; step++) {
    const at = va + next(NR_PAGES) * PAGE;
    const what = next(10);
    if (what < 6) mm.writeSync(at, new Uint8Array([step]));
    else if (what < 8) mm.readSync(at, byte);
    else if (what < 9) mm.madviseDontneed(at, PAGE * Math.min(1 + next(4), (va + NR_PAGES * PAGE - at) / PAGE));
    else mm.host.reclaim.shrink(true, true, next(2) === 0);
  }
}

function present(mm: Mm): Set<number> {
  const vpns = new Set<number>();
  mm.forEachPresent(0, VA_SIZE / PAGE, (vpn, pfn) => pfn !== mm.host.frames.zeroPfn && vpns.add(vpn));
  return vpns;
}

function pagesOf(range: MmuNotifierRange): number[] {
  const vpns: number[] = [];
  for (let i = 0; i < range.nrRanges; i++) {
    for (let vpn = range.ranges[2 * i]!; vpn < range.ranges[2 * i + 1]!; vpn++) vpns.push(vpn);
  }
  return vpns;
}

test('S13: with a driver or without one, ptes, frames and counters go through the same states', () => {
  const run = (withDriver: boolean) => {
    const { host, mm, va } = setUp();
    if (withDriver) new TestDriver(mm);
    const states: unknown[] = [];
    for (let round = 0; round < 20; round++) {
      workload(mm, va, 50, round);
      const { brackets, notifierCalls, ...counters } = host.vmstat;
      const ptes = Array.from({ length: NR_PAGES }, (_, p) => mm.pageTable.get(va / PAGE + p));
      states.push({ ptes, counters, flags: [...host.frames.flags], refcount: [...host.frames.refcount] });
    }
    expect(host.vmstat.pswpin).toBeGreaterThan(0);
    return states;
  };
  expect(run(true)).toEqual(run(false));
});

test('N10: each bracket reaches the subscriptions that it touches, and no others', () => {
  const { host, mm, va } = setUp();
  const next = random(3);
  let called: number[] = [];
  let pages: number[] = [];
  const ranges = Array.from({ length: 40 }, (_, i) => {
    const start = va / PAGE + next(NR_PAGES);
    const end = start + 1 + next(8);
    mmuNotifierRegister(mm, start * PAGE, end * PAGE, { invalidateRangeStart: () => void called.push(i) });
    return { i, start, end };
  });
  mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart: (_sub, range) => void (pages = pagesOf(range)) });
  const expectReached = () => {
    const touched = ranges.filter((r) => pages.some((vpn) => r.start <= vpn && vpn < r.end));
    expect(called.sort((a, b) => a - b)).toEqual(touched.map((r) => r.i));
    called = [];
  };
  for (let round = 0; round < 100; round++) {
    mm.madviseDontneed(va + next(NR_PAGES - 4) * PAGE, (1 + next(4)) * PAGE);
    expectReached();
    // Pages apart from each other: a bracket of several ranges.
    for (let i = 0; i < 3; i++) mm.writeSync(va + next(NR_PAGES) * PAGE, new Uint8Array([round]));
    host.reclaim.shrink(true, true, true);
    expectReached();
  }
});

test('M3: a driver with start and no seq maps the dying page again; with seq it does not', () => {
  const { host, mm, va } = setUp();
  mm.writeSync(va, new Uint8Array([1]));
  const driver = new TestDriver(mm);
  let naive = 0;
  // Called after the driver, with the pte still there: what another thread's fault would do in that gap.
  mmuNotifierRegister(mm, PAGE, VA_SIZE, {
    invalidateRangeStart: () => {
      driver.tryFault(va, false);
      naive = mm.tryGetPage(va, 0);
      mm.putPage(naive);
    },
  });
  mm.madviseDontneed(va, PAGE);
  expect(driver.table.size).toBe(0);
  expect(naive).toBeGreaterThan(0);
  expect(host.frames.refcount[naive], 'what it mapped is free').toBe(0);
});

test('M6: a driver whose start came before a refusal can install again at once', () => {
  const { host, mm, va } = setUp();
  mm.writeSync(va, new Uint8Array([1]));
  const driver = new TestDriver(mm);
  const refuser = new TestDriver(mm, PAGE);
  refuser.refuse = true;
  expect(host.reclaim.shrink(false, true, true)).toBe(0);
  expect([driver.nrStarts, driver.nrEnds, driver.seq.inProgress]).toEqual([1, 1, 0]);
  expect(driver.tryFault(va, false)).toBeGreaterThan(0);
  expect(driver.table.size).toBe(1);
});

test('M7: a subscription is not removed while an invalidation runs, and gets its end', () => {
  const { mm, va } = setUp();
  const driver = new TestDriver(mm);
  openBracket(mm, va);
  expect(() => driver.unregister()).toThrow(/EBUSY/);
  expect([driver.sub.registered, driver.nrReleases]).toEqual([true, 0]);
  mm.notifiers.invalidateRangeEnd(mm.range);
  expect([driver.nrStarts, driver.nrEnds]).toEqual([1, 1]);
  driver.unregister();
  expect([driver.sub.registered, driver.nrReleases]).toEqual([false, 1]);
});

test('M12: the very first subscription is heard from the next bracket on, with no end of an older one', () => {
  const { mm, va } = setUp();
  const log: string[] = [];
  openBracket(mm, va);
  mmuNotifierRegister(mm, va, va + PAGE, {
    invalidateRangeStart: () => void log.push('start'),
    invalidateRangeEnd: () => void log.push('end'),
  });
  mm.notifiers.invalidateRangeEnd(mm.range);
  expect(log).toEqual([]);
  mm.madviseDontneed(va, PAGE);
  expect(log).toEqual(['start', 'end']);
});

test('N10 M12: one that comes when another has gone is heard, and so is who was there', () => {
  const { mm, va } = setUp();
  const called: string[] = [];
  const register = (name: string, page: number) =>
    mmuNotifierRegister(mm, va + page * PAGE, va + (page + 1) * PAGE, {
      invalidateRangeStart: () => void called.push(name),
    });
  const first = register('first', 0);
  register('second', 1);
  mmuNotifierUnregister(first);
  register('third', 2);
  for (let page = 0; page < 3; page++) mm.madviseDontneed(va + page * PAGE, PAGE);
  expect(called).toEqual(['second', 'third']);
});

test('M13: a driver that will not be hurried keeps its own pages, and kswapd takes those of others', () => {
  const { host, mm, va } = setUp();
  const other = host.createMm();
  const otherVa = other.mmap(0, 8 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  for (let p = 0; p < 8; p++) {
    mm.writeSync(va + p * PAGE, new Uint8Array([1]));
    other.writeSync(otherVa + p * PAGE, new Uint8Array([2]));
  }
  const slow = new TestDriver(mm);
  slow.refuse = true;
  for (let pass = 0; pass < 4; pass++) host.reclaim.shrink(false, true, true);
  expect([mm.residentPages, other.residentPages]).toEqual([8, 0]);
  expect(slow.sub.poisoned).toBeUndefined();
  checkHost(host);
});

test('M14: no op of a subscription is silent: each is called by something', () => {
  const { host, mm, va } = setUp();
  const area = mm.mmap(0, PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: () => {},
    invalidateRangeEnd: () => {},
    clearFlushYoung: () => false,
    clearYoung: () => false,
    testYoung: () => false,
    release: () => {},
    mmapLock: () => {},
    mmapUnlock: () => {},
  });
  mmuNotifierRegister(mm, area, area + PAGE, { areaClosed: () => {} });
  mm.writeSync(va, new Uint8Array([1]));
  host.pageIdle.setIdleMm(mm);
  host.young.testAndClear(mm.pagemap(va, 1)[0]!.pfn);
  mm.smaps();
  host.reclaim.shrink(true, true, false);
  mm.exit();
  const silent = Object.entries(host.vmstat.notifierCalls).filter(([, nr]) => nr === 0);
  expect(silent).toEqual([]);
});

test('M15: a callback that sleeps is found when it returns its promise', () => {
  const { mm, va } = setUp();
  const sub = mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeEnd: async () => {} });
  mm.madviseDontneed(va, PAGE);
  expect(sub.poisoned).toMatch(/invalidateRangeEnd returned a promise/);
});

test('M18: a right that was raised is there after one more fault, and nobody is notified', () => {
  const { host, mm, va } = setUp();
  mm.writeSync(va, new Uint8Array([1]));
  host.reclaim.shrink(true, true, true);
  mm.readSync(va, new Uint8Array(1));
  const driver = new TestDriver(mm);
  expect(driver.tryFault(va, false)).toBeGreaterThan(0);
  expect(driver.access(va, true)).toBeUndefined();
  expect(driver.tryFault(va, true)).toBeGreaterThan(0);
  expect(driver.access(va, true)).toBeDefined();
  expect(driver.nrStarts).toBe(0);
  // And in the pte: who asks next finds it without a fault.
  const { pgfault } = host.vmstat;
  mm.writeSync(va, new Uint8Array([2]));
  expect([(mm.pageTable.get(va / PAGE) & PTE_WRITE) !== 0, host.vmstat.pgfault]).toEqual([true, pgfault]);
});

test('M19 M20: what goes is in the ranges of its bracket, which are never empty, sorted, and inside their hull', () => {
  const { mm, va } = setUp();
  let before = new Set<number>();
  let nrGone = 0;
  const sub = mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: () => void (before = present(mm)),
    invalidateRangeEnd: (_sub, range) => {
      const pages = pagesOf(range);
      expect(pages.length).toBeGreaterThan(0);
      expect(pages).toEqual([...new Set(pages)].sort((a, b) => a - b));
      expect([range.start, range.end]).toEqual([pages[0]! * PAGE, (pages.at(-1)! + 1) * PAGE]);
      const after = present(mm);
      const gone = [...before].filter((vpn) => !after.has(vpn));
      expect(pages).toEqual(expect.arrayContaining(gone));
      nrGone += gone.length;
    },
  });
  workload(mm, va, 600, 7);
  // What is not as expected in a callback poisons.
  expect(sub.poisoned).toBeUndefined();
  expect(nrGone).toBeGreaterThan(100);
  expect(mm.residentPages).toBe(present(mm).size);
});

test('the same driver may come again after it went', () => {
  const { mm, va } = setUp();
  for (let i = 0; i < 3; i++) {
    const driver = new TestDriver(mm);
    mm.writeSync(va, new Uint8Array([i]));
    mm.madviseDontneed(va, PAGE);
    expect([driver.nrStarts, driver.nrEnds]).toEqual([1, 1]);
    mmuNotifierUnregister(driver.sub);
  }
});
