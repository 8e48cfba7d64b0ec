import { expect, test } from 'vitest';
import { HostileWorld } from '../mm/hostile.js';

/** A million operations, in ten worlds; `UNPIN_SEED` begins elsewhere. Prints what was met. */

const seed = Number(process.env.UNPIN_SEED ?? 100);

test.each([...Array(10).keys()])('S12 N19: a hundred thousand operations beside hostile drivers, world %i', (k) => {
  const result = new HostileWorld(seed + k).run(100_000, 200);
  console.log(`seed ${seed + k}: ${JSON.stringify(result)}`);
  expect(Object.keys(result.poisonedByFault).length).toBeGreaterThanOrEqual(10);
  expect(result.pinnedPeak).toBeGreaterThan(20);
});
