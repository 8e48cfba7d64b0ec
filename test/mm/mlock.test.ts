import { expect, test } from 'vitest';
import { checkHost, Host, MAP_ANONYMOUS, MAP_PRIVATE, MemorySwap } from '../../src/mm/index.js';

const PAGE = 4096;

function setUp(rlimitPages = 1000) {
  const host = new Host({ frames: 128, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 2 ** 22 }), debug: true });
  const mm = host.createMm({ name: 'guest', rlimitMemlock: rlimitPages * PAGE });
  const va = mm.mmap(0, 300 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  return { host, mm, va };
}

test('what is locked is there, is counted, and is never reclaimed', async () => {
  const { host, mm, va } = setUp();
  await mm.mlock(va + PAGE, 40 * PAGE);
  expect(host.stats()).toMatchObject({ pinnedFrames: 40, nrUnevictable: 40 });
  for (let p = 0; p < 250; p++) await mm.write(va + p * PAGE, new Uint8Array([p]));
  for (let p = 1; p <= 40; p++) expect(mm.tryGetPage(va + p * PAGE, 1)).toBeGreaterThan(0);
  for (let p = 1; p <= 40; p++) mm.putPage(mm.tryGetPage(va + p * PAGE, 1));
  checkHost(host, 40);
});

test('munlock and munmap give the pages back to reclaim', async () => {
  const { host, mm, va } = setUp();
  await mm.mlock(va, 40 * PAGE);
  mm.munlock(va, 10 * PAGE);
  mm.munmap(va + 20 * PAGE, 10 * PAGE);
  expect(host.stats().pinnedFrames).toBe(20);
  expect(mm.vm.locked).toBe(20);
  checkHost(host);
  expect(() => mm.madviseDontneed(va + 10 * PAGE, PAGE)).toThrow(/EINVAL: madvise/);
  mm.exit();
  expect(host.stats()).toMatchObject({ pinnedFrames: 0, framesFree: 128 });
});

test('S10: RLIMIT_MEMLOCK refuses with ENOMEM and the numbers, and locks nothing', async () => {
  const { host, mm, va } = setUp(16);
  await mm.mlock(va, 10 * PAGE);
  await expect(mm.mlock(va, 17 * PAGE)).rejects.toThrow(
    /ENOMEM: mlock: 28 KiB cannot be locked beside the 40 KiB that are: at most RLIMIT_MEMLOCK, 64 KiB for guest/,
  );
  expect(mm.vm.locked).toBe(10);
  await mm.mlock(va, 16 * PAGE);
  checkHost(host);
});

test('more than the frames allow is refused with ENOMEM and the numbers, before anything is faulted in', async () => {
  const { host, mm, va } = setUp();
  await expect(mm.mlock(va, 120 * PAGE)).rejects.toThrow(
    /ENOMEM: mlock: 480 KiB cannot be locked beside the 0 KiB that are: at most \d+ KiB of the host's 512 KiB of frames/,
  );
  expect(host.stats().framesPeak).toBe(0);
  const other = host.createMm();
  await mm.mlock(va, 60 * PAGE);
  const otherVa = other.mmap(0, 40 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  await expect(other.mlock(otherVa, 40 * PAGE)).rejects.toThrow(/beside the 240 KiB that are/);
});

test('a hole in the range is ENOMEM', async () => {
  const { mm, va } = setUp();
  mm.munmap(va + 3 * PAGE, PAGE);
  await expect(mm.mlock(va, 8 * PAGE)).rejects.toThrow(/ENOMEM: mlock: address 0x10003000 of guest must be mapped/);
  expect(() => mm.munlock(va, 8 * PAGE)).toThrow(/ENOMEM: munlock/);
  expect(mm.vm.locked).toBe(0);
});

test('mlock brings swapped pages back and keeps them', async () => {
  const { host, mm, va } = setUp();
  for (let p = 0; p < 8; p++) await mm.write(va + p * PAGE, new Uint8Array([p + 1]));
  host.reclaim.shrink(true, true, true);
  expect(mm.residentPages).toBe(0);
  await mm.mlock(va, 8 * PAGE);
  expect(mm.residentPages).toBe(8);
  host.reclaim.shrink(true, true, true);
  expect(mm.residentPages).toBe(8);
  const bytes = new Uint8Array(1);
  await mm.read(va + 7 * PAGE, bytes);
  expect(bytes[0]).toBe(8);
  checkHost(host);
});
