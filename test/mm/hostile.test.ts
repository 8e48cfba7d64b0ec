import { expect, test } from 'vitest';
import { lockdepReset } from '../../src/base/index.js';
import { HostileWorld } from './hostile.js';

/** A part of test/long/hostile.test.ts. */

test('S12 N19: twenty thousand operations beside drivers that throw, refuse, dawdle and lie: nothing stale, nothing lost, no leak', () => {
  const result = new HostileWorld(1).run(20_000, 100);
  lockdepReset();
  // Every fault was met, and memory was pinned for it and won back.
  expect(Object.keys(result.poisonedByFault).length).toBeGreaterThanOrEqual(10);
  expect(result.pinnedPeak).toBeGreaterThan(20);
  expect(result.unpinned).toBeGreaterThan(100);
});
