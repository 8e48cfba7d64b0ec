import { join } from 'node:path';
import { Host } from '../../src/mm/index.js';
import { openFileSwap } from '../../src/node/index.js';
import { MemoryCgroup } from '../lib/cgroup.js';
import { digits, markdownTable, median, quantile } from '../lib/common.js';
import { Peer } from '../lib/peer.js';
import { LinuxSwap } from '../lib/swapfile.js';
import { map, PAGE } from './world.js';

/**
 * Sequential swap-in from one disk: Linux's swap file and Unpin's, in one folder, in turn; elapsed time. All pages are out before, neither side
 * reclaims while it reads, and Unpin's file is opened for direct I/O, so that no page cache answers in the disk's place.
 */
const NR = 16_384;

export async function measureSwap(rounds: number): Promise<string> {
  let swap: LinuxSwap;
  try {
    swap = LinuxSwap.on(2 * NR * PAGE);
  } catch (error) {
    const line = `SKIPPED: sequential swap-in: ${(error as Error).message}`;
    process.stderr.write(`bench: ${line}\n`);
    return line;
  }
  try {
    return await inTurn(swap.folder, Math.min(rounds, 9));
  } finally {
    swap.off();
  }
}

async function inTurn(folder: string, rounds: number): Promise<string> {
  const cgroup = MemoryCgroup.create();
  const peer = Peer.start('mm.c', { UNPIN_CGROUP: cgroup.path });
  cgroup.add(peer.pid);
  const linux: number[] = [];
  const clusters = [3, 4, 5];
  const unpin = new Map(clusters.map((c) => [c, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    const ns = await peer.time('swap-in', NR);
    if (ns instanceof Error) {
      await peer.stop();
      cgroup.remove();
      return `SKIPPED: sequential swap-in: ${ns.message}`;
    }
    linux.push(ns / NR);
    for (const cluster of clusters) unpin.get(cluster)!.push(await swapIn(join(folder, `unpin${round}`), cluster));
  }
  await peer.stop();
  cgroup.remove();
  const rows = clusters.map((cluster) => {
    const ratios = linux.map((ns, i) => ns / unpin.get(cluster)![i]!);
    const spread = `${digits(quantile(ratios, 0.25))} to ${digits(quantile(ratios, 0.75))}`;
    const bar = `1 ${median(ratios) >= 1 ? 'kept' : 'MISSED'}`;
    const name = `sequential swap-in, ${2 ** cluster} pages at once${cluster === 3 ? ', as Linux' : cluster === 4 ? ', the default' : ''}`;
    return [name, digits(median(linux)), digits(median(unpin.get(cluster)!)), digits(median(ratios)), spread, bar];
  });
  return markdownTable(['ns a page', 'Linux', 'Unpin', 'Linux / Unpin', 'quartiles', 'bar'], rows);
}

/** Nanoseconds a page. */
async function swapIn(path: string, pageCluster: number): Promise<number> {
  const swap = await openFileSwap(path, { sizeBytes: 2 * NR * PAGE, direct: true });
  const host = new Host({ frames: 2 * NR, swap, pageCluster, defer: (fn) => setImmediate(fn) });
  const mm = host.createMm();
  const va = map(mm, NR);
  const page = new BigUint64Array(PAGE / 8);
  for (let p = 0; p < NR; p++) {
    for (let k = 0; k < page.length; k++) page[k] = BigInt(p * 512 + k) * 0x9e3779b97f4a7c15n;
    mm.writeSync(va + p * PAGE, new Uint8Array(page.buffer));
  }
  while (mm.residentPages > 0) {
    host.reclaim.shrink(true, true, true);
    await host.writeback.drain();
  }
  const byte = new Uint8Array(1);
  const start = performance.now();
  for (let p = 0; p < NR; p++) mm.readSync(va + p * PAGE, byte);
  const ns = ((performance.now() - start) * 1e6) / NR;
  await host.stop();
  return ns;
}
