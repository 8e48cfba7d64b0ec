import { expect, test } from 'vitest';
import { stress } from './stress.js';

/** A short one; test/long/rdmastress.test.ts goes on for ten minutes. */
test('S11 N3 N15: random work between two NICs, while both hosts take, move and copy what it touches', async () => {
  const result = await stress({ seed: 1, nrOps: 60 });
  expect(result.nrOps).toBe(60);
  expect(result.invalidations).toBeGreaterThan(0);
});
