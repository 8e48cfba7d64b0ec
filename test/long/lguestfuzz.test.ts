import { expect, test } from 'vitest';
import { fuzz } from '../lguest/fuzz.js';

/** Random guests of lguest, many of them: test/lguest/fuzz.ts. */

const NR_SEEDS = process.env.CI ? 200 : 2000;
const seed = Number(process.env.UNPIN_SEED ?? 1000);

test('lguest guests of random input go on, or die alone', async () => {
  const reasons = await fuzz(seed, NR_SEEDS);
  console.log(`${NR_SEEDS} guests from seed ${seed}: ${[...reasons].map(([what, nr]) => `${nr} ${what}`).join('; ')}`);
  expect(reasons.size).toBeGreaterThan(10);
});
