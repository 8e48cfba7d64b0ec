import { expect, test } from 'vitest';
import { GuestRam, Host, MemorySwap } from '../../src/index.js';
import { checkHost, FAULT_RETRY, mmuNotifierRegister, VA_SIZE } from '../../src/mm/index.js';
import { pteNotifierCall } from '../../src/notifier/index.js';

const PAGE = 4096;
const MIB = 2 ** 20;

/** The driver's part of the contract: no entry outlives its pte, none is installed beside a bracket, nothing unwritten is writable. */

function setUp(frames = 64) {
  const host = new Host({ frames, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 16 * MIB }), debug: true });
  const ram = GuestRam.create(host, { lenBytes: MIB });
  return { host, ram };
}

test('N1: after reclaim took a page, neither reads nor writes go to its old frame', () => {
  const { host, ram } = setUp();
  ram.writeUint32(0, 1);
  const old = ram.translate(0);
  host.reclaim.shrink(true, true, true);
  // The old frame is another's now.
  const other = GuestRam.create(host, { lenBytes: 32 * PAGE });
  for (let addr = 0; addr < other.lenBytes; addr += PAGE) other.writeUint32(addr, 0xbad);
  expect(ram.readUint32(0)).toBe(1);
  ram.writeUint32(0, 2);
  expect(ram.translate(0)).not.toBe(old);
  for (let addr = 0; addr < other.lenBytes; addr += PAGE) expect(other.readUint32(addr)).toBe(0xbad);
  expect(ram.readUint32(0)).toBe(2);
});

test('N1: a write entry goes as a read entry does', () => {
  const { host, ram } = setUp();
  ram.writeUint32(0, 1);
  host.reclaim.shrink(true, true, true);
  const other = GuestRam.create(host, { lenBytes: 32 * PAGE });
  for (let addr = 0; addr < other.lenBytes; addr += PAGE) other.writeUint32(addr, 0xbad);
  ram.writeUint8(0, 7);
  expect(ram.readUint32(0)).toBe(7);
  for (let addr = 0; addr < other.lenBytes; addr += PAGE) expect(other.readUint32(addr)).toBe(0xbad);
});

test('N1: of the page that clear names no entry is left, whatever the sweep does', () => {
  const host = new Host({ frames: 128, arenaBytes: 65536, debug: true });
  const ram = GuestRam.create(host, { lenBytes: 48 * PAGE });
  for (let addr = 0; addr < ram.lenBytes; addr += PAGE) ram.writeUint32(addr, 1);
  // The sweep starts at page 0 and goes a few pages for each clear.
  ram.discard(40 * PAGE, PAGE);
  ram.discard(41 * PAGE, PAGE);
  expect(ram.stats.aged).toBeLessThan(16);
  expect(ram.readUint32(40 * PAGE)).toBe(0);
  ram.writeUint32(41 * PAGE, 7);
  const bytes = new Uint8Array(1);
  ram.mm.readSync(ram.va + 41 * PAGE, bytes);
  expect(bytes[0]).toBe(7);
  checkHost(host);
});

test('N15: a page that was only read cannot be written through its entry: the write faults, and is not lost', () => {
  const { host, ram } = setUp();
  ram.writeUint32(0, 1);
  host.reclaim.shrink(true, true, true);
  expect(ram.readUint32(0)).toBe(1);
  const before = ram.stats.faults;
  ram.writeUint32(0, 2);
  expect(ram.stats.faults).toBe(before + 1);
  host.reclaim.shrink(true, true, true);
  host.reclaim.shrink(true, true, true);
  expect(ram.stats.clears).toBe(2);
  expect(ram.readUint32(0)).toBe(2);
});

test('hits call nobody and count nothing', () => {
  const { host, ram } = setUp();
  ram.writeUint32(0, 1);
  const before = JSON.stringify([ram.stats, host.vmstat]);
  for (let k = 0; k < 1000; k++) ram.writeUint32(0, ram.readUint32(0) + 1);
  expect([ram.readUint32(0), JSON.stringify([ram.stats, host.vmstat])]).toEqual([1001, before]);
});

test('N3: inside a bracket no entry is installed, and a blocking access says so instead of hanging', () => {
  const { host, ram } = setUp();
  ram.writeUint32(0, 1);
  const inside: unknown[] = [];
  pteNotifierCall(ram.mm.findVma(ram.va)!, 'clear', ram.va, () => {
    inside.push(ram.tryTranslate(4, false), ram.tryTranslate(4, true));
    expect(() => ram.readUint32(0)).toThrow(/EDEADLK.*being taken away/);
  });
  expect(inside).toEqual([FAULT_RETRY, FAULT_RETRY]);
  expect([ram.stats.retries, host.vmstat.retries]).toEqual([6, 6]);
  expect(ram.readUint32(0)).toBe(1);
  checkHost(host);
});

test('N3: what another driver looks at in its callback does not come back into the table', () => {
  const { host, ram } = setUp();
  ram.writeUint32(0, 1);
  const seen: number[] = [];
  // Registered from a later address: its start comes after the RAM's own.
  mmuNotifierRegister(ram.mm, ram.va + 1, VA_SIZE, {
    invalidateRangeStart: () => void seen.push(ram.tryTranslate(0, false)),
  });
  host.reclaim.shrink(true, true, true);
  const other = GuestRam.create(host, { lenBytes: 32 * PAGE });
  for (let addr = 0; addr < other.lenBytes; addr += PAGE) other.writeUint32(addr, 0xbad);
  expect([seen, ram.readUint32(0)]).toEqual([[FAULT_RETRY], 1]);
});

test('N19: RAM whose callbacks overran their time is dead: it may not read what is stale, nor lose a write in silence', async () => {
  let nowMs = 0;
  const swap = new MemorySwap({ sizeBytes: 16 * MIB });
  const now = () => (nowMs += 3);
  const host = new Host({ frames: 64, arenaBytes: 65536, swap, now, notifierBudgetMs: 2 });
  const ram = GuestRam.create(host, { lenBytes: MIB });
  ram.writeUint32(0, 1);
  ram.discard(PAGE, PAGE);
  await Promise.resolve();
  expect(() => ram.readUint32(0)).toThrow(/EIO.*its budget is 2 ms/);
  expect(() => ram.writeUint32(PAGE, 1)).toThrow(/EIO/);
  expect(() => ram.readUint32(PAGE - 2)).toThrow(/EIO/);
  await expect(ram.read(0, new Uint8Array(8))).rejects.toThrow(/EIO/);
  expect(host.stats()).toMatchObject({ poisoned: 1, pinnedFrames: 1 });
  ram.destroy();
  expect(host.stats()).toMatchObject({ framesFree: 64, pinnedFrames: 0 });
});
