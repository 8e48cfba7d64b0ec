import { expect, test } from 'vitest';
import { stress } from '../rdma/stress.js';

/** Ten minutes, in ten runs of a minute each; in CI a quarter of one in all. `RDMA_STRESS_MS` says otherwise. */
const MS = Number(process.env.RDMA_STRESS_MS ?? (process.env.CI ? 15_000 : 600_000));

test.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])('S11 N3 N15: random work between two NICs, seed %i', async (seed) => {
  const result = await stress({ seed, ms: MS / 10, nrPages: 200 + 40 * seed, frames: 192 + 16 * seed });
  process.stdout.write(`seed ${seed}: ${JSON.stringify(result)}\n`);
  expect(result.nrOps).toBeGreaterThan(0);
  expect(result.invalidations).toBeGreaterThan(0);
});
