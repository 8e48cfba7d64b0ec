import { test } from 'vitest';
import { killThreads } from '../guests/killed.js';

/** `UNPIN_SEED` begins elsewhere. */

const seed = Number(process.env.UNPIN_SEED ?? 1000);

test.each([...Array(10).keys()])('N25: vCPU threads killed at a hundred random instants, the %is', async (k) => {
  await killThreads({ nrKills: 10, seed: seed + k });
});
