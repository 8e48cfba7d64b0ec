import { expect, it } from 'vitest';
import { exploreFile, formatResult, replayFile, type SearchOptions } from '../../src/explore/index.js';

/** The explorer on models whose answers are known. */

const FILE = 'test/explore/cases/textbook.ts';
const explore = (name: string, options: SearchOptions = {}) => exploreFile(FILE, options, name);

it('finds the lost update of two increments without a lock', async () => {
  const { failure } = await explore('lostUpdate');
  expect(failure).toMatchObject({ kind: 'check', message: 'counter is 1, not 2' });
  expect(failure!.trace.filter((entry) => entry.visible).map((entry) => [entry.actor, entry.text])).toEqual([
    [0, 'counter -> 0'],
    [1, 'counter -> 0'],
    [1, 'counter = 1'],
    [0, 'counter = 1'],
  ]);
  expect(await explore('lostUpdate', { preemptions: 0 })).toMatchObject({ failure: undefined, complete: false });
  expect((await explore('atomicUpdate')).failure).toBeUndefined();
});

it('runs each interleaving of independent steps once: the binomial coefficient', async () => {
  const brute = await explore('independent', { preemptions: 'none', reduction: 'none' });
  expect(brute).toMatchObject({ distinct: 56, complete: true, failure: undefined });
  expect(await explore('independent', { preemptions: 'none' })).toMatchObject({ distinct: 1, complete: true });
});

it('finds a deadlock of two lock orders', async () => {
  const { failure } = await explore('lockOrder');
  expect(failure).toMatchObject({ kind: 'deadlock' });
  expect(failure!.message).toBe('up waits for lock lock[1], held by down; down waits for lock lock[0], held by up');
});

it('finds a lost wake-up: it sleeps on although its condition holds', async () => {
  const { failure } = await explore('lostWakeup');
  expect(failure).toMatchObject({
    kind: 'lost wake-up',
    message: 'waiter sleeps at ready until it is not 0; it is 1, and nobody is left to wake it',
  });
});

it('goes through a loop that waits with cpuRelax once, and finds the one nobody ends', async () => {
  expect(await explore('spinRelaxed', { preemptions: 'none' })).toMatchObject({ failure: undefined, complete: true });
  expect((await explore('nobodySets')).failure).toMatchObject({ kind: 'livelock' });
  expect((await explore('spinHot', { maxSteps: 100 })).failure).toMatchObject({ kind: 'livelock' });
});

it('looks at the invariant between all steps that change what it reads', async () => {
  expect((await explore('openDoor')).failure).toMatchObject({ kind: 'invariant', message: 'the door is open' });
});

it('lets actors of one thread take turns only where they await', async () => {
  expect((await explore('turns')).failure).toBeUndefined();
  expect((await explore('turnsAwaiting')).failure).toMatchObject({ kind: 'check', message: 'counter is 1, not 2' });
  expect((await explore('blocksThread')).failure).toMatchObject({ kind: 'deadlock' });
});

it('finds a promise that nobody settles, and an actor that throws after an await', async () => {
  expect((await explore('neverSettled')).failure).toMatchObject({
    kind: 'deadlock',
    message: 'one awaits a promise that nobody settles',
  });
  expect((await explore('rejects')).failure).toMatchObject({
    kind: 'threw',
    message: expect.stringMatching(/^one threw late at test\/explore\/cases\/\w+\.ts:\d+$/),
  });
});

it('runs microtasks, and refuses what has no schedule', async () => {
  expect((await explore('microtask')).failure).toBeUndefined();
  expect((await explore('imports')).failure).toBeUndefined();
  expect((await explore('interval')).failure!.message).toMatch(/one threw setInterval has no end/);
  expect((await explore('fromOutside')).failure!.message).toMatch(/waits for a promise from outside/);
});

it("finds data races in mm's own arrays, where it is asked to look, by both places", async () => {
  const { failure } = await explore('racesInFrames');
  expect(failure).toMatchObject({ kind: 'data race' });
  const place = String.raw`\[\d+\] (->|=) \d+ at src/mm/[\w/]+\.ts:\d+`;
  expect(failure!.message).toMatch(new RegExp(`^nothing orders .*: one ${place}; two ${place}$`));
  expect((await explore('racesUnseen')).failure).toBeUndefined();
});

it('refuses a model that differs from run to run', async () => {
  await expect(explore('differs', { reduction: 'none', preemptions: 'none' })).rejects.toThrow(
    /EINVAL: explore: model 'differs from run to run' must do the same/,
  );
});

it('replays the path of a failure to the same steps', async () => {
  for (const name of ['lostUpdate', 'lockOrder', 'lostWakeup', 'nobodySets']) {
    const { failure } = await explore(name);
    const again = await replayFile(FILE, failure!.path, {}, name);
    expect(again.failure).toEqual(failure);
    expect(again.trace).toEqual(failure!.trace);
  }
  const passes = await replayFile(FILE, 'a3b3', {}, 'lostUpdate');
  expect(passes.failure).toBeUndefined();
  expect(formatResult(passes).split('\n')).toEqual([
    'lost update: no failure in this schedule',
    '',
    '  one                       two',
    '  ------------------------  ------------------------',
    '  counter -> 0',
    '  counter = 1',
    '                            counter -> 1',
    '                            counter = 2',
    '',
  ]);
});

it('prints the steps of the actors in columns', async () => {
  expect(formatResult(await explore('lostUpdate')).split('\n')).toEqual([
    'lost update: the check at the end fails',
    '',
    '  one                       two',
    '  ------------------------  ------------------------',
    '  counter -> 0',
    '                            counter -> 0',
    '                            counter = 1',
    '  counter = 1',
    '',
    'counter is 1, not 2',
    '',
  ]);
});

it('refuses what is no model, and a path that does not fit', async () => {
  await expect(exploreFile('test/explore/cases/none.ts')).rejects.toMatchObject({ code: 'ENOENT' });
  await expect(explore('default')).rejects.toMatchObject({ code: 'EINVAL' });
  await expect(replayFile(FILE, 'x9', {}, 'lostUpdate')).rejects.toMatchObject({ code: 'EINVAL' });
  await expect(replayFile(FILE, 'a2b!', {}, 'lostUpdate')).rejects.toMatchObject({ code: 'EINVAL' });
  await expect(replayFile(FILE, 'a9b', {}, 'lostUpdate')).rejects.toThrow(/step 4 must be one of b/);
});
