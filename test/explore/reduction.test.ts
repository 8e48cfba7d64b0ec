import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { loadExports } from '../../src/explore/load.js';
import type { Model } from '../../src/explore/model.js';
import type { Runtime } from '../../src/explore/runtime.js';
import { Search, type SearchOptions } from '../../src/explore/search.js';
import type * as native from './cases/programs.js';
import type { WideInstruction, WideOp } from './cases/wideprograms.js';

/**
 * The reduction against brute force, which tries every schedule of every access: on random models the same final states and failures must be
 * found for each bound.
 */

type Factory = (list: native.Instruction[][], record: (outcome: string) => void) => Model<unknown>;
type WideFactory = (list: WideInstruction[][], oneThread: boolean, record: (outcome: string) => void) => Model<unknown>;
let runtime: Runtime;
let programs: Factory;
let wideRuntime: Runtime;
let wide: WideFactory;

beforeAll(async () => {
  const loaded = await loadExports('test/explore/cases/programs.ts');
  runtime = loaded.runtime;
  programs = loaded.exports.programs as Factory;
  const wideLoaded = await loadExports('test/explore/cases/wideprograms.ts');
  wideRuntime = wideLoaded.runtime;
  wide = wideLoaded.exports.widePrograms as WideFactory;
});

interface Found {
  /** Final states, and failures in their own words. */
  readonly outcomes: readonly string[];
  readonly schedules: number;
  readonly states: number;
}

type Make = (record: (outcome: string) => void) => Model<unknown>;

function explore(make: Make, on: Runtime, options: SearchOptions): Found {
  const outcomes = new Set<string>();
  const model = make((outcome) => void outcomes.add(outcome));
  const onRun: SearchOptions['onRun'] = ({ failure }) => {
    if (failure === undefined) return;
    // Which of several races is told first is up to the order of the steps.
    outcomes.add(failure.kind === 'data race' ? failure.kind : `${failure.kind}: ${failure.message}`);
  };
  const { schedules, states } = new Search(on, model, { ...options, onRun, goOn: true, maxSteps: 200 }).run();
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

/** They told wrong reductions from right ones: who was at work, and what an event does to that. */
const KNOWN: native.Instruction[][][] = [
  [
    [
      { op: 'lock', word: 0 },
      { op: 'cas', word: 0, expected: 0 },
      { op: 'read', word: 1 },
      { op: 'unlock', word: 0 },
      { op: 'lock', word: 0 },
      { op: 'read', word: 0 },
      { op: 'unlock', word: 0 },
    ],
    [
      { op: 'cas', word: 1, expected: 0 },
      { op: 'add', word: 0 },
    ],
  ],
];
const wideOf = (text: string): WideInstruction[][] =>
  text
    .split(' | ')
    .map((program) =>
      program.split(', ').map((one) => ({ op: one.split(' ')[0] as WideOp, word: Number(one.split(' ')[1]) })),
    );
/** Programs, and whether the first two are on one thread. */
type WideModel = [WideInstruction[][], boolean];
const KNOWN_WIDE: WideModel[] = [
  [wideOf('disk 0, load 1 | load 0, add 1 | await 0'), false],
  [wideOf('disk 1, load 1 | add 1 | load 0'), true],
];

const RUNS = Number(process.env.EXPLORE_RUNS ?? 60);

interface Explored<T> {
  readonly make: (what: T) => Make;
  readonly on: Runtime;
}

/** On random models the same outcomes, for the bound; in no more schedules. */
function compare<T>(
  models: fc.Arbitrary<T>,
  known: readonly T[],
  explored: Explored<T>,
  preemptions: number | 'none',
): void {
  const { make, on } = explored;
  let [brute, reduced] = [0, 0];
  const property = fc.property(models, (what) => {
    const all = explore(make(what), on, { preemptions, reduction: 'none' });
    const some = explore(make(what), on, { preemptions });
    brute += all.schedules;
    reduced += some.schedules;
    // Where there is a race, runs end before all that is shared was seen.
    if (all.outcomes.includes('data race')) expect(some.outcomes).toContain('data race');
    else expect(some.outcomes).toEqual(all.outcomes);
  });
  fc.assert(property, { numRuns: RUNS, examples: known.map((what): [T] => [what]) });
  if (process.env.EXPLORE_RUNS) console.log(preemptions, brute, reduced, (brute / reduced).toFixed(1));
  expect(reduced).toBeLessThan(brute);
}

describe('the reduction finds what brute force finds', () => {
  it.each([0, 1, 2, 3, 'none'] as const)('within a bound of %s', (preemptions) => {
    const make = (list: native.Instruction[][]) => (record: (outcome: string) => void) => programs(list, record);
    compare(fc.oneof(two, three), KNOWN, { make, on: runtime }, preemptions);
  });
});

const wideOps: WideOp[] = ['load', 'add', 'add', 'cas', 'plain', 'plain=', 'wait', 'timed', 'notify', 'notify'];
const asyncOps: WideOp[] = ['await', 'device', 'disk', 'timer'];
const wideProgram = (maxLength: number, more: WideOp[] = []): fc.Arbitrary<WideInstruction[]> => {
  const op = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...wideOps) },
    { weight: 2, arbitrary: fc.constantFrom(...asyncOps, ...more) },
  );
  return fc.array(fc.record({ op, word: fc.nat(1) }), { minLength: 1, maxLength, size: 'max' });
};
/** Only who is on one thread can share a promise. */
const PROMISES: WideOp[] = ['settle', 'hear'];
const wideModel: fc.Arbitrary<WideModel> = fc.oneof(
  fc.tuple(fc.tuple(wideProgram(3), wideProgram(3)), fc.constant(false)),
  fc.tuple(fc.tuple(wideProgram(2), wideProgram(2), wideProgram(1)), fc.constant(false)),
  fc.tuple(fc.tuple(wideProgram(3, PROMISES), wideProgram(3, PROMISES)), fc.constant(true)),
  fc.tuple(fc.tuple(wideProgram(2, PROMISES), wideProgram(2, PROMISES), wideProgram(1)), fc.constant(true)),
);

describe('the same with awaits, threads, devices, timers, time-outs and plain accesses', () => {
  it.each([0, 1, 2, 3] as const)('within a bound of %s', (preemptions) => {
    const make =
      ([list, oneThread]: WideModel) =>
      (record: (outcome: string) => void) =>
        wide([...list], oneThread, record);
    compare<WideModel>(wideModel, KNOWN_WIDE, { make, on: wideRuntime }, preemptions);
  });
});
