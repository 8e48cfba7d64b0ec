import { expect, test } from 'vitest';
import { Words } from '../../src/base/index.js';
import {
  checkHost,
  Host,
  MADV_COLD,
  MADV_DONTNEED,
  MADV_PAGEOUT,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemoryStore,
  MemorySwap,
  type Mm,
  type MmuNotifierOps,
  mmuNotifierRegister,
  VA_SIZE,
} from '../../src/mm/index.js';
import { PG_YOUNG } from '../../src/mm/page/frames.js';
import { TestDriver } from './testdriver.js';

/** Which pages were used since they were marked, whom that is asked of, and what the others hear of it. */

const PAGE = 4096;
const NR = 8;

function setUp() {
  let nowMs = 0;
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const clock = { now: () => nowMs, notifierBudgetMs: 10 };
  const host = new Host({ frames: 96, arenaBytes: 65536, swap, debug: true, ...clock });
  const mm = host.createMm();
  const va = mm.mmap(0, 64 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  for (let p = 0; p < NR; p++) mm.writeSync(va + p * PAGE, new Uint8Array([p + 1]));
  return { host, mm, va, pass: (ms: number) => (nowMs += ms) };
}

const read = (mm: Mm, va: number) => mm.readSync(va, new Uint8Array(1));
const pfnAt = (mm: Mm, va: number) => mm.pagemap(va, 1)[0]!.pfn;

test('pages are idle from the time they are marked until they are used', () => {
  const { host, mm, va } = setUp();
  const { pageIdle } = host;
  expect(pageIdle.countMm(mm)).toEqual({ nrIdle: 0, nrUsed: NR });
  expect(pageIdle.setIdleMm(mm)).toBe(NR);
  expect(pageIdle.countMm(mm)).toEqual({ nrIdle: NR, nrUsed: 0 });
  read(mm, va + 2 * PAGE);
  mm.writeSync(va + 5 * PAGE, new Uint8Array([1]));
  expect([2, 3].map((p) => pageIdle.testIdle(pfnAt(mm, va + p * PAGE)))).toEqual([false, true]);
  expect(pageIdle.countMm(mm)).toEqual({ nrIdle: NR - 2, nrUsed: 2 });
  expect(pageIdle.countMm(mm)).toEqual({ nrIdle: NR - 2, nrUsed: 2 });
  expect(pageIdle.setIdle(pfnAt(mm, va + 2 * PAGE))).toBe(true);
  expect(pageIdle.countMm(mm)).toEqual({ nrIdle: NR - 1, nrUsed: 1 });
  checkHost(host);
});

test('what came in since is used, what went out since is neither, and the zero page is nobody’s', async () => {
  const { host, mm, va } = setUp();
  host.pageIdle.setIdleMm(mm);
  mm.writeSync(va + NR * PAGE, new Uint8Array([1]));
  read(mm, va + 20 * PAGE);
  mm.madvise(va, 3 * PAGE, MADV_PAGEOUT);
  await host.writeback.drain();
  expect(host.pageIdle.countMm(mm)).toEqual({ nrIdle: NR - 3, nrUsed: 1 });
  await mm.read(va, new Uint8Array(1));
  const { nrIdle, nrUsed } = host.pageIdle.countMm(mm);
  expect(nrIdle).toBe(NR - 3);
  expect(nrUsed).toBeGreaterThanOrEqual(2);
  expect(host.pageIdle.setIdle(host.frames.zeroPfn)).toBe(false);
});

test('a frame takes nothing along when it is freed, and its marks when it moves', () => {
  const { host, mm, va } = setUp();
  host.pageIdle.setIdleMm(mm);
  const pfn = pfnAt(mm, va);
  mm.madvise(va, PAGE, MADV_DONTNEED);
  expect(host.pageIdle.setIdle(pfn)).toBe(false);
  expect(host.pageIdle.testIdle(pfn)).toBe(false);
  mm.writeSync(va, new Uint8Array([9]));
  expect(pfnAt(mm, va)).toBe(pfn);
  expect(host.pageIdle.testIdle(pfn)).toBe(false);
  host.migration.migrate([pfnAt(mm, va + PAGE)], [host.frames.alloc(0)], true);
  expect(host.pageIdle.testIdle(pfnAt(mm, va + PAGE))).toBe(true);
  checkHost(host);
});

test('a page that others map too was used when one of them has used it', () => {
  const { host, mm, va } = setUp();
  const child = mm.fork();
  expect(host.pageIdle.setIdleMm(mm)).toBe(NR);
  read(child, va + PAGE);
  expect(host.pageIdle.countMm(mm)).toEqual({ nrIdle: NR - 1, nrUsed: 1 });
  expect(host.pageIdle.countMm(child)).toEqual({ nrIdle: NR - 1, nrUsed: 1 });
});

test('a page of a file that a call has read was used', async () => {
  const { host } = setUp();
  const mm = host.createMm();
  const store = new MemoryStore({ contents: new Uint8Array(PAGE).fill(3) });
  const file = host.openFile(store, { mode: 'r' });
  const va = mm.mmap(0, PAGE, 1, MAP_PRIVATE, file);
  await mm.read(va, new Uint8Array(1));
  for (const used of [false, true]) {
    host.pageIdle.setIdleMm(mm);
    if (used) await file.read(new Uint8Array(1), 0);
    expect(host.pageIdle.countMm(mm)).toEqual({ nrIdle: used ? 0 : 1, nrUsed: used ? 1 : 0 });
  }
});

test('N14: reclaim hears of a use that idle page tracking has seen, once; MADV_COLD makes it forget', () => {
  const { host, mm, va } = setUp();
  const pfns = [0, 1].map((p) => pfnAt(mm, va + p * PAGE));
  host.pageIdle.setIdleMm(mm);
  host.pageIdle.setIdleMm(mm);
  expect(mm.smapsRollup().Referenced).toBe(NR * 4);
  expect([host.young.testAndClear(pfns[0]!), host.young.testAndClear(pfns[0]!)]).toEqual([true, false]);
  expect(mm.smapsRollup().Referenced).toBe((NR - 1) * 4);
  expect(host.pageIdle.testIdle(pfns[0]!)).toBe(false);
  expect(host.frames.flags[pfns[1]!]! & PG_YOUNG).not.toBe(0);
  mm.madvise(va + PAGE, PAGE, MADV_COLD);
  expect(host.young.testAndClear(pfns[1]!)).toBe(false);
});

test('N14: a use that reclaim has seen first is known to idle page tracking', () => {
  const { host, mm, va } = setUp();
  host.pageIdle.setIdleMm(mm);
  for (let p = 0; p < NR; p++) host.young.testAndClear(pfnAt(mm, va + p * PAGE));
  host.pageIdle.setIdleMm(mm);
  read(mm, va);
  expect(host.young.testAndClear(pfnAt(mm, va))).toBe(true);
  expect(host.pageIdle.countMm(mm)).toEqual({ nrIdle: NR - 1, nrUsed: 1 });
});

test('N14: an external MMU alone has used it: it is not idle, it is referenced, and no seq moves', async () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  for (let p = 0; p < NR; p++) await driver.load(va + p * PAGE);
  for (let p = 0; p < NR; p++) host.young.testAndClear(pfnAt(mm, va + p * PAGE));
  const seq = driver.seq.readBegin();
  expect(mm.smapsRollup().Referenced).toBe(0);
  host.pageIdle.setIdleMm(mm);
  driver.access(va + 3 * PAGE, false);
  for (let n = 0; n < 2; n++) expect(mm.smapsRollup().Referenced).toBe(4);
  expect(mm.smaps()[0]!.Referenced).toBe(4);
  expect(host.pageIdle.countMm(mm)).toEqual({ nrIdle: NR - 1, nrUsed: 1 });
  expect(driver.access(va, false)).toBeDefined();
  expect([driver.seq.readBegin(), driver.nrStarts]).toEqual([seq, 0]);
  expect(host.vmstat.notifierCalls.testYoung).toBeGreaterThan(3 * NR);
});

test('N14: the area of a subscription is asked, and of a page of two all of both', () => {
  const { mm, va } = setUp();
  const asked: string[] = [];
  const listen = (name: string, young: boolean): MmuNotifierOps => ({
    testYoung: (_sub, start, end) => {
      asked.push(`${name} ${(start - va) / PAGE} ${(end - va) / PAGE}`);
      return young;
    },
  });
  mmuNotifierRegister(mm, va, va + 2 * PAGE, listen('a', true));
  mmuNotifierRegister(mm, va + PAGE, va + 4 * PAGE, listen('b', false));
  const ask = (from: number, to: number) => mm.notifiers.testYoung(va + from * PAGE, va + to * PAGE);
  expect([ask(0, 1), ask(1, 2), ask(2, 4), ask(4, 5)]).toEqual([true, true, false, false]);
  expect(asked).toEqual(['a 0 1', 'a 1 2', 'b 1 2', 'b 2 4']);
});

test('N14: which op is asked, and what the answer is of a driver that has not all three', () => {
  const answers = (ops: MmuNotifierOps) => {
    const { mm, va } = setUp();
    mmuNotifierRegister(mm, 0, VA_SIZE, ops);
    const { clearFlushYoung, clearYoung, testYoung } = mm.notifiers;
    return [clearFlushYoung, clearYoung, testYoung].map((ask) => ask.call(mm.notifiers, va, va + PAGE));
  };
  expect(answers({})).toEqual([false, false, false]);
  expect(answers({ clearFlushYoung: () => true })).toEqual([true, true, false]);
  expect(answers({ clearYoung: () => true })).toEqual([false, true, false]);
  expect(answers({ testYoung: () => true })).toEqual([false, false, true]);
  expect(answers({ clearFlushYoung: () => true, clearYoung: () => false })).toEqual([true, false, false]);
});

/** By what the callback does: what the reason says. */
const BROKEN: Record<string, string> = {
  throws: 'threw Error: oops',
  'returns a promise': 'returned a promise',
  'overruns its time': 'took 11.0 ms',
  'keeps a lock': 'held',
};

for (const op of ['clearYoung', 'testYoung'] as const)
  for (const [what, why] of Object.entries(BROKEN))
    test(`S12 N14 N19: a driver whose ${op} ${what} is poisoned, and counts as one that uses its pages`, () => {
      const { host, mm, va, pass } = setUp();
      const words = new Words(host.memory, host.arenaAlloc(4, 4), 1);
      words.writeOnce(0, 0);
      const fault = (): boolean => {
        if (what === 'throws') throw new Error('oops');
        if (what === 'returns a promise') return Promise.resolve(false) as unknown as boolean;
        if (what === 'overruns its time') pass(11);
        else words.lock(0);
        return false;
      };
      const sub = mmuNotifierRegister(mm, va, va + 2 * PAGE, { [op]: fault });
      const good = new TestDriver(mm);
      for (let p = 0; p < NR; p++) host.young.testAndClear(pfnAt(mm, va + p * PAGE));
      if (op === 'clearYoung') host.pageIdle.setIdleMm(mm);
      else mm.smaps();
      expect(sub.poisoned).toContain(op);
      expect(sub.poisoned).toContain(why);
      expect(host.stats()).toMatchObject({ poisoned: 1, pinnedFrames: 2 });
      expect(mm.smapsRollup().Referenced).toBe(8);
      expect(host.pageIdle.countMm(mm).nrUsed).toBeGreaterThanOrEqual(2);
      expect(good.sub.poisoned).toBeUndefined();
      checkHost(host);
    });

test('what is no frame is refused', () => {
  const { host } = setUp();
  for (const pfn of [-1, 0, 1.5, host.frames.endPfn]) {
    expect(() => host.pageIdle.setIdle(pfn)).toThrow(/^EINVAL: setIdle: frame -?[\d.]+ must be one of \[/);
    expect(() => host.pageIdle.testIdle(pfn)).toThrow(/^EINVAL: testIdle: frame/);
  }
});
