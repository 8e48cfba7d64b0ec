import { afterAll, beforeAll, expect, test } from 'vitest';
import { LinuxPeer, linuxMissing } from './linux.js';
import { describeFailure, Oracle, type OracleOptions } from './oracle.js';
import { PAGE } from './step.js';
import { UNPIN_CALLS, type UnpinCall } from './unpincalls.js';

/** Random programs on this machine's Linux and on Unpin agree; and the oracle would see it if they did not. */

const missing = linuxMissing();
if (missing) process.stderr.write(`SKIPPED: random programs against Linux: ${missing}\n`);
const onLinux = test.skipIf(missing !== undefined);

let peer: LinuxPeer;
beforeAll(async () => {
  if (missing === undefined) peer = await LinuxPeer.start();
});
afterAll(() => peer?.stop());

async function agree(seeds: number, nrSteps: number, options: OracleOptions): Promise<void> {
  const oracle = new Oracle(peer, options);
  for (let seed = 1; seed <= seeds; seed++) {
    const failure = await oracle.runSeed(seed, nrSteps);
    if (failure !== undefined) expect.fail(`seed ${seed}: ${describeFailure(await oracle.shrunk(failure))}`);
  }
}

onLinux('programs of 300 steps agree with Linux in results, VMAs, pages and contents', () => agree(5, 300, {}));

onLinux('N27: with reclaim forced between the steps, results, VMAs and contents still agree', () =>
  agree(3, 300, { pressure: true }),
);

/** Finds the first seed that differs with `calls` in place of Unpin's, and makes its program small. */
async function findAndShrink(calls: Record<string, UnpinCall>) {
  const oracle = new Oracle(peer, { calls });
  for (let seed = 1; seed < 100; seed++) {
    const failure = await oracle.runSeed(seed, 20);
    if (failure !== undefined) return oracle.shrunk(failure);
  }
  return expect.fail('nothing was found');
}

onLinux('a munmap that rounds its length down is found, and shown by two steps', async () => {
  const run: UnpinCall['run'] = (world, mm, [addr, len]) =>
    UNPIN_CALLS.munmap!.run(world, mm, [addr!, Math.floor(len! / PAGE) * PAGE]);
  const { program, difference } = await findAndShrink({ munmap: { run } });
  expect(program.steps.map((step) => step.call)).toEqual(program.steps.length === 1 ? ['munmap'] : ['mmap', 'munmap']);
  expect(difference.at).toBe(program.steps.length - 1);
});

onLinux('a store that loses its last byte is found by the contents, and shown by two steps', async () => {
  const run: UnpinCall['run'] = (world, mm, [addr, len, value]) =>
    UNPIN_CALLS.store!.run(world, mm, [addr!, Math.max(len! - 1, 1), value!]);
  const { program, difference } = await findAndShrink({ store: { run } });
  expect(difference.what).toContain('contents');
  expect(program.steps.map((step) => step.call)).toEqual(['mmap', 'store']);
});

onLinux('a fork whose child sees what the parent writes later is found', async () => {
  const run: UnpinCall['run'] = async (world, mm, [child]) => {
    world.procs[child!] ??= mm;
    return { ret: 0 };
  };
  const { program } = await findAndShrink({ fork: { run } });
  expect(program.steps.some((step) => step.call === 'fork')).toBe(true);
  expect(program.steps.length).toBeLessThanOrEqual(5);
});
