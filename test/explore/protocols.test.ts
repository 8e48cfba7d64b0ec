import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { exploreFile, replayFile } from '../../src/explore/index.js';
import { runTask, tasksOf } from '../../src/explore/suite.js';

/** The production protocols under the explorer, as they are, and with each protection taken out, where they must fail. */

const FOLDER = 'test/explore/models';
const files = readdirSync(FOLDER).filter((file) => file.endsWith('.ts'));
const fileOf = (name: string) => `${FOLDER}/${name}.ts`;

/** Each model of the file holds in all schedules within its bound. */
async function allHold(name: string): Promise<void> {
  for (const task of await tasksOf(fileOf(name), false)) {
    const { result, ok } = await runTask(task, {});
    expect(result.failure).toBeUndefined();
    expect(result).toMatchObject({ exhausted: true });
    expect(ok).toBe(true);
    expect(result.states).toBeGreaterThan(1);
  }
}

/** Each protection of its models is missed when it is gone. */
async function noneIsLeftAlive(name: string): Promise<number> {
  const tasks = await tasksOf(fileOf(name), true);
  for (const task of tasks) {
    const { ok, why, mutant, result } = await runTask(task, {});
    expect({ mutant, ok, why }).toEqual({ mutant, ok: true, why: undefined });
    expect(result.failure!.path).not.toBe('');
  }
  return tasks.length;
}

describe('models hold', () => {
  it('N3 N8: InvalidateSeq', () => allHold('invalidateseq'));
  it('the lock of Words', () => allHold('futex'));
  it('N3 N4 N8 N15: the real mm and a driver', () => allHold('driver'));
  const rest = files.map((file) => file.slice(0, -3)).filter((name) => !/^(invalidateseq|futex|driver)$/.test(name));
  it.each(rest)('%s', (name) => allHold(name));
});

describe('mutants are found', () => {
  it('N3 N8: InvalidateSeq', async () => expect(await noneIsLeftAlive('invalidateseq')).toBeGreaterThan(5));
  it('the lock of Words', async () => expect(await noneIsLeftAlive('futex')).toBeGreaterThan(3));
  it('N3 N4 N8: the real mm and a driver', async () => expect(await noneIsLeftAlive('driver')).toBeGreaterThan(10));
  const rest = files.map((file) => file.slice(0, -3)).filter((name) => !/^(invalidateseq|futex|driver)$/.test(name));
  it.each(rest)('%s', async (name) => void (await noneIsLeftAlive(name)));
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
