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
  MREMAP_DONTUNMAP,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  mmuNotifierRegister,
  RLIMIT_AS,
  VA_SIZE,
} from '../../src/mm/index.js';
import { PteNotifier, pteNotifierRegister, pteNotifierUnregister } from '../../src/notifier/index.js';
import { TestDriver } from './testdriver.js';

const PAGE = 4096;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;
const BASE = 0x2000_0000;
const FAR = 0x4000_0000;
const MOVE_TO = MREMAP_MAYMOVE | MREMAP_FIXED;

function setUp(frames = 64) {
  const swap = new MemorySwap({ sizeBytes: 2 ** 22 });
  const host = new Host({ frames, arenaBytes: 65536, swap, debug: true });
  const mm = host.createMm();
  return { host, mm };
}

const map = (mm: Mm, va: number, nrPages: number, prot = 3) => mm.mmap(va, nrPages * PAGE, prot, ANON | MAP_FIXED);

function fill(mm: Mm, va: number, nrPages: number): void {
  for (let k = 0; k < nrPages; k++) mm.writeSync(va + k * PAGE, new Uint8Array([k + 1]));
}

function bytes(mm: Mm, va: number, nrPages: number): number[] {
  return [...Array(nrPages).keys()].map((k) => {
    const byte = new Uint8Array(1);
    mm.readSync(va + k * PAGE, byte);
    return byte[0]!;
  });
}

const areas = (mm: Mm) => mm.vmas.all().map((vma) => [vma.start, vma.nrPages]);

test('shrinks in place', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 8);
  fill(mm, BASE, 8);
  expect(mm.mremap(BASE, 8 * PAGE, 3 * PAGE)).toBe(BASE);
  expect(areas(mm)).toEqual([[BASE, 3]]);
  expect(bytes(mm, BASE, 3)).toEqual([1, 2, 3]);
  expect(host.frames.nrFree).toBe(61);
  checkHost(host);
});

test('N21: grows in place where there is room, and that is no event', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  fill(mm, BASE, 4);
  let nrEvents = 0;
  mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart: () => void nrEvents++ });
  expect(mm.mremap(BASE + PAGE, 3 * PAGE, 9 * PAGE)).toBe(BASE + PAGE);
  expect(areas(mm)).toEqual([[BASE, 10]]);
  expect(bytes(mm, BASE, 10)).toEqual([1, 2, 3, 4, 0, 0, 0, 0, 0, 0]);
  expect(nrEvents).toBe(0);
  checkHost(host);
});

test('moves where there is none, with its pages, resident and swapped', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  map(mm, BASE + 4 * PAGE, 1, 1);
  fill(mm, BASE, 4);
  host.reclaim.shrink(true, true, true);
  mm.writeSync(BASE + PAGE, new Uint8Array([9]));
  expect(() => mm.mremap(BASE, 4 * PAGE, 6 * PAGE)).toThrow(/^ENOMEM: mremap: 2 pages after 0x20004000/);
  const va = mm.mremap(BASE, 4 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
  expect(va).not.toBe(BASE);
  checkHost(host);
  expect(bytes(mm, va, 6)).toEqual([1, 9, 3, 4, 0, 0]);
  expect(() => bytes(mm, BASE, 1)).toThrow(/^EFAULT/);
});

test('M21: one UNMAP bracket over the old range, before a pte moves; an external entry cannot stay', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  fill(mm, BASE, 4);
  const driver = new TestDriver(mm);
  driver.tryFault(BASE + PAGE, true);
  const seen: unknown[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: (_sub, range) => {
      let present = 0;
      mm.forEachPresent(BASE / PAGE, BASE / PAGE + 4, () => void present++);
      seen.push([MMU_NOTIFY_NAMES[range.event], range.start, range.end, present]);
    },
  });
  mm.mremap(BASE, 4 * PAGE, 4 * PAGE, MOVE_TO, FAR);
  expect(seen).toEqual([['UNMAP', BASE, BASE + 4 * PAGE, 4]]);
  expect(driver.access(BASE + PAGE, false)).toBeUndefined();
  expect(driver.tryFault(BASE + PAGE, false)).toBeLessThan(0);
  expect(bytes(mm, FAR, 4)).toEqual([1, 2, 3, 4]);
  checkHost(host);
});

test('whole tables move where both addresses have the same place in 2 MiB', () => {
  const { host, mm } = setUp(2048);
  const nrPages = 3 * 512;
  map(mm, BASE, nrPages);
  fill(mm, BASE, nrPages);
  const before = host.tables.bytesInUse;
  mm.mremap(BASE + PAGE, (nrPages - 1) * PAGE, (nrPages - 1) * PAGE, MOVE_TO, FAR + PAGE);
  checkHost(host);
  // A leaf more, for the first page stayed, and the table above the new place.
  expect(host.tables.bytesInUse - before).toBe(2 * 2048);
  const expected = [...Array(nrPages).keys()].map((k) => (k + 1) & 255);
  expect(bytes(mm, FAR + PAGE, nrPages - 1)).toEqual(expected.slice(1));
  expect(bytes(mm, BASE, 1)).toEqual([1]);
  mm.mremap(FAR + PAGE, (nrPages - 1) * PAGE, (nrPages - 1) * PAGE, MOVE_TO, BASE + 5 * PAGE * 512);
  checkHost(host);
  expect(bytes(mm, BASE + 5 * PAGE * 512, nrPages - 1)).toEqual(expected.slice(1));
});

test('N6: reclaim finds moved pages, in a fork too', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  fill(mm, BASE, 4);
  mm.mremap(BASE, 4 * PAGE, 4 * PAGE, MOVE_TO, FAR);
  const child = mm.fork();
  child.mremap(FAR, 4 * PAGE, 4 * PAGE, MOVE_TO, BASE);
  host.reclaim.shrink(true, true, true);
  expect([mm.residentPages, child.residentPages]).toEqual([0, 0]);
  checkHost(host);
  expect(bytes(mm, FAR, 4)).toEqual([1, 2, 3, 4]);
  expect(bytes(child, BASE, 4)).toEqual([1, 2, 3, 4]);
});

test('MREMAP_DONTUNMAP leaves the mapping, empty', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  fill(mm, BASE, 4);
  const va = mm.mremap(BASE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, FAR);
  expect(va).toBe(FAR);
  expect(bytes(mm, va, 4)).toEqual([1, 2, 3, 4]);
  expect(bytes(mm, BASE, 4)).toEqual([0, 0, 0, 0]);
  checkHost(host);
});

test('MREMAP_FIXED moves several mappings at once, with the holes between them, and unmaps what was there', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 2);
  map(mm, BASE + 3 * PAGE, 2, 1);
  map(mm, FAR - PAGE, 8);
  fill(mm, BASE, 2);
  fill(mm, FAR, 6);
  expect(mm.mremap(BASE + PAGE, 4 * PAGE, 4 * PAGE, MOVE_TO, FAR)).toBe(FAR);
  checkHost(host);
  expect(areas(mm)).toEqual([
    [BASE, 1],
    [FAR - PAGE, 1],
    [FAR, 1],
    [FAR + PAGE, 1],
    [FAR + 2 * PAGE, 2],
    [FAR + 4 * PAGE, 3],
  ]);
  expect(bytes(mm, FAR, 2)).toEqual([2, 2]);
});

test('locked memory stays locked where it goes, and is counted once', async () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  await mm.mlock(BASE, 4 * PAGE);
  mm.mremap(BASE, 4 * PAGE, 4 * PAGE, MOVE_TO, FAR);
  expect([mm.vm.locked, host.nrMlocked]).toEqual([4, 4]);
  checkHost(host);
  mm.mremap(FAR, 4 * PAGE, 2 * PAGE);
  expect([mm.vm.locked, host.nrMlocked]).toEqual([2, 2]);
  mm.mremap(FAR, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, BASE);
  expect([mm.vm.locked, host.nrMlocked]).toEqual([2, 2]);
  checkHost(host);
});

test('ENOMEM when page tables are short: everything is where it was', () => {
  const host = new Host({ frames: 64, arenaBytes: 65536, pageTables: 6 });
  const mm = host.createMm();
  map(mm, BASE, 4);
  map(mm, FAR + 2 ** 31, 1);
  fill(mm, BASE, 4);
  fill(mm, FAR + 2 ** 31, 1);
  const before = areas(mm);
  expect(() => mm.mremap(BASE, 4 * PAGE, 4 * PAGE, MOVE_TO, FAR)).toThrow(/^ENOMEM: mremap: no page table left/);
  checkHost(host);
  expect(areas(mm)).toEqual(before);
  expect(bytes(mm, BASE, 4)).toEqual([1, 2, 3, 4]);
});

test.each([
  ['EINVAL', 'flags', [BASE, PAGE, PAGE, 8]],
  ['EINVAL', 'addr', [BASE + 1, PAGE, PAGE, 1]],
  ['EINVAL', 'new length', [BASE, PAGE, 0, 1]],
  ['EINVAL', 'new length', [BASE, PAGE, 2 ** 40, 1]],
  ['EINVAL', 'old length', [BASE, -1, PAGE, 1]],
  ['EINVAL', 'flags', [BASE, PAGE, PAGE, MREMAP_FIXED, FAR]],
  ['EINVAL', 'flags', [BASE, PAGE, PAGE, MREMAP_DONTUNMAP, FAR]],
  ['EINVAL', 'lengths', [BASE, PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, FAR]],
  ['EINVAL', 'new address', [BASE, PAGE, PAGE, MOVE_TO, FAR + 1]],
  ['EINVAL', 'new address', [BASE, 4 * PAGE, 4 * PAGE, MOVE_TO, BASE + PAGE]],
  ['EINVAL', 'new address', [BASE, PAGE, PAGE, MOVE_TO, 2 ** 39]],
  ['EINVAL', 'old length 0', [BASE, 0, 2 * PAGE, MREMAP_MAYMOVE]],
  ['EFAULT', 'address', [FAR, PAGE, PAGE, 1]],
  ['EFAULT', '5 pages', [BASE, 5 * PAGE, 6 * PAGE, 1]],
  ['EPERM', 'addr', [BASE, PAGE, PAGE, MOVE_TO, 0]],
] as const)('%s names %s', (code, what, args) => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  fill(mm, BASE, 4);
  const before = areas(mm);
  expect(() => mm.mremap(...(args as [number, number, number, number, number]))).toThrow(
    new RegExp(`^${code}: m(re)?map: .*${what}`),
  );
  expect(areas(mm)).toEqual(before);
  expect(bytes(mm, BASE, 4)).toEqual([1, 2, 3, 4]);
  checkHost(host);
});

test('S1: a pte notifier follows its area: the old addresses are cleared, and the new ones are told of', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  fill(mm, BASE, 4);
  const told: unknown[] = [];
  const pn = new PteNotifier({
    clear: (_pn, _vma, address) => void told.push(address),
    close: () => void told.push('close'),
  });
  pteNotifierRegister(pn, mm.findVma(BASE)!);
  mm.mremap(BASE, 4 * PAGE, 4 * PAGE, MOVE_TO, FAR);
  expect(told.splice(0)).toEqual([0, 1, 2, 3].map((k) => BASE + k * PAGE));
  map(mm, BASE, 4);
  fill(mm, BASE, 4);
  mm.munmap(BASE, 4 * PAGE);
  expect(told).toEqual([]);
  // A part goes on its own: the registration is in both places.
  mm.mremap(FAR, PAGE, PAGE, MOVE_TO, BASE);
  expect(told.splice(0)).toEqual([FAR]);
  mm.munmap(BASE, PAGE);
  expect(told.splice(0)).toEqual([BASE]);
  mm.munmap(FAR, 4 * PAGE);
  expect(told.splice(0)).toEqual([...[1, 2, 3].map((k) => FAR + k * PAGE), 'close']);
  expect(pn.registered).toBe(false);
  checkHost(host);
});

test('N10: a general subscription is of its addresses, and does not move', () => {
  const { mm } = setUp();
  map(mm, BASE, 4);
  fill(mm, BASE, 4);
  const told: number[] = [];
  mmuNotifierRegister(mm, BASE, BASE + 4 * PAGE, {
    invalidateRangeStart: (_sub, range) => void told.push(range.start),
  });
  mm.mremap(BASE, 4 * PAGE, 4 * PAGE, MOVE_TO, FAR);
  mm.munmap(FAR, 4 * PAGE);
  map(mm, BASE, 4);
  mm.munmap(BASE, 4 * PAGE);
  expect(told).toEqual([BASE, BASE]);
});

test('N10: a bracket over two pieces of one subscription is told once', () => {
  const { mm } = setUp();
  map(mm, BASE, 4);
  let nrStarts = 0;
  let nrEnds = 0;
  const ops = {
    invalidateRangeStart: () => void nrStarts++,
    invalidateRangeEnd: () => void nrEnds++,
    areaClosed: () => {},
  };
  const sub = mmuNotifierRegister(mm, BASE, BASE + 4 * PAGE, ops);
  mm.mremap(BASE + PAGE, PAGE, PAGE, MOVE_TO, BASE + 5 * PAGE);
  expect([sub.start, sub.end, nrStarts, nrEnds]).toEqual([BASE, BASE + 6 * PAGE, 1, 1]);
  mm.munmap(BASE, 6 * PAGE);
  expect([nrStarts, nrEnds, sub.registered]).toEqual([2, 2, false]);
});

test('a notifier that followed its area is unregistered as any other', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  let nrReleases = 0;
  const pn = new PteNotifier({ clear: () => {}, release: () => void nrReleases++ });
  pteNotifierRegister(pn, mm.findVma(BASE)!);
  mm.mremap(BASE + PAGE, PAGE, PAGE, MOVE_TO, FAR);
  pteNotifierUnregister(pn);
  expect([nrReleases, mm.notifiers.nrSubscriptions, mm.notifiers.all()]).toEqual([1, 0, []]);
  checkHost(host);
});

test('what grows up to its neighbour becomes one with it', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  map(mm, BASE + 8 * PAGE, 2);
  mm.mremap(BASE, 4 * PAGE, 8 * PAGE);
  expect(areas(mm)).toEqual([[BASE, 10]]);
  checkHost(host);
});

test('a mapping may move to where it touches its old range', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 2);
  fill(mm, BASE, 2);
  mm.mremap(BASE, 2 * PAGE, 2 * PAGE, MOVE_TO, BASE + 2 * PAGE);
  mm.mremap(BASE + 2 * PAGE, 2 * PAGE, 2 * PAGE, MOVE_TO, BASE);
  expect(bytes(mm, BASE, 2)).toEqual([1, 2]);
  checkHost(host);
});

test('to the same size and place is nothing, over several mappings too', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 2);
  map(mm, BASE + 2 * PAGE, 2, 1);
  expect(mm.mremap(BASE, 4 * PAGE, 4 * PAGE)).toBe(BASE);
  expect(areas(mm)).toEqual([
    [BASE, 2],
    [BASE + 2 * PAGE, 2],
  ]);
  checkHost(host);
});

test('MREMAP_DONTUNMAP at the same size ends where what stays is merged with its neighbour', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  fill(mm, BASE, 4);
  expect(mm.mremap(BASE + PAGE, PAGE, PAGE, MOVE_TO | MREMAP_DONTUNMAP, FAR)).toBe(FAR);
  // The VMA is not split for a part that goes, as in Linux.
  expect(areas(mm)).toEqual([
    [BASE, 4],
    [FAR, 1],
  ]);
  expect(bytes(mm, BASE, 4)).toEqual([1, 0, 3, 4]);
  expect(bytes(mm, FAR, 1)).toEqual([2]);
  checkHost(host);
});

test('MREMAP_DONTUNMAP counts what stays and what goes; refused, the target is gone', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  map(mm, FAR, 1);
  mm.setrlimit(RLIMIT_AS, 5 * PAGE);
  expect(() => mm.mremap(BASE, 2 * PAGE, 2 * PAGE, MOVE_TO | MREMAP_DONTUNMAP, FAR)).toThrow(/^ENOMEM.*RLIMIT_AS/);
  expect(areas(mm)).toEqual([[BASE, 4]]);
  checkHost(host);
});

test('locked memory that grows is there at once', async () => {
  const { host, mm } = setUp();
  map(mm, BASE, 2);
  await mm.mlock(BASE, 2 * PAGE);
  expect(mm.mremap(BASE, 2 * PAGE, 5 * PAGE)).toBe(BASE);
  expect(mm.residentPages).toBe(5);
  expect(mm.mremap(BASE, 5 * PAGE, 6 * PAGE, MOVE_TO, FAR)).toBe(FAR);
  expect(mm.residentPages).toBe(6);
  checkHost(host);
});

test('a negative old length wraps as in C: a move cannot be that long, and nothing beyond the address space is cut off', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 4);
  expect(() => mm.mremap(FAR, -PAGE, PAGE, MREMAP_MAYMOVE)).toThrow(/^EFAULT/);
  expect(() => mm.mremap(BASE, -PAGE, PAGE, MREMAP_MAYMOVE)).toThrow(/^EINVAL.*old length/);
  expect(areas(mm)).toEqual([[BASE, 4]]);
  checkHost(host);
});

test('a forked mapping that grows takes in the neighbour that it reaches where that has no page, and no other', () => {
  const { host, mm } = setUp();
  map(mm, BASE, 2);
  map(mm, BASE + 3 * PAGE, 1);
  fill(mm, BASE, 2);
  const child = mm.fork();
  map(child, BASE + 2 * PAGE, 1);
  expect(areas(child)).toEqual([
    [BASE, 2],
    [BASE + 2 * PAGE, 2],
  ]);
  child.munmap(BASE + 2 * PAGE, PAGE);
  expect(child.mremap(BASE + PAGE, PAGE, 2 * PAGE)).toBe(BASE + PAGE);
  expect(areas(child)).toEqual([[BASE, 4]]);
  child.writeSync(BASE + 3 * PAGE, new Uint8Array([9]));
  expect(bytes(child, BASE, 4)).toEqual([1, 2, 0, 9]);
  checkHost(host);
});
