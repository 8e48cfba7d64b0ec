import { nextOf } from '../../src/cli/rdma/ping.js';
import { movePieces, type Opcode, type Piece } from '../../src/cli/rdma/pipeline.js';
import { connect, type Remote } from '../../src/cli/rdma/remote.js';
import { arenaBytes, openRnic } from '../../src/cli/rdma/service.js';
import { Host } from '../../src/mm/index.js';
import { IBV_SEND_SIGNALED, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE } from '../../src/rdma/index.js';
import { digits, markdownTable, median } from '../lib/common.js';
import { PeerLink } from './link.js';
import { type DeviceKind, environment, LIMITED_LATENCY_US } from './peer.js';
import { type Share, type Shares, threadShares, threadTimes } from './threads.js';

/**
 * Bandwidth of one connection to memory that is swapped out, beside pinned memory and what the swap device reads by itself. All in turn in each round; ratios are of one round, and their
 * median is reported with the least and the greatest.
 */

const BLOCK_BYTES = 65536;
/** Stretches of each kind before any counts. WHY: each NIC's thread compiles for itself, beside what runs; it comes to its full speed with the seventh. */
const WARM_UP = 8;
/** MB/s: a disk in the network, one of the SATA interface, and what is near to the NIC. */
const LIMITED_RATES = [200, 500, 800];
/** A device and what the peer calls memory that is swapped out to it. */
const DEVICES: readonly { readonly name: string; readonly device: DeviceKind; readonly remote: string }[] = [
  { name: 'a file in the page cache', device: 'file', remote: 'demand' },
  { name: 'a file on the disk, O_DIRECT', device: 'disk', remote: 'disk' },
  ...LIMITED_RATES.map(limited),
];
const PINNED = 'pinned memory';
const OPCODES = [
  ['WRITE', IBV_WR_RDMA_WRITE],
  ['READ', IBV_WR_RDMA_READ],
] as const;

interface Stretch {
  readonly rate: number;
  readonly pinned: number;
  readonly alone: number;
  /** Of the peer, whose memory is swapped out, and of this process. */
  readonly threads: readonly Shares[];
}

export async function measureSwapped(script: string, regionBytes: number, rounds: number): Promise<string> {
  const peer = await PeerLink.start(script, regionBytes);
  const host = new Host({ frames: 4096, arenaBytes: arenaBytes(2 ** 24), defer: (fn) => setImmediate(fn) });
  const remotes = new Map<string, Remote>();
  for (const kind of ['pinned', ...DEVICES.map(({ remote }) => remote)])
    remotes.set(kind, await remoteOf(host, peer, kind));
  const stretches = new Map<string, Stretch[]>();
  await warmUp(peer, remotes, regionBytes);
  for (let round = 0; round < rounds; round++) {
    for (const [key, stretch] of await measureRound(peer, remotes, regionBytes))
      stretches.set(key, [...(stretches.get(key) ?? []), stretch]);
    process.stderr.write(`bench: rdmaswap: round ${round + 1} of ${rounds}\n`);
  }
  for (const { rnic } of remotes.values()) await rnic.device.close();
  peer.stop();
  return `${table(stretches)}\n\n${threadTable(stretches)}`;
}

async function remoteOf(host: Host, peer: PeerLink, kind: string): Promise<Remote> {
  const port = await peer.ask<number>('serve', kind);
  const rnic = openRnic(host, kind, undefined, environment());
  return connect(rnic, rnic.context.createId(), { host: '127.0.0.1', port, crc: true });
}

async function warmUp(peer: PeerLink, remotes: ReadonlyMap<string, Remote>, regionBytes: number): Promise<void> {
  for (let k = 0; k < WARM_UP; k++)
    for (const [, opcode] of OPCODES)
      for (const [kind, remote] of remotes) {
        if (kind !== 'pinned') await peer.ask('evict', kind);
        await rateOf(remote, opcode, regionBytes);
      }
}

async function measureRound(
  peer: PeerLink,
  remotes: ReadonlyMap<string, Remote>,
  regionBytes: number,
): Promise<[string, Stretch][]> {
  const measured: [string, Stretch][] = [];
  for (const { name, device, remote } of DEVICES) {
    const alone = await peer.ask<number>('swapRate', device);
    for (const [what, opcode] of OPCODES) {
      const pinned = await watched(peer, () => rateOf(remotes.get('pinned')!, opcode, regionBytes));
      await peer.ask('evict', remote);
      const swapped = await watched(peer, () => rateOf(remotes.get(remote)!, opcode, regionBytes));
      measured.push([`${what}, ${name}`, { ...swapped, pinned: pinned.rate, alone }]);
      if (device === 'file') measured.push([`${what}, ${PINNED}`, { ...pinned, pinned: pinned.rate, alone }]);
    }
  }
  return measured;
}

async function watched(peer: PeerLink, work: () => Promise<number>): Promise<{ rate: number; threads: Shares[] }> {
  const pids = [peer.pid, process.pid];
  const [began, before] = [performance.now(), pids.map(threadTimes)];
  const rate = await work();
  const elapsedMs = performance.now() - began;
  return { rate, threads: pids.map((pid, i) => threadShares(pid, before[i]!, elapsedMs)) };
}

/** Bytes a second, of the whole region in order. */
async function rateOf(remote: Remote, opcode: Opcode, regionBytes: number): Promise<number> {
  function* blocks(): Generator<Piece, void> {
    for (let offset = 0; offset < regionBytes; offset += BLOCK_BYTES) yield { offset, length: BLOCK_BYTES };
  }
  const began = performance.now();
  await movePieces(remote, opcode, blocks(), {});
  // Behind the writes, so that they have all arrived.
  if (opcode === IBV_WR_RDMA_WRITE) await readWord(remote);
  return regionBytes / ((performance.now() - began) / 1000);
}

async function readWord(remote: Remote): Promise<void> {
  const { qp, sendCq, buffers, served } = remote;
  const sgList = [{ addr: buffers.addr, length: 8, lkey: buffers.lkey }];
  const to = { remoteAddr: served.addr, rkey: served.rkey };
  qp.postSend({ wrId: 0, opcode: IBV_WR_RDMA_READ, sendFlags: IBV_SEND_SIGNALED, sgList, ...to });
  await nextOf(remote, sendCq);
}

function limited(rate: number): (typeof DEVICES)[number] {
  const device = `limited${rate}` as const;
  return { name: `a device of ${rate} MB/s, ${LIMITED_LATENCY_US} µs`, device, remote: device };
}

function table(stretches: ReadonlyMap<string, Stretch[]>): string {
  const rows = [...stretches]
    .filter(([name]) => !name.endsWith(PINNED))
    .map(([name, all]) => {
      const rate = (value: (stretch: Stretch) => number) => digits(median(all.map(value)) / 1e6);
      const ratios = all.map(({ rate, pinned, alone }) => rate / Math.min(pinned, alone));
      return [
        name,
        ...[rate((of) => of.rate), rate((of) => of.alone), rate((of) => of.pinned)],
        `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
      ];
    });
  const head = ['Swapped out to', 'MB/s', 'the device alone', 'pinned', 'of the lesser of these two'];
  return markdownTable(head, rows);
}

/** Percent of the elapsed time. */
function threadTable(stretches: ReadonlyMap<string, Stretch[]>): string {
  const kinds = ['main', 'nic', 'others'] as const;
  const rows = [...stretches].map(([name, all]) => {
    const percent = (value: (stretch: Stretch) => number) => (100 * median(all.map(value))).toFixed(0);
    const cell = (side: number, kind: (typeof kinds)[number]) => {
      const of = (key: keyof Share) => percent(({ threads }) => threads[side]![kind][key]);
      return `${of('ran')} (${of('waited')})`;
    };
    return [name, ...[0, 1].flatMap((side) => kinds.map((kind) => cell(side, kind)))];
  });
  const head = ['% of the time: ran (waited to run)', 'mm thread', 'its NIC', 'others', 'user', 'its NIC', 'others'];
  return markdownTable(head, rows);
}
