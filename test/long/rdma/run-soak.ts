import { once } from 'node:events';
import { Soak } from './soak.js';

/** One end of test/long/rdmasoak.test.ts, a process of its own: `run-soak.ts SECONDS SEED [PORT]`. Without a port it listens, and tells which. */

const [seconds, seed, port] = process.argv.slice(2).map(Number);
const soak = await Soak.open(seed!);
if (port === undefined) await soak.accept((listening) => process.stdout.write(`port ${listening}\n`));
else await soak.connect(port);
const result = await soak.run(seconds! * 1000);
process.stdout.write(`${JSON.stringify(result)}\n`);
// The other one may not be done: what it reads must be there.
await once(process.stdin.resume(), 'end');
await soak.close();
