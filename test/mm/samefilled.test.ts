import { describe, expect, it } from 'vitest';
import {
  checkHost,
  Host,
  MADV_FREE,
  MADV_PAGEOUT,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  mmuNotifierRegister,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';
import { TestDriver } from './testdriver.js';

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;

/** A page of one 64-bit value. */
function pageOf(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array(512).fill(value).buffer);
}

function make(nrSlots = 4): { host: Host; mm: Mm; va: number } {
  const host = new Host({
    frames: 128,
    sameFilled: true,
    debug: true,
    swap: new MemorySwap({ sizeBytes: nrSlots * PAGE }),
  });
  const mm = host.createMm();
  return { host, mm, va: mm.mmap(0, 64 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS) };
}

function contents(mm: Mm, va: number): Uint8Array {
  const bytes = new Uint8Array(PAGE);
  mm.readSync(va, bytes);
  return bytes;
}

function pageout(mm: Mm, va: number, nrPages: number): void {
  mm.madvise(va, nrPages * PAGE, MADV_PAGEOUT);
  checkHost(mm.host);
}

describe('pages of one value repeated', () => {
  it.each([0n, 1n, 0x0101010101010101n, 0xffffffffffffffffn, 0x8000000000000001n])(
    'N22: %s takes no slot, and comes back as it was',
    async (value) => {
      const { host, mm, va } = make();
      mm.writeSync(va, pageOf(value));
      pageout(mm, va, 1);
      expect(host.stats()).toMatchObject({ sameFilledPages: 1, swapSlotsUsed: 0, swapOutPages: 0 });
      expect(mm.pagemap(va, 1)[0]).toMatchObject({ present: false, swapped: true, swapSlot: -1, softDirty: true });
      expect(mm.smapsRollup()).toMatchObject({ Rss: 0, Swap: 4, SwapPss: 4 });
      const vec = new Uint8Array(1);
      mm.mincore(va, PAGE, vec);
      expect(vec[0]).toBe(0);
      expect(contents(mm, va)).toEqual(pageOf(value));
      mm.writeSync(va + 8, new Uint8Array([5]));
      expect(contents(mm, va)).toEqual(pageOf(value).fill(5, 8, 9));
      expect(host.stats()).toMatchObject({ sameFilledPages: 0 });
      checkHost(host);
      await host.stop();
    },
  );

  it('N22: a page whose last word, or any other, differs does', () => {
    const { host, mm, va } = make();
    const offsets = [0, 8, 64, 1000, 2048, 4080, 4095];
    for (const [k, at] of offsets.slice(0, 4).entries()) mm.writeSync(va + k * PAGE, pageOf(3n).fill(1, at, at + 1));
    pageout(mm, va, 4);
    expect(host.stats()).toMatchObject({ sameFilledPages: 0, swapSlotsUsed: 4 });
    for (const [k, at] of offsets.slice(4).entries()) mm.writeSync(va + (8 + k) * PAGE, pageOf(3n).fill(1, at, at + 1));
    pageout(mm, va + 8 * PAGE, 3);
    expect(host.stats().sameFilledPages).toBe(0);
    for (const [k, at] of offsets.entries())
      expect(contents(mm, va + (k < 4 ? k : k + 4) * PAGE)).toEqual(pageOf(3n).fill(1, at, at + 1));
    checkHost(host);
  });

  it('more of them than frames and slots can be had', () => {
    const { host, mm } = make(4);
    const va = mm.mmap(0, 1000 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | 0x4000);
    for (let k = 0; k < 1000; k++) mm.writeSync(va + k * PAGE, pageOf(BigInt(k % 7)));
    checkHost(host);
    expect(host.stats().sameFilledPages).toBeGreaterThan(800);
    for (let k = 0; k < 1000; k++) expect(contents(mm, va + k * PAGE)[0]).toBe(k % 7);
    checkHost(host);
    mm.exit();
    expect(host.stats().sameFilledPages).toBe(0);
    checkHost(host);
  });

  it('zeros that are only read come back as the zero page; a write makes a frame', () => {
    const { host, mm, va } = make();
    mm.writeSync(va, pageOf(0n));
    pageout(mm, va, 1);
    expect(contents(mm, va)).toEqual(pageOf(0n));
    expect(mm.residentPages).toBe(0);
    mm.writeSync(va, new Uint8Array([1]));
    expect(contents(mm, va)[0]).toBe(1);
    expect(mm.residentPages).toBe(1);
    checkHost(host);
  });

  it('N20: after a fork each side has its own', () => {
    const { host, mm, va } = make();
    for (const [k, value] of [0n, 9n].entries()) mm.writeSync(va + k * PAGE, pageOf(value));
    pageout(mm, va, 2);
    const child = mm.fork();
    expect(host.stats().sameFilledPages).toBe(4);
    checkHost(host);
    for (const k of [0, 1]) child.writeSync(va + k * PAGE, new Uint8Array([1]));
    expect([0, 1].map((k) => contents(mm, va + k * PAGE)[0])).toEqual([0, 9]);
    expect([0, 1].map((k) => contents(child, va + k * PAGE)[0])).toEqual([1, 1]);
    checkHost(host);
    // A frame that both map goes as one.
    mm.writeSync(va + 2 * PAGE, pageOf(4n));
    const other = mm.fork();
    host.reclaim.shrink(true, true, true);
    host.reclaim.shrink(true, true, true);
    checkHost(host);
    expect([mm, other].map((m) => contents(m, va + 2 * PAGE)[8])).toEqual([4, 4]);
    checkHost(host);
  });

  it('munmap, MADV_FREE, mremap and the marks of soft-dirty tracking reach them', () => {
    const { host, mm, va } = make();
    for (let k = 0; k < 8; k++) mm.writeSync(va + k * PAGE, pageOf(BigInt(k)));
    pageout(mm, va, 8);
    mm.clearSoftDirty();
    expect(mm.pagemap(va, 8).every((page) => page.swapped && !page.softDirty)).toBe(true);
    checkHost(host);
    mm.munmap(va, 2 * PAGE);
    mm.madvise(va + 2 * PAGE, 2 * PAGE, MADV_FREE);
    expect(host.stats().sameFilledPages).toBe(4);
    const moved = mm.mremap(va + 4 * PAGE, 4 * PAGE, 4 * PAGE, 3, va + 2 ** 30);
    checkHost(host);
    for (let k = 4; k < 8; k++) expect(contents(mm, moved + (k - 4) * PAGE)).toEqual(pageOf(BigInt(k)));
    expect(mm.pagemap(moved, 1)[0]!.softDirty).toBe(true);
    expect(contents(mm, va + 2 * PAGE)).toEqual(pageOf(0n));
    checkHost(host);
  });

  it('N15: a page that a driver holds stays', () => {
    const { host, mm, va } = make();
    mm.writeSync(va, pageOf(2n));
    const pfn = mm.tryGetPage(va, 1);
    host.reclaim.reclaimPages([pfn]);
    checkHost(host, 1);
    host.u8[pfn * PAGE] = 7;
    mm.putPage(pfn);
    expect(contents(mm, va)[0]).toBe(7);
  });

  it('N15: what an external MMU writes until its entry is gone is kept', () => {
    const { host, mm, va } = make();
    mm.writeSync(va, pageOf(2n));
    const pfn = mm.tryGetPage(va, 1);
    mm.putPage(pfn);
    mmuNotifierRegister(mm, va, va + PAGE, { invalidateRangeStart: () => void (host.u8[pfn * PAGE + 9] = 5) });
    pageout(mm, va, 1);
    expect(contents(mm, va)).toEqual(pageOf(2n).fill(5, 9, 10));
  });

  it('N12: one of an mm whose driver refuses stays mapped', () => {
    const { host, mm, va } = make();
    mm.writeSync(va, pageOf(2n));
    const driver = new TestDriver(mm);
    driver.refuse = true;
    for (let pass = 0; pass < 4; pass++) host.reclaim.shrink(false, true, true);
    checkHost(host);
    expect([mm.residentPages, host.stats().sameFilledPages]).toEqual([1, 0]);
    driver.refuse = false;
    for (let pass = 0; pass < 4; pass++) host.reclaim.shrink(false, true, true);
    expect([mm.residentPages, host.stats().sameFilledPages]).toEqual([0, 1]);
  });
});
