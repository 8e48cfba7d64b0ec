import { expect, test } from 'vitest';
import {
  checkHost,
  Host,
  MADV_PAGEOUT,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MAP_SHARED,
  MemorySwap,
  type Mm,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';
import { TestDriver } from './testdriver.js';

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;

function setUp() {
  const host = new Host({ frames: 128, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 2 ** 22 }), debug: true });
  const mm = host.createMm({ name: 'guest' });
  const va = mm.mmap(0, 8 * PAGE, RW, ANON);
  for (let p = 0; p < 8; p++) write(mm, va + p * PAGE);
  return { host, mm, va };
}

const write = (mm: Mm, va: number) => mm.writeSync(va, new Uint8Array([1]));
/** Pages that are soft-dirty, of the eight from `va` on. */
const dirty = (mm: Mm, va: number) => mm.pagemap(va, 8).flatMap((e, p) => (e.softDirty ? [p] : []));

test('after the marks are cleared, what is written is marked again, what is read is not', () => {
  const { host, mm, va } = setUp();
  expect(dirty(mm, va)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  mm.clearSoftDirty();
  expect(dirty(mm, va)).toEqual([]);
  mm.readSync(va, new Uint8Array(8 * PAGE));
  write(mm, va + 3 * PAGE);
  expect(dirty(mm, va)).toEqual([3]);
  checkHost(host);
});

test('M17: a write by an external MMU that had the right to write before is not missed', async () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  await driver.store(va + 2 * PAGE, 5);
  mm.clearSoftDirty();
  expect(driver.access(va + 2 * PAGE, true)).toBeUndefined();
  await driver.load(va + 2 * PAGE);
  expect(dirty(mm, va)).toEqual([]);
  await driver.store(va + 2 * PAGE, 6);
  expect(dirty(mm, va)).toEqual([2]);
  checkHost(host);
});

test("marks go to swap and come back, survive changes of rights, and are the child's too", () => {
  const { host, mm, va } = setUp();
  mm.clearSoftDirty();
  write(mm, va + PAGE);
  mm.madvise(va, 8 * PAGE, MADV_PAGEOUT);
  expect([mm.residentPages, ...dirty(mm, va)]).toEqual([0, 1]);
  mm.readSync(va, new Uint8Array(8 * PAGE));
  expect(dirty(mm, va)).toEqual([1]);
  mm.mprotect(va, 8 * PAGE, PROT_READ);
  mm.mprotect(va, 8 * PAGE, RW);
  const child = mm.fork();
  expect([dirty(mm, va), dirty(child, va)]).toEqual([[1], [1]]);
  write(mm, va + 4 * PAGE);
  expect([dirty(mm, va), dirty(child, va)]).toEqual([[1, 4], [1]]);
  checkHost(host);
});

test('rights that come back do not bring the right to write unseen', () => {
  const { host, mm, va } = setUp();
  mm.clearSoftDirty();
  mm.mprotect(va, 8 * PAGE, PROT_READ);
  mm.mprotect(va, 8 * PAGE, RW);
  expect(dirty(mm, va)).toEqual([]);
  write(mm, va + 6 * PAGE);
  expect(dirty(mm, va)).toEqual([6]);
  checkHost(host);
});

test('clearing takes the marks of what is in swap as well', () => {
  const { host, mm, va } = setUp();
  mm.madvise(va, 8 * PAGE, MADV_PAGEOUT);
  mm.clearSoftDirty();
  mm.readSync(va, new Uint8Array(8 * PAGE));
  expect(dirty(mm, va)).toEqual([]);
  checkHost(host);
});

test('what is mapped anew, or moved, is marked as a whole, and a merge keeps that', () => {
  const { host, mm, va } = setUp();
  mm.clearSoftDirty();
  mm.mmap(va + 2 * PAGE, PAGE, RW, ANON | MAP_FIXED);
  expect(dirty(mm, va)).toContain(2);
  mm.clearSoftDirty();
  const moved = mm.mremap(va, 4 * PAGE, 4 * PAGE, 3, va + 64 * PAGE);
  expect(dirty(mm, moved)).toEqual([0, 1, 2, 3]);
  checkHost(host);
});

test('shared mappings are tracked for each mm', () => {
  const { host, mm } = setUp();
  const va = mm.mmap(0, 8 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS);
  write(mm, va);
  write(mm, va + PAGE);
  mm.clearSoftDirty();
  write(mm, va + PAGE);
  expect(dirty(mm, va)).toEqual([1]);
  checkHost(host);
});

test('pagemap says of each page where it is', () => {
  const { host, mm, va } = setUp();
  mm.mprotect(va, 8 * PAGE, RW);
  mm.madvise(va, PAGE, MADV_PAGEOUT);
  const pfn = mm.tryGetPage(va + PAGE, 0);
  mm.putPage(pfn);
  const child = mm.fork();
  mm.writeSync(va + 2 * PAGE, new Uint8Array([1]));
  mm.munmap(va + 3 * PAGE, PAGE);
  const shared = mm.mmap(va + 3 * PAGE, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED);
  write(mm, shared);
  const [swapped, both, own, file] = mm.pagemap(va, 4);
  expect(swapped).toMatchObject({ present: false, swapped: true, swapSlot: 0, pfn: -1 });
  expect(both).toMatchObject({ present: true, pfn, exclusive: false, file: false });
  expect(own).toMatchObject({ present: true, exclusive: true, file: false });
  expect(file).toMatchObject({ present: true, exclusive: true, file: true });
  expect(mm.pagemap(0, 1)[0]).toMatchObject({ present: false, swapped: false, pfn: -1, softDirty: false });
  child.exit();
  checkHost(host);
});
