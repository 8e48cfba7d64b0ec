import { expect, test } from 'vitest';
import { checkHost, Host, MAP_ANONYMOUS, MAP_PRIVATE, MemorySwap } from '../../src/mm/index.js';

/** Memory that is short for several at once. */

const PAGE = 4096;
const NR_PAGES = 100;

test('of those that find no memory at the same time one is refused; what it gives up serves the others', async () => {
  const swap = new MemorySwap({ sizeBytes: 64 * PAGE });
  const host = new Host({ frames: 64, arenaBytes: 65536, swap, debug: true, defer: (fn) => setImmediate(fn) });
  const ends = await Promise.all([1, 2].map((seed) => fill(host, seed)));
  expect(ends.sort()).toEqual(['ENOMEM', 'filled']);
  checkHost(host);
  await host.stop();
});

/** Writes more than half of what host and swap hold, page by page, waiting together with the others; exits when refused. */
async function fill(host: Host, seed: number): Promise<string> {
  const mm = host.createMm({ name: `mm of ${seed}` });
  const va = mm.mmap(0, NR_PAGES * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
  const page = new Uint8Array(PAGE);
  try {
    for (let p = 0; p < NR_PAGES; p++) await mm.write(va + p * PAGE, page.fill(seed + p));
  } catch (error) {
    mm.exit();
    return (error as { code: string }).code;
  }
  for (let p = 0; p < NR_PAGES; p++) {
    await mm.read(va + p * PAGE, page);
    expect(page[99]).toBe((seed + p) & 255);
  }
  return 'filled';
}
