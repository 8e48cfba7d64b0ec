import { expect, test } from 'vitest';
import { GuestRam, Host, MemorySwap } from '../../src/index.js';
import { mmuNotifierRegister, VA_SIZE } from '../../src/mm/index.js';

const PAGE = 4096;
const FRAMES = 256;

/**
 * Pages read from swap by a guest that reads `nrHot` pages at random, and after each eighth one the next of a stream through a RAM of 8 times
 * the frames. `exact`: reclaim is told which pages were used, by the general notifiers, which GuestRam does not have.
 */
function swapInsOf(nrHot: number, exact: boolean): { swapIns: number; ram: GuestRam } {
  const host = new Host({ frames: FRAMES, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 8 * FRAMES * PAGE }) });
  const ram = GuestRam.create(host, { lenBytes: 8 * FRAMES * PAGE });
  const used = new Set<number>();
  const clearFlushYoung = (_sub: unknown, start: number) => used.delete((start - ram.va) / PAGE);
  if (exact) mmuNotifierRegister(ram.mm, 0, VA_SIZE, { clearFlushYoung });
  const read = (page: number) => {
    ram.readUint8(page * PAGE);
    if (exact) used.add(page);
  };
  for (let page = 0; page < 8 * FRAMES; page++) ram.writeUint8(page * PAGE, page);
  let seed = 1;
  const before = host.stats().swapInPages;
  for (let k = 0; k < 40_000; k++) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    read((seed >>> 8) % nrHot);
    if ((k & 7) === 7) read(nrHot + ((k >>> 3) % (8 * FRAMES - nrHot)));
  }
  return { swapIns: host.stats().swapInPages - before, ram };
}

test('aging: pages in use are told from pages that are not, although a hit leaves no trace', () => {
  for (const part of [0.3, 0.5]) {
    const nrHot = Math.floor(FRAMES * part);
    const { swapIns, ram } = swapInsOf(nrHot, false);
    // Without the sweep: 1.59 and 1.94 times as many.
    expect(swapIns / swapInsOf(nrHot, true).swapIns).toBeLessThan(1.1);
    expect(ram.stats.aged).toBeGreaterThan(0);
  }
});

test('aging: while all fits, nothing is dropped', () => {
  const host = new Host({ frames: FRAMES, arenaBytes: 65536 });
  const ram = GuestRam.create(host, { lenBytes: (FRAMES / 2) * PAGE });
  for (let k = 0; k < 10; k++) for (let addr = 0; addr < ram.lenBytes; addr += PAGE) ram.writeUint8(addr, k);
  expect(ram.stats).toEqual({ faults: FRAMES / 2, majorFaults: 0, retries: 0, clears: 0, aged: 0 });
});
