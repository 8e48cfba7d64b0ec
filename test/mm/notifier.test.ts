import { expect, test } from 'vitest';
import {
  checkHost,
  Host,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MemorySwap,
  MMU_NOTIFY_CLEAR,
  MMU_NOTIFY_UNMAP,
  type Mm,
  type MmuNotifierOps,
  mmuNotifierRegister,
  mmuNotifierUnregister,
  RangeList,
  VA_SIZE,
} from '../../src/mm/index.js';
import { TestDriver } from './testdriver.js';

const PAGE = 4096;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;

function setUp() {
  const host = new Host({ frames: 64, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 2 ** 22 }), debug: true });
  const mm = host.createMm();
  const va = mm.mmap(0, 32 * PAGE, 3, ANON);
  return { host, mm, va };
}

/** Writes a byte to the first `nr` pages. */
async function touch(mm: Mm, va: number, nr: number): Promise<void> {
  for (let p = 0; p < nr; p++) await mm.write(va + p * PAGE, new Uint8Array([p + 1]));
}

/** Subscribes a recorder. `log` gets a line a call. */
function record(mm: Mm, start = 0, end = VA_SIZE, more: Partial<MmuNotifierOps> = {}) {
  const log: string[] = [];
  const sub = mmuNotifierRegister(mm, start, end, {
    invalidateRangeStart: (_s, r) => {
      log.push(`start ${[...r.ranges.subarray(0, 2 * r.nrRanges)].map((vpn) => vpn - start / PAGE).join(' ')}`);
    },
    invalidateRangeEnd: () => void log.push('end'),
    release: () => void log.push('release'),
    ...more,
  });
  return { log, sub };
}

test('N1 N2: at start every page is mapped and referenced; at end the ptes are gone and no frame is free yet', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 4);
  const pfns: number[] = [];
  const seen: unknown[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: (_s, r) => {
      mm.forEachPresent(r.ranges[0]!, r.ranges[1]!, (_vpn, pfn) => pfns.push(pfn));
      seen.push(pfns.every((pfn) => host.frames.refcount[pfn]! > 0 && host.u8[pfn * PAGE] !== 0x6b));
    },
    invalidateRangeEnd: (_s, r) => {
      let present = 0;
      mm.forEachPresent(r.ranges[0]!, r.ranges[1]!, () => present++);
      seen.push(present, host.frames.nrFree);
    },
  });
  mm.munmap(va, 4 * PAGE);
  expect(pfns.length).toBe(4);
  expect(seen).toEqual([true, 0, 60]);
  expect(host.frames.nrFree).toBe(64);
});

test('N4 N6: reclaim frees a frame only after the bracket, and its mapcount drops inside', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 4);
  const seen: number[][] = [];
  const mapped = () => host.frames.mapcount.reduce((sum, n) => sum + n, 0);
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: () => void seen.push([mapped(), host.frames.nrFree]),
    invalidateRangeEnd: () => void seen.push([mapped(), host.frames.nrFree]),
  });
  host.reclaim.shrink(true, true, true);
  expect(seen).toEqual([
    [4, 60],
    [0, 60],
  ]);
  expect(host.frames.nrFree).toBe(64);
});

test('N4 M22: DONTNEED frees the frames after the bracket', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 4);
  const free: number[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeEnd: () => void free.push(host.frames.nrFree) });
  mm.madviseDontneed(va, 2 * PAGE);
  mm.madviseDontneed(va + 3 * PAGE, PAGE);
  expect([...free, host.frames.nrFree]).toEqual([60, 62, 63]);
});

test('N11: the pages of a bracket are sorted and joined, however many they are and in whatever order they come', () => {
  const range = new RangeList(setUp().mm);
  const sealed = (pairs: readonly (readonly [number, number])[]) => {
    range.reset(MMU_NOTIFY_CLEAR, true);
    for (const [start, end] of pairs) range.add(start, end);
    const { ranges, nrRanges } = range.seal();
    return Array.from({ length: nrRanges }, (_, i) => [ranges[2 * i], ranges[2 * i + 1]]);
  };
  const mixed = [
    [50, 60],
    [10, 20],
    [15, 30],
    [30, 31],
    [55, 58],
    [5, 8],
  ] as const;
  expect(sealed(mixed)).toEqual([
    [5, 8],
    [10, 31],
    [50, 60],
  ]);
  expect([range.start, range.end]).toEqual([5 * PAGE, 60 * PAGE]);
  const many = Array.from({ length: 40 }, (_, k) => [2 * k, 2 * k + 1] as const);
  expect(sealed(many)).toEqual(many);
  expect(sealed([...many].reverse())).toEqual(many);
});

test('N11: a batch of reclaim is one bracket for each mm, with its pages as sorted ranges', async () => {
  const { host, mm, va } = setUp();
  const { log } = record(mm, va, va + 32 * PAGE);
  for (const p of [6, 5, 2, 0, 1]) await touch(mm, va + p * PAGE, 1);
  host.reclaim.shrink(true, true, true);
  expect(log).toEqual(['start 0 3 5 7', 'end']);
  expect(host.vmstat.brackets).toBe(1);
});

test('N21: faults from none to present, split, merge and mlock call nobody', async () => {
  const { mm, va } = setUp();
  const { log } = record(mm);
  await touch(mm, va, 8);
  await mm.mlock(va, 4 * PAGE);
  mm.munlock(va, 4 * PAGE);
  mm.mmap(va + 32 * PAGE, PAGE, 3, ANON | MAP_FIXED);
  expect(log).toEqual([]);
});

test('S4: munmap, a fixed mapping and exit say UNMAP, DONTNEED and reclaim CLEAR', async () => {
  const { host, mm, va } = setUp();
  const events: number[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart: (_s, r) => void events.push(r.event) });
  await touch(mm, va, 8);
  mm.munmap(va, PAGE);
  mm.mmap(va + PAGE, PAGE, 3, ANON | MAP_FIXED);
  mm.madviseDontneed(va + 2 * PAGE, PAGE);
  host.reclaim.shrink(true, true, true);
  mm.exit();
  expect(events).toEqual([MMU_NOTIFY_UNMAP, MMU_NOTIFY_UNMAP, MMU_NOTIFY_CLEAR, MMU_NOTIFY_CLEAR, MMU_NOTIFY_UNMAP]);
});

test('M4 N11: the range is that of the pages, not of their VMA; only whom it concerns is called', async () => {
  const { mm, va } = setUp();
  const left = record(mm, va, va + 16 * PAGE);
  const right = record(mm, va + 16 * PAGE, va + 32 * PAGE);
  await touch(mm, va, 32);
  mm.madviseDontneed(va + 3 * PAGE, 2 * PAGE);
  expect([left.log, right.log]).toEqual([['start 3 5', 'end'], []]);
  mm.munmap(va + 15 * PAGE, 2 * PAGE);
  expect(right.log).toEqual(['start -1 1', 'end']);
});

test('N3 N8: what was looked up before a bracket or inside it is not installed', async () => {
  const { mm, va } = setUp();
  const driver = new TestDriver(mm);
  await driver.store(va, 5);
  const before = driver.seq.readBegin();
  mm.madviseDontneed(va, PAGE);
  expect(driver.seq.readRetry(before, va)).toBe(true);
  const inside: boolean[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeEnd: () =>
      void inside.push(driver.seq.readRetry(driver.seq.readBegin(), va), driver.seq.inProgress === 1),
  });
  await driver.store(va, 6);
  // Subscriptions are called in the order of their ranges' starts, so the driver's own end may come first or last.
  const seq = driver.seq.readBegin();
  mm.madviseDontneed(va, PAGE);
  expect(driver.seq.readRetry(seq, va)).toBe(true);
  expect(driver.table.size).toBe(0);
  expect(await driver.load(va)).toBe(0);
});

test('N7: brackets of one mm nest, each end goes with its start', () => {
  const { mm, va } = setUp();
  const driver = new TestDriver(mm);
  const vpn = va / PAGE;
  const outer = mm.range;
  outer.reset(MMU_NOTIFY_CLEAR, true);
  outer.add(vpn, vpn + 1);
  mm.notifiers.invalidateRangeStart(outer.seal());
  const inner = Object.assign(Object.create(Object.getPrototypeOf(outer)), outer, {
    begun: [],
    ranges: new Int32Array(4),
  });
  inner.reset(MMU_NOTIFY_CLEAR, true);
  inner.add(vpn + 4, vpn + 5);
  mm.notifiers.invalidateRangeStart(inner.seal());
  expect(driver.seq.inProgress).toBe(2);
  const seq = driver.seq.readBegin();
  expect([0, 2, 4, 5].map((p) => driver.seq.readRetry(seq, va + p * PAGE))).toEqual([true, true, true, false]);
  mm.notifiers.invalidateRangeEnd(outer);
  expect(driver.seq.inProgress).toBe(1);
  mm.notifiers.invalidateRangeEnd(inner);
  expect([driver.seq.inProgress, driver.nrStarts, driver.nrEnds]).toEqual([0, 2, 2]);
  expect(mm.notifiers.inBracket).toBe(false);
});

test('N8: brackets that overlap hold up the hull of their ranges, and every page that a byte of them is in', () => {
  const { mm } = setUp();
  const { seq } = new TestDriver(mm);
  const held = () => [0, 1, 2, 3, 4, 5, 6].filter((page) => seq.readRetry(seq.readBegin(), page * PAGE));
  seq.begin(3 * PAGE + 100, 3 * PAGE + 101);
  expect(held()).toEqual([3]);
  seq.begin(5 * PAGE, 5 * PAGE + 1);
  expect(held()).toEqual([3, 4, 5]);
  seq.begin(PAGE, 2 * PAGE);
  expect(held()).toEqual([1, 2, 3, 4, 5]);
  seq.end();
  seq.end();
  expect(held()).toEqual([1, 2, 3, 4, 5]);
  seq.end();
  expect(held()).toEqual([]);
});

test('N12 M5: one refuses a non-blocking bracket: the others are ended, no pte is touched, kswapd goes on elsewhere', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 8);
  const early = record(mm, 0);
  const refuser = new TestDriver(mm, va);
  refuser.refuse = true;
  const late = record(mm, va + PAGE);
  await touch(mm, va, 8);
  expect(host.reclaim.shrink(false, true, true)).toBe(0);
  expect([early.log.length, early.log.at(-1), refuser.nrStarts, refuser.nrEnds, late.log]).toEqual([
    2,
    'end',
    0,
    0,
    [],
  ]);
  expect(host.vmstat.refusals).toBe(1);
  expect(mm.residentPages).toBe(8);
  expect(host.stats().swapSlotsUsed).toBe(0);
  checkHost(host);
  expect(host.reclaim.shrink(true, true, true)).toBe(8);
  expect([refuser.nrStarts, refuser.nrEnds]).toEqual([1, 1]);
  expect(refuser.sub.poisoned).toBeUndefined();
});

test.each([-5, 1, true, 'no'])(
  'N12: in a bracket that must not block, a start that returns %j is no refusal, and poisons',
  async (result) => {
    const { host, mm, va } = setUp();
    await touch(mm, va, 2);
    const invalidateRangeStart = () => result as number;
    const sub = mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart });
    host.reclaim.shrink(false, true, true);
    expect(sub.poisoned).toBe(`invalidateRangeStart returned ${result} instead of 0 or -EAGAIN`);
    expect(host.vmstat.refusals).toBe(0);
    checkHost(host);
  },
);

test('N12: what a driver has refused once stands in nobody’s way afterwards', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 1);
  const child = mm.fork();
  const driver = new TestDriver(child);
  driver.refuse = true;
  expect(host.reclaim.shrink(false, true, true)).toBe(0);
  expect(host.vmstat.refusals).toBe(1);
  // Its mm maps the page no more, though the reverse map still leads to its VMA.
  child.madviseDontneed(va, PAGE);
  expect(host.reclaim.shrink(false, true, true)).toBe(1);
  expect(mm.residentPages).toBe(0);
  checkHost(host);
});

test('N13: a callback that calls into its mm is poisoned by it, and the operation goes on', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 2);
  const { sub } = record(mm, 0, VA_SIZE, { invalidateRangeStart: () => mm.munmap(va + PAGE, PAGE) });
  mm.munmap(va, PAGE);
  expect(sub.poisoned).toMatch(
    /N13: callback invalidateRangeStart takes mmapLock\ncallback at: .*\nmmapLock at: .*test\/mm\/notifier.test.ts/,
  );
  expect(mm.findVma(va)).toBeUndefined();
  expect(mm.findVma(va + PAGE)).toBeDefined();
  checkHost(host);
});

test('N14: external use keeps a page from being reclaimed', async () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  await touch(mm, va, 8);
  for (let p = 0; p < 8; p++) await driver.load(va + p * PAGE);
  host.reclaim.shrink(true, true, false);
  for (let p = 0; p < 2; p++) driver.access(va + p * PAGE, false);
  const seq = driver.seq.readBegin();
  for (let round = 0; round < 3; round++) {
    host.reclaim.shrink(true, true, false);
    for (let p = 0; p < 2; p++) driver.access(va + p * PAGE, false);
  }
  expect([...driver.table.keys()].map((vpn) => vpn - va / PAGE)).toEqual([0, 1]);
  expect(driver.seq.readBegin()).toBeGreaterThan(seq);
  expect(host.vmstat.notifierCalls.clearFlushYoung).toBeGreaterThan(8);
});

test('N16: registration takes mmapLock, and is refused from a callback and in an open bracket', async () => {
  const { mm, va } = setUp();
  const errors: unknown[] = [];
  const held: boolean[] = [];
  const first = record(mm, 0, VA_SIZE, {
    invalidateRangeStart: () => {
      try {
        mm.notifiers.register(0, PAGE, {}, {});
      } catch (error) {
        errors.push((error as { code: string }).code);
      }
    },
    mmapLock: () => void held.push(mm.mmapLock.held),
  });
  await touch(mm, va, 1);
  held.length = 0;
  record(mm, va, va + PAGE);
  expect(held).toEqual([false]);
  mm.madviseDontneed(va, PAGE);
  expect(errors).toEqual(['EDEADLK']);
  mm.range.reset(MMU_NOTIFY_CLEAR, true);
  mm.range.add(va / PAGE, va / PAGE + 1);
  mm.notifiers.invalidateRangeStart(mm.range.seal());
  expect(() => record(mm)).toThrow(/EBUSY/);
  expect(() => mmuNotifierUnregister(first.sub)).toThrow(/EBUSY/);
  mm.notifiers.invalidateRangeEnd(mm.range);
  expect(() => mmuNotifierRegister(mm, 8, 8, {})).toThrow(/EINVAL/);
});

test('M11: registration during a fault sees no orphan end', async () => {
  const { mm, va } = setUp();
  await touch(mm, va, 1);
  const { log } = record(mm);
  mm.munmap(va, PAGE);
  expect(log.map((l) => l.split(' ')[0])).toEqual(['start', 'end']);
});

test('N17 N18 M8 M10: release runs once, by unregister or by exit, whichever is first', async () => {
  const { mm, va } = setUp();
  const a = record(mm);
  const b = record(mm);
  await touch(mm, va, 1);
  mmuNotifierUnregister(a.sub);
  expect(a.log).toEqual(['release']);
  expect(() => mmuNotifierUnregister(a.sub)).toThrow(/EINVAL/);
  mm.exit();
  expect(a.log).toEqual(['release']);
  expect(b.log.map((l) => l.split(' ')[0])).toEqual(['start', 'end', 'release']);
  mmuNotifierUnregister(b.sub);
  expect(b.log.length).toBe(3);
});

test('N18 M9: at release no frame of the mm is free yet', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 5);
  let free = -1;
  record(mm, 0, VA_SIZE, { release: () => void (free = host.frames.nrFree) });
  mm.exit();
  expect([free, host.frames.nrFree]).toEqual([59, 64]);
});

test('N17: unregister from a callback is refused, since it could not wait for it', async () => {
  const { mm, va } = setUp();
  const codes: string[] = [];
  const { sub } = record(mm, 0, VA_SIZE, {
    invalidateRangeEnd: () => {
      try {
        mmuNotifierUnregister(sub);
      } catch (error) {
        codes.push((error as { code: string }).code);
      }
    },
  });
  await touch(mm, va, 1);
  mm.madviseDontneed(va, PAGE);
  expect(codes).toEqual(['EDEADLK']);
  expect(sub.registered).toBe(true);
});

test('areaClosed comes once, with the last piece of the area, before anything is freed; then the subscription is gone', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 8);
  const log: string[] = [];
  const { sub } = record(mm, va, va + 8 * PAGE, {
    invalidateRangeStart: () => void log.push('start'),
    invalidateRangeEnd: () => void log.push('end'),
    areaClosed: () => void log.push(`closed with ${host.frames.nrFree} free`),
  });
  mm.munmap(va + 2 * PAGE, 2 * PAGE);
  mm.munmap(va, 2 * PAGE);
  expect(log).toEqual(['start', 'end', 'start', 'end']);
  mm.munmap(va + 4 * PAGE, 28 * PAGE);
  expect(log.slice(4)).toEqual(['start', 'closed with 60 free', 'end']);
  expect(sub.registered).toBe(false);
  expect(mm.notifiers.nrSubscriptions).toBe(0);
});

test('areaClosed comes at exit too, before release', async () => {
  const { mm, va } = setUp();
  await touch(mm, va, 1);
  const { log } = record(mm, va, va + PAGE, {});
  const closing = record(mm, va, va + PAGE, { areaClosed: () => void closing.log.push('closed') });
  mm.exit();
  expect(closing.log.map((l) => l.split(' ')[0])).toEqual(['start', 'closed', 'end', 'release']);
  expect(log.at(-1)).toBe('release');
  expect(closing.sub.registered).toBe(false);
});

test('S7: lock hooks run around mmapLock in the order of registration, unlock in reverse, always in pairs', async () => {
  const { mm, va } = setUp();
  const log: string[] = [];
  const hook = (name: string): MmuNotifierOps => ({
    mmapLock: (_s, mode) => void log.push(`${name} lock ${mode}`),
    mmapUnlock: (_s, mode) => void log.push(`${name} unlock ${mode}`),
  });
  mmuNotifierRegister(mm, va, VA_SIZE, hook('a'));
  log.length = 0;
  const b = mmuNotifierRegister(mm, 0, PAGE, hook('b'));
  expect(log).toEqual(['a lock write', 'a unlock write']);
  log.length = 0;
  mm.munmap(va + PAGE, PAGE);
  expect(log).toEqual(['a lock write', 'b lock write', 'b unlock write', 'a unlock write']);
  log.length = 0;
  await touch(mm, va, 1);
  expect(log).toEqual(['a lock read', 'b lock read', 'b unlock read', 'a unlock read']);
  mmuNotifierUnregister(b);
  log.length = 0;
  await touch(mm, va, 1);
  expect(log).toEqual([]);
});

test('S6: with nobody registered, no callback is counted and no bracket is open', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 8);
  mm.munmap(va, 8 * PAGE);
  expect(host.vmstat.brackets).toBe(0);
  expect(Object.values(host.vmstat.notifierCalls)).toEqual(new Array(9).fill(0));
});

test('N9 M32: a fault and the facts of its VMA are read under one mmapLock; what follows is guarded by seq', async () => {
  const { mm, va } = setUp();
  const driver = new TestDriver(mm);
  const held: string[] = [];
  mmuNotifierRegister(mm, 0, PAGE, { mmapLock: (_s, mode) => void held.push(`${mode} ${driver.seq.readBegin()}`) });
  const seq = driver.seq.readBegin();
  expect(driver.tryFault(va, true)).toBeGreaterThan(0);
  expect(held).toEqual([`read ${seq}`]);
  mm.munmap(va, PAGE);
  expect(driver.seq.readRetry(seq, va)).toBe(true);
  expect(driver.table.size).toBe(0);
});

test('N9: a fault that has waited looks its VMA up again, and the page with it, under mmapLock', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 1);
  host.reclaim.shrink(true, true, true);
  const log: unknown[] = [];
  const present = () => (mm.pageTable.get(va / PAGE) & 1) === 1;
  mmuNotifierRegister(mm, 0, PAGE, {
    mmapLock: (_s, mode) => void log.push(mode, present()),
    mmapUnlock: () => void log.push('unlock', present()),
  });
  await mm.faultIn(va, 0);
  expect(log).toEqual(['read', false, 'unlock', false, 'read', false, 'unlock', true]);
});

test('N5: a page gets its new frame after the external entry of the old one is gone', async () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  await driver.store(va, 1);
  const old = driver.table.get(va / PAGE)!.pfn;
  host.reclaim.shrink(true, true, true);
  expect(driver.access(va, false)).toBeUndefined();
  await touch(mm, va + 8 * PAGE, 1);
  expect(await driver.load(va)).toBe(1);
  expect(driver.table.get(va / PAGE)!.generation).toBe(host.frames.generation[driver.table.get(va / PAGE)!.pfn]);
  expect(host.frames.isFrame(old)).toBe(true);
});
