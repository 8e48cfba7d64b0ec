import { expect, test } from 'vitest';
import { checkHost, Host, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MemorySwap, PROT_WRITE } from '../../src/mm/index.js';

const PAGE = 4096;
const BASE = 0x2000_0000;

function setUp() {
  const host = new Host({ frames: 64, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 2 ** 20 }) });
  const mm = host.createMm();
  mm.mmap(BASE, 4 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
  mm.mmap(BASE + 5 * PAGE, PAGE, 1, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
  return { host, mm };
}

test('processVmWritev and processVmReadv gather and scatter over runs that differ in length', async () => {
  const { host, mm } = setUp();
  const src = Uint8Array.from({ length: 10_000 }, (_, i) => i * 7);
  const runs = [
    { va: BASE + 3, lenBytes: 5000 },
    { va: BASE + 2 * PAGE, lenBytes: 0 },
    { va: BASE + 2 * PAGE + 1, lenBytes: 5000 },
  ];
  const pieces = [src.subarray(0, 1), src.subarray(1, 1), src.subarray(1, 7000), src.subarray(7000)];
  expect(await mm.processVmWritev(pieces, runs)).toBe(10_000);
  host.reclaim.shrink(true, true, true);
  const dst = new Uint8Array(10_000);
  expect(await mm.processVmReadv([dst.subarray(0, 9000), dst.subarray(9000)], runs)).toBe(10_000);
  expect(dst).toEqual(src);
  checkHost(host);
});

test('the shorter side says how much is moved', async () => {
  const { mm } = setUp();
  expect(await mm.processVmReadv([new Uint8Array(10)], [{ va: BASE, lenBytes: 100 }])).toBe(10);
  expect(await mm.processVmReadv([new Uint8Array(1000)], [{ va: BASE, lenBytes: 100 }])).toBe(100);
  expect(await mm.processVmReadv([], [{ va: BASE, lenBytes: 100 }])).toBe(0);
  expect(await mm.processVmReadv([new Uint8Array(10)], [])).toBe(0);
});

test('what lies before a page that cannot be had is moved, and counted; EFAULT where there is nothing', async () => {
  const { mm } = setUp();
  const over = { va: BASE + 3 * PAGE + 96, lenBytes: PAGE };
  expect(await mm.processVmReadv([new Uint8Array(PAGE)], [over])).toBe(4000);
  expect(await mm.processVmWritev([new Uint8Array(PAGE)], [over])).toBe(4000);
  const readOnly = { va: BASE + 5 * PAGE, lenBytes: 8 };
  await expect(mm.processVmWritev([new Uint8Array(8)], [readOnly])).rejects.toThrow(/^EFAULT/);
  expect(await mm.processVmWritev([new Uint8Array(16)], [{ va: BASE, lenBytes: 8 }, readOnly])).toBe(8);
  await expect(mm.processVmReadv([new Uint8Array(8)], [{ va: BASE + 4 * PAGE, lenBytes: 8 }])).rejects.toThrow(
    /^EFAULT/,
  );
});

test('EINVAL for too many runs and for lengths that are none', async () => {
  const { mm } = setUp();
  const many = [...Array(1025).keys()].map(() => ({ va: BASE, lenBytes: 1 }));
  await expect(mm.processVmReadv([new Uint8Array(8)], many)).rejects.toThrow(/^EINVAL: processVmReadv: 1025 remote/);
  const manyLocal = many.map(() => new Uint8Array(1));
  await expect(mm.processVmWritev(manyLocal, [])).rejects.toThrow(/^EINVAL: processVmWritev: 1025 local/);
  await expect(mm.processVmReadv([new Uint8Array(8)], [{ va: BASE, lenBytes: 1.5 }])).rejects.toThrow(/^EINVAL.*1.5/);
});

test('processVmReadv wants PROT_READ, which PROT_WRITE is not for it; what lies before is moved', async () => {
  const { mm } = setUp();
  mm.mmap(BASE + PAGE, PAGE, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
  const dst = new Uint8Array(2 * PAGE);
  expect(await mm.processVmReadv([dst], [{ va: BASE, lenBytes: 2 * PAGE }])).toBe(PAGE);
  await expect(mm.processVmReadv([dst], [{ va: BASE + PAGE, lenBytes: 1 }])).rejects.toThrow(/^EFAULT.*PROT_READ/);
  expect(await mm.processVmWritev([dst], [{ va: BASE + PAGE, lenBytes: 1 }])).toBe(1);
});
