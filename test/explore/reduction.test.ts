import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { loadExports } from '../../src/explore/load.js';
import type { Model } from '../../src/explore/model.js';
import type { Runtime } from '../../src/explore/runtime.js';
import { Search, type SearchOptions } from '../../src/explore/search.js';
import type * as native from './cases/programs.js';

/**
 * The reduction against brute force, which tries every schedule of every access: on random models the same final states and failures must be
 * found for each bound.
 */

type Factory = (list: native.Instruction[][], record: (outcome: string) => void) => Model<unknown>;
let runtime: Runtime;
let programs: Factory;

beforeAll(async () => {
  const loaded = await loadExports('test/explore/cases/programs.ts');
  runtime = loaded.runtime;
  programs = loaded.exports.programs as Factory;
});

interface Found {
  /** Final states, and failures in their own words. */
  readonly outcomes: readonly string[];
  readonly schedules: number;
  readonly states: number;
}

function explore(list: native.Instruction[][], options: SearchOptions): Found {
  const outcomes = new Set<string>();
  const model = programs(list, (outcome) => void outcomes.add(outcome));
  const onRun: SearchOptions['onRun'] = ({ failure }) => failure && outcomes.add(`${failure.kind}: ${failure.message}`);
  const { schedules, states } = new Search(runtime, model, { ...options, onRun, goOn: true, maxSteps: 200 }).run();
  return { outcomes: [...outcomes].sort(), schedules, states };
}

const word = fc.nat(1);
const expected = fc.constantFrom(0, 1, 10);
const access: fc.Arbitrary<native.Instruction> = fc.oneof(
  fc.record({ op: fc.constantFrom('read', 'once', 'write', 'once=', 'add', 'or', 'and', 'take'), word }),
  fc.record({ op: fc.constant('cas'), word, expected }),
);
const waiting: fc.Arbitrary<native.Instruction> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ op: fc.constant('notify'), word }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('wait'), word, expected }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('until'), word, expected }) },
);
const locked = fc
  .tuple(fc.nat(1), fc.array(access, { maxLength: 2 }))
  .map(([lock, inner]): native.Instruction[] => [{ op: 'lock', word: lock }, ...inner, { op: 'unlock', word: lock }]);
const stretch = fc.oneof(
  { weight: 4, arbitrary: access.map((one) => [one]) },
  { weight: 2, arbitrary: waiting.map((one) => [one]) },
  { weight: 1, arbitrary: locked },
);
const program = (maxLength: number) =>
  fc.array(stretch, { minLength: 1, maxLength, size: 'max' }).map((list) => list.flat());
const two = fc.tuple(program(3), program(3)).map((list): native.Instruction[][] => [...list]);
const three = fc.tuple(program(2), program(2), program(1)).map((list): native.Instruction[][] => [...list]);

describe('the reduction finds what brute force finds', () => {
  it.each([0, 1, 2, 3, 'none'] as const)('within a bound of %s', (preemptions) => {
    let [brute, reduced] = [0, 0];
    fc.assert(
      fc.property(fc.oneof(two, three), (list) => {
        const all = explore(list, { preemptions, reduction: 'none' });
        const some = explore(list, { preemptions });
        brute += all.schedules;
        reduced += some.schedules;
        expect(some.outcomes).toEqual(all.outcomes);
      }),
      { numRuns: Number(process.env.EXPLORE_RUNS ?? 60) },
    );
    if (process.env.EXPLORE_RUNS) console.log(preemptions, brute, reduced, (brute / reduced).toFixed(1));
  });
});
