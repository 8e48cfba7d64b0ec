import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import * as sync from '../../src/base/sync.js';
import { loadExports } from '../../src/explore/load.js';
import type { Model } from '../../src/explore/model.js';
import type { Runtime } from '../../src/explore/runtime.js';
import * as seam from '../../src/explore/seam.js';
import { Search, type SearchOptions } from '../../src/explore/search.js';
import * as native from './cases/programs.js';

/** The seam's twin against the seam, and the reduced search against brute force, on random programs. */

type Factory = (list: native.Instruction[][], record: (outcome: string) => void) => Model<unknown>;
let runtime: Runtime;
let programs: Factory;

beforeAll(async () => {
  const loaded = await loadExports('test/explore/cases/programs.ts');
  runtime = loaded.runtime;
  programs = loaded.exports.programs as Factory;
});

function outcomes(
  list: native.Instruction[][],
  options: SearchOptions,
): { found: Set<string>; failed: boolean; runs: number } {
  const found = new Set<string>();
  const result = new Search(
    runtime,
    programs(list, (outcome) => void found.add(outcome)),
    options,
  ).run();
  return { found, failed: result.failure !== undefined, runs: result.distinct };
}

const word = fc.nat(2);
const instruction: fc.Arbitrary<native.Instruction> = fc.oneof(
  fc.record({ op: fc.constantFrom('read', 'once', 'write', 'add', 'or', 'and', 'take', 'notify'), word }),
  fc.record({ op: fc.constant('cas'), word, expected: fc.constantFrom(0, 10, 20) }),
);
/** A stretch under a lock, or a single instruction. */
const stretch: fc.Arbitrary<native.Instruction[]> = fc.oneof(
  { weight: 3, arbitrary: instruction.map((one) => [one]) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat(1), fc.array(instruction, { maxLength: 2 }))
      .map(([lock, inner]) => [{ op: 'lock' as const, word: lock }, ...inner, { op: 'unlock' as const, word: lock }]),
  },
);
const program = fc.array(stretch, { minLength: 1, maxLength: 3 }).map((list) => list.flat());
const two = fc.tuple(program, program).map((list) => [...list]);
const three = fc
  .tuple(
    fc.array(instruction, { maxLength: 2 }),
    fc.array(instruction, { maxLength: 2 }),
    fc.array(stretch, { maxLength: 1 }),
  )
  .map(([a, b, c]) => [a, b, c.flat()]);

it('the twin has the face of the seam', () => {
  const methods = (words: typeof sync.Words | typeof seam.Words) => Object.getOwnPropertyNames(words.prototype).sort();
  expect(methods(seam.Words)).toEqual(methods(sync.Words));
  expect(Object.keys(seam).sort()).toEqual(Object.keys(sync).sort());
});

it('a single program does on the twin what it does on the seam', () => {
  fc.assert(
    fc.property(program, (one) => {
      const state = native.setup();
      native.run(state, 0, one);
      expect([...outcomes([one], {}).found]).toEqual([native.outcomeOf(state)]);
    }),
  );
});

it('without a bound finds exactly the outcomes of brute force, in no more runs', () => {
  fc.assert(
    fc.property(fc.oneof(two, three), (list) => {
      const brute = outcomes(list, { preemptions: 'none', reduction: 'none' });
      const reduced = outcomes(list, { preemptions: 'none' });
      expect([...reduced.found].sort()).toEqual([...brute.found].sort());
      expect(reduced.runs).toBeLessThanOrEqual(brute.runs);
    }),
    { numRuns: 150 },
  );
});

it('within a bound finds at least the outcomes of brute force within it', () => {
  fc.assert(
    fc.property(fc.oneof(two, three), fc.nat(2), (list, preemptions) => {
      const brute = outcomes(list, { preemptions, reduction: 'none' });
      const reduced = outcomes(list, { preemptions });
      expect([...brute.found].filter((outcome) => !reduced.found.has(outcome))).toEqual([]);
    }),
    { numRuns: 150 },
  );
});

it('finds a deadlock where brute force does', () => {
  const held = (a: number, b: number): native.Instruction[] => [
    { op: 'lock', word: a },
    { op: 'lock', word: b },
    { op: 'unlock', word: b },
    { op: 'unlock', word: a },
  ];
  for (const list of [
    [held(0, 1), held(1, 0)],
    [held(0, 1), held(0, 1)],
    [held(0, 0), held(1, 1)],
  ]) {
    const brute = outcomes(list, { preemptions: 'none', reduction: 'none' });
    expect(outcomes(list, { preemptions: 'none' }).failed).toBe(brute.failed);
  }
});
