import { expect, test } from 'vitest';
import { fuzz } from './fuzz.js';

test('random input to hypercalls, page tables and lguest_data: the guest goes on, or dies alone', async () => {
  const reasons = await fuzz(1, 40);
  // It reaches much of what kills.
  expect(reasons.size).toBeGreaterThan(6);
});
