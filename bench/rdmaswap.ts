/**
 * Memory that is swapped out, read and written by the network: `npm run bench -- rdmaswap [--region 64] [--rounds 7] [--write]`, the region in MiB.
 *
 * Two processes on the loopback interface; swap in a file in the page cache, on the disk under it, and on a device of known rate and latency. `--write` puts the results into
 * docs/results/rdma.md. Wants a machine that is otherwise quiet.
 */

import { fileURLToPath } from 'node:url';
import { flag, option } from './lib/common.js';
import { writePart } from './lib/document.js';
import { runPeer } from './rdma/peer.js';
import { measureSwapped } from './rdma/swapped.js';

if (process.send !== undefined) await runPeer();
else {
  const regionBytes = Number(option('region', '64')) * 2 ** 20;
  const text = await measureSwapped(fileURLToPath(import.meta.url), regionBytes, Number(option('rounds', '7')));
  console.log(text);
  if (flag('write')) writePart('docs/results/rdma.md', 'rdmaswap', text);
}
