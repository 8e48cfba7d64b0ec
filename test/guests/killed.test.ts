import { test } from 'vitest';
import { killThreads } from './killed.js';

test('N25: vCPU threads killed at ten random instants: only their guests die, and all they had comes back', async () => {
  await killThreads({ nrKills: 10, seed: 1 });
}, 240_000);
