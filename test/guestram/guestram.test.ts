import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { GuestRam, Host, MemorySwap, type SwapDevice } from '../../src/index.js';
import { checkHost, FAULT_RETRY } from '../../src/mm/index.js';
import { openFileSwap } from '../../src/node/index.js';

const PAGE = 4096;
const MIB = 2 ** 20;
const dir = mkdtempSync(join(tmpdir(), 'unpin-guestram-'));
afterAll(() => rmSync(dir, { recursive: true }));

function setUp(frames = 64, lenBytes = MIB) {
  const host = new Host({ frames, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 16 * MIB }), debug: true });
  return { host, ram: GuestRam.create(host, { lenBytes }) };
}

/** Another value for each word. */
function word(addr: number): number {
  return Math.imul(addr ^ (addr >>> 15), 0x2c1b3c6d) >>> 0;
}

const devices: Record<string, () => Promise<SwapDevice>> = {
  memory: async () => new MemorySwap({ sizeBytes: 16 * MIB }),
  'a file': () => openFileSwap(join(dir, 'swap'), { sizeBytes: 16 * MIB }),
};

for (const [name, open] of Object.entries(devices)) {
  test(`contents survive with 16 times as much RAM as frames, swapped to ${name}`, async () => {
    const host = new Host({ frames: 64, arenaBytes: 65536, swap: await open(), debug: true });
    const ram = GuestRam.create(host, { lenBytes: 4 * MIB });
    for (let addr = 0; addr < ram.lenBytes; addr += 512) ram.writeUint32(addr, word(addr));
    let seed = 1;
    for (let k = 0; k < 4000; k++) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      const addr = (seed % ram.lenBytes) & ~511;
      expect(ram.readUint32(addr)).toBe(word(addr));
      if ((k & 7) === 0) ram.writeUint32(addr, word(addr));
    }
    for (let addr = 0; addr < ram.lenBytes; addr += 512) expect(ram.readUint32(addr)).toBe(word(addr));
    checkHost(host);
    expect(host.stats()).toMatchObject({ pinnedFrames: 0, poisoned: 0 });
    expect(ram.stats.clears).toBeGreaterThan(960);
    await host.stop();
  });
}

test('every width, aligned, unaligned and over a page boundary, agrees with a DataView', () => {
  const { host, ram } = setUp();
  const lenBytes = 8 * PAGE;
  const model = new DataView(new ArrayBuffer(lenBytes));
  let seed = 7;
  const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) >>> 8;
  for (let k = 0; k < 20_000; k++) {
    // Half of them close to a boundary.
    const boundary = (1 + (random() % 7)) * PAGE;
    const addr = k % 2 === 0 ? boundary - 8 + (random() % 16) : random() % (lenBytes - 8);
    const value = (random() << 8) ^ random();
    switch (random() % 8) {
      case 0:
        ram.writeUint8(addr, value & 255);
        model.setUint8(addr, value);
        break;
      case 1:
        ram.writeUint16(addr, value);
        model.setUint16(addr, value, true);
        break;
      case 2:
        ram.writeUint32(addr, value);
        model.setUint32(addr, value, true);
        break;
      case 3:
        ram.writeBigUint64(addr, BigInt.asUintN(64, BigInt(value) * 0x123456789abn));
        model.setBigUint64(addr, BigInt(value) * 0x123456789abn, true);
        break;
      default:
        expect(ram.readUint8(addr)).toBe(model.getUint8(addr));
        expect(ram.readUint16(addr)).toBe(model.getUint16(addr, true));
        expect(ram.readInt32(addr)).toBe(model.getInt32(addr, true));
        expect(ram.readUint32(addr)).toBe(model.getUint32(addr, true));
        expect(ram.readBigUint64(addr)).toBe(model.getBigUint64(addr, true));
    }
    if (k % 500 === 0) host.reclaim.shrink(true, true, true);
  }
  checkHost(host);
});

test('N26: both pages of a crossing store are there before a byte is written, and nothing stays held', () => {
  const { host, ram } = setUp(64, 2 * MIB);
  for (let addr = 0; addr < ram.lenBytes; addr += PAGE) ram.writeUint32(addr, word(addr));
  for (let addr = PAGE; addr < ram.lenBytes; addr += PAGE) {
    ram.writeUint32(addr - 2, word(addr));
    ram.writeBigUint64(addr - 12, BigInt(addr));
    ram.writeBigUint64(addr - 5, 0x0102030405060708n + BigInt(addr));
  }
  for (let addr = PAGE; addr < ram.lenBytes; addr += PAGE) {
    expect(ram.readBigUint64(addr - 5)).toBe(0x0102030405060708n + BigInt(addr));
  }
  checkHost(host);
  host.reclaim.shrink(true, true, true);
  checkHost(host);
});

test('a crossing store whose second page cannot be had changes nothing, and gives the first page back', () => {
  const { host, ram } = setUp();
  ram.writeUint32(PAGE - 4, 0x11223344);
  ram.mm.munmap(ram.va + PAGE, PAGE);
  expect(() => ram.writeUint32(PAGE - 2, 0xffffffff)).toThrow(/EFAULT/);
  expect(() => ram.readUint32(PAGE - 2)).toThrow(/EFAULT/);
  expect(ram.readUint32(PAGE - 4)).toBe(0x11223344);
  checkHost(host);
});

test('bulk reads and writes, of any length, at any place, with and without waiting', async () => {
  const { ram } = setUp(64, 2 * MIB);
  const bytes = new Uint8Array(MIB).map((_, i) => (i * 31) ^ (i >>> 8));
  ram.writeSync(4097, bytes);
  const back = new Uint8Array(MIB);
  ram.readSync(4097, back);
  expect(Buffer.compare(back, bytes)).toBe(0);
  await ram.write(MIB - 3, bytes.subarray(0, 9000));
  await ram.read(MIB - 3, back.subarray(0, 9000));
  expect(Buffer.compare(back.subarray(0, 9000), bytes.subarray(0, 9000))).toBe(0);
  ram.writeSync(0, new Uint8Array(0));
  expect(() => ram.readSync(ram.lenBytes - 8, new Uint8Array(9))).toThrow(/EFAULT.*with 9 bytes must lie in/);
  await expect(ram.write(ram.lenBytes, new Uint8Array(1))).rejects.toThrow(/EFAULT/);
});

test('discard: zeros, and the frames and swap slots are free', () => {
  const { host, ram } = setUp();
  for (let addr = 0; addr < ram.lenBytes; addr += PAGE) ram.writeUint32(addr, 1);
  const used = host.stats();
  expect(used.swapSlotsUsed).toBeGreaterThan(190);
  ram.discard(PAGE, 100 * PAGE);
  expect([ram.readUint32(0), ram.readUint32(PAGE), ram.readUint32(100 * PAGE), ram.readUint32(101 * PAGE)]).toEqual([
    1, 0, 0, 1,
  ]);
  ram.discard(0, ram.lenBytes);
  expect(host.stats()).toMatchObject({ framesFree: 64, swapSlotsUsed: 0 });
  expect(() => ram.discard(100, PAGE)).toThrow(/EINVAL.*multiples of 4096/);
  expect(() => ram.discard(0, 2 * ram.lenBytes)).toThrow(/EFAULT/);
});

test('destroy: all frames and swap slots are free, every access is EFAULT', async () => {
  const { host, ram } = setUp();
  const other = GuestRam.create(host, { lenBytes: PAGE });
  for (let addr = 0; addr < ram.lenBytes; addr += PAGE) ram.writeUint32(addr, 1);
  other.writeUint8(5, 6);
  ram.destroy();
  ram.destroy();
  expect(ram.alive).toBe(false);
  const attempts: (() => void)[] = [
    () => ram.readUint8(0),
    () => ram.writeUint32(ram.lenBytes - PAGE, 1),
    () => ram.readUint32(PAGE - 1),
    () => ram.translate(0),
    () => ram.tryTranslate(0, false),
    () => ram.discard(0, PAGE),
    () => ram.writeSync(0, new Uint8Array(1)),
  ];
  for (const attempt of attempts) expect(attempt).toThrow(/EFAULT.*destroyed/);
  await expect(ram.faultIn(0, false)).rejects.toThrow(/EFAULT/);
  expect(other.readUint8(5)).toBe(6);
  expect(host.stats()).toMatchObject({ framesFree: 63, swapSlotsUsed: 0 });
  other.destroy();
  expect(host.stats()).toMatchObject({ framesFree: 64, tableBytes: 0 });
});

test('bad addresses are EFAULT and name the value', () => {
  const { ram } = setUp();
  ram.writeUint8(5, 1);
  for (const addr of [MIB, -1, -4, 2 ** 32, 2 ** 32 + 5, 5.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
    const named = Number.isInteger(addr) ? `0x${addr.toString(16)} ` : String(addr);
    for (const attempt of [
      () => ram.readUint8(addr),
      () => ram.readUint16(addr),
      () => ram.readInt32(addr),
      () => ram.readUint32(addr),
      () => ram.readBigUint64(addr),
      () => ram.writeUint8(addr, 9),
      () => ram.writeUint16(addr, 9),
      () => ram.writeUint32(addr, 9),
      () => ram.writeBigUint64(addr, 9n),
      () => ram.translate(addr),
      () => ram.translateForWrite(addr),
      () => ram.tryTranslate(addr, false),
    ]) {
      expect(attempt).toThrow(`EFAULT: GuestRam: address ${named}`);
    }
  }
  expect(() => ram.readUint32(MIB - 3)).toThrow(/EFAULT.*with 4 bytes must lie in \[0, 0x100000\)/);
  expect(ram.readUint8(5)).toBe(1);
});

test('bad sizes and ranges are refused, and leave nothing behind', () => {
  const { host } = setUp();
  const { tableBytes } = host.stats();
  for (const lenBytes of [0, -PAGE, 100, 1.5, 2 ** 32 + PAGE, Number.NaN]) {
    expect(() => GuestRam.create(host, { lenBytes })).toThrow(/EINVAL/);
  }
  const mm = host.createMm();
  const va = mm.mmap(0, 4 * PAGE, 3, 0x22);
  expect(() => GuestRam.over(mm, va + 1, PAGE)).toThrow(/EINVAL.*whole pages of one VMA/);
  expect(() => GuestRam.over(mm, va, 5 * PAGE)).toThrow(/EINVAL/);
  expect(() => GuestRam.over(mm, va - PAGE, PAGE)).toThrow(/EINVAL/);
  mm.exit();
  expect(host.stats().tableBytes).toBe(tableBytes);
});

test('over a range that the caller mapped: seen from both sides, and left mapped by destroy', () => {
  const { host } = setUp();
  const mm = host.createMm();
  const va = mm.mmap(0, 8 * PAGE, 3, 0x22);
  const ram = GuestRam.over(mm, va + 2 * PAGE, 4 * PAGE);
  ram.writeUint32(0, 0xdeadbeef);
  const bytes = new Uint8Array(4);
  mm.readSync(va + 2 * PAGE, bytes);
  expect([...bytes]).toEqual([0xef, 0xbe, 0xad, 0xde]);
  mm.writeSync(va, bytes);
  // Outside of the RAM, in its VMA: no concern of its.
  mm.madviseDontneed(va, 2 * PAGE);
  expect(ram.readUint32(0)).toBe(0xdeadbeef);
  mm.madviseDontneed(va, 8 * PAGE);
  expect(ram.readUint32(0)).toBe(0);
  ram.writeUint32(4, 5);
  ram.destroy();
  expect(() => ram.readUint32(4)).toThrow(/EFAULT/);
  mm.readSync(va + 2 * PAGE + 4, bytes);
  expect(bytes[0]).toBe(5);
  expect(() => ram.readUint32(0)).toThrow(/EFAULT/);
});

test('unmapped in part, only what is left can be reached; unmapped as a whole, it is at an end', () => {
  const { ram } = setUp();
  ram.writeUint32(0, 1);
  ram.writeUint32(4 * PAGE, 2);
  ram.mm.munmap(ram.va, 4 * PAGE);
  expect(() => ram.readUint32(0)).toThrow(/EFAULT/);
  expect([ram.readUint32(4 * PAGE), ram.alive]).toEqual([2, true]);
  ram.mm.munmap(ram.va, ram.lenBytes);
  expect(() => ram.readUint32(4 * PAGE)).toThrow(/EFAULT.*unmapped/);
  expect(ram.alive).toBe(false);
});

test('several on one host, larger than the frames together, do not see each other', () => {
  const host = new Host({ frames: 96, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 16 * MIB }), debug: true });
  const rams = [1, 2, 3].map((k) => GuestRam.create(host, { lenBytes: MIB, name: `guest ${k}` }));
  for (let addr = 0; addr < MIB; addr += 1024) for (const [k, ram] of rams.entries()) ram.writeUint32(addr, addr + k);
  rams[1]!.destroy();
  for (let addr = 0; addr < MIB; addr += 1024) {
    for (const k of [0, 2]) expect(rams[k]!.readUint32(addr)).toBe(addr + k);
  }
  checkHost(host);
});

test('where swap cannot block, access says so, and tryTranslate with faultIn serves', async () => {
  const memory = new MemorySwap({ sizeBytes: 4 * MIB });
  const swap: SwapDevice = {
    name: 'far',
    nrSlots: memory.nrSlots,
    read: (slots, frames) => memory.read(slots, frames),
    write: (slots, frames) => memory.write(slots, frames),
    close: () => memory.close(),
  };
  const host = new Host({ frames: 64, arenaBytes: 65536, swap, debug: true });
  const ram = GuestRam.create(host, { lenBytes: MIB });
  const reach = async (addr: number, write: boolean): Promise<number> => {
    for (;;) {
      const pa = ram.tryTranslate(addr, write);
      if (pa >= 0) return pa;
      expect(pa).toBe(FAULT_RETRY);
      await ram.faultIn(addr, write);
    }
  };
  for (let addr = 0; addr < MIB; addr += PAGE) host.u8[await reach(addr + 7, true)] = addr / PAGE;
  for (let addr = 0; addr < MIB; addr += PAGE) expect(host.u8[await reach(addr + 7, false)]).toBe(addr / PAGE);
  expect(() => {
    for (let addr = 0; addr < MIB; addr += PAGE) ram.readUint8(addr);
  }).toThrow(/EOPNOTSUPP.*far cannot block/);
  await host.stop();
});

test('blocking and waiting accesses may be mixed, with reads and writes of the file under way', async () => {
  const swap = await openFileSwap(join(dir, 'mixed'), { sizeBytes: 4 * MIB });
  const host = new Host({ frames: 64, arenaBytes: 65536, swap, defer: (fn) => setImmediate(fn), debug: true });
  const ram = GuestRam.create(host, { lenBytes: MIB });
  for (let addr = 0; addr < MIB; addr += PAGE) ram.writeUint32(addr, word(addr));
  const pending = Array.from({ length: 20 }, (_, page) => ram.faultIn(page * PAGE, false));
  for (let page = 0; page < 20; page++) expect(ram.readUint32(page * PAGE)).toBe(word(page * PAGE));
  await Promise.all(pending);
  for (let round = 0; round < 50; round++) {
    for (let k = 0; k < 40; k++) {
      const addr = ((round * 7919 + k * 131) % 256) * PAGE;
      expect(ram.readUint32(addr)).toBe(word(addr));
      ram.writeUint32(addr, word(addr));
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  checkHost(host);
  await host.stop();
});

test('a page damaged in swap is EHWPOISON for who reads it, until it is discarded; the rest goes on', () => {
  class Damaging extends MemorySwap {
    damage = true;
    override readSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
      super.readSync(slots, frames);
      if (this.damage) frames[0]![100] = frames[0]![100]! ^ 1;
      this.damage = false;
    }
  }
  const host = new Host({
    frames: 64,
    arenaBytes: 65536,
    swap: new Damaging({ sizeBytes: 4 * MIB }),
    sameFilled: false,
    debug: true,
  });
  const ram = GuestRam.create(host, { lenBytes: MIB });
  for (let addr = 0; addr < MIB; addr += PAGE) ram.writeUint32(addr, word(addr));
  expect(() => ram.readUint32(0)).toThrow(/EHWPOISON/);
  expect(() => ram.writeUint32(0, 1)).toThrow(/EHWPOISON/);
  for (let addr = PAGE; addr < MIB; addr += PAGE) expect(ram.readUint32(addr)).toBe(word(addr));
  ram.discard(0, PAGE);
  expect(ram.readUint32(0)).toBe(0);
  checkHost(host);
});

test('with frames and swap used up, more is ENOMEM, and what exists can be read', () => {
  const host = new Host({ frames: 64, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 64 * PAGE }), debug: true });
  const ram = GuestRam.create(host, { lenBytes: MIB });
  let end = 0;
  expect(() => {
    for (; end < MIB; end += PAGE) ram.writeUint32(end, end + 1);
  }).toThrow(/ENOMEM/);
  expect(end).toBeGreaterThan(100 * PAGE);
  for (let addr = 0; addr < end; addr += PAGE) expect(ram.readUint32(addr)).toBe(addr + 1);
  checkHost(host);
});

test('N19: RAM whose callback overran its time maps nothing any more, and gives what was pinned back when it is destroyed', () => {
  let nowMs = 0;
  const host = new Host({ frames: 64, arenaBytes: 65536, now: () => nowMs++ * 100, notifierBudgetMs: 10, debug: true });
  const other = GuestRam.create(host, { lenBytes: 4 * PAGE });
  for (const over of [false, true]) {
    const mm = host.createMm();
    const va = mm.mmap(0, 8 * PAGE, 3, 0x22);
    const ram = over ? GuestRam.over(mm, va, 8 * PAGE) : GuestRam.create(host, { lenBytes: 8 * PAGE });
    const before = host.frames.nrFree;
    for (let page = 0; page < 8; page++) ram.writeUint32(page * PAGE, page);
    ram.discard(0, PAGE);
    expect(() => ram.readUint32(PAGE)).toThrow(/EIO.*clear|EIO.*invalidateRangeStart/);
    expect(host.stats().pinnedFrames).toBe(8);
    ram.destroy();
    expect(host.stats().pinnedFrames).toBe(0);
    checkHost(host);
    mm.exit();
    expect(host.frames.nrFree).toBe(before);
  }
  nowMs = 0;
  other.writeUint32(0, 7);
  expect(other.readUint32(0)).toBe(7);
});
