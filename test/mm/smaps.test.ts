import { expect, test } from 'vitest';
import {
  Host,
  MADV_FREE,
  MADV_PAGEOUT,
  MADV_RANDOM,
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  MemoryStore,
  MemorySwap,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;

function setUp() {
  const swap = new MemorySwap({ sizeBytes: 2 ** 22 });
  const host = new Host({ frames: 256, arenaBytes: 65536, swap, debug: true, defer: (fn) => setImmediate(fn) });
  return { host, mm: host.createMm({ name: 'guest' }) };
}

const NONE = {
  Rss: 0,
  Pss: 0,
  Pss_Dirty: 0,
  Shared_Clean: 0,
  Shared_Dirty: 0,
  Private_Clean: 0,
  Private_Dirty: 0,
  Anonymous: 0,
  LazyFree: 0,
  Swap: 0,
  SwapPss: 0,
  Locked: 0,
};

test('smaps: anonymous memory, private, given up, swapped, and the zero page, which counts nowhere', () => {
  const { mm } = setUp();
  const va = mm.mmap(0, 16 * PAGE, RW, ANON);
  for (let p = 0; p < 8; p++) mm.writeSync(va + p * PAGE, new Uint8Array([1]));
  mm.readSync(va + 12 * PAGE, new Uint8Array(1));
  mm.madvise(va, 2 * PAGE, MADV_FREE);
  mm.madvise(va + 2 * PAGE, 3 * PAGE, MADV_PAGEOUT);
  const [entry] = mm.smaps();
  expect(entry).toMatchObject({ start: va, end: va + 16 * PAGE, perms: 'rw-p', offset: 0, name: '', Size: 64 });
  expect(entry).toMatchObject({ KernelPageSize: 4, MMUPageSize: 4, VmFlags: 'rd wr mr mw me ac sd' });
  const expected = {
    Rss: 20,
    Pss: 20,
    Pss_Dirty: 12,
    Private_Clean: 8,
    Private_Dirty: 12,
    Anonymous: 20,
    Referenced: 12,
  };
  expect(entry).toMatchObject({ ...NONE, ...expected, LazyFree: 8, Swap: 12, SwapPss: 12 });
});

test('smaps: a page that two map is shared, and half of it is whose it is', async () => {
  const { mm } = setUp();
  const va = mm.mmap(0, 4 * PAGE, RW, ANON | MAP_NORESERVE);
  for (let p = 0; p < 4; p++) mm.writeSync(va + p * PAGE, new Uint8Array([1]));
  const child = mm.fork();
  const other = child.fork();
  mm.writeSync(va, new Uint8Array([2]));
  await mm.mlock(va, PAGE);
  const [own, rest] = mm.smaps();
  expect(own).toMatchObject({ ...NONE, Rss: 4, Pss: 4, Pss_Dirty: 4, Private_Dirty: 4, Anonymous: 4, Locked: 4 });
  expect(own!.VmFlags).toBe('rd wr mr mw me lo nr sd');
  // Three thirds of a page, each cut off, are less than one: as in the kernel, as the oracle says.
  expect(rest).toMatchObject({ ...NONE, Rss: 12, Pss: 3, Pss_Dirty: 3, Shared_Dirty: 12, Anonymous: 12 });
  expect(child.smapsRollup()).toMatchObject({ Rss: 16, Pss: 5, Pss_Anon: 5, Pss_File: 0, Shared_Dirty: 16 });
  other.exit();
  expect(child.smapsRollup()).toMatchObject({ Rss: 16, Pss: 10, Private_Dirty: 4, Shared_Dirty: 12 });
});

test('smaps: files and shared memory', async () => {
  const { host, mm } = setUp();
  const store = new MemoryStore({ name: 'data', contents: new Uint8Array(16 * PAGE).fill(3) });
  const file = host.openFile(store, { mode: 'r' });
  const a = mm.mmap(0, 4 * PAGE, PROT_READ, MAP_SHARED, file, 8 * PAGE);
  mm.madvise(a, 4 * PAGE, MADV_RANDOM);
  await mm.read(a, new Uint8Array(4 * PAGE));
  const b = mm.mmap(0, 4 * PAGE, RW, MAP_PRIVATE, file, 8 * PAGE);
  await mm.read(b, new Uint8Array(2 * PAGE));
  await mm.write(b, new Uint8Array([1]));
  const shm = mm.mmap(0, 4 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS);
  for (let p = 0; p < 4; p++) await mm.write(shm + p * PAGE, new Uint8Array([1]));
  mm.madvise(shm, PAGE, MADV_PAGEOUT);
  const at = (va: number) => mm.smaps().find((entry) => entry.start === va)!;
  expect(at(a)).toMatchObject({ perms: 'r--s', offset: 8 * PAGE, name: 'data', Rss: 16, Anonymous: 0 });
  expect(at(a).VmFlags).toBe('rd mr me ms rr sd');
  expect(at(a).Shared_Clean + at(a).Private_Clean).toBe(16);
  expect(at(b)).toMatchObject({ perms: 'rw-p', Private_Dirty: 4, Anonymous: 4 });
  expect(at(shm)).toMatchObject({ perms: 'rw-s', Rss: 12, Private_Dirty: 12, Anonymous: 0, Swap: 4, SwapPss: 4 });
  expect(at(shm).VmFlags).toBe('rd wr sh mr mw me ms sd');
  const rollup = mm.smapsRollup();
  expect([rollup.Pss_Anon, rollup.Pss_Shmem, rollup.Pss]).toEqual([4, 12, rollup.Pss_Anon + rollup.Pss_File + 12]);
  expect(mm.procStatus()).toMatchObject({ RssAnon: 4, RssShmem: 12, VmRSS: rollup.Rss, VmSwap: 0 });
});

test('procStatus: the sums of an mm, under the names of /proc/pid/status', async () => {
  const { mm } = setUp();
  const va = mm.mmap(0, 16 * PAGE, RW, ANON);
  const ro = mm.mmap(0, 4 * PAGE, PROT_READ | 4, ANON);
  for (let p = 0; p < 8; p++) mm.writeSync(va + p * PAGE, new Uint8Array([1]));
  mm.munmap(ro, 2 * PAGE);
  mm.madvise(va, 2 * PAGE, MADV_PAGEOUT);
  await mm.mlock(va + 4 * PAGE, PAGE);
  expect(mm.procStatus()).toEqual({
    VmPeak: 80,
    VmSize: 72,
    VmLck: 4,
    VmHWM: 32,
    VmRSS: 24,
    RssAnon: 24,
    RssFile: 0,
    RssShmem: 0,
    VmData: 64,
    VmExe: 8,
    VmPTE: 6,
    VmSwap: 8,
  });
});

test('vmstat: the names of /proc/vmstat agree with what happened', async () => {
  const { host, mm } = setUp();
  const va = mm.mmap(0, 16 * PAGE, RW, ANON);
  for (let p = 0; p < 16; p++) mm.writeSync(va + p * PAGE, new Uint8Array([1]));
  await mm.mlock(va, 2 * PAGE);
  mm.madvise(va + 2 * PAGE, 2 * PAGE, MADV_FREE);
  expect(host.stats().vmstat).toMatchObject({
    nr_free_pages: 240,
    nr_mlock: 2,
    nr_unevictable: 2,
    nr_inactive_file: 2,
    pgfault: 16,
    pglazyfree: 2,
    pgscan_direct: 0,
  });
  const active = host.stats().vmstat;
  expect(active.nr_inactive_anon + active.nr_active_anon).toBe(12);
  host.reclaim.shrink(true, true, true);
  const after = host.stats().vmstat;
  expect(after.pgscan_direct).toBeGreaterThan(0);
  expect(after.pgsteal_direct).toBeGreaterThan(0);
  expect(after.pgsteal_direct + after.pgsteal_kswapd).toBe(after.nr_free_pages - 240);
  expect([after.pswpout, after.pgscan_kswapd]).toEqual([after.nr_free_pages - 242, 0]);
});
