import { expect, test } from 'vitest';
import { HeldPages, MAX_HELD_PAGES } from '../../src/mm/fault/heldpages.js';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  FAULT_RETRY,
  FAULT_SIGSEGV,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  type Mm,
} from '../../src/mm/index.js';
import { FaultySwap } from './faultyswap.js';

const PAGE = 4096;

function setUp(nrSlots = 1024, options = {}) {
  const swap = new FaultySwap(nrSlots);
  const errors: string[] = [];
  const host = new Host({
    sameFilled: false,
    frames: 64,
    arenaBytes: 65536,
    swap,
    overcommit: 'always',
    debug: true,
    defer: (fn) => setImmediate(fn),
    onSwapError: (op, error) => errors.push(`${op} ${String(error)}`),
    ...options,
  });
  const mm = host.createMm({ name: 'guest' });
  const va = mm.mmap(0, 400 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  return { host, swap, mm, va, errors };
}

const fill = (value: number) => new Uint8Array(PAGE).fill(value);

async function byteAt(mm: Mm, va: number): Promise<number> {
  const bytes = new Uint8Array(1);
  await mm.read(va, bytes);
  return bytes[0]!;
}

/** Evicts everything that can be. */
async function evictAll(host: Host): Promise<void> {
  for (let i = 0; i < 40 && host.frames.nrFree < 64; i++) {
    host.reclaim.shrink(true, false, true);
    await host.writeback.drain();
  }
}

test('memory four times the frames reads back as written', async () => {
  const { host, mm, va } = setUp();
  for (let p = 0; p < 256; p++) await mm.write(va + p * PAGE, fill(p));
  for (let p = 0; p < 256; p++) expect(await byteAt(mm, va + p * PAGE + 99)).toBe(p);
  const { swapOutPages, swapInPages, framesPeak } = host.stats();
  expect(swapOutPages).toBeGreaterThan(190);
  expect(swapInPages).toBeGreaterThan(190);
  expect(framesPeak).toBeLessThanOrEqual(64);
  checkHost(host);
});

test('a clean page is given up again without a write, and a read page of zeros without a slot', async () => {
  const { host, mm, va } = setUp();
  await mm.write(va, fill(1));
  await evictAll(host);
  expect(await byteAt(mm, va)).toBe(1);
  const { pswpout } = host.vmstat;
  await evictAll(host);
  expect(host.frames.nrFree).toBe(64);
  expect(host.vmstat.pswpout).toBe(pswpout);
  expect(await byteAt(mm, va + 5 * PAGE)).toBe(0);
  await evictAll(host);
  expect(host.frames.nrFree).toBe(64);
  expect(host.stats().swapSlotsUsed).toBe(1);
  checkHost(host);
});

test('a page that is dirtied frees its stale slot; munmap and exit free the others', async () => {
  const { host, mm, va } = setUp();
  for (let p = 0; p < 10; p++) await mm.write(va + p * PAGE, fill(p));
  await evictAll(host);
  expect(host.stats().swapSlotsUsed).toBe(10);
  await mm.write(va, fill(77));
  expect(host.stats().swapSlotsUsed).toBe(9);
  mm.munmap(va + PAGE, PAGE);
  expect(host.stats().swapSlotsUsed).toBe(8);
  mm.madviseDontneed(va + 2 * PAGE, PAGE);
  expect(host.stats().swapSlotsUsed).toBe(7);
  checkHost(host);
  mm.exit();
  await host.stop();
  expect(host.stats()).toMatchObject({ swapSlotsUsed: 0, framesFree: 64, tableBytes: 0 });
});

test('two waiters for one page share one read', async () => {
  const { host, swap, mm, va } = setUp();
  await mm.write(va, fill(5));
  await evictAll(host);
  expect(await Promise.all([byteAt(mm, va), byteAt(mm, va + 1), byteAt(mm, va + 2)])).toEqual([5, 5, 5]);
  expect(swap.nrReads).toBe(1);
});

test('neighbours are read ahead once that is of use', async () => {
  const { host, swap, mm, va } = setUp();
  for (let p = 0; p < 32; p++) await mm.write(va + p * PAGE, fill(p));
  await evictAll(host);
  for (let p = 0; p < 32; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p);
  expect(swap.nrReads).toBeLessThan(16);
  expect(host.vmstat.swapRaHit).toBeGreaterThan(16);
});

test('N27: a page that is dirtied while it is written out keeps its new contents', async () => {
  const { host, swap, mm, va } = setUp();
  await mm.write(va, fill(1));
  swap.held = true;
  host.reclaim.shrink(true, false, true);
  expect(swap.nrHeld).toBe(1);
  const pfn = mm.tryGetPage(va, FAULT_FLAG_WRITE);
  host.u8[pfn * PAGE] = 2;
  mm.putPage(pfn);
  checkHost(host);
  swap.held = false;
  swap.pump();
  await host.writeback.drain();
  expect(await byteAt(mm, va)).toBe(2);
  checkHost(host);
  await evictAll(host);
  expect(await byteAt(mm, va)).toBe(2);
});

test('a page that is read while it is written out comes from the swap cache, and stays', async () => {
  const { host, swap, mm, va } = setUp();
  await mm.write(va, fill(1));
  swap.held = true;
  host.reclaim.shrink(true, false, true);
  expect(await byteAt(mm, va)).toBe(1);
  swap.held = false;
  swap.pump();
  await host.writeback.drain();
  checkHost(host);
  expect(await byteAt(mm, va)).toBe(1);
  expect(swap.nrReads).toBe(0);
});

test('a page that is unmapped while it is written out, or read, is freed when that ends', async () => {
  const { host, swap, mm, va } = setUp();
  await mm.write(va, fill(1));
  swap.held = true;
  host.reclaim.shrink(true, false, true);
  mm.munmap(va, PAGE);
  checkHost(host);
  swap.pump();
  await host.writeback.drain();
  expect(host.stats()).toMatchObject({ framesFree: 64, swapSlotsUsed: 0 });
  swap.held = false;
  await mm.write(va + PAGE, fill(2));
  await evictAll(host);
  swap.held = true;
  const reading = byteAt(mm, va + PAGE);
  mm.munmap(va + PAGE, PAGE);
  checkHost(host);
  swap.pump();
  await expect(reading).rejects.toMatchObject({ code: 'EFAULT' });
  expect(host.stats()).toMatchObject({ framesFree: 64, swapSlotsUsed: 0 });
  checkHost(host);
});

test('N27: a failed write keeps the page dirty and resident, counted and reported, and is tried again', async () => {
  const { host, swap, mm, va, errors } = setUp();
  await mm.write(va, fill(3));
  swap.failWrites = 1;
  host.reclaim.shrink(true, false, true);
  await host.writeback.drain();
  expect(errors).toEqual(['write Error: injected write error']);
  expect(host.vmstat.swapWriteErrors).toBe(1);
  expect(host.frames.nrFree).toBe(63);
  checkHost(host);
  expect(await byteAt(mm, va)).toBe(3);
  expect(host.stats().swapSlotsUsed).toBe(0);
  await evictAll(host);
  expect(host.frames.nrFree).toBe(64);
  expect(await byteAt(mm, va)).toBe(3);
});

test('a damaged page is a machine check for its owner alone, until it is unmapped', async () => {
  const { host, swap, mm, va } = setUp();
  const other = host.createMm();
  const otherVa = other.mmap(0, PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  await mm.write(va, fill(1));
  await evictAll(host);
  await other.write(otherVa, fill(2));
  await evictAll(host);
  swap.damage = 1;
  await expect(byteAt(mm, va)).rejects.toThrow(
    /EHWPOISON: faultIn: the page at address 0x[0-9a-f]+ of guest was damaged/,
  );
  expect(mm.tryGetPage(va, 0)).toBe(-3);
  await expect(mm.write(va, fill(1))).rejects.toMatchObject({ code: 'EHWPOISON' });
  expect(await byteAt(other, otherVa)).toBe(2);
  checkHost(host);
  mm.madviseDontneed(va, PAGE);
  expect(await byteAt(mm, va)).toBe(0);
});

test('a failed read ahead does not cost the neighbours: the wanted page is read alone, the others later', async () => {
  const { host, swap, mm, va, errors } = setUp();
  for (let p = 0; p < 16; p++) await mm.write(va + p * PAGE, fill(p + 1));
  await evictAll(host);
  for (let p = 0; p < 8; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p + 1);
  swap.failReads = 1;
  for (let p = 8; p < 16; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p + 1);
  expect(errors.length).toBe(1);
  checkHost(host);
});

test('a read that fails twice is a lost page', async () => {
  const { host, swap, mm, va } = setUp();
  await mm.write(va, fill(1));
  await evictAll(host);
  swap.failReads = 2;
  await expect(byteAt(mm, va)).rejects.toMatchObject({ code: 'EHWPOISON' });
  checkHost(host);
});

test('N26: without room in swap the waiter gets ENOMEM with the numbers, others keep what they have', async () => {
  const { host, mm, va } = setUp(16);
  let nrWritten = 0;
  const write = async () => {
    for (; nrWritten < 100; nrWritten++) await mm.write(va + nrWritten * PAGE, fill(nrWritten));
  };
  await expect(write()).rejects.toThrow(
    /ENOMEM: faultIn: no frame .* of 64 frames 0 are pinned, of 16 swap slots 0 are free/,
  );
  checkHost(host);
  expect(nrWritten).toBeGreaterThan(64 + 16 - 6);
  for (let p = 0; p < nrWritten; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p);
  for (let p = 0; p < nrWritten; p++) await mm.write(va + p * PAGE, fill(p + 1));
  for (let p = 0; p < nrWritten; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p + 1);
  mm.munmap(va, 70 * PAGE);
  await mm.write(va + 90 * PAGE, fill(9));
  checkHost(host);
});

test('N26: in the smallest host one guest holds what an instruction may need, and others go on', async () => {
  const { host, mm, va } = setUp();
  const held = [];
  for (let p = 0; p < 16; p++) {
    await mm.faultIn(va + p * PAGE, FAULT_FLAG_WRITE);
    held.push(mm.tryGetPage(va + p * PAGE, FAULT_FLAG_WRITE));
  }
  const other = host.createMm();
  const otherVa = other.mmap(0, 200 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  const work = async (m: Mm, start: number) => {
    for (let p = 20; p < 200; p++) await m.write(start + p * PAGE, fill(p));
    for (let p = 20; p < 200; p++) expect(await byteAt(m, start + p * PAGE)).toBe(p);
  };
  await Promise.all([work(mm, va), work(other, otherVa)]);
  checkHost(host, 16);
  expect(held.map((pfn, p) => mm.tryGetPage(va + p * PAGE, 0) === pfn)).toEqual(Array(16).fill(true));
});

test('N26: of more pages than one instruction can need none is forgotten', async () => {
  const { host, mm, va } = setUp();
  const held = new HeldPages(mm);
  for (let p = 0; p <= MAX_HELD_PAGES; p++) {
    await mm.write(va + p * PAGE, fill(p));
    held.hold(mm.tryGetPage(va + p * PAGE, 0));
  }
  expect(held.length).toBeLessThanOrEqual(MAX_HELD_PAGES);
  held.releaseAll();
  checkHost(host);
});

test('N26: while swap is nearly full, a page that comes back gives up its slot', async () => {
  const { host, mm, va } = setUp(16);
  const slotsAfterRead = async (nrPages: number): Promise<number> => {
    for (let p = 0; p < nrPages; p++) await mm.write(va + p * PAGE, fill(p + 1));
    await evictAll(host);
    expect(host.stats().swapSlotsUsed).toBe(nrPages);
    await byteAt(mm, va);
    return host.stats().swapSlotsUsed;
  };
  expect([await slotsAfterRead(8), await slotsAfterRead(16)]).toEqual([8, 15]);
  checkHost(host);
});

test('a device that fails every write ends in ENOMEM, not in a hang', async () => {
  const { host, swap, mm, va } = setUp();
  swap.failWrites = Number.POSITIVE_INFINITY;
  const write = async () => {
    for (let p = 0; p < 100; p++) await mm.write(va + p * PAGE, fill(p));
  };
  await expect(write()).rejects.toMatchObject({ code: 'ENOMEM' });
  checkHost(host);
  swap.failWrites = 0;
  await write();
  for (let p = 0; p < 100; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p);
});

test('a page held by a reference stays, however hard reclaim tries', async () => {
  const { host, mm, va } = setUp();
  await mm.write(va, fill(1));
  const pfn = mm.tryGetPage(va, 0);
  await evictAll(host);
  expect(host.frames.refcount[pfn]).toBe(2);
  expect(mm.tryGetPage(va, 0)).toBe(pfn);
  mm.putPage(pfn);
  mm.munmap(va, PAGE);
  expect(host.frames.nrFree).toBe(63);
  checkHost(host, 1);
  mm.putPage(pfn);
  expect(host.frames.nrFree).toBe(64);
  expect(() => mm.putPage(pfn)).toThrow(/N4/);
});

test('the blocking path does it all with the same phases', () => {
  const { host, mm, va } = setUp();
  for (let p = 0; p < 200; p++) mm.writeSync(va + p * PAGE, fill(p));
  const bytes = new Uint8Array(PAGE);
  for (let p = 0; p < 200; p++) {
    mm.readSync(va + p * PAGE, bytes);
    expect([bytes[0], bytes[PAGE - 1]]).toEqual([p, p]);
  }
  checkHost(host);
});

test('a blocking fault overtakes a read that is under way', async () => {
  const { host, swap, mm, va } = setUp();
  await mm.write(va, fill(1));
  await evictAll(host);
  swap.held = true;
  const reading = byteAt(mm, va);
  const bytes = new Uint8Array(1);
  mm.readSync(va, bytes);
  expect(bytes[0]).toBe(1);
  mm.writeSync(va, fill(2));
  checkHost(host);
  swap.pump();
  expect(await reading).toBe(2);
  checkHost(host);
});

test('a read that fails after a blocking one overtook it concerns nobody', async () => {
  const { host, swap, mm, va } = setUp();
  await mm.write(va, fill(1));
  await evictAll(host);
  swap.held = true;
  const reading = byteAt(mm, va);
  mm.readSync(va, new Uint8Array(1));
  swap.failReads = 1;
  swap.pump();
  expect(await reading).toBe(1);
  checkHost(host);
});

test('the same contents written to the same slot again have another checksum: the generation is in it', async () => {
  const { host, mm, va } = setUp(1);
  await mm.write(va, fill(1));
  await evictAll(host);
  const first = [host.swap.generationOf(0), host.swap.checksumOf(0)];
  await mm.write(va, fill(1));
  await evictAll(host);
  expect(host.swap.generationOf(0)).toBeGreaterThan(first[0]!);
  expect(host.swap.checksumOf(0)).not.toBe(first[1]);
  expect(await byteAt(mm, va)).toBe(1);
});

test('a write that the device lost is seen when the page is read', async () => {
  const { host, swap, mm, va } = setUp(1);
  await mm.write(va, fill(1));
  await evictAll(host);
  await mm.write(va, fill(2));
  Object.assign(swap, { writeSync: () => {} });
  await evictAll(host);
  await expect(byteAt(mm, va)).rejects.toMatchObject({ code: 'EHWPOISON' });
});

test('blocking faults are refused where the device cannot block', async () => {
  const { mm, va, swap, host } = setUp();
  await mm.write(va, fill(1));
  await evictAll(host);
  Object.assign(swap, { readSync: undefined });
  expect(() => mm.faultInSync(va, 0)).toThrow(/EOPNOTSUPP: faultInSync: swap device faulty cannot block/);
});

test('without swap, memory is what the frames hold', async () => {
  const host = new Host({ frames: 64, arenaBytes: 65536, overcommit: 'always', sameFilled: false });
  const mm = host.createMm();
  const va = mm.mmap(0, 100 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  for (let p = 0; p < 62; p++) await mm.write(va + p * PAGE, fill(p));
  await expect(mm.write(va + 64 * PAGE, fill(1))).rejects.toMatchObject({ code: 'ENOMEM' });
  for (let p = 0; p < 62; p++) expect(await byteAt(mm, va + p * PAGE)).toBe(p);
  checkHost(host);
});

test('tryGetPage leaves the last frames to those who wait', () => {
  const host = new Host({ frames: 64, arenaBytes: 65536, overcommit: 'always', sameFilled: false });
  const mm = host.createMm();
  const va = mm.mmap(0, 100 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  let p = 0;
  for (let pfn = 1; pfn > 0; p++) {
    pfn = mm.tryGetPage(va + p * PAGE, FAULT_FLAG_WRITE);
    if (pfn > 0) mm.putPage(pfn);
    else expect(pfn).toBe(FAULT_RETRY);
  }
  expect(host.frames.nrFree).toBe(host.reclaim.min);
});

test('tryGetPages: a run of pages from the first on, each with a reference, up to what would have to wait', async () => {
  const host = new Host({ frames: 128, arenaBytes: 65536, swap: new FaultySwap(64), sameFilled: false, debug: true });
  const mm = host.createMm();
  const va = mm.mmap(0, 8 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  for (let p = 0; p < 6; p++) await mm.write(va + p * PAGE, fill(p + 1));
  const pfns = new Int32Array(8);
  const child = mm.fork();
  // Shared with the child: each is copied, or the child would see what is written.
  expect(mm.tryGetPages(va, 3, FAULT_FLAG_WRITE, pfns)).toBe(3);
  for (const [p, pfn] of [...pfns.subarray(0, 3)].entries()) {
    expect(mm.pagemap(va + p * PAGE, 1)[0]!.pfn).toBe(pfn);
    expect(child.pagemap(va + p * PAGE, 1)[0]!.pfn).not.toBe(pfn);
    expect(host.frames.refcount[pfn]).toBe(2);
    mm.putPage(pfn);
  }
  checkHost(host);
  child.exit();
  while (mm.residentPages > 0) {
    host.reclaim.shrink(true, true, true);
    await host.writeback.drain();
  }
  expect(mm.tryGetPages(va, 4, 0, pfns)).toBe(FAULT_RETRY);
  for (let p = 0; p < 4; p++) await mm.faultIn(va + p * PAGE, 0);
  expect(mm.tryGetPages(va, 8, FAULT_FLAG_WRITE, pfns)).toBeGreaterThanOrEqual(4);
  expect(mm.tryGetPages(va + 100 * PAGE, 1, 0, pfns)).toBe(FAULT_SIGSEGV);
});
