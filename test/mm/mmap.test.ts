import { expect, test } from 'vitest';
import {
  checkHost,
  Host,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_PRIVATE,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;

function setUp(options = {}) {
  const host = new Host({ frames: 64, arenaBytes: 65536, debug: true, ...options });
  return { host, mm: host.createMm({ name: 'guest' }) };
}

test('mmap finds holes, and what was unmapped is one again', () => {
  const { host, mm } = setUp();
  const a = mm.mmap(0, 10 * PAGE, RW, ANON);
  const b = mm.mmap(0, PAGE + 1, PROT_READ, ANON);
  expect(b).toBe(a + 10 * PAGE);
  expect(mm.findVma(b + PAGE)?.end).toBe(b + 2 * PAGE);
  mm.munmap(a + 2 * PAGE, 3 * PAGE);
  expect(mm.mmap(0, 3 * PAGE, PROT_READ, ANON)).toBe(a + 2 * PAGE);
  checkHost(host);
});

test('neighbours that differ in nothing are one VMA, and a hole in the middle makes two', async () => {
  const { host, mm } = setUp();
  const a = mm.mmap(0, 10 * PAGE, RW, ANON);
  mm.mmap(a + 10 * PAGE, 10 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE);
  expect(mm.vmas.length).toBe(1);
  await mm.write(a, new Uint8Array(20 * PAGE).fill(1));
  mm.munmap(a + 5 * PAGE, PAGE);
  expect(mm.vmas.all().map((v) => [v.start - a, v.end - a])).toEqual([
    [0, 5 * PAGE],
    [6 * PAGE, 20 * PAGE],
  ]);
  const [left, right] = mm.vmas.all();
  expect(left!.anonVma).toBe(right!.anonVma);
  checkHost(host);
});

test('a fixed mapping replaces what is there, and starts as zeros', async () => {
  const { host, mm } = setUp();
  const a = mm.mmap(0, 4 * PAGE, RW, ANON);
  await mm.write(a, new Uint8Array(4 * PAGE).fill(7));
  expect(mm.mmap(a + PAGE, 2 * PAGE, RW, ANON | MAP_FIXED)).toBe(a + PAGE);
  const bytes = new Uint8Array(4 * PAGE);
  await mm.read(a, bytes);
  expect([bytes[0], bytes[PAGE], bytes[2 * PAGE], bytes[3 * PAGE]]).toEqual([7, 0, 0, 7]);
  checkHost(host);
});

test('rights are kept: EFAULT without a VMA, on PROT_NONE, and for a write to what is read-only', async () => {
  const { mm } = setUp();
  const none = mm.mmap(0, PAGE, PROT_NONE, ANON);
  const ro = mm.mmap(0, PAGE, PROT_READ, ANON);
  await expect(mm.read(none, new Uint8Array(1))).rejects.toMatchObject({ code: 'EFAULT' });
  await expect(mm.write(ro, new Uint8Array(1))).rejects.toMatchObject({ code: 'EFAULT' });
  await expect(mm.read(ro, new Uint8Array(1))).resolves.toBeUndefined();
  await expect(mm.read(0x7000_0000, new Uint8Array(1))).rejects.toThrow(/EFAULT: faultIn: address 0x70000000 of guest/);
  await expect(mm.read(-1, new Uint8Array(1))).rejects.toMatchObject({ code: 'EFAULT' });
  await expect(mm.read(2 ** 39 - 1, new Uint8Array(2))).rejects.toMatchObject({ code: 'EFAULT' });
});

test('addresses above 2 GiB and 4 GiB work, and page tables are taken and given back', async () => {
  const { host, mm } = setUp();
  const before = host.tables.bytesInUse;
  for (const addr of [0x8000_0000, 0xffff_f000, 2 ** 38, 2 ** 39 - 2 * PAGE]) {
    expect(mm.mmap(addr, 2 * PAGE, RW, ANON | MAP_FIXED)).toBe(addr);
    await mm.write(addr + PAGE - 2, new Uint8Array([1, 2, 3, 4]));
    const bytes = new Uint8Array(4);
    await mm.read(addr + PAGE - 2, bytes);
    expect([...bytes]).toEqual([1, 2, 3, 4]);
  }
  expect(host.tables.bytesInUse).toBeGreaterThan(before);
  checkHost(host);
  mm.munmap(0, 2 ** 39);
  expect(host.tables.bytesInUse).toBe(before);
  expect(host.frames.nrFree).toBe(64);
});

test('when page tables run out the fault says so, and nothing leaks', async () => {
  const { host, mm } = setUp({ pageTables: 6 });
  const addrs = [2 ** 31, 2 ** 32, 2 ** 35].map((addr) => mm.mmap(addr, PAGE, RW, ANON | MAP_FIXED));
  await mm.write(addrs[0]!, new Uint8Array(1));
  await mm.write(addrs[1]!, new Uint8Array(1));
  await expect(mm.write(addrs[2]!, new Uint8Array(1))).rejects.toThrow(/ENOMEM: faultIn: no page table left of 6/);
  expect(() => host.createMm()).toThrow(/ENOMEM: createMm/);
  checkHost(host);
  mm.munmap(addrs[0]!, PAGE);
  await mm.write(addrs[2]!, new Uint8Array(1));
  checkHost(host);
});

test('N26: too few frames are refused, and so is more than WebAssembly can address', () => {
  expect(() => new Host({ frames: 63 })).toThrow(
    /EINVAL: Host: frames 63 must be an integer of at least 64 \(256 KiB\)/,
  );
  expect(() => new Host({ frames: 2 ** 20 })).toThrow(/EINVAL: Host: 1048576 frames .* must fit in 4096 MiB/);
});

test('after exit an mm maps nothing, and another mm that gets its tables is not seen through it', async () => {
  const { host, mm } = setUp();
  const a = mm.mmap(0, PAGE, RW, ANON);
  await mm.write(a, new Uint8Array(1).fill(1));
  mm.exit();
  mm.exit();
  const other = host.createMm();
  other.mmap(a, PAGE, RW, ANON | MAP_FIXED);
  await other.write(a, new Uint8Array(1).fill(2));
  expect(mm.tryGetPage(a, 0)).toBe(-2);
  expect(() => mm.mmap(0, PAGE, RW, ANON)).toThrow(/EFAULT/);
  checkHost(host);
});

test('the arena gives aligned blocks and takes them back', () => {
  const { host } = setUp();
  const a = host.arenaAlloc(100, 64);
  const b = host.arenaAlloc(4096, 4096);
  expect([a % 64, b % 4096]).toEqual([0, 0]);
  expect(() => host.arenaAlloc(65536, 8)).toThrow(
    /ENOMEM: arenaAlloc: 65536 bytes do not fit: 61340 of 65536 are free/,
  );
  host.arenaFree(a, 100);
  expect(() => host.arenaFree(a, 100)).toThrow(/N4/);
  host.arenaFree(b, 4096);
  host.arenaFree(host.arenaAlloc(65536, 8), 65536);
});
