import { afterEach, describe, expect, test } from 'vitest';
import { MMU_NOTIFY_CLEAR, type Mm, PAGE_SIZE, PROT_READ, RangeList } from '../../src/mm/index.js';
import type { DeviceImpl } from '../../src/rdma/device.js';
import {
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_ACCESS_REMOTE_READ,
  IBV_ADVISE_MR_ADVICE_PREFETCH,
  IBV_ADVISE_MR_FLAG_FLUSH,
  IBV_SEND_INLINE,
  IBV_WC_REM_ACCESS_ERR,
  IBV_WC_SUCCESS,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  type MemoryRegion,
} from '../../src/rdma/index.js';
import type { Mr } from '../../src/rdma/mr.js';
import { type End, firstDifference, ODP, pattern, RdmaWorld, sge } from './rdmaworld.js';

/** The bugs of RDMA on demand that others have had, and what must hold instead. */

let w: RdmaWorld;
afterEach(() => w.stop());

const start = async (options = {}): Promise<void> => {
  w = await RdmaWorld.create(options);
};

/** Writes `bytes` remotely to `at` of `mr`, and waits until they have arrived. */
async function write(mr: MemoryRegion, at: number, bytes: Uint8Array): Promise<number> {
  const { va, mr: from } = await w.region(w.a, Math.ceil(bytes.length / PAGE_SIZE) + 2);
  await w.fill(w.a, va + 77, bytes);
  const sgList = [sge(from, va + 77, bytes.length)];
  await w.send(w.a, { opcode: IBV_WR_RDMA_WRITE, sgList, remoteAddr: at, rkey: mr.rkey });
  return (await read(mr, at, 1)).status;
}

async function read(mr: MemoryRegion, at: number, length: number): Promise<{ status: number; bytes: Uint8Array }> {
  const { va, mr: into } = await w.region(w.a, Math.ceil(length / PAGE_SIZE) + 1);
  const sgList = [sge(into, va + 3, length)];
  const { status } = await w.send(w.a, { opcode: IBV_WR_RDMA_READ, sgList, remoteAddr: at, rkey: mr.rkey });
  const bytes = await w.bytes(w.a, va + 3, length);
  await into.deregMr();
  return { status, bytes };
}

function bracket(mm: Mm, va: number, nrPages: number): { start(): void; end(): void } {
  const range = new RangeList(mm);
  range.set(MMU_NOTIFY_CLEAR, va / PAGE_SIZE, va / PAGE_SIZE + nrPages);
  return {
    start: () => void mm.notifiers.invalidateRangeStart(range),
    end: () => mm.notifiers.invalidateRangeEnd(range),
  };
}

test('M38: brackets that nest over one region deadlock on nothing, and the last end opens it again', async () => {
  await start();
  const { va, mr } = await w.region(w.b, 8);
  await write(mr, va, pattern(8 * PAGE_SIZE, 1));
  const [outer, inner] = [bracket(w.b.mm, va, 8), bracket(w.b.mm, va + PAGE_SIZE, 2)];
  outer.start();
  inner.start();
  let done = false;
  const reading = read(mr, va + PAGE_SIZE, 10).finally(() => (done = true));
  await w.turns(30);
  inner.end();
  await w.turns(30);
  expect(done).toBe(false);
  outer.end();
  expect(firstDifference((await reading).bytes, pattern(8 * PAGE_SIZE, 1).slice(PAGE_SIZE, PAGE_SIZE + 10))).toBe(-1);
  w.check();
});

test('N3: a run of pages is not installed while a bracket covers one of them; that one waits for its end', async () => {
  await start();
  const { va, mr } = await w.region(w.b, 8);
  await w.fill(w.b, va, pattern(8 * PAGE_SIZE, 3));
  const open = bracket(w.b.mm, va + 3 * PAGE_SIZE, 1);
  open.start();
  const sgList = [{ addr: va, length: 8 * PAGE_SIZE, lkey: mr.lkey }];
  const advice = w.b.pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH, sgList);
  await w.turns(10);
  const [region] = (mr as Mr).liveRegions();
  const there = () => Array.from({ length: 8 }, (_, page) => region!.hasEntry(page, false));
  expect(there()).toEqual([true, true, true, false, false, false, false, false]);
  open.end();
  await advice;
  expect(there()).toEqual(Array(8).fill(true));
});

test('M39: a region that is deregistered inside a bracket waits for its end, and leaves no bracket counted', async () => {
  await start({ device: { maxMr: 4 } });
  const { va, mr } = await w.region(w.b, 4);
  await write(mr, va, pattern(100, 1));
  const open = bracket(w.b.mm, va, 4);
  open.start();
  let done = false;
  const gone = mr.deregMr().then(() => (done = true));
  await w.turns(20);
  expect(done).toBe(false);
  open.end();
  await gone;
  // Its place is used again: at once, and as often as there are places.
  for (let n = 0; n < 8; n++) {
    const again = await w.b.pd.regMr(va, 4 * PAGE_SIZE, ODP);
    expect((await read(again, va, 100)).bytes).toEqual(pattern(100, 1));
    await again.deregMr();
  }
  expect(w.b.mm.notifiers.nrSubscriptions).toBe(0);
});

describe('M40: a child of an implicit region is destroyed once', () => {
  const CHILD = 512;
  const implicit = async (): Promise<{ va: number; mr: MemoryRegion }> => {
    await start();
    const va = w.b.mm.mmap(2 ** 32, CHILD * PAGE_SIZE, 3, 0x22 | 0x10 | 0x4000);
    const mr = await w.b.pd.regMr(0, Number.POSITIVE_INFINITY, ODP);
    expect(await write(mr, va, pattern(3 * PAGE_SIZE, 5))).toBe(IBV_WC_SUCCESS);
    expect(w.b.mm.notifiers.nrSubscriptions).toBe(1);
    return { va, mr };
  };

  test('when all of it is unmapped', async () => {
    const { va, mr } = await implicit();
    w.b.mm.munmap(va, CHILD * PAGE_SIZE);
    await w.turns(5);
    expect(w.b.mm.notifiers.nrSubscriptions).toBe(0);
    w.check();
    expect(await write(mr, va, pattern(10, 1))).not.toBe(IBV_WC_SUCCESS);
  });

  test('when the region is deregistered before its turn has come', async () => {
    const { va, mr } = await implicit();
    w.b.mm.munmap(va, CHILD * PAGE_SIZE);
    await mr.deregMr();
    await w.turns(5);
    expect(w.b.mm.notifiers.nrSubscriptions).toBe(0);
    w.check();
  });

  test('when it is unmapped twice, and in use again before its turn has come', async () => {
    const { va, mr } = await implicit();
    w.b.mm.munmap(va, CHILD * PAGE_SIZE);
    w.b.mm.mmap(va, CHILD * PAGE_SIZE, 3, 0x22 | 0x10 | 0x4000);
    w.b.mm.munmap(va, CHILD * PAGE_SIZE);
    w.b.mm.mmap(va, CHILD * PAGE_SIZE, 3, 0x22 | 0x10 | 0x4000);
    expect(await write(mr, va + 9, pattern(2 * PAGE_SIZE, 8))).toBe(IBV_WC_SUCCESS);
    expect(firstDifference(await w.bytes(w.b, va + 9, 2 * PAGE_SIZE), pattern(2 * PAGE_SIZE, 8))).toBe(-1);
    w.check();
    await mr.deregMr();
    expect(w.b.mm.notifiers.nrSubscriptions).toBe(0);
  });
});

describe('M41: a fault beside deregistration ends nothing that is in order', () => {
  /** All pages of it are in swap: a fault waits. */
  const swappedOut = async (end: End, nrPages: number): Promise<{ va: number; mr: MemoryRegion }> => {
    const region = await w.region(end, nrPages);
    await w.fill(end, region.va, pattern(nrPages * PAGE_SIZE, 4));
    for (let n = 0; n < 40 && end.mm.residentPages > 0; n++) w.host.reclaim.shrink(true, true, true);
    expect(end.mm.residentPages).toBe(0);
    return region;
  };

  test('another region goes, and its place is used again, while a fault waits', async () => {
    await start({ device: { maxMr: 8 } });
    const other = await w.region(w.b, 2);
    const { va, mr } = await swappedOut(w.b, 4);
    const reading = read(mr, va, 3 * PAGE_SIZE);
    await other.mr.deregMr();
    const next = await w.region(w.b, 2);
    const { status, bytes } = await reading;
    expect(status).toBe(IBV_WC_SUCCESS);
    expect(firstDifference(bytes, pattern(4 * PAGE_SIZE, 4).slice(0, 3 * PAGE_SIZE))).toBe(-1);
    expect(await write(next.mr, next.va, pattern(9, 2))).toBe(IBV_WC_SUCCESS);
  });

  test('a prefetch of a region that goes resolves', async () => {
    await start();
    const { va, mr } = await swappedOut(w.b, 8);
    const sgList = [{ addr: va, length: 8 * PAGE_SIZE, lkey: mr.lkey }];
    const advice = w.b.pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH, sgList);
    await mr.deregMr();
    await advice;
    w.check();
  });

  test('a prefetch of a region that goes with its memory resolves', async () => {
    await start();
    const { va, mr } = await swappedOut(w.b, 8);
    const sgList = [{ addr: va, length: 8 * PAGE_SIZE, lkey: mr.lkey }];
    const advice = w.b.pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH, sgList);
    const gone = mr.deregMr();
    w.b.mm.munmap(va, 8 * PAGE_SIZE);
    await advice;
    await gone;
    w.check();
  });

  test('a fault that needs a piece of an implicit region waits for the bracket that is open', async () => {
    await start();
    const other = await w.region(w.b, 1);
    const mr = await w.b.pd.regMr(0, Number.POSITIVE_INFINITY, ODP);
    const va = w.mmap(w.b, 1);
    const open = bracket(w.b.mm, other.va, 1);
    open.start();
    let done = false;
    const writing = write(mr, va, pattern(10, 1)).finally(() => (done = true));
    await w.turns(30);
    expect(done).toBe(false);
    open.end();
    expect(await writing).toBe(IBV_WC_SUCCESS);
    expect(await w.bytes(w.b, va, 10)).toEqual(pattern(10, 1));
  });

  test('who names a region that goes while it waits is refused, and nobody else', async () => {
    await start();
    const { va, mr } = await swappedOut(w.b, 4);
    const reading = read(mr, va, PAGE_SIZE);
    await w.turns(1);
    await mr.deregMr();
    expect([IBV_WC_REM_ACCESS_ERR, IBV_WC_SUCCESS]).toContain((await reading).status);
    await w.connect();
    const next = await w.region(w.b, 1);
    expect(await write(next.mr, next.va, pattern(9, 2))).toBe(IBV_WC_SUCCESS);
  });
});

test('M42: an iova that is not the virtual address leads to the right page', async () => {
  await start();
  const va = w.mmap(w.b, 8);
  const iova = 2 ** 45 + 3 * PAGE_SIZE + 100;
  const mr = await w.b.pd.regMrIova(va + PAGE_SIZE + 100, 5 * PAGE_SIZE, iova, ODP);
  expect(await write(mr, iova + 4000, pattern(2 * PAGE_SIZE, 6))).toBe(IBV_WC_SUCCESS);
  expect(firstDifference(await w.bytes(w.b, va + PAGE_SIZE + 4100, 2 * PAGE_SIZE), pattern(2 * PAGE_SIZE, 6))).toBe(-1);
  expect((await read(mr, iova + 5 * PAGE_SIZE - 1, 1)).status).toBe(IBV_WC_SUCCESS);
  w.check();
  expect((await read(mr, va + PAGE_SIZE + 100, 1)).status).toBe(IBV_WC_REM_ACCESS_ERR);
  await expect(w.b.pd.regMrIova(va, PAGE_SIZE, 12, ODP)).rejects.toThrow(/EINVAL.*must lie in its page/);
});

test('M42: advice names iovas as well: the pages that it brings in are those, and their accesses no faults', async () => {
  await start();
  const va = w.mmap(w.b, 8);
  const iova = 2 ** 45 + 3 * PAGE_SIZE + 100;
  const mr = await w.b.pd.regMrIova(va + PAGE_SIZE + 100, 5 * PAGE_SIZE, iova, ODP);
  // From the last byte of page 1 of the region to the first of page 3.
  const sgList = [{ addr: iova + 2 * PAGE_SIZE - 101, length: PAGE_SIZE + 2, lkey: mr.lkey }];
  await w.b.pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH, sgList);
  expect(mr.stats()).toMatchObject({ residentPages: 3, pagePrefetches: 3 });
  expect((await read(mr, iova + PAGE_SIZE - 100, 3 * PAGE_SIZE)).status).toBe(IBV_WC_SUCCESS);
  expect(mr.stats()).toMatchObject({ residentPages: 3, pageFaults: 0 });
  w.check();
});

test('M43: an entry for reading is not taken for one to write, and a refused access keeps no lock', async () => {
  await start();
  const { va, mr } = await w.region(w.b, 4);
  // Untouched memory that is read is the zero page.
  expect((await read(mr, va, 4 * PAGE_SIZE)).status).toBe(IBV_WC_SUCCESS);
  w.check();
  expect(await write(mr, va + PAGE_SIZE, pattern(PAGE_SIZE, 7))).toBe(IBV_WC_SUCCESS);
  expect(w.host.u8[w.host.frames.zeroPfn * PAGE_SIZE]).toBe(0);
  expect(firstDifference(await w.bytes(w.b, va, PAGE_SIZE), new Uint8Array(PAGE_SIZE))).toBe(-1);
  w.check();
  // The mm does not let it be written: refused, and the next who needs the lock gets it.
  w.b.mm.mprotect(va, 4 * PAGE_SIZE, PROT_READ);
  expect(await write(mr, va, pattern(5, 1))).not.toBe(IBV_WC_SUCCESS);
  expect(await w.bytes(w.b, va, 5)).toEqual(new Uint8Array(5));
  w.b.mm.munmap(va, 4 * PAGE_SIZE);
  await mr.deregMr();
});

test.each([
  ['its rights', IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_ON_DEMAND, 0],
  ['its bounds', ODP, 4 * PAGE_SIZE],
])(
  'M43: an access that is refused for %s leaves no copy open, for which every bracket would wait',
  async (_what, access, at) => {
    await start();
    const { va, mr } = await w.region(w.b, 4, access);
    expect(await write(mr, va + at, pattern(5, 1))).not.toBe(IBV_WC_SUCCESS);
    expect((w.device as DeviceImpl).state.awaitCopy()).toBe(false);
    expect(await w.bytes(w.b, va, 5)).toEqual(new Uint8Array(5));
  },
);

test('M44: unaligned transfers over several pages keep the offset in the page, on both sides', async () => {
  await start();
  const nrPages = 6;
  const va = w.mmap(w.b, nrPages);
  // The region does not begin where a page does either.
  const mr = await w.b.pd.regMr(va + 1, nrPages * PAGE_SIZE - 1, ODP);
  for (const [offset, length] of [
    [1, 4096],
    [4095, 2],
    [4000, 8200],
    [123, 3 * 4096 + 17],
    [8191, 4097],
  ] as const) {
    await w.fill(w.b, va, new Uint8Array(nrPages * PAGE_SIZE).fill(0xee));
    expect(await write(mr, va + offset, pattern(length, offset))).toBe(IBV_WC_SUCCESS);
    const wanted = new Uint8Array(nrPages * PAGE_SIZE).fill(0xee);
    wanted.set(pattern(length, offset), offset);
    expect(firstDifference(await w.bytes(w.b, va, wanted.length), wanted)).toBe(-1);
    expect(firstDifference((await read(mr, va + offset, length)).bytes, pattern(length, offset))).toBe(-1);
  }
});

test('M45: what happens to another mm, the child of a fork too, is nothing to a region', async () => {
  await start();
  const { va, mr } = await w.region(w.b, 4);
  expect(await write(mr, va, pattern(4 * PAGE_SIZE, 1))).toBe(IBV_WC_SUCCESS);
  const child = w.b.mm.fork();
  const childContext = w.device.openContext(child);
  const childPd = childContext.allocPd();
  const childMr = await childPd.regMr(va, 4 * PAGE_SIZE, ODP);
  expect(await write(mr, va, pattern(PAGE_SIZE, 2))).toBe(IBV_WC_SUCCESS);
  const byte = new Uint8Array(1);
  child.readSync(va, byte);
  expect(byte[0]).toBe(pattern(1, 1)[0]);
  await childMr.deregMr();
  child.munmap(va, 2 * PAGE_SIZE);
  child.exit();
  expect(firstDifference((await read(mr, va, PAGE_SIZE)).bytes, pattern(PAGE_SIZE, 2))).toBe(-1);
  expect(
    firstDifference(
      (await read(mr, va + PAGE_SIZE, PAGE_SIZE)).bytes,
      pattern(4 * PAGE_SIZE, 1).slice(PAGE_SIZE, 2 * PAGE_SIZE),
    ),
  ).toBe(-1);
  w.check();
  await childContext.close();
});

describe('S11', () => {
  const READ_ONLY = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;

  test('S11: a limit of 0 for locked memory is enough on demand, and for nothing else', async () => {
    await start();
    const mm = w.host.createMm({ name: 'poor', rlimitMemlock: 0 });
    const context = w.device.openContext(mm);
    const pd = context.allocPd();
    const va = mm.mmap(0, 16 * PAGE_SIZE, 3, 0x22);
    const mr = await pd.regMr(va, 16 * PAGE_SIZE, READ_ONLY | IBV_ACCESS_ON_DEMAND);
    await expect(pd.regMr(va, 16 * PAGE_SIZE, READ_ONLY)).rejects.toThrow(/ENOMEM: regMr: RLIMIT_MEMLOCK/);
    expect(w.host.stats().pinnedFrames).toBe(0);
    await mr.deregMr();
    await context.close();
  });

  test('S11: without on-demand paging the frames are pinned, counted and given back', async () => {
    await start();
    const { va, mr } = await w.region(w.b, 8, ODP & ~IBV_ACCESS_ON_DEMAND);
    expect([w.host.stats().pinnedFrames, w.device.stats().pinnedPages]).toEqual([8, 8]);
    expect(await write(mr, va + 10, pattern(3 * PAGE_SIZE, 3))).toBe(IBV_WC_SUCCESS);
    for (let n = 0; n < 20; n++) w.host.reclaim.shrink(true, true, true);
    const child = w.b.mm.fork();
    expect(await write(mr, va, pattern(10, 9))).toBe(IBV_WC_SUCCESS);
    expect(await w.bytes(w.b, va, 10)).toEqual(pattern(10, 9));
    child.exit();
    w.check();
    await mr.deregMr();
    expect(w.host.stats().pinnedFrames).toBe(0);
    w.check();
  });
});

test('who waits for a page asks for it once, whatever else comes and goes on its connection', async () => {
  await start();
  const [{ va, mr }, there] = [await w.region(w.b, 1), await w.region(w.a, 1)];
  const open = bracket(w.b.mm, va, 1);
  open.start();
  const reading = read(mr, va, 100);
  await w.turns(20);
  // Each request of its own asks the sender of the response, too, whether it can go on.
  for (let n = 0; n < 50; n++) {
    const wr = { opcode: IBV_WR_RDMA_WRITE, sendFlags: IBV_SEND_INLINE, inlineData: pattern(8, n) } as const;
    await w.send(w.b, { ...wr, remoteAddr: there.va, rkey: there.mr.rkey });
  }
  open.end();
  expect((await reading).status).toBe(IBV_WC_SUCCESS);
  await w.turns(50);
  const { minorFaults, majorFaults } = w.device.stats();
  expect(minorFaults + majorFaults).toBeLessThan(6);
});

describe('N19: a region whose notifier has broken its contract is of no use, and costs memory until it is deregistered', () => {
  test.each(['explicit', 'implicit'])('%s', async (kind) => {
    await start();
    const va = w.mmap(w.b, 4);
    const mr =
      kind === 'explicit'
        ? await w.b.pd.regMr(va, 4 * PAGE_SIZE, ODP)
        : await w.b.pd.regMr(0, Number.POSITIVE_INFINITY, ODP);
    expect(await write(mr, va, pattern(4 * PAGE_SIZE, 1))).toBe(IBV_WC_SUCCESS);
    const [sub] = w.b.mm.notifiers.all();
    (sub!.ops as { invalidateRangeStart: () => void }).invalidateRangeStart = () => {
      throw new Error('broken');
    };
    w.b.mm.madviseDontneed(va, PAGE_SIZE);
    expect(sub!.poisoned).toMatch(/broken/);
    expect(w.host.stats().pinnedFrames).toBe(4);
    await w.turns(5);
    expect((await read(mr, va, 10)).status).not.toBe(IBV_WC_SUCCESS);
    await mr.deregMr();
    expect(w.host.stats().pinnedFrames).toBe(0);
    // Others go on.
    await w.connect();
    const next = await w.region(w.b, 1);
    expect(await write(next.mr, next.va, pattern(9, 2))).toBe(IBV_WC_SUCCESS);
    w.check();
  });
});
