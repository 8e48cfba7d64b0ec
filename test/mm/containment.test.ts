import { expect, test } from 'vitest';
import {
  checkHost,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  type MmuNotifierOps,
  mmuNotifierRegister,
  mmuNotifierUnpin,
  mmuNotifierUnregister,
  VA_SIZE,
} from '../../src/mm/index.js';
import { TestDriver } from './testdriver.js';

const PAGE = 4096;
const NR = 8;

function setUp() {
  let nowMs = 0;
  const host = new Host({
    frames: 64,
    arenaBytes: 65536,
    swap: new MemorySwap({ sizeBytes: 2 ** 22 }),
    debug: true,
    now: () => nowMs,
    notifierBudgetMs: 10,
  });
  const mm = host.createMm();
  const va = mm.mmap(0, 32 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  return { host, mm, va, pass: (ms: number) => (nowMs += ms) };
}

async function touch(mm: Mm, va: number, nr: number): Promise<void> {
  for (let p = 0; p < nr; p++) await mm.write(va + p * PAGE, new Uint8Array([p + 1]));
}

const broken: Record<string, (pass: (ms: number) => void) => MmuNotifierOps> = {
  'throws in start': () => ({
    invalidateRangeStart: () => {
      throw new Error('oops');
    },
  }),
  'returns a promise from start': () => ({ invalidateRangeStart: (async () => {}) as unknown as () => void }),
  'returns a promise from end': () => ({ invalidateRangeEnd: async () => {} }),
  'returns a promise that rejects': () => ({
    invalidateRangeEnd: async () => {
      throw new Error('late');
    },
  }),
  'refuses a bracket that may block': () => ({ invalidateRangeStart: () => -11 }),
  'returns something else': () => ({ invalidateRangeStart: () => 7 }),
  'overruns its time': (pass) => ({ invalidateRangeStart: () => void pass(11) }),
  'throws in end': () => ({
    invalidateRangeEnd: () => {
      throw new Error('oops');
    },
  }),
};

for (const [what, ops] of Object.entries(broken)) {
  test(`S12 N19: a driver that ${what} is poisoned, its frames stay pinned, everyone else goes on`, async () => {
    const { host, mm, va, pass } = setUp();
    const told: string[] = [];
    const sub = mmuNotifierRegister(mm, 0, VA_SIZE, ops(pass), { onPoisoned: (_s, reason) => told.push(reason) });
    const good = new TestDriver(mm);
    await touch(mm, va, NR);
    for (let p = 0; p < NR; p++) await good.load(va + p * PAGE);
    const pfns: number[] = [];
    mm.forEachPresent(va / PAGE, va / PAGE + NR, (_vpn, pfn) => pfns.push(pfn));
    mm.madviseDontneed(va + PAGE, PAGE);
    expect(sub.poisoned).toBeDefined();
    await Promise.resolve();
    expect(told).toEqual([sub.poisoned]);
    expect(good.nrStarts).toBe(1);
    expect(good.nrEnds).toBe(1);
    expect(host.stats()).toMatchObject({ poisoned: 1 });
    // What was mapped when it broke, less the page of which it was told rightly, is nobody else's for ever.
    expect(host.stats().pinnedFrames).toBeGreaterThanOrEqual(NR - 1);
    const kept = pfns.filter((pfn) => host.frames.refcount[pfn]! > 0);
    expect(kept.length).toBe(host.stats().pinnedFrames);
    mm.munmap(va, NR * PAGE);
    for (let i = 0; i < 3; i++) await host.createMm().mmap(0, PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
    checkHost(host);
    await touch(mm, va + NR * PAGE, 10);
    mm.forEachPresent(0, 2 ** 27, (_vpn, pfn) => expect(kept).not.toContain(pfn));
  });
}

test('S12 N19: frames mapped after the driver broke are pinned when they would be taken away', async () => {
  const { host, mm, va } = setUp();
  const sub = mmuNotifierRegister(mm, va, va + 4 * PAGE, {
    invalidateRangeStart: () => {
      throw new Error('oops');
    },
  });
  mm.madviseDontneed(va, PAGE);
  expect(host.stats()).toMatchObject({ poisoned: 1, pinnedFrames: 0 });
  await touch(mm, va, 6);
  host.reclaim.shrink(true, true, true);
  checkHost(host);
  expect(host.stats().pinnedFrames).toBe(4);
  for (let p = 0; p < 6; p++) {
    const bytes = new Uint8Array(1);
    await mm.read(va + p * PAGE, bytes);
    expect(bytes[0]).toBe(p + 1);
  }
  mmuNotifierUnregister(sub);
  mm.exit();
  expect(host.frames.nrFree).toBe(60);
  expect(host.stats().pinnedFrames).toBe(4);
});

test('N19: a poisoned driver is not called again, not even for release', async () => {
  const { mm, va } = setUp();
  let calls = 0;
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: () => {
      calls++;
      throw new Error('oops');
    },
    invalidateRangeEnd: () => void calls++,
    clearFlushYoung: () => ++calls > 0,
    clearYoung: () => ++calls > 0,
    testYoung: () => ++calls > 0,
    release: () => void calls++,
    mmapLock: () => void calls++,
  });
  calls = 0;
  mm.madviseDontneed(va, PAGE);
  const once = calls;
  await touch(mm, va, 2);
  mm.host.pageIdle.setIdleMm(mm);
  mm.host.reclaim.shrink(true, true, true);
  mm.smaps();
  mm.exit();
  expect(calls).toBe(once);
});

test('N19: a driver that breaks in the middle of a bracket does not hear of its end', async () => {
  const { host, mm, va } = setUp();
  const log: string[] = [];
  const sub = mmuNotifierRegister(mm, va, va + 4 * PAGE, {
    invalidateRangeStart: () => void log.push('start'),
    areaClosed: () => {
      log.push('closed');
      throw new Error('oops');
    },
    invalidateRangeEnd: () => void log.push('end'),
    release: () => void log.push('release'),
  });
  await touch(mm, va, 4);
  mm.munmap(va, 32 * PAGE);
  expect([log, sub.registered]).toEqual([['start', 'closed'], false]);
  expect(sub.poisoned).toMatch(/areaClosed threw/);
  checkHost(host);
});

test('N19: a page that a poisoned driver may be using counts as used', async () => {
  const { mm, va } = setUp();
  mmuNotifierRegister(mm, va, va + 4 * PAGE, throwing());
  mm.madviseDontneed(va, PAGE);
  const young = (page: number) => mm.notifiers.clearFlushYoung(va + page * PAGE, va + (page + 1) * PAGE);
  expect([young(0), young(0), young(4)]).toEqual([true, true, false]);
});

test('N19: what is mapped when a poisoned driver is unregistered stays pinned, for no bracket tells of it any more', async () => {
  const { host, mm, va } = setUp();
  const sub = mmuNotifierRegister(mm, va, va + 4 * PAGE, throwing());
  mm.madviseDontneed(va, PAGE);
  await touch(mm, va, 6);
  expect(host.stats().pinnedFrames).toBe(0);
  mmuNotifierUnregister(sub);
  expect(host.stats().pinnedFrames).toBe(4);
  mm.exit();
  expect(host.frames.nrFree).toBe(60);
  expect(mmuNotifierUnpin(sub)).toBe(4);
  checkHost(host);
  expect(host.frames.nrFree).toBe(64);
});

/** A driver that breaks its contract at the next start. */
const throwing = (): MmuNotifierOps => ({
  invalidateRangeStart: () => {
    throw new Error('oops');
  },
});

test('N19: two poisoned subscriptions pin a frame once each; it is free when the instances of both are gone', async () => {
  const { host, mm, va } = setUp();
  const subs = [0, 1].map(() => mmuNotifierRegister(mm, 0, VA_SIZE, throwing()));
  await touch(mm, va, NR);
  mm.munmap(va, NR * PAGE);
  expect(host.stats()).toMatchObject({ poisoned: 2, pinnedFrames: NR });
  expect(subs.map((sub) => sub.pinned.size)).toEqual([NR, NR]);
  checkHost(host);
  expect(() => mmuNotifierUnpin(subs[0]!)).toThrow(/EBUSY/);
  for (const [k, left] of [NR, 0].entries()) {
    mmuNotifierUnregister(subs[k]!);
    expect(mmuNotifierUnpin(subs[k]!)).toBe(NR);
    expect(host.stats().pinnedFrames).toBe(left);
    checkHost(host);
  }
  expect(host.frames.nrFree).toBe(64);
  expect(mmuNotifierUnpin(subs[0]!)).toBe(0);
});

test('N19: memory is won back after the mm is gone too, and of a driver that broke nothing there is none', async () => {
  const { host, mm, va } = setUp();
  const broken = mmuNotifierRegister(mm, 0, VA_SIZE, throwing());
  const good = new TestDriver(mm);
  await touch(mm, va, NR);
  mm.exit();
  expect(host.frames.nrFree).toBe(64 - NR);
  mmuNotifierUnregister(broken);
  mmuNotifierUnregister(good.sub);
  expect([mmuNotifierUnpin(good.sub), mmuNotifierUnpin(broken)]).toEqual([0, NR]);
  checkHost(host);
  expect(host.frames.nrFree).toBe(64);
});

test('S12 N19: what a poisoned driver may still write is copied for the child of a fork', async () => {
  const { host, mm, va } = setUp();
  mmuNotifierRegister(mm, va, va + 2 * PAGE, throwing());
  await touch(mm, va, 4);
  const pfn = mm.tryGetPage(va, 1);
  mm.putPage(pfn);
  mm.madviseDontneed(va + PAGE, PAGE);
  const child = mm.fork();
  // The driver has an entry that it may write, of a contract that it did not keep.
  host.u8[pfn * PAGE] = 99;
  const bytes = new Uint8Array(1);
  child.readSync(va, bytes);
  expect(bytes[0]).toBe(1);
  child.writeSync(va, new Uint8Array([50]));
  checkHost(host);
  mm.readSync(va, bytes);
  expect(bytes[0]).toBe(99);
  child.readSync(va + 3 * PAGE, bytes);
  expect(bytes[0]).toBe(4);
});

test('N19: a fork with no frame left for such a copy is refused, and leaves nothing behind', async () => {
  const { host, mm, va } = setUp();
  mmuNotifierRegister(mm, va, va + 8 * PAGE, throwing());
  await touch(mm, va, 8);
  mm.madviseDontneed(va + 31 * PAGE, PAGE);
  mm.madviseDontneed(va + 7 * PAGE, PAGE);
  const hog = host.createMm();
  const at = hog.mmap(0, 64 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  for (let p = 0, pfn = 1; pfn > 0; p++) {
    pfn = hog.tryGetPage(at + p * PAGE, 1);
    if (pfn > 0) hog.putPage(pfn);
  }
  const free = host.frames.nrFree;
  expect(free).toBeLessThan(7);
  expect(() => mm.fork()).toThrow(/ENOMEM: fork: no frame for a page .* poisoned/);
  checkHost(host);
  expect(host.frames.nrFree).toBe(free);
});

test('N1 N19: a driver that leaves mappings behind is found by its own count, in debug builds', async () => {
  for (const debug of [true, false]) {
    const host = new Host({ frames: 64, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 2 ** 22 }), debug });
    const mm = host.createMm();
    const va = mm.mmap(0, 32 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
    await touch(mm, va, 4);
    const asked: [number, number, boolean][] = [];
    const sub = mmuNotifierRegister(mm, va, va + 2 * PAGE, {
      invalidateRangeStart: () => 0,
      mappings: (_sub, start, end, writable) => asked.push([(start - va) / PAGE, (end - va) / PAGE, writable]),
    });
    mm.madviseDontneed(va + PAGE, 2 * PAGE);
    expect(asked).toEqual(debug ? [[1, 2, false]] : []);
    expect(sub.poisoned).toBe(debug ? 'invalidateRangeStart left 1 mappings behind' : undefined);
    expect(host.stats().pinnedFrames).toBe(debug ? 2 : 0);
    checkHost(host);
  }
});

test('N19: where only rights go, only entries that may write are left behind', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 4);
  const asked: boolean[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    mappings: (_sub, _start, _end, writable) => {
      asked.push(writable);
      return writable ? 0 : 1;
    },
    invalidateRangeStart: () => 0,
  });
  mm.fork();
  expect(asked).toEqual([true]);
  expect(host.stats().poisoned).toBe(0);
});

test('N19: a lie that mappings tells too is found by the tags, at its next use', async () => {
  const { mm, va } = setUp();
  const liar = new TestDriver(mm);
  await touch(mm, va, 1);
  await liar.load(va);
  const kept = new Map(liar.table);
  mm.munmap(va, PAGE);
  for (const [vpn, entry] of kept) liar.table.set(vpn, entry);
  expect(() => liar.access(va, false)).toThrow(/stale external entry/);
});

test('N19: pages of a list that empties because they are pinned in the middle of a scan', async () => {
  const { host, mm, va } = setUp();
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    clearFlushYoung: () => {
      throw new Error('oops');
    },
  });
  await touch(mm, va, 8);
  host.reclaim.shrink(true, true, false);
  expect(host.stats()).toMatchObject({ poisoned: 1, pinnedFrames: 8 });
  checkHost(host);
});

test('S12 N19: a page that reclaim would take when its driver breaks stays mapped: swap may not hand its frame to the child of a fork', async () => {
  const { host, mm, va } = setUp();
  await touch(mm, va, 1);
  const pfn = mm.tryGetPage(va, 1);
  mm.putPage(pfn);
  mmuNotifierRegister(mm, va, va + PAGE, throwing());
  host.reclaim.shrink(true, true, true);
  expect(host.stats()).toMatchObject({ poisoned: 1, pinnedFrames: 1 });
  const child = mm.fork();
  const bytes = new Uint8Array(1);
  child.readSync(va, bytes);
  host.u8[pfn * PAGE] = 99;
  child.readSync(va, bytes);
  expect(bytes[0]).toBe(1);
  checkHost(host);
});
