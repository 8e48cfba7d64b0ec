import { expect, it } from 'vitest';
import { LinuxPeer, linuxMissing } from '../oracle/linux.js';
import { describeFailure, Oracle, type OracleOptions } from '../oracle/oracle.js';

/** 200 random programs (20 in CI) of 300 steps on this machine's Linux and on Unpin, and as many with reclaim at work. */

const NR_PROGRAMS = process.env.CI ? 20 : 200;

const missing = linuxMissing();
if (missing) process.stderr.write(`SKIPPED: random programs against Linux: ${missing}\n`);

async function agree(options: OracleOptions): Promise<void> {
  const peer = await LinuxPeer.start();
  try {
    const oracle = new Oracle(peer, options);
    for (let seed = 1000; seed < 1000 + NR_PROGRAMS; seed++) {
      const failure = await oracle.runSeed(seed, 300);
      if (failure !== undefined) expect.fail(`seed ${seed}: ${describeFailure(await oracle.shrunk(failure))}`);
    }
  } finally {
    peer.stop();
  }
}

it.skipIf(missing !== undefined)(`${NR_PROGRAMS} programs agree with Linux`, () => agree({}));
it.skipIf(missing !== undefined)(`${NR_PROGRAMS} programs agree with Linux while reclaim is at work`, () =>
  agree({ pressure: true }),
);
