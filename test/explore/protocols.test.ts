import { describe, expect, it } from 'vitest';
import { exploreFile, replayFile, type SearchOptions, type SearchResult } from '../../src/explore/index.js';

/** The production protocols under the explorer, as they are, and with each protection taken out, where they must fail. */

function on(file: string) {
  const path = `test/explore/models/${file}.ts`;
  return async (name: string, options: SearchOptions = {}): Promise<SearchResult> => {
    const result = await exploreFile(path, options, name);
    if (result.failure !== undefined) {
      expect((await replayFile(path, result.failure.path, {}, name)).failure).toEqual(result.failure);
    }
    return result;
  };
}

describe('InvalidateSeq', () => {
  const explore = on('invalidateseq');

  it('N8: no stale entry is installed, whether begin and end run under the lock or not', async () => {
    for (const name of ['asItIs', 'asItIsLocked']) {
      const result = await explore(name, { preemptions: 3 });
      expect(result.failure).toBeUndefined();
      expect(result.distinct).toBeGreaterThan(1000);
    }
  });

  it.each([
    ['endsBackwards', 'N8'],
    ['retriesBackwards', 'N8'],
    ['ignoresSeq', 'N8'],
    ['readsLate', 'N8'],
    ['ignoresBracket', 'N3'],
  ])('N3 N8: %s fails', async (name, invariant) => {
    expect((await explore(name)).failure!.message).toMatch(new RegExp(`^${invariant}: `));
  });
});

describe('the lock of Words', () => {
  const explore = on('futex');

  it('excludes one another, and no waiter sleeps on', async () => {
    expect(await explore('two', { preemptions: 'none' })).toMatchObject({ failure: undefined, complete: true });
    expect((await explore('three', { preemptions: 3 })).failure).toBeUndefined();
  });

  it.each([
    ['lookThenTake', 'check'],
    ['noNotify', 'deadlock'],
    ['takesAsHeld', 'deadlock'],
    ['noMark', 'deadlock'],
  ])('%s ends in: %s', async (name, kind) => {
    expect((await explore(name, { preemptions: 3 })).failure).toMatchObject({ kind });
  });
});

describe('the real mm and a driver', () => {
  const explore = on('driver');

  it('N3 N4 N8: reclaim against an external fault', async () => {
    const result = await explore('reclaim');
    expect(result.failure).toBeUndefined();
    expect(result.distinct).toBeGreaterThan(100);
  });

  it('N3 N4 N8: munmap and madvise against an external fault', async () => {
    for (const name of ['munmap', 'dontneed', 'faceWithAddress', 'faceWithout']) {
      const result = await explore(name);
      expect(result.failure).toBeUndefined();
      expect(result.distinct).toBeGreaterThan(50);
      expect(result.atomicSteps).toBe(0);
    }
  });

  it.each(['noSeq', 'noBracket', 'retryBeforeLock', 'noZap', 'munmapNoSeq', 'dontneedNoSeq', 'faceNoRetry'])(
    'N4: %s leaves a freed frame mapped',
    async (name) => {
      expect((await explore(name)).failure!.message).toMatch(/^N4: /);
    },
  );

  it('N15: asynchronous faults and reclaim on one thread', async () => {
    expect((await explore('asynchronous', { preemptions: 1 })).failure).toBeUndefined();
  });
});

describe('the examples', () => {
  it('N3: the broken driver is found, by steps of both actors', async () => {
    const { failure, actors } = await exploreFile('examples/broken-driver.ts');
    expect(actors).toEqual(['reclaim', 'fault']);
    expect(failure!.message).toMatch(/^N3: /);
    const texts = failure!.trace.map(({ actor, text }) => `${actors[actor]}: ${text.replace(/frame \d+/, 'frame N')}`);
    const order = [
      'reclaim: entry = 0',
      'fault: pte[0x10000000] -> frame N (RWAD)',
      'reclaim: pte[0x10000000]: frame N (RWAD) -> swap slot 0',
    ];
    expect(order.map((text) => texts.indexOf(text))).toEqual(order.map((text) => texts.lastIndexOf(text)));
    expect(order.map((text) => texts.indexOf(text))).toEqual(
      [...order.map((text) => texts.indexOf(text))].sort((a, b) => a - b),
    );
    expect(texts.indexOf(order[0]!)).toBeGreaterThan(0);
  });

  it('N3: the mended driver passes', async () => {
    const result = await exploreFile('examples/mended-driver.ts');
    expect(result.failure).toBeUndefined();
    expect(result.distinct).toBeGreaterThan(200);
  });
});
