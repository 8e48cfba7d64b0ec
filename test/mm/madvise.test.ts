import { expect, test } from 'vitest';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  Host,
  MADV_COLD,
  MADV_DOFORK,
  MADV_DONTFORK,
  MADV_DONTNEED,
  MADV_DONTNEED_LOCKED,
  MADV_FREE,
  MADV_KEEPONFORK,
  MADV_NORMAL,
  MADV_PAGEOUT,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  MADV_RANDOM,
  MADV_REMOVE,
  MADV_SEQUENTIAL,
  MADV_WILLNEED,
  MADV_WIPEONFORK,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  MemoryStore,
  MemorySwap,
  type Mm,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';
import { LRU_ACTIVE_ANON, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE } from '../../src/mm/page/lru.js';
import { TestDriver } from './testdriver.js';

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;
const NR = 16;

function setUp() {
  const swap = new MemorySwap({ sizeBytes: 2 ** 22 });
  const host = new Host({ frames: 128, arenaBytes: 65536, swap, sameFilled: false, debug: true });
  const mm = host.createMm({ name: 'guest' });
  const va = mm.mmap(0, NR * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS);
  return { host, mm, va };
}

const fill = (mm: Mm, va: number, value = 1) => {
  for (let p = 0; p < NR; p++) mm.writeSync(va + p * PAGE, new Uint8Array(PAGE).fill(value + p));
};

function byteAt(mm: Mm, va: number): number {
  const byte = new Uint8Array(1);
  mm.readSync(va, byte);
  return byte[0]!;
}

function bytes(mm: Mm, va: number): number[] {
  return [...Array(NR).keys()].map((p) => {
    const byte = new Uint8Array(1);
    mm.readSync(va + p * PAGE + 5, byte);
    return byte[0]!;
  });
}

const ONES = [...Array(NR).keys()].map((p) => p + 1);
const ZEROS = Array<number>(NR).fill(0);

function evictAll(host: Host): void {
  for (let k = 0; k < 8; k++) host.reclaim.shrink(true, true, true);
}

test('DONTNEED drops the contents, DONTNEED_LOCKED of locked memory too', async () => {
  const { host, mm, va } = setUp();
  fill(mm, va);
  mm.madvise(va, NR * PAGE, MADV_DONTNEED);
  expect([bytes(mm, va), host.frames.nrFree]).toEqual([ZEROS, 128]);
  fill(mm, va);
  await mm.mlock(va, NR * PAGE);
  expect(() => mm.madvise(va, PAGE, MADV_DONTNEED)).toThrow(
    /EINVAL: madvise: the mapping at 0x10000000 must not be locked/,
  );
  mm.madvise(va, NR * PAGE, MADV_DONTNEED_LOCKED);
  expect(bytes(mm, va)).toEqual(ZEROS);
  checkHost(host);
});

test('FREE: the contents are there until reclaim comes, then they are zeros, and nothing was written for it', () => {
  const { host, mm, va } = setUp();
  fill(mm, va);
  mm.madvise(va, NR * PAGE, MADV_FREE);
  expect([host.lru.nr[LRU_INACTIVE_ANON], host.lru.nr[LRU_INACTIVE_FILE]]).toEqual([0, NR]);
  expect(bytes(mm, va)).toEqual(ONES);
  checkHost(host);
  evictAll(host);
  expect([bytes(mm, va), host.vmstat.pswpout, mm.residentPages]).toEqual([ZEROS, 0, 0]);
  checkHost(host);
});

test('N15: what is written after FREE stays, by the mm and by an external MMU', async () => {
  const { host, mm, va } = setUp();
  const driver = new TestDriver(mm);
  fill(mm, va);
  await driver.store(va + PAGE, 77);
  mm.madvise(va, NR * PAGE, MADV_FREE);
  expect(driver.access(va + PAGE, true)).toBeUndefined();
  mm.writeSync(va + 5, new Uint8Array([100]));
  await driver.store(va + PAGE + 5, 101);
  evictAll(host);
  expect(bytes(mm, va)).toEqual([100, 101, ...ZEROS.slice(2)]);
  expect(host.vmstat.pswpout).toBe(2);
  checkHost(host);
});

test('FREE drops swapped pages at once, takes pages out of the swap cache, and leaves alone what is shared or held', () => {
  const { host, mm, va } = setUp();
  fill(mm, va);
  evictAll(host);
  const free = host.swap.nrFree;
  bytes(mm, va).slice(0, 8);
  evictAll(host);
  mm.readSync(va, new Uint8Array(1));
  mm.madvise(va, NR * PAGE, MADV_FREE);
  expect(host.swap.nrFree).toBe(free + NR);
  checkHost(host);
  fill(mm, va);
  const held = mm.tryGetPage(va, FAULT_FLAG_WRITE);
  const child = mm.fork();
  mm.writeSync(va + PAGE + 5, new Uint8Array([50]));
  mm.madvise(va, NR * PAGE, MADV_FREE);
  mm.putPage(held);
  evictAll(host);
  const after = bytes(mm, va);
  expect([after[0], after[1], after[2]]).toEqual([1, 0, 3]);
  expect(bytes(child, va)).toEqual(ONES);
  checkHost(host);
});

test('COLD: reclaim takes these first', () => {
  const { host, mm, va } = setUp();
  // Active is what is used again after the first look.
  for (let k = 0; k < 2; k++) {
    fill(mm, va);
    host.reclaim.shrink(true, true, false);
  }
  expect(host.lru.nr[LRU_ACTIVE_ANON]).toBeGreaterThan(0);
  const resident = mm.residentPages;
  mm.madvise(va, NR * PAGE, MADV_COLD);
  expect([host.lru.nr[LRU_ACTIVE_ANON], mm.residentPages]).toEqual([0, resident]);
  host.reclaim.shrink(true, true, false);
  expect(mm.residentPages).toBe(0);
  expect(bytes(mm, va)).toEqual(ONES);
  checkHost(host);
});

test('PAGEOUT: reclaim takes these now, and WILLNEED starts to bring them back', async () => {
  const { host, mm, va } = setUp();
  fill(mm, va);
  mm.madvise(va, NR * PAGE, MADV_PAGEOUT);
  expect(mm.residentPages).toBe(0);
  await host.writeback.drain();
  expect([host.frames.nrFree, host.vmstat.pswpout]).toEqual([128, NR]);
  checkHost(host);
  mm.madvise(va, NR * PAGE, MADV_WILLNEED);
  await host.swapIn.drain();
  const { pgmajfault } = host.vmstat;
  const vec = new Uint8Array(NR);
  mm.mincore(va, NR * PAGE, vec);
  expect([...vec]).toEqual(Array(NR).fill(1));
  expect(bytes(mm, va)).toEqual(ONES);
  expect(host.vmstat.pgmajfault).toBe(pgmajfault);
  checkHost(host);
});

/** A host, `nrPages` of an mm that are all in swap, and the transfers that read them, which wait for `open`. */
async function swappedOut(nrPages: number, frames: number) {
  const transfers: number[][] = [];
  let open = (): void => {};
  class SlowSwap extends MemorySwap {
    private readonly gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    override async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
      transfers.push([...slots]);
      await this.gate;
      this.readSync(slots, frames);
    }
  }
  const host = new Host({ frames, arenaBytes: 65536, swap: new SlowSwap({ sizeBytes: 2 ** 24 }) });
  const mm = host.createMm();
  const va = mm.mmap(0, nrPages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS);
  for (let p = 0; p < nrPages; p++) mm.writeSync(va + p * PAGE, Uint8Array.of(p + 1, 1));
  while (mm.residentPages > 0) {
    mm.madvise(va, nrPages * PAGE, MADV_PAGEOUT);
    await host.writeback.drain();
  }
  return { host, mm, va, transfers, open: () => open() };
}

test('WILLNEED starts all reads at once, consecutive slots in one transfer, and none twice', async () => {
  const { host, mm, va, transfers, open } = await swappedOut(40, 128);
  mm.madvise(va, 40 * PAGE, MADV_WILLNEED);
  mm.madvise(va, 40 * PAGE, MADV_WILLNEED);
  expect(transfers.map(({ length }) => length)).toEqual([16, 16, 8]);
  expect(new Set(transfers.flat()).size).toBe(40);
  expect([mm.isSwappingIn(va), mm.isSwappingIn(va + 39 * PAGE), mm.isSwappingIn(va + 40 * PAGE)]).toEqual([
    true,
    true,
    false,
  ]);
  // Who waits for one of them waits for its transfer, and starts none.
  const waiting = mm.faultIn(va + 20 * PAGE, 0);
  expect(host.swapIn.nrReads).toBe(3);
  checkHost(host);
  open();
  await waiting;
  await host.swapIn.drain();
  expect(mm.isSwappingIn(va)).toBe(false);
  for (let p = 0; p < 40; p++) expect(byteAt(mm, va + p * PAGE)).toBe(p + 1);
  expect(transfers.length).toBe(3);
  checkHost(host);
});

test('WILLNEED of more pages makes longer transfers, four of them, up to half a MiB each', async () => {
  const { host, mm, va, transfers, open } = await swappedOut(640, 1024);
  mm.madvise(va, 128 * PAGE, MADV_WILLNEED);
  expect(transfers.splice(0).map(({ length }) => length)).toEqual([32, 32, 32, 32]);
  mm.madvise(va + 128 * PAGE, 512 * PAGE, MADV_WILLNEED);
  expect(transfers.map(({ length }) => length)).toEqual([128, 128, 128, 128]);
  open();
  await host.swapIn.drain();
  checkHost(host);
});

test('PAGEOUT takes no page that a fork shares', () => {
  const { host, mm, va } = setUp();
  fill(mm, va);
  const child = mm.fork();
  mm.writeSync(va + 5, new Uint8Array([60]));
  mm.madvise(va, NR * PAGE, MADV_PAGEOUT);
  expect([mm.residentPages, child.residentPages]).toEqual([NR - 1, NR]);
  checkHost(host);
});

test('DONTFORK, WIPEONFORK, and back', () => {
  const { host, mm, va } = setUp();
  fill(mm, va);
  mm.madvise(va, 4 * PAGE, MADV_DONTFORK);
  mm.madvise(va + 4 * PAGE, 4 * PAGE, MADV_WIPEONFORK);
  const child = mm.fork();
  expect(child.findVma(va)).toBeUndefined();
  expect(child.findVma(va + 4 * PAGE)!.start).toBe(va + 4 * PAGE);
  expect(child.vm.total).toBe(12);
  const byte = new Uint8Array(1);
  child.readSync(va + 5 * PAGE, byte);
  expect(byte[0]).toBe(0);
  child.readSync(va + 8 * PAGE, byte);
  expect(byte[0]).toBe(9);
  mm.madvise(va, 8 * PAGE, MADV_DOFORK);
  mm.madvise(va, 8 * PAGE, MADV_KEEPONFORK);
  expect(mm.vmas.length).toBe(1);
  expect(bytes(mm.fork(), va)).toEqual(ONES);
  checkHost(host);
});

test('SEQUENTIAL, RANDOM and NORMAL are flags of the VMA, which is split and merged', () => {
  const { host, mm, va } = setUp();
  mm.madvise(va + 4 * PAGE, 4 * PAGE, MADV_SEQUENTIAL);
  expect(mm.vmas.length).toBe(3);
  mm.madvise(va + 4 * PAGE, 4 * PAGE, MADV_RANDOM);
  expect(mm.findVma(va + 4 * PAGE)!.flags & 0x18000).toBe(0x10000);
  mm.madvise(va, 16 * PAGE, MADV_NORMAL);
  expect(mm.vmas.length).toBe(1);
  checkHost(host);
});

test('POPULATE_READ and POPULATE_WRITE wait until all is there; a hole, or a missing right, ends them', async () => {
  const { host, mm, va } = setUp();
  await mm.madvise(va, 4 * PAGE, MADV_POPULATE_READ);
  expect([mm.tryGetPage(va, 0), mm.residentPages]).toEqual([host.frames.zeroPfn, 0]);
  await mm.madvise(va, 4 * PAGE, MADV_POPULATE_WRITE);
  expect(mm.residentPages).toBe(4);
  fill(mm, va);
  evictAll(host);
  await mm.madvise(va, NR * PAGE, MADV_POPULATE_READ);
  expect(mm.residentPages).toBe(NR);
  mm.madvise(va, NR * PAGE, MADV_DONTNEED);
  mm.munmap(va + 2 * PAGE, PAGE);
  mm.mprotect(va + 5 * PAGE, PAGE, PROT_READ);
  mm.mprotect(va + 7 * PAGE, PAGE, PROT_NONE);
  await expect(mm.madvise(va, 4 * PAGE, MADV_POPULATE_WRITE)).rejects.toThrow(/ENOMEM: madvise: .* must be mapped/);
  expect(mm.residentPages).toBe(2);
  await expect(mm.madvise(va + 3 * PAGE, 4 * PAGE, MADV_POPULATE_WRITE)).rejects.toThrow(/EINVAL: .*for writing/);
  expect(mm.residentPages).toBe(4);
  await expect(mm.madvise(va + 5 * PAGE, 4 * PAGE, MADV_POPULATE_READ)).rejects.toThrow(/EINVAL: .*for reading/);
  checkHost(host, 1);
});

test('what a hole does not touch is advised, then ENOMEM; a locked mapping ends it with EINVAL', async () => {
  const { host, mm, va } = setUp();
  fill(mm, va);
  mm.munmap(va + 4 * PAGE, PAGE);
  expect(() => mm.madvise(va, NR * PAGE, MADV_DONTNEED)).toThrow(/ENOMEM: madvise/);
  expect(mm.residentPages).toBe(0);
  mm.writeSync(va, new Uint8Array([1]));
  mm.writeSync(va + 9 * PAGE, new Uint8Array([1]));
  await mm.mlock(va + 6 * PAGE, PAGE);
  expect(() => mm.madvise(va, NR * PAGE, MADV_FREE)).toThrow(/EINVAL: madvise/);
  expect([host.lru.nr[LRU_INACTIVE_FILE], mm.residentPages]).toEqual([1, 3]);
  checkHost(host);
});

test('mincore: what is mapped or in the swap cache needs no I/O; what lies before a hole is told', () => {
  const { host, mm, va } = setUp();
  const vec = new Uint8Array(NR).fill(9);
  for (let p = 0; p < 4; p++) mm.writeSync(va + p * PAGE, new Uint8Array([1]));
  mm.readSync(va + 4 * PAGE, new Uint8Array(1));
  evictAll(host);
  mm.readSync(va + 2 * PAGE, new Uint8Array(1));
  mm.mprotect(va + 2 * PAGE, PAGE, PROT_NONE);
  mm.mincore(va, 6 * PAGE, vec);
  expect([...vec.subarray(0, 7)]).toEqual([0, 0, 1, 0, 1, 0, 9]);
  mm.munmap(va + 4 * PAGE, PAGE);
  vec.fill(9);
  expect(() => mm.mincore(va, 6 * PAGE, vec)).toThrow(/ENOMEM: mincore: address 0x10004000 of guest must be mapped/);
  expect([...vec.subarray(0, 5)]).toEqual([0, 0, 1, 0, 9]);
});

test('N23: REMOVE makes a hole in the file, for all who map it', async () => {
  const { host, mm } = setUp();
  const file = host.memfdCreate('memory', NR * PAGE);
  const va = mm.mmap(0, NR * PAGE, RW, MAP_SHARED, file);
  const other = mm.mmap(0, NR * PAGE, PROT_READ, MAP_SHARED, file);
  const own = mm.mmap(0, NR * PAGE, RW, MAP_PRIVATE, file);
  fill(mm, va);
  expect(bytes(mm, other)).toEqual(ONES);
  const free = host.frames.nrFree;
  await mm.madvise(va, NR * PAGE, MADV_REMOVE);
  expect([bytes(mm, other), host.frames.nrFree]).toEqual([ZEROS, free]);
  await expect(mm.madvise(own, PAGE, MADV_REMOVE)).rejects.toThrow(/EACCES: madvise/);
  await expect(mm.madvise(mm.mmap(0, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS), PAGE, MADV_REMOVE)).rejects.toThrow(
    /EINVAL/,
  );
  expect(() => mm.madvise(va, PAGE, MADV_FREE)).toThrow(/EINVAL: .* must be anonymous/);
  checkHost(host);
});

test('files: WILLNEED reads, mincore sees the page cache, PAGEOUT drops clean pages, DONTNEED keeps what the file holds', async () => {
  const { host, mm } = setUp();
  const store = new MemoryStore({ name: 'store', contents: new Uint8Array(NR * PAGE).fill(7) });
  const file = host.openFile(store, { mode: 'r' });
  const va = mm.mmap(0, NR * PAGE, PROT_READ, MAP_SHARED, file);
  const vec = new Uint8Array(NR);
  const cached = () => {
    mm.mincore(va, NR * PAGE, vec);
    return vec.reduce((sum, v) => sum + v, 0);
  };
  expect(cached()).toBe(0);
  mm.madvise(va, NR * PAGE, MADV_WILLNEED);
  await mm.madvise(va, NR * PAGE, MADV_POPULATE_READ);
  expect([cached(), bytes(mm, va)]).toEqual([NR, Array(NR).fill(7)]);
  mm.madvise(va, NR * PAGE, MADV_DONTNEED);
  expect([cached(), bytes(mm, va)]).toEqual([NR, Array(NR).fill(7)]);
  mm.madvise(va, NR * PAGE, MADV_PAGEOUT);
  expect([cached(), mm.residentPages]).toEqual([0, 0]);
  expect(() => mm.mprotect(va, PAGE, RW)).toThrow(/EACCES: mprotect: store must be open for writing/);
  checkHost(host);
});
