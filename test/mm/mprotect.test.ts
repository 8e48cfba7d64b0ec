import { expect, test } from 'vitest';
import {
  checkHost,
  Host,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PROT_EXEC,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
  RLIMIT_DATA,
} from '../../src/mm/index.js';
import { PTE_WRITE } from '../../src/mm/pgtable/pte.js';
import { TestDriver } from './testdriver.js';

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;

function setUp(options = {}) {
  const swap = new MemorySwap({ sizeBytes: 2 ** 22 });
  const host = new Host({ frames: 128, arenaBytes: 65536, swap, debug: true, ...options });
  const mm = host.createMm({ name: 'guest' });
  const va = mm.mmap(0, 16 * PAGE, RW, ANON);
  return { host, mm, va };
}

const writable = (mm: Mm, va: number) => (mm.pageTable.get(va / PAGE) & PTE_WRITE) !== 0;
const write = (mm: Mm, va: number, value: number) => mm.writeSync(va, new Uint8Array([value]));
function read(mm: Mm, va: number): number {
  const byte = new Uint8Array(1);
  mm.readSync(va, byte);
  return byte[0]!;
}

const pieces = (mm: Mm, va: number) =>
  mm.vmas.all().map((v) => [(v.start - va) / PAGE, (v.end - va) / PAGE, v.prot] as const);

test('VMAs are split where rights differ, and merged when they are the same again', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  mm.mprotect(va + 4 * PAGE, 4 * PAGE, PROT_READ);
  expect(pieces(mm, va)).toEqual([
    [0, 4, RW],
    [4, 8, PROT_READ],
    [8, 16, RW],
  ]);
  mm.mprotect(va + 2 * PAGE, 4 * PAGE, PROT_READ);
  checkHost(host);
  mm.mprotect(va, 16 * PAGE, PROT_READ);
  expect(pieces(mm, va)).toEqual([[0, 16, PROT_READ]]);
  mm.mprotect(va, 16 * PAGE, RW);
  expect(pieces(mm, va)).toEqual([[0, 16, RW]]);
  checkHost(host);
});

test('under PROT_NONE pages stay, may not be accessed, and are there again afterwards without a fault', () => {
  const { host, mm, va } = setUp();
  for (let p = 0; p < 16; p++) write(mm, va + p * PAGE, p + 1);
  const before = host.frames.nrFree;
  mm.mprotect(va, 16 * PAGE, PROT_NONE);
  expect(mm.tryGetPage(va, 0)).toBe(-2);
  expect(() => read(mm, va)).toThrow(/EFAULT/);
  expect([mm.residentPages, host.frames.nrFree]).toEqual([16, before]);
  checkHost(host);
  mm.mprotect(va, 16 * PAGE, RW);
  const { pgfault } = host.vmstat;
  for (let p = 0; p < 16; p++) expect(read(mm, va + p * PAGE)).toBe(p + 1);
  for (let p = 0; p < 16; p++) write(mm, va + p * PAGE, p + 2);
  expect(host.vmstat.pgfault).toBe(pgfault);
  checkHost(host);
});

test('pages under PROT_NONE go to swap and come back', async () => {
  const { host, mm, va } = setUp();
  for (let p = 0; p < 16; p++) write(mm, va + p * PAGE, p + 1);
  mm.mprotect(va, 16 * PAGE, PROT_NONE);
  for (let k = 0; k < 4; k++) host.reclaim.shrink(true, true, true);
  expect(mm.residentPages).toBe(0);
  mm.mprotect(va, 16 * PAGE, PROT_READ);
  for (let p = 0; p < 16; p++) expect(read(mm, va + p * PAGE)).toBe(p + 1);
  checkHost(host);
});

test('N5: the right to write comes back where a write fault would only set it: not for the zero page, nor for what is shared', () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  expect(read(mm, va + PAGE)).toBe(0);
  mm.mprotect(va, 2 * PAGE, PROT_READ);
  mm.mprotect(va, 2 * PAGE, RW);
  expect([writable(mm, va), writable(mm, va + PAGE)]).toEqual([true, false]);
  const child = mm.fork();
  mm.mprotect(va, 2 * PAGE, PROT_READ);
  mm.mprotect(va, 2 * PAGE, RW);
  expect(writable(mm, va)).toBe(false);
  write(mm, va, 2);
  expect([read(mm, va), read(child, va)]).toEqual([2, 1]);
  checkHost(host);
});

test('N15: a page that is clean again does not get the right to write back: its next write is seen', async () => {
  const { host, mm, va } = setUp();
  write(mm, va, 1);
  host.reclaim.shrink(true, true, true);
  expect(read(mm, va)).toBe(1);
  mm.mprotect(va, PAGE, PROT_READ);
  mm.mprotect(va, PAGE, RW);
  expect(writable(mm, va)).toBe(false);
  write(mm, va, 2);
  host.reclaim.shrink(true, true, true);
  expect(read(mm, va)).toBe(2);
  checkHost(host);
});

test('M26: an external writer has no right left when mprotect returns, and gets it back by a fault', async () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  await driver.store(va, 1);
  expect(driver.access(va, true)).toBeGreaterThan(0);
  mm.mprotect(va, PAGE, PROT_READ);
  expect(driver.access(va, true)).toBeUndefined();
  expect(driver.tryFault(va, true)).toBe(-2);
  expect(await driver.load(va)).toBe(1);
  mm.mprotect(va, PAGE, PROT_NONE);
  expect(driver.access(va, false)).toBeUndefined();
  expect(driver.tryFault(va, false)).toBe(-2);
  mm.mprotect(va, PAGE, RW);
  await driver.store(va, 2);
  expect(read(mm, va)).toBe(2);
  checkHost(host);
});

test('what lies before a hole is changed, then ENOMEM; an unknown bit changes nothing', () => {
  const { host, mm, va } = setUp();
  mm.munmap(va + 4 * PAGE, PAGE);
  expect(() => mm.mprotect(va + PAGE, 15 * PAGE, PROT_READ)).toThrow(
    /ENOMEM: mprotect: address 0x10004000 of guest must be mapped/,
  );
  expect(pieces(mm, va)).toEqual([
    [0, 1, RW],
    [1, 4, PROT_READ],
    [5, 16, RW],
  ]);
  checkHost(host);
});

test('private memory that becomes writable is data, is charged, and is limited', () => {
  const { host, mm } = setUp({ overcommit: 'never', overcommitRatio: 0 });
  // The commit limit is the swap, 1024 pages, of which 16 are promised.
  const va = mm.mmap(0x4000_0000, 1100 * PAGE, PROT_READ, ANON | MAP_FIXED);
  expect([mm.vm.data, mm.vm.committed]).toEqual([16, 16]);
  expect(() => mm.mprotect(va, 1100 * PAGE, RW)).toThrow(/ENOMEM: mprotect: 4400 KiB .* cannot be promised/);
  mm.mprotect(va, 8 * PAGE, RW);
  expect([mm.vm.data, mm.vm.committed]).toEqual([24, 24]);
  mm.mprotect(va, 4 * PAGE, PROT_READ | PROT_EXEC);
  expect([mm.vm.data, mm.vm.exec, mm.vm.committed]).toEqual([20, 4, 20]);
  write(mm, va + 4 * PAGE, 1);
  mm.mprotect(va + 4 * PAGE, 4 * PAGE, PROT_READ);
  expect([mm.vm.data, mm.vm.committed]).toEqual([16, 20]);
  mm.setrlimit(RLIMIT_DATA, 18 * PAGE);
  expect(() => mm.mprotect(va + 8 * PAGE, 4 * PAGE, RW)).toThrow(/ENOMEM: mprotect: .* RLIMIT_DATA/);
  mm.mprotect(va + 8 * PAGE, 2 * PAGE, RW);
  checkHost(host);
  mm.munmap(va, 1100 * PAGE);
  expect(host.vm.committed).toBe(16);
});

test('what was mapped with MAP_NORESERVE is never charged, but where the policy is never', () => {
  for (const overcommit of ['heuristic', 'always', 'never'] as const) {
    const { host, mm } = setUp({ overcommit });
    const va = mm.mmap(0, 4 * PAGE, PROT_READ, ANON | MAP_NORESERVE);
    mm.mprotect(va, 4 * PAGE, RW);
    expect(mm.vm.committed).toBe(overcommit === 'never' ? 20 : 16);
    checkHost(host);
  }
});

test('locked memory that becomes writable is there for writing at once', async () => {
  const { host, mm } = setUp();
  const va = mm.mmap(0, 4 * PAGE, PROT_READ, ANON);
  await mm.mlock(va, 4 * PAGE);
  expect(mm.residentPages).toBe(0);
  mm.mprotect(va, 4 * PAGE, RW);
  expect([mm.residentPages, host.stats().pinnedFrames]).toEqual([4, 4]);
  checkHost(host);
});

test('what is locked and becomes writable is brought in VMA by VMA: its pages are its own before the next one could merge', async () => {
  const { host, mm, va } = setUp();
  mm.munmap(va + 3 * PAGE, 13 * PAGE);
  mm.mprotect(va, 3 * PAGE, PROT_READ | PROT_EXEC);
  mm.mprotect(va, PAGE, PROT_READ);
  mm.mprotect(va + 2 * PAGE, PAGE, RW);
  await mm.mlock(va, 3 * PAGE);
  mm.mprotect(va, 2 * PAGE, RW);
  // The first VMA has an anonVma by now, and so has the third: the second goes with the first.
  expect(pieces(mm, va)).toEqual([
    [0, 2, RW],
    [2, 3, RW],
  ]);
  expect([0, 1, 2].map((k) => writable(mm, va + k * PAGE))).toEqual([true, true, true]);
  checkHost(host);
});
