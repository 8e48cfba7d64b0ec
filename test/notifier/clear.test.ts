import { expect, test } from 'vitest';
import { checkHost, MAP_FIXED, mmuNotifierRegister } from '../../src/mm/index.js';
import { PteNotifier, pteNotifierCall, pteNotifierRegister } from '../../src/notifier/index.js';
import { ANON, PAGE, recorder, setUp, touch } from './recorder.js';

/** `clear`: for what, how often, when. */

test('S2 S5: reclaim calls clear once for each page that it takes, with the VMA and the address', () => {
  const { host, mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  touch(mm, va, 0, 3);
  touch(mm, va, 7, 1);
  host.reclaim.shrink(true, true, true);
  expect(log).toEqual(['clear 0 of [0, 16)', 'clear 1 of [0, 16)', 'clear 2 of [0, 16)', 'clear 7 of [0, 16)']);
  host.reclaim.shrink(true, true, true);
  expect(log.length).toBe(4);
});

test('S4: munmap, DONTNEED, a fixed mapping and exit clear as reclaim does; absent pages are not named', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  for (const p of [0, 2, 4, 6]) touch(mm, va, p, 1);
  mm.madviseDontneed(va, 2 * PAGE);
  mm.munmap(va + 2 * PAGE, 2 * PAGE);
  mm.mmap(va + 4 * PAGE, PAGE, 3, ANON | MAP_FIXED);
  mm.exit();
  expect(log).toEqual([
    'clear 0 of [0, 16)',
    'clear 2 of [2, 4)',
    'clear 4 of [4, 5)',
    'clear 6 of [4, 16)',
    'close [4, 16)',
    'release',
  ]);
});

test('N21: a first touch, a read and a write of what is there, a split and a merge clear nothing', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  touch(mm, va, 0, 8);
  touch(mm, va, 0, 8);
  mm.readSync(va, new Uint8Array(8 * PAGE));
  mm.mmap(va + 16 * PAGE, 4 * PAGE, 3, ANON | MAP_FIXED);
  expect(mm.findVma(va)!.nrPages).toBe(20);
  mm.munmap(va + 18 * PAGE, PAGE);
  expect(log).toEqual([]);
});

test('S2 N1 N2 N4: at clear the page is mapped, referenced and has its contents; it is free only after the bracket', () => {
  const { host, mm, va, vma } = setUp();
  const seen: unknown[] = [];
  const pn = new PteNotifier({
    clear: (_pn, v, address) => {
      v.mm.forEachPresent(address / PAGE, address / PAGE + 1, (_vpn, pfn) => {
        seen.push([host.frames.refcount[pfn]! > 0, host.frames.mapcount[pfn], host.u8[pfn * PAGE]]);
      });
    },
  });
  pteNotifierRegister(pn, vma);
  const free: number[] = [];
  mmuNotifierRegister(mm, 0, 2 ** 39, { invalidateRangeEnd: () => void free.push(host.frames.nrFree) });
  touch(mm, va, 0, 2);
  mm.munmap(va, 2 * PAGE);
  touch(mm, va, 3, 1);
  host.reclaim.shrink(true, true, true);
  expect(seen).toEqual([
    [true, 1, 1],
    [true, 1, 2],
    [true, 1, 4],
  ]);
  expect(free).toEqual([62, 63]);
  checkHost(host);
});

test('S2: every clear of a bracket comes before the first pte of it is changed', () => {
  const { host, mm, va, vma } = setUp();
  const present: number[] = [];
  const pn = new PteNotifier({
    clear: (_pn, v) => {
      let nr = 0;
      v.mm.forEachPresent(va / PAGE, va / PAGE + 16, () => nr++);
      present.push(nr);
    },
  });
  pteNotifierRegister(pn, vma);
  touch(mm, va, 0, 4);
  host.reclaim.shrink(true, true, true);
  touch(mm, va, 0, 4);
  mm.munmap(va, 16 * PAGE);
  expect(present).toEqual([4, 4, 4, 4, 4, 4, 4, 4]);
});

test('S1: a driver hears of its own VMA alone, two on one VMA both hear', () => {
  const { mm, va, vma } = setUp();
  const other = mm.mmap(va + 64 * PAGE, 4 * PAGE, 3, ANON);
  const [a, b, c] = [recorder(va), recorder(va), recorder(other)];
  pteNotifierRegister(a.pn, vma);
  pteNotifierRegister(b.pn, vma);
  pteNotifierRegister(c.pn, mm.findVma(other)!);
  touch(mm, va, 0, 1);
  touch(mm, other, 0, 1);
  mm.madviseDontneed(va, 16 * PAGE);
  expect([a.log, b.log, c.log]).toEqual([['clear 0 of [0, 16)'], ['clear 0 of [0, 16)'], []]);
  mm.madviseDontneed(other, 4 * PAGE);
  expect([a.log.length, c.log]).toEqual([1, ['clear 0 of [0, 4)']]);
});

test('a merge does nothing: only the registered area is heard of', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  mm.mmap(va + 16 * PAGE, 4 * PAGE, 3, ANON | MAP_FIXED);
  mm.mmap(va - 4 * PAGE, 4 * PAGE, 3, ANON | MAP_FIXED);
  touch(mm, va, 15, 2);
  touch(mm, va, -1, 2);
  mm.madviseDontneed(va - 4 * PAGE, 24 * PAGE);
  expect(log).toEqual(['clear 0 of [-4, 20)', 'clear 15 of [-4, 20)']);
  expect([pn.start, pn.end]).toEqual([va, va + 16 * PAGE]);
});

test('pteNotifierCall: clear for a present page, and a bracket around the change', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  touch(mm, va, 1, 1);
  pteNotifierCall(vma, 'clear', va + PAGE + 5, () => void log.push(`changed, bracket ${mm.notifiers.inBracket}`));
  pteNotifierCall(vma, 'clear', va + 2 * PAGE);
  expect(log).toEqual(['clear 1 of [0, 16)', 'changed, bracket true']);
  expect(mm.notifiers.inBracket).toBe(false);
  expect(() => pteNotifierCall(vma, 'clear', va + 16 * PAGE)).toThrow(/EFAULT.*must lie in/);
  expect(() => pteNotifierCall(vma, 'close' as 'clear', va)).toThrow(/EINVAL.*'clear'/);
  expect(() => pteNotifierCall(vma, 'clear', va, () => pteNotifierCall(vma, 'clear', va))).toThrow(/EBUSY/);
  expect([mm.notifiers.inBracket, mm.mmapLock.held]).toEqual([false, false]);
});

test('S6: with nothing registered no bracket is opened; far from the area neither', () => {
  const { host, mm, va, vma } = setUp();
  const far = mm.mmap(va + 64 * PAGE, 4 * PAGE, 3, ANON);
  touch(mm, va, 0, 4);
  mm.madviseDontneed(va, 16 * PAGE);
  host.reclaim.shrink(true, true, true);
  expect(host.vmstat.brackets).toBe(0);
  pteNotifierRegister(recorder(va).pn, vma);
  touch(mm, far, 0, 4);
  mm.munmap(far, 4 * PAGE);
  expect(host.vmstat.brackets).toBe(0);
});
