import { afterEach, expect, test } from 'vitest';
import { TestGuest, type TestGuestOptions } from './testguest.js';

const guests: TestGuest[] = [];

async function paged(options: TestGuestOptions = {}): Promise<TestGuest> {
  const t = await TestGuest.paged(options);
  guests.push(t);
  return t;
}

afterEach(() => {
  for (const t of guests.splice(0)) t.end();
});

test('smoke', async () => {
  const t = await paged();
  await t.store(t.va(30 * 4096), 77n);
  expect(await t.load(t.va(30 * 4096))).toBe(77n);
  expect(await t.read64(30 * 4096)).toBe(77n);
  t.check();
  t.evict();
  t.check();
  expect(await t.load(t.va(30 * 4096))).toBe(77n);
  t.check();
});
