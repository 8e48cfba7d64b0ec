import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { exploreFile, replayFile } from '../../src/explore/index.js';
import { runTask, type Task, tasksOf } from '../../src/explore/suite.js';

/**
 * The production protocols under the explorer, as they are, and with each protection taken out, where they must fail: all of the small models, and the first of some
 * larger files as it is. test/long/explore.test.ts does them all; that the mutants still fit their sources is for mutants.test.ts.
 */

const FOLDER = 'test/explore/models';
const names = readdirSync(FOLDER, { encoding: 'utf8', recursive: true })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -'.ts'.length));
const fileOf = (name: string) => `${FOLDER}/${name}.ts`;

/** All models of a file as they are, and all its mutants. */
const [models, mutants] = [new Map<string, Task[]>(), new Map<string, Task[]>()];
for (const name of names) {
  models.set(name, await tasksOf(fileOf(name), false));
  mutants.set(name, await tasksOf(fileOf(name), true));
}

/** It holds in all schedules with at most one preemption; with more, where its bound says so, in test/long/explore.test.ts. */
async function holds(task: Task): Promise<void> {
  const { result, ok } = await runTask(task, { atMost: 1 });
  expect(result.failure).toBeUndefined();
  expect(ok).toBe(true);
  expect(result).toMatchObject({ exhausted: true });
  // Where actors share objects states are not told apart.
  expect(result.states + result.schedules).toBeGreaterThan(1);
}

/** The protection is missed when it is gone, and the path shows it. */
async function isFound(task: Task): Promise<void> {
  const { ok, why, mutant, result } = await runTask(task, {});
  expect({ mutant, ok, why }).toEqual({ mutant, ok: true, why: undefined });
  expect(result.failure!.path).not.toBe('');
}

function protocol(name: string): void {
  it.each(models.get(name)!)('holds: $name', holds);
  it.each(mutants.get(name)!)('is found: $name', isFound);
}

describe('N3 N8: InvalidateSeq', () => protocol('invalidateseq'));
describe('the lock of Words', () => protocol('futex'));
describe('N3 N4 N8 N15: the real mm and a driver', () => protocol('driver'));
describe.each(['atomics', 'textbook'])('%s', (name) => protocol(name));
/** One of each driver, and of what they all stand on. */
const FIRST = ['guestram', 'kvm', 'lguest', 'mm', 'rdma', 'registration', 'vcpustate'];
describe('the first model of a larger file', () => {
  it.each(FIRST.map((name) => models.get(name)![0]!))('holds: $name', holds);
});

it('every model that can lose a protection names one', () => {
  const nrMutants = [...mutants.values()].flat().length;
  expect(nrMutants).toBeGreaterThan(140);
});

describe('the examples', () => {
  it('N3: the broken driver is found, by steps of both actors', async () => {
    const { failure, actors } = await exploreFile('examples/broken-driver.ts');
    expect(actors).toEqual(['reclaim', 'fault']);
    expect(failure!.message).toMatch(/^N3: /);
    const texts = failure!.trace.map(
      ({ actor, text }) => `${actors[actor]}: ${text.replace(/frame \d+ \(\w+\)/, 'frame N')}`,
    );
    const order = [
      'reclaim: entry = 0',
      'fault: pte[0x10000000] -> frame N',
      'reclaim: pte[0x10000000]: frame N -> swap slot 0',
    ];
    expect(order.map((text) => texts.indexOf(text))).toEqual(order.map((text) => texts.lastIndexOf(text)));
    expect(order.map((text) => texts.indexOf(text))).toEqual(
      [...order.map((text) => texts.indexOf(text))].sort((a, b) => a - b),
    );
    expect(texts.indexOf(order[0]!)).toBeGreaterThan(0);
    expect((await replayFile('examples/broken-driver.ts', failure!.path)).failure).toEqual(failure);
  });

  it('N3: the mended driver passes', async () => {
    const result = await exploreFile('examples/mended-driver.ts');
    expect(result.failure).toBeUndefined();
    expect(result.exhausted).toBe(true);
    expect(result.states).toBeGreaterThan(500);
  });
});
