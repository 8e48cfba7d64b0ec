import { test } from 'vitest';
import { killThreads } from '../guests/killed.js';

/** A hundred, of which CI does twenty; `UNPIN_SEED` begins elsewhere. */

const NR_TENS = process.env.CI ? 2 : 10;

const seed = Number(process.env.UNPIN_SEED ?? 1000);

test.each([...Array(NR_TENS).keys()])('N25: vCPU threads killed at random instants, ten of them, %i', async (k) => {
  await killThreads({ nrKills: 10, seed: seed + k });
});
