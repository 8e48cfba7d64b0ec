import { expect, test } from 'vitest';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  MMU_NOTIFY_CLEAR,
  mmuNotifierRegister,
  VA_SIZE,
} from '../../src/mm/index.js';
import { TestDriver } from './testdriver.js';

/** Copy-on-write of one page: the zero page, and pages that are shared after a fork (fork.test.ts has the families). */

const PAGE = 4096;

function setUp() {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const host = new Host({ frames: 64, arenaBytes: 65536, swap, debug: true });
  const mm = host.createMm();
  const va = mm.mmap(0, 16 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  return { host, mm, va };
}

test('untouched memory that is read takes no frame: it is the zero page', () => {
  const { host, mm, va } = setUp();
  const bytes = new Uint8Array(16 * PAGE).fill(1);
  mm.readSync(va, bytes);
  expect(bytes.every((b) => b === 0)).toBe(true);
  expect(mm.tryGetPage(va, 0)).toBe(host.frames.zeroPfn);
  expect([host.frames.nrFree, mm.residentPages]).toEqual([64, 0]);
  checkHost(host, 1);
  mm.putPage(host.frames.zeroPfn);
  mm.exit();
  expect(host.frames.refcount[host.frames.zeroPfn]).toBe(1);
});

test('N5: the first write replaces the zero page under a bracket, and an external reader sees what was written', () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  const events: unknown[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: (_sub, range) => void events.push([range.event, range.start - va, range.end - va]),
  });
  driver.tryFault(va + PAGE, false);
  expect(driver.access(va + PAGE, false)).toBe(host.frames.zeroPfn * PAGE);
  mm.writeSync(va + PAGE, new Uint8Array([7]));
  expect(events).toEqual([[MMU_NOTIFY_CLEAR, PAGE, 2 * PAGE]]);
  expect(driver.access(va + PAGE, false)).toBeUndefined();
  driver.tryFault(va + PAGE, false);
  expect(host.u8[driver.access(va + PAGE, false)!]).toBe(7);
  expect(host.u8[host.frames.zeroPfn * PAGE]).toBe(0);
  checkHost(host);
});

test('N5: a driver that writes where it has read gets a page of its own by its next fault', () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  driver.tryFault(va, false);
  expect(driver.tryFault(va, true)).toBe(mm.tryGetPage(va, FAULT_FLAG_WRITE));
  host.u8[driver.access(va, true)!] = 9;
  const byte = new Uint8Array(1);
  mm.readSync(va, byte);
  expect(byte[0]).toBe(9);
  checkHost(host, 1);
});
