import { expect, test } from 'vitest';
import {
  checkHost,
  Host,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MemorySwap,
  MMU_NOTIFY_NAMES,
  type Mm,
  mmuNotifierRegister,
  VA_SIZE,
} from '../../src/mm/index.js';
import { VM_DONTCOPY } from '../../src/mm/vma/vma.js';
import { TestDriver } from './testdriver.js';

/** fork, and who gets a copy of what when. Random families are in test/model/fork.test.ts. */

const PAGE = 4096;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;

function setUp(frames = 64, nrPages = 16) {
  const swap = new MemorySwap({ sizeBytes: 2 ** 22 });
  const host = new Host({ frames, arenaBytes: 65536, swap, debug: true });
  const mm = host.createMm({ name: 'parent' });
  const va = mm.mmap(0, nrPages * PAGE, 3, ANON);
  return { host, mm, va };
}

function write(mm: Mm, va: number, value: number): void {
  mm.writeSync(va, new Uint8Array([value]));
}

function read(mm: Mm, va: number): number {
  const byte = new Uint8Array(1);
  mm.readSync(va, byte);
  return byte[0]!;
}

test('N20: parent and child see what was there, and each its own writes alone', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  write(mm, va + PAGE, 2);
  read(mm, va + 2 * PAGE);
  const child = mm.fork();
  checkHost(host);
  expect(host.frames.nrFree).toBe(62);
  write(mm, va, 3);
  write(child, va + PAGE, 4);
  write(child, va + 2 * PAGE, 5);
  checkHost(host);
  expect([0, 1, 2].map((k) => read(mm, va + k * PAGE))).toEqual([3, 2, 0]);
  expect([0, 1, 2].map((k) => read(child, va + k * PAGE))).toEqual([1, 4, 5]);
  child.exit();
  expect([0, 1, 2].map((k) => read(mm, va + k * PAGE))).toEqual([3, 2, 0]);
  expect(host.frames.nrFree).toBe(62);
  mm.exit();
  checkHost(host);
  expect([host.frames.nrFree, host.anonVmas.nrLive, host.tables.bytesInUse]).toEqual([64, 0, 0]);
});

test('N20: each area with pages of its own is one bracket of the parent; the child has no subscription', () => {
  const { mm, va } = setUp();
  const second = mm.mmap(va + 64 * PAGE, 4 * PAGE, 3, ANON | MAP_FIXED);
  mm.mmap(va + 128 * PAGE, 4 * PAGE, 3, ANON | MAP_FIXED);
  write(mm, va, 1);
  write(mm, second, 1);
  const events: unknown[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: (_sub, range) =>
      void events.push([MMU_NOTIFY_NAMES[range.event], (range.start - va) / PAGE, (range.end - va) / PAGE]),
    invalidateRangeEnd: () => void events.push('end'),
  });
  const child = mm.fork();
  expect(events).toEqual([['PROTECTION_PAGE', 0, 16], 'end', ['PROTECTION_PAGE', 64, 68], 'end']);
  expect(child.notifiers.nrSubscriptions).toBe(0);
  write(child, va, 2);
  child.exit();
  expect(events.length).toBe(4);
});

test('N20: an external writer of the parent has lost the right before the child exists, and gets a copy', () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  driver.tryFault(va, true);
  host.u8[driver.access(va, true)!] = 1;
  const child = mm.fork();
  expect(driver.access(va, false)).toBeUndefined();
  driver.tryFault(va, true);
  host.u8[driver.access(va, true)!] = 2;
  expect([read(mm, va), read(child, va)]).toEqual([2, 1]);
  checkHost(host);
});

test('M46: an external reader of a page that is copied on write does not stay on the old one', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  const child = mm.fork();
  const driver = new TestDriver(child);
  driver.tryFault(va, false);
  expect(host.u8[driver.access(va, false)!]).toBe(1);
  write(child, va, 2);
  expect(driver.access(va, false)).toBeUndefined();
  driver.tryFault(va, false);
  expect(host.u8[driver.access(va, false)!]).toBe(2);
  checkHost(host);
});

test('M47: what is written in bulk after a fork is seen by every path of that side, and by none of the other', async () => {
  const { host, mm, va } = setUp(128);
  const lenBytes = 16 * PAGE;
  const filled = (value: number) => new Uint8Array(lenBytes).fill(value);
  const driver = new TestDriver(mm);
  await mm.write(va, filled(1));
  for (let k = 0; k < 16; k++) await driver.load(va + k * PAGE);
  const child = mm.fork();
  const childDriver = new TestDriver(child);
  for (let k = 0; k < 16; k++) expect(await childDriver.load(va + k * PAGE)).toBe(1);
  const readBack = async (of: Mm) => {
    const bytes = new Uint8Array(lenBytes);
    await of.read(va, bytes);
    return bytes;
  };
  const seenBy = (by: TestDriver) => Promise.all(Array.from({ length: 16 }, (_, k) => by.load(va + k * PAGE + k)));
  await mm.write(va, filled(2));
  expect(await seenBy(driver)).toEqual(Array(16).fill(2));
  expect(await readBack(child)).toEqual(filled(1));
  expect(await seenBy(childDriver)).toEqual(Array(16).fill(1));
  for (let at = va; at < va + lenBytes; at++) await childDriver.store(at, 3);
  expect(await readBack(child)).toEqual(filled(3));
  expect(await readBack(mm)).toEqual(filled(2));
  expect(await seenBy(driver)).toEqual(Array(16).fill(2));
  checkHost(host);
});

test('M1: the new page of a copy-on-write is not to be had before the bracket ends', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  mm.fork();
  const seen: number[] = [];
  const old = mm.tryGetPage(va, 0);
  mm.putPage(old);
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: () => void mm.forEachPresent(va / PAGE, va / PAGE + 1, (_vpn, pfn) => seen.push(pfn)),
    invalidateRangeEnd: () => void mm.forEachPresent(va / PAGE, va / PAGE + 1, (_vpn, pfn) => seen.push(pfn)),
  });
  write(mm, va, 2);
  expect(seen[0]).toBe(old);
  expect(seen[1]).not.toBe(old);
  checkHost(host);
});

test('M25: the last of a family reuses the page in place, and nobody is notified; with another left it copies', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  const first = mm.fork();
  const second = mm.fork();
  const frame = () => {
    const pfn = mm.tryGetPage(va, 0);
    mm.putPage(pfn);
    return pfn;
  };
  const shared = frame();
  first.exit();
  write(mm, va, 2);
  expect(frame()).not.toBe(shared);
  expect(read(second, va)).toBe(1);
  let nrBrackets = 0;
  mmuNotifierRegister(second, 0, VA_SIZE, { invalidateRangeStart: () => void nrBrackets++ });
  write(second, va, 3);
  const pfn = second.tryGetPage(va, 0);
  second.putPage(pfn);
  expect([pfn, nrBrackets]).toEqual([shared, 0]);
  checkHost(host);
});

test('M25: a page that the other side still has in swap alone is copied', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  const child = mm.fork();
  host.reclaim.shrink(true, true, true);
  expect([mm.residentPages, child.residentPages]).toEqual([0, 0]);
  expect(read(mm, va)).toBe(1);
  write(mm, va, 2);
  checkHost(host);
  expect([read(mm, va), read(child, va)]).toEqual([2, 1]);
  checkHost(host);
});

test('M25: a page that somebody holds is copied, for the holder is the other side’s', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  const child = mm.fork();
  const held = child.tryGetPage(va, 0);
  child.exit();
  write(mm, va, 2);
  expect(host.u8[held * PAGE]).toBe(1);
  checkHost(host, 1);
  mm.putPage(held);
  checkHost(host);
});

test('M25: a page in the swap cache that somebody holds is copied, though no other pte names it', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  const child = mm.fork();
  for (let pass = 0; pass < 4; pass++) host.reclaim.shrink(true, true, true);
  expect(read(child, va)).toBe(1);
  const held = child.tryGetPage(va, 0);
  child.exit();
  write(mm, va, 2);
  expect([host.u8[held * PAGE], read(mm, va)]).toEqual([1, 2]);
  checkHost(host, 1);
  mm.putPage(held);
  checkHost(host);
});

test('N6: reclaim finds every pte of a page that a chain of forks shares', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  const chain = [mm];
  for (let k = 0; k < 6; k++) chain.push(chain.at(-1)!.fork());
  const pfn = mm.tryGetPage(va, 0);
  expect(host.frames.mapcount[pfn]).toBe(7);
  mm.putPage(pfn);
  host.reclaim.shrink(true, true, true);
  expect(chain.map((m) => m.residentPages)).toEqual([0, 0, 0, 0, 0, 0, 0]);
  checkHost(host);
  for (const [k, m] of chain.entries()) write(m, va, k + 1);
  checkHost(host);
  expect(chain.map((m) => read(m, va))).toEqual([1, 2, 3, 4, 5, 6, 7]);
});

test('N6: a chain of forks whose parents exit does not grow the reverse map', () => {
  const { host, mm, va } = setUp();
  let last = mm;
  for (let k = 0; k < 50; k++) {
    write(last, va + (k % 16) * PAGE, k);
    const child = last.fork();
    last.exit();
    last = child;
    checkHost(host);
  }
  expect(host.anonVmas.nrLive).toBeLessThan(4);
  expect(read(last, va + PAGE)).toBe(49);
});

test('a page of a child is looked for in the child, not in its family', () => {
  const { host, mm, va } = setUp(256);
  write(mm, va, 1);
  const children = [...Array(50).keys()].map(() => mm.fork());
  const child = children[7]!;
  write(child, va, 2);
  const pfn = child.tryGetPage(va, 0);
  child.putPage(pfn);
  let nrVisited = 0;
  host.anonVmas.get(host.frames.mapping[pfn]!)!.visit(host.frames.index[pfn]!, () => void nrVisited++);
  expect(nrVisited).toBe(1);
});

test('ENOMEM when no page table is left: there is no child, and the parent is whole', () => {
  const host = new Host({ frames: 64, arenaBytes: 65536, pageTables: 6 });
  const mm = host.createMm();
  const va = mm.mmap(0, 2 * PAGE, 3, ANON);
  write(mm, va, 1);
  expect(() => mm.fork()).toThrow(/^ENOMEM: fork: no page table left of 6/);
  checkHost(host);
  expect(host.mms.size).toBe(1);
  write(mm, va, 2);
  expect(read(mm, va)).toBe(2);
});

test('fork copies no page beyond the end of an area: a neighbour that is not inherited stays the parent’s', () => {
  const { host, mm, va } = setUp();
  mm.mmap(va + 16 * PAGE, 4 * PAGE, 3, ANON | MAP_FIXED);
  mm.mprotect(va + 16 * PAGE, 4 * PAGE, 7);
  for (let k = 14; k < 18; k++) write(mm, va + k * PAGE, k);
  const right = mm.findVma(va + 16 * PAGE)!;
  mm.vmas.setFlags(right, right.prot, right.flags | VM_DONTCOPY);
  const child = mm.fork();
  checkHost(host);
  expect([read(child, va + 14 * PAGE), read(child, va + 15 * PAGE)]).toEqual([14, 15]);
  expect(() => read(child, va + 16 * PAGE)).toThrow(/^EFAULT/);
  expect(read(mm, va + 16 * PAGE)).toBe(16);
});

test('neighbours whose pages came while their rights differed become one when they are the same', () => {
  const { host, mm, va } = setUp();
  mm.mprotect(va + 8 * PAGE, 8 * PAGE, 7);
  write(mm, va, 1);
  write(mm, va + 8 * PAGE, 2);
  mm.mprotect(va + 8 * PAGE, 8 * PAGE, 3);
  expect(mm.vmas.length).toBe(1);
  checkHost(host);
  host.reclaim.shrink(true, true, true);
  expect(mm.residentPages).toBe(0);
  expect([read(mm, va), read(mm, va + 8 * PAGE)]).toEqual([1, 2]);
});

test('who has exited, or was split off, is not visited any more', () => {
  const { host, mm, va } = setUp(256);
  write(mm, va + PAGE, 1);
  const children = [...Array(5).keys()].map(() => mm.fork());
  const nrVisited = () => {
    const pfn = mm.tryGetPage(va + PAGE, 0);
    mm.putPage(pfn);
    let nr = 0;
    host.anonVmas.get(host.frames.mapping[pfn]!)!.visit(host.frames.index[pfn]!, () => void nr++);
    return nr;
  };
  expect(nrVisited()).toBe(6);
  for (const child of children) child.exit();
  expect(nrVisited()).toBe(1);
  mm.mprotect(va, 8 * PAGE, 1);
  mm.mprotect(va + PAGE, PAGE, 3);
  expect(nrVisited()).toBe(1);
});

test('N6: children that came and went do not keep a later child from taking over its parent’s anonVma', () => {
  const { host, mm, va } = setUp(256);
  let last = mm;
  for (let k = 0; k < 20; k++) {
    write(last, va, k);
    for (let n = 0; n < 3; n++) {
      const short = last.fork();
      write(short, va, n);
      short.exit();
    }
    const child = last.fork();
    last.exit();
    last = child;
  }
  expect(host.anonVmas.nrLive).toBeLessThan(4);
  checkHost(host);
});
