import { expect, test } from 'vitest';
import { lockdepOnAwait, lockdepReset } from '../../src/base/index.js';
import { type ConformanceAdapter, conformance, conformanceCases } from '../../src/conformance/index.js';
import { reference } from './adapters.js';
import { BROKEN } from './broken.js';

/** Which cases of the suite find which broken driver: each driver is found, and each case finds one. */

lockdepOnAwait(() => {});

async function foundBy(adapter: ConformanceAdapter): Promise<string[]> {
  const found: string[] = [];
  for await (const { case: c, error } of conformance(adapter)) if (error !== undefined) found.push(c.name);
  lockdepReset();
  return found;
}

const found = new Map<string, string[]>();

test.each(Object.entries(BROKEN))('a driver that %s is found', async (what, Driver) => {
  const names = await foundBy({ ...reference, name: what, create: (mm, va, len) => new Driver(mm, va, len) });
  found.set(what, names);
  expect(names).not.toEqual([]);
});

test('each case of the suite finds a driver; the table shows which', () => {
  const finders = new Set([...found.values()].flat());
  const idle = conformanceCases(reference).filter(({ name }) => !finders.has(name));
  expect(idle.map(({ name }) => name)).toEqual([]);
  for (const [what, names] of found)
    console.log(`${what}: ${names.length} of ${idle.length + finders.size}, first: ${names[0]}`);
});
