import { expect, test } from 'vitest';
import { checkHost, MAP_FIXED } from '../../src/mm/index.js';
import {
  pteNotifierRegister,
  pteNotifierUnregister,
  vmaClosePteNotifiers,
  vmaDestroyPteNotifiers,
  vmaInitPteNotifiers,
} from '../../src/notifier/index.js';
import { ANON, PAGE, recorder, setUp, touch } from './recorder.js';

/** `close` and `release`: the area goes away, the mm goes away. */

test('S3: close comes once, when the last piece is unmapped; a partial unmap only clears', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  touch(mm, va, 0, 16);
  mm.munmap(va + 4 * PAGE, 8 * PAGE);
  expect([log.length, pn.registered]).toEqual([8, true]);
  mm.munmap(va, 4 * PAGE);
  expect([log.length, pn.registered]).toEqual([12, true]);
  mm.munmap(va + 12 * PAGE, 4 * PAGE);
  expect(log.slice(12)).toEqual([...[12, 13, 14, 15].map((p) => `clear ${p} of [12, 16)`), 'close [12, 16)']);
  expect(pn.registered).toBe(false);
  mm.exit();
  expect(log.length).toBe(17);
});

test('S3: at close nothing is mapped and nothing is freed yet', () => {
  const { host, mm, va, vma } = setUp();
  const seen: unknown[] = [];
  const { pn } = recorder(va, {
    close: (_pn, v) => void seen.push(host.frames.nrFree, mm.findVma(va), v.start - va, mm.residentPages),
  });
  pteNotifierRegister(pn, vma);
  touch(mm, va, 0, 4);
  mm.munmap(va, 16 * PAGE);
  expect(seen).toEqual([60, undefined, 0, 0]);
  expect(host.frames.nrFree).toBe(64);
});

test('S3: an area in which nothing was ever touched is closed as well', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  mm.mmap(va, 16 * PAGE, 3, ANON | MAP_FIXED);
  expect([log, pn.registered]).toEqual([['close [0, 16)'], false]);
});

test('a split keeps the registration on both halves', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  mm.munmap(va + 8 * PAGE, PAGE);
  touch(mm, va, 7, 1);
  touch(mm, va, 9, 1);
  mm.madviseDontneed(va + 7 * PAGE, PAGE);
  mm.madviseDontneed(va + 9 * PAGE, PAGE);
  expect(log).toEqual(['clear 7 of [0, 8)', 'clear 9 of [9, 16)']);
  expect([0, 9].map((p) => vmaInitPteNotifiers(mm.findVma(va + p * PAGE)!))).toEqual([1, 1]);
  expect(vmaInitPteNotifiers(mm.findVma(mm.mmap(va + 64 * PAGE, PAGE, 3, ANON))!)).toBe(0);
});

test('S8: exit clears, closes, releases, each once, in this order; then the frames are free', () => {
  const { host, mm, va, vma } = setUp();
  const free: number[] = [];
  const { log, pn } = recorder(va, {
    release: () => {
      log.push('release');
      free.push(host.frames.nrFree);
    },
  });
  pteNotifierRegister(pn, vma);
  touch(mm, va, 0, 1);
  mm.exit();
  mm.exit();
  expect([log, free]).toEqual([['clear 0 of [0, 16)', 'close [0, 16)', 'release'], [63]]);
  expect([pn.registered, host.frames.nrFree]).toEqual([false, 64]);
});

test('S8 N17: unregister releases once and no callback comes after it', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  touch(mm, va, 0, 2);
  pteNotifierUnregister(pn);
  mm.munmap(va, 16 * PAGE);
  mm.exit();
  expect([log, pn.registered]).toEqual([['release'], false]);
  expect(() => pteNotifierUnregister(pn)).toThrow(/EINVAL.*registered/);
});

test('vmaClosePteNotifiers: the last piece closes, another one only clears; the mapping stays', () => {
  const { host, mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  mm.munmap(va + 8 * PAGE, PAGE);
  touch(mm, va, 0, 1);
  touch(mm, va, 9, 1);
  vmaClosePteNotifiers(mm.findVma(va)!);
  expect([log, pn.registered]).toEqual([['clear 0 of [0, 8)'], true]);
  mm.munmap(va, 8 * PAGE);
  log.length = 0;
  vmaDestroyPteNotifiers(mm.findVma(va + 9 * PAGE)!);
  expect([log, pn.registered]).toEqual([['clear 9 of [9, 16)', 'close [9, 16)'], false]);
  expect(mm.residentPages).toBe(1);
  pteNotifierRegister(pn, mm.findVma(va + 9 * PAGE)!);
  mm.munmap(va, 16 * PAGE);
  expect(log.slice(2)).toEqual(['clear 9 of [9, 16)', 'close [9, 16)']);
  checkHost(host);
});

test('vmaClosePteNotifiers: a VMA that reaches over the area closes it too', () => {
  const { mm, va, vma } = setUp();
  const { log, pn } = recorder(va);
  pteNotifierRegister(pn, vma);
  mm.mmap(va - 2 * PAGE, 2 * PAGE, 3, ANON | MAP_FIXED);
  mm.mmap(va + 16 * PAGE, 2 * PAGE, 3, ANON | MAP_FIXED);
  vmaClosePteNotifiers(mm.findVma(va)!);
  expect([log, pn.registered]).toEqual([['close [-2, 18)'], false]);
});

test('the words of a registration go back to the arena, however it ends', () => {
  const { host, mm, vma } = setUp();
  const before = host.arenaAlloc(16, 16);
  host.arenaFree(before, 16);
  const first = recorder(0);
  pteNotifierRegister(first.pn, vma);
  pteNotifierUnregister(first.pn);
  pteNotifierRegister(first.pn, vma);
  vmaClosePteNotifiers(vma);
  pteNotifierRegister(first.pn, vma);
  mm.munmap(vma.start, vma.end - vma.start);
  const last = mm.mmap(0, PAGE, 3, ANON);
  pteNotifierRegister(first.pn, mm.findVma(last)!);
  mm.exit();
  expect(host.arenaAlloc(16, 16)).toBe(before);
});
