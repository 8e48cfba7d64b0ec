/**
 * What on-demand paging costs a NIC: `npm run bench -- rdma [--region 64] [--rounds 7] [--pairs 40] [--write]`, the region in MiB.
 *
 * Two processes on the loopback interface. Memory that is pinned, that is on demand and there, that has lost its entries, that is prefetched, that is swapped
 * out; beside node:net alone and the swap file alone. `--write` puts the results into docs/results/rdma.md. Wants a machine that is otherwise quiet.
 */

import { fileURLToPath } from 'node:url';
import { flag, option } from './lib/common.js';
import { writePart } from './lib/document.js';
import { measure } from './rdma/measure.js';
import { runPeer } from './rdma/peer.js';

if (process.send !== undefined) await runPeer();
else {
  const regionBytes = Number(option('region', '64')) * 2 ** 20;
  const amount = { regionBytes, rounds: Number(option('rounds', '7')), pairs: Number(option('pairs', '40')) };
  const text = await measure(fileURLToPath(import.meta.url), amount);
  console.log(text);
  if (flag('write')) writePart('docs/results/rdma.md', 'rdma', text);
}
