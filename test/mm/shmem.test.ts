import { expect, test } from 'vitest';
import {
  checkHost,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FAULT_SIGBUS,
  type Host,
  type HostOptions,
  MAP_ANONYMOUS,
  MAP_SHARED,
} from '../../src/mm/index.js';
import { FaultySwap } from './faultyswap.js';
import { TestDriver } from './testdriver.js';
import { byteAt, fill, twoMms } from './twomms.js';

const PAGE = 4096;
const RW = 3;
const SHARED = MAP_SHARED | MAP_ANONYMOUS;
const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

function setUp(options: Partial<HostOptions> = {}, nrSlots = 512) {
  const swap = new FaultySwap(nrSlots);
  return { ...twoMms({ frames: 64, swap, ...options }), swap };
}

async function evictAll(host: Host): Promise<void> {
  for (let i = 0; i < 40; i++) {
    host.reclaim.shrink(true, false, true);
    await host.writeback.drain();
  }
}

test('shared anonymous memory is zeros, and a child of fork shares it', async () => {
  const { host, mm } = setUp();
  const va = mm.mmap(0, 10 * PAGE, RW, SHARED);
  expect(await byteAt(mm, va + PAGE)).toBe(0);
  await mm.write(va, fill(1, 1));
  const child = mm.fork();
  await child.write(va + PAGE, fill(1, 2));
  await mm.write(va + 2 * PAGE, fill(1, 3));
  for (const who of [mm, child]) for (const p of [0, 1, 2]) expect(await byteAt(who, va + p * PAGE)).toBe(p + 1);
  checkHost(host);
  mm.exit();
  expect(await byteAt(child, va + 2 * PAGE)).toBe(3);
  checkHost(host);
  child.exit();
  expect(host.stats()).toMatchObject({ nrShmem: 0, framesFree: 64 });
  await host.stop();
});

test('N22: shared memory larger than the frames goes to swap and comes back, for all who map it', async () => {
  const { host, mm, other } = setUp();
  const file = host.memfdCreate('ram', 200 * PAGE);
  const [a, b] = [mm.mmap(0, 200 * PAGE, RW, MAP_SHARED, file), other.mmap(0, 200 * PAGE, RW, MAP_SHARED, file)];
  for (let p = 0; p < 200; p++) await mm.write(a + p * PAGE + 7, fill(1, p + 1));
  checkHost(host);
  for (let p = 199; p >= 0; p--) expect(await byteAt(other, b + p * PAGE + 7)).toBe((p + 1) & 255);
  checkHost(host);
  expect(host.stats().swapOutPages).toBeGreaterThan(130);
  file.close();
  mm.munmap(a, 200 * PAGE);
  other.munmap(b, 200 * PAGE);
  expect(host.stats()).toMatchObject({ swapSlotsUsed: 0, nrShmem: 0, framesFree: 64 });
  checkHost(host);
  await host.stop();
});

test('a page that was never written is dropped without a slot', async () => {
  const { host, mm } = setUp();
  const va = mm.mmap(0, 10 * PAGE, RW, SHARED);
  for (let p = 0; p < 10; p++) await byteAt(mm, va + p * PAGE);
  expect(host.stats().nrShmem).toBe(10);
  await evictAll(host);
  expect(host.stats()).toMatchObject({ nrShmem: 0, swapSlotsUsed: 0 });
  checkHost(host);
  await host.stop();
});

test('N27: a page that is wanted again while it is written to swap is in both caches, and keeps what is written then', async () => {
  const { host, swap, mm } = setUp();
  const va = mm.mmap(0, 4 * PAGE, RW, SHARED);
  for (let p = 0; p < 4; p++) await mm.write(va + p * PAGE, fill(PAGE, p + 1));
  swap.held = true;
  host.reclaim.shrink(true, false, true);
  expect(host.stats()).toMatchObject({ nrShmem: 0, swapSlotsUsed: 4 });
  checkHost(host);
  await mm.write(va, fill(1, 9));
  expect(await byteAt(mm, va + PAGE)).toBe(2);
  checkHost(host);
  expect(host.stats().nrShmem).toBe(2);
  swap.held = false;
  swap.pump();
  await host.writeback.drain();
  checkHost(host);
  expect(host.stats().swapSlotsUsed).toBe(2);
  await evictAll(host);
  for (const [p, byte] of [9, 2, 3, 4].entries()) expect(await byteAt(mm, va + p * PAGE)).toBe(byte);
  checkHost(host);
  await host.stop();
});

test("a write to swap that fails loses nothing; a page that was damaged there is its readers' machine check", async () => {
  const { host, swap, mm } = setUp();
  const va = mm.mmap(0, 4 * PAGE, RW, SHARED);
  for (let p = 0; p < 4; p++) await mm.write(va + p * PAGE, fill(PAGE, p + 1));
  swap.failWrites = 1;
  await evictAll(host);
  for (let p = 0; p < 4; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p + 1);
  await evictAll(host);
  swap.damage = 1;
  const codes = [];
  for (let p = 0; p < 4; p++) codes.push(await byteAt(mm, va + p * PAGE).catch((error) => error.code));
  expect(codes.filter((c) => c === 'EHWPOISON')).toHaveLength(1);
  checkHost(host);
  const child = mm.fork();
  expect(await byteAt(child, va + codes.indexOf('EHWPOISON') * PAGE).catch((error) => error.code)).toBe('EHWPOISON');
  child.exit();
  mm.exit();
  expect(host.stats().swapSlotsUsed).toBe(0);
  checkHost(host);
  await host.stop();
});

test('with swap full the pages stay', async () => {
  const { host, mm } = setUp({ oom: 'refuse' }, 10);
  const va = mm.mmap(0, 100 * PAGE, RW, SHARED);
  let nr = 0;
  for (; nr < 100; nr++) {
    if ((await mm.write(va + nr * PAGE, fill(1, nr + 1)).catch((error) => error.code)) === 'ENOMEM') break;
  }
  expect(nr).toBeGreaterThan(60);
  expect(nr).toBeLessThan(80);
  for (let p = 0; p < nr; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p + 1);
  checkHost(host);
  await host.stop();
});

test('N23: truncate and punch a memory file, pages in swap included', async () => {
  const { host, mm } = setUp();
  const file = host.memfdCreate('ram', 8 * PAGE);
  const va = mm.mmap(0, 8 * PAGE, RW, MAP_SHARED, file);
  for (let p = 0; p < 8; p++) await mm.write(va + p * PAGE, fill(PAGE, p + 1));
  await evictAll(host);
  expect(host.stats()).toMatchObject({ nrShmem: 0, swapSlotsUsed: 8 });
  await file.fallocate(PUNCH, PAGE, 2 * PAGE);
  expect(host.stats().swapSlotsUsed).toBe(6);
  await file.truncate(5 * PAGE + 10);
  checkHost(host);
  expect(mm.tryGetPage(va + 6 * PAGE, 0)).toBe(FAULT_SIGBUS);
  await file.truncate(8 * PAGE);
  const bytes = [];
  for (let p = 0; p < 8; p++) bytes.push(await byteAt(mm, va + p * PAGE + 9), await byteAt(mm, va + p * PAGE + 10));
  expect(bytes).toEqual([1, 1, 0, 0, 0, 0, 4, 4, 5, 5, 6, 0, 0, 0, 0, 0]);
  checkHost(host);
  await host.stop();
});

test('read and write of a memory file, blocking faults, and an external MMU over it', async () => {
  const { host, mm, other } = setUp();
  const file = host.memfdCreate('ram');
  await file.write(fill(100 * PAGE, 5), 0);
  const bytes = new Uint8Array(2);
  expect(await file.read(bytes, 99 * PAGE)).toBe(2);
  expect([...bytes]).toEqual([5, 5]);
  const [a, b] = [mm.mmap(0, 100 * PAGE, RW, MAP_SHARED, file), other.mmap(0, 100 * PAGE, RW, MAP_SHARED, file)];
  const driver = new TestDriver(other);
  for (let p = 0; p < 100; p++) mm.writeSync(a + p * PAGE, fill(1, p));
  for (let p = 0; p < 100; p++) expect(await driver.load(b + p * PAGE)).toBe(p);
  for (let p = 0; p < 100; p++) await driver.store(b + p * PAGE + 1, p ^ 255);
  for (let p = 0; p < 100; p++) {
    mm.readSync(a + p * PAGE, bytes);
    expect([...bytes]).toEqual([p, p ^ 255]);
  }
  await file.fsync();
  checkHost(host);
  await host.stop();
});
