import { expect, test } from 'vitest';
import { clock, lru, optimum, twoQueues } from '../../bench/policy/policies.js';
import { loop, scanBesideHotSet, shiftingHotSets } from '../../bench/policy/synthetic.js';
import type { Trace } from '../../bench/policy/trace.js';
import { replayOnUnpin } from '../../bench/policy/unpin.js';
import { Host, MemorySwap } from '../../src/mm/index.js';

/** What reclaim's choices cost, in misses of patterns that are known to be hard: the code itself runs, and what it does is deterministic. */

interface Misses {
  readonly best: number;
  readonly lru: number;
  readonly twoQueues: number;
  readonly unpin: number;
}

async function missesOf(trace: Trace, nrFrames: number): Promise<Misses> {
  const { misses } = await replayOnUnpin(trace, nrFrames, 0);
  return {
    best: optimum(trace, nrFrames),
    lru: lru(trace, nrFrames),
    twoQueues: twoQueues(trace, nrFrames),
    unpin: misses,
  };
}

test('the yardsticks: what is known of Belady, LRU and CLOCK on a loop, and of 2Q on a scan', () => {
  const trace = loop(100, 11);
  for (const policy of [lru, clock]) expect(policy(trace, 99)).toBe(1000);
  // Of a loop of N pages in M frames, N - M must be read anew in each round but the first.
  expect(optimum(trace, 80)).toBe(200);
  for (const policy of [optimum, lru, clock, twoQueues]) expect(policy(trace, 100)).toBe(0);
  const scan = scanBesideHotSet(100, 600, 6);
  expect(twoQueues(scan, 300)).toBeLessThan(lru(scan, 300));
  expect(optimum(scan, 300)).toBeLessThan(twoQueues(scan, 300));
});

test('a loop that is slightly larger than memory: a part of it stays, where LRU misses all', async () => {
  const trace = loop(550, 20);
  for (const nrFrames of [400, 470, 520]) {
    const misses = await missesOf(trace, nrFrames);
    expect(misses.lru).toBe(550 * 19);
    expect(misses.unpin).toBeLessThan(0.5 * misses.lru);
    expect(misses.unpin).toBeLessThan(2 * misses.twoQueues);
  }
});

test('a scan beside a hot set: the hot set stays, as with 2Q', async () => {
  const trace = scanBesideHotSet(250, 1500, 8);
  for (const nrFrames of [600, 900, 1200]) {
    const misses = await missesOf(trace, nrFrames);
    expect(misses.unpin).toBeLessThan(misses.twoQueues);
    expect(misses.unpin).toBeLessThan(0.75 * misses.lru);
    expect(misses.unpin).toBeLessThan(1.75 * misses.best);
  }
});

test('hot sets that shift: the old one gives way, not much later than with LRU', async () => {
  const trace = shiftingHotSets(1500, 300, 30);
  for (const nrFrames of [375, 600, 900]) {
    const misses = await missesOf(trace, nrFrames);
    expect(misses.unpin).toBeLessThan(1.25 * misses.lru);
    expect(misses.unpin).toBeLessThan(misses.twoQueues);
  }
});

test('background reclaim keeps ahead of a steady stream of faults: nobody stalls', async () => {
  const { allocstalls, swapOuts } = await replayOnUnpin(loop(3000, 4), 2000, 0);
  expect(swapOuts).toBeGreaterThan(4000);
  expect(allocstalls).toBeLessThan(swapOuts / 100);
});

test('pageCluster: 0 reads what is wanted alone, more reads neighbours; numbers that cannot be are refused', async () => {
  const trace = loop(550, 6);
  const [alone, eight] = [await replayOnUnpin(trace, 300, 0), await replayOnUnpin(trace, 300, 3)];
  expect(alone.swapIns).toBe(alone.misses);
  expect(eight.misses).toBeLessThan(alone.misses / 2);
  for (const pageCluster of [-1, 7, 1.5, Number.NaN]) {
    const swap = new MemorySwap({ sizeBytes: 65536 });
    expect(() => new Host({ frames: 64, swap, pageCluster })).toThrow(/EINVAL: Host: pageCluster .* from 0 to 6/);
  }
});
