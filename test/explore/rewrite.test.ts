import { expect, it } from 'vitest';
import { loadExports } from '../../src/explore/load.js';
import type { Model } from '../../src/explore/model.js';
import { rewrite } from '../../src/explore/rewrite.js';
import { Search, type SearchResult } from '../../src/explore/search.js';
import { Words } from '../../src/mm/index.js';
import * as native from './cases/language.js';

/** What the explorer makes of the language: results stay what they are, and every access can be told from the next. */

const { runtime, exports } = await loadExports('test/explore/cases/language.ts');
const explored = exports as unknown as typeof native;

interface Seen {
  readonly result: SearchResult;
  readonly got: Set<string>;
  /** Where the other actor's one access fell among those of the case, over all schedules. */
  readonly places: Set<number>;
}

function explore(name: string, what: native.Case): Seen {
  const got = new Set<string>();
  const places = new Set<number>();
  const model = explored.beside(name, what, (value) => void got.add(JSON.stringify(value)));
  const onRun = ({ order }: { order: readonly number[] }) => void places.add(order.lastIndexOf(1));
  const options = { preemptions: 'none', reduction: 'none', onRun } as const;
  return { result: new Search(runtime, model as Model<unknown>, options).run(), got, places };
}

async function natively(what: native.Case): Promise<{ accesses: number; json: string }> {
  const words = new Words({ buffer: new SharedArrayBuffer(64) }, 0, 2);
  const value = await what(words);
  const accesses = words.readOnce(0);
  return { accesses, json: JSON.stringify([value, accesses]) };
}

it.each(Object.keys(native.suspending))('suspends at every access: %s', async (name) => {
  const { accesses, json } = await natively(native.suspending[name]!);
  const { result, got, places } = explore(name, explored.suspending[name]!);
  expect(result.failure).toBeUndefined();
  expect([...got]).toEqual([json]);
  expect(result.atomicSteps).toBe(0);
  expect(places.size).toBeGreaterThan(accesses);
});

it.each(Object.keys(native.atomic))('runs as one step, and says so: %s', async (name) => {
  const { accesses, json } = await natively(native.atomic[name]!);
  const { result, got } = explore(name, explored.atomic[name]!);
  expect(result.failure).toBeUndefined();
  expect([...got]).toEqual([json]);
  expect(result.atomicSteps).toBeGreaterThanOrEqual(accesses);
});

it('refuses what it cannot run', () => {
  expect(() => rewrite('async function f(xs) { for await (const x of xs) x(); }')).toThrow(/cannot run for await/);
  expect(() => rewrite('function f(words) { return () => words.schedulingPoint(arguments[0]); }')).toThrow(
    /arguments in/,
  );
});

it('a label of the program that could suspend is no step of the access that it describes', () => {
  const loaded = explored.labelled() as Model<unknown>;
  const result = new Search(runtime, loaded, { preemptions: 'none' }).run();
  expect(result.failure).toBeUndefined();
  expect(result.exhausted).toBe(true);
});
