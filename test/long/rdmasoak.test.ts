import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import type { SoakResult } from './rdma/soak.js';

/**
 * Two processes that read, write and send into each other's memory, random sizes at random places, while reclaim, fork, copy-on-write, mremap, mprotect and migration run on
 * both sides. Ten minutes, of which CI does half of one; `UNPIN_SOAK_SECONDS` says otherwise, `UNPIN_SEED` begins elsewhere.
 */

const seconds = Number(process.env.UNPIN_SOAK_SECONDS ?? (process.env.CI ? 30 : 600));
const seed = Number(process.env.UNPIN_SEED ?? 1);

function start(...args: (string | number)[]): { line: () => Promise<string>; end: () => Promise<number | null> } {
  const child = spawn(process.execPath, ['scripts/run-ts.mjs', 'test/long/rdma/run-soak.ts', ...args.map(String)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const exit = once(child, 'exit');
  const end = () => {
    child.stdin!.end();
    return exit.then(([code]) => code);
  };
  return { line: async () => String((await lines.next()).value), end };
}

test('S11 N15 N20 N21 N22: what is read is what was written, whatever happens to the memory, and nothing is pinned', async () => {
  const left = start(seconds, seed);
  const port = Number(/^port (\d+)$/.exec(await left.line())![1]);
  const right = start(seconds, seed + 1000, port);
  const results: SoakResult[] = (await Promise.all([left.line(), right.line()])).map((line) => JSON.parse(line));
  // One after the other, so that the second meets the first one's disconnect every time.
  const codes = [await left.end(), await right.end()];
  console.log(results.map((result) => JSON.stringify(result)).join('\n'));
  expect(codes).toEqual([0, 0]);
  for (const { mismatches, pinnedFrames, poisoned, ...met } of results) {
    expect({ mismatches, pinnedFrames, poisoned }).toEqual({ mismatches: 0, pinnedFrames: 0, poisoned: 0 });
    expect(Object.entries(met).filter(([, n]) => n === 0)).toEqual([]);
  }
});
