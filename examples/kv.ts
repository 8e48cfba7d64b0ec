import { fork } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Host } from 'unpin';
import { KvClient } from './kv/client.js';
import { SLOT_BYTES } from './kv/layout.js';
import { KvServer } from './kv/server.js';

/**
 * A key-value store of 4 MiB in 1 MiB of memory, in a process of its own; two clients fill it and read it at random by RDMA, without the server's help.
 * Run: npm run build && node scripts/run-ts.mjs examples/kv.ts
 */
const MiB = 2 ** 20;
const TABLE_BYTES = 4 * MiB;
const HOST_BYTES = 1 * MiB;
/** Half of the slots. */
const NR_KEYS = TABLE_BYTES / SLOT_BYTES / 2;
const NR_GETS = 1000;

const valueFor = (key: string): Uint8Array => Buffer.from(`${key} is ${'what it was '.repeat(12)}`);

if (process.send === undefined) await clients();
else await server();

async function server(): Promise<void> {
  const kv = await KvServer.start(TABLE_BYTES, HOST_BYTES, join(tmpdir(), `kv-${process.pid}.swap`));
  process.send!(kv.port);
  await once(process, 'message');
  console.log(`server: ${TABLE_BYTES / MiB} MiB: ${kv.summary()}`);
  await kv.close();
  process.disconnect();
}

async function clients(): Promise<void> {
  const child = fork(fileURLToPath(import.meta.url));
  const [port] = await once(child, 'message');
  const host = new Host({ frames: 256, defer: (fn) => setImmediate(fn) });
  const [left, right] = [await KvClient.connect(host, port), await KvClient.connect(host, port)];

  // Each puts every other key; then each reads what the other one put.
  const fill = async (client: KvClient, first: number) => {
    for (let n = first; n < NR_KEYS; n += 2) await client.put(`key ${n}`, valueFor(`key ${n}`));
  };
  await Promise.all([fill(left, 0), fill(right, 1)]);
  let wrong = 0;
  const read = async (client: KvClient, parity: number) => {
    for (let n = 0; n < NR_GETS; n++) {
      const key = `key ${2 * Math.floor(Math.random() * (NR_KEYS / 2)) + parity}`;
      const value = await client.get(key);
      if (value === undefined || Buffer.compare(value, valueFor(key)) !== 0) wrong++;
    }
  };
  await Promise.all([read(left, 1), read(right, 0)]);

  // Both put one key at once: one of them waits for the other, and the value is whole.
  const race = async (client: KvClient, name: string) => {
    for (let n = 0; n < 500; n++) await client.put('contended', Buffer.from(`${name} `.repeat(30)));
  };
  await Promise.all([race(left, 'left'), race(right, 'right')]);
  const last = Buffer.from((await left.get('contended'))!).toString();
  if (!/^(left )+$|^(right )+$/.test(last)) wrong++;

  console.log(
    `${NR_KEYS} keys put, ${2 * NR_GETS} read by whom did not put them: ${wrong} wrong; ${left.nrRetries + right.nrRetries} retries`,
  );
  await left.close();
  await right.close();
  await host.stop();
  child.send('end');
  await once(child, 'exit');
  if (wrong > 0) process.exitCode = 1;
}
