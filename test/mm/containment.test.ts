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
  'overruns its time': (pass) => ({ invalidateRangeStart: () => pass(11) }),
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
    release: () => void calls++,
    mmapLock: () => void calls++,
  });
  calls = 0;
  mm.madviseDontneed(va, PAGE);
  const once = calls;
  await touch(mm, va, 2);
  mm.host.reclaim.shrink(true, true, true);
  mm.exit();
  expect(calls).toBe(once);
});
