import { nextOf } from '../../src/cli/rdma/ping.js';
import { movePieces, type Piece } from '../../src/cli/rdma/pipeline.js';
import { connect, type Remote } from '../../src/cli/rdma/remote.js';
import { arenaBytes, openRnic } from '../../src/cli/rdma/service.js';
import { Host } from '../../src/mm/index.js';
import { IBV_SEND_SIGNALED, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE } from '../../src/rdma/index.js';
import { digits, markdownTable, median, quantile } from '../lib/common.js';
import { PeerLink } from './link.js';
import { environment } from './peer.js';
import { Tcp } from './tcp.js';

/**
 * Bandwidth, processor time and latency of one connection to memory that is pinned, on demand and there, on demand with no entries, prefetched, and
 * swapped out; beside plain TCP and the swap file alone. All in turn in each round, each directly behind plain TCP; what is reported are medians, and of ratios the median of the rounds'
 * own. The processor time of pinned and resident memory is measured once more, in many pairs: they differ by less than the rounds do.
 */

const BLOCK_BYTES = 65536;
const LATENCY_SAMPLES = 500;
const SEED = 12345;

type Kind = 'pinned' | 'demand' | 'bare';

interface State {
  readonly name: string;
  readonly remote: Kind;
  /** What is done to the memory before each stretch. */
  readonly before: readonly ('invalidate' | 'evict' | 'prefetch')[];
}

const PINNED = 'pinned';
const RESIDENT = 'on demand, resident';
const STATES: readonly State[] = [
  { name: PINNED, remote: 'pinned', before: [] },
  { name: RESIDENT, remote: 'demand', before: [] },
  { name: 'on demand, no entries (minor faults)', remote: 'demand', before: ['invalidate'] },
  { name: 'on demand, swapped out, then prefetched', remote: 'demand', before: ['evict', 'prefetch'] },
  { name: 'on demand, swapped out (major faults)', remote: 'demand', before: ['evict'] },
  { name: 'without CRC: on demand, resident', remote: 'bare', before: [] },
  { name: 'without CRC: swapped out, then prefetched', remote: 'bare', before: ['evict', 'prefetch'] },
];
const TCP = 'node:net alone';
const TCP_BUFFER = 'node:net alone, into one buffer';
const SWAP = 'the swap file alone';
const WRITE_AND_READ = [
  ['WRITE', IBV_WR_RDMA_WRITE],
  ['READ', IBV_WR_RDMA_READ],
] as const;

/** Of one stretch: bytes a second, and processor seconds of both processes for a GiB. */
interface Stretch {
  readonly rate: number;
  readonly cpu: number;
}

/** What was measured, by its row: each stretch with that of TCP before it. */
type Rows = Map<string, { readonly stretch: Stretch; readonly tcp: Stretch }[]>;

export interface Amount {
  readonly regionBytes: number;
  readonly rounds: number;
  /** Pairs of stretches for the processor time. */
  readonly pairs: number;
}

export async function measure(script: string, { regionBytes, rounds, pairs }: Amount): Promise<string> {
  const peer = await PeerLink.start(script, regionBytes);
  const host = new Host({ frames: 4096, arenaBytes: arenaBytes(2 ** 24), defer: (fn) => setImmediate(fn) });
  const remotes = {
    pinned: await remoteOf(host, peer, 'pinned'),
    demand: await remoteOf(host, peer, 'demand'),
    bare: await remoteOf(host, peer, 'bare'),
  };
  const bench = new Bench(peer, remotes, regionBytes);
  await bench.open();
  const texts = [await bench.bandwidths(rounds), await bench.processorTimes(pairs), await bench.latencies(rounds)];
  for (const { rnic } of Object.values(remotes)) await rnic.device.close();
  bench.close();
  peer.stop();
  return texts.join('\n\n');
}

async function remoteOf(host: Host, peer: PeerLink, kind: Kind): Promise<Remote> {
  const port = await peer.ask<number>('serve', kind);
  const rnic = openRnic(host, kind, undefined, environment());
  return connect(rnic, rnic.context.createId(), { host: '127.0.0.1', port, crc: kind !== 'bare' });
}

class Bench {
  private readonly peer: PeerLink;
  private readonly remotes: Record<Kind, Remote>;
  private readonly regionBytes: number;
  private tcp!: Tcp;
  private tcpBuffer!: Tcp;

  constructor(peer: PeerLink, remotes: Record<Kind, Remote>, regionBytes: number) {
    this.peer = peer;
    this.remotes = remotes;
    this.regionBytes = regionBytes;
  }

  async open(): Promise<void> {
    this.tcp = await Tcp.chunks(this.peer);
    this.tcpBuffer = await Tcp.oneBuffer(this.peer);
  }

  close(): void {
    this.tcp.close();
    this.tcpBuffer.close();
  }

  async bandwidths(rounds: number): Promise<string> {
    const rows: Record<'WRITE' | 'READ', Rows> = { WRITE: new Map(), READ: new Map() };
    for (let round = -1; round < rounds; round++) {
      const push = (what: 'WRITE' | 'READ', name: string, stretch: Stretch, tcp: Stretch): void => {
        if (round >= 0) rows[what].set(name, [...(rows[what].get(name) ?? []), { stretch, tcp }]);
      };
      for (const { name, remote, before } of STATES) {
        for (const [what, opcode] of WRITE_AND_READ) {
          for (const call of before) await this.peer.ask(call, remote);
          const tcp = await this.stretch(() => this.tcp.move(what, this.regionBytes));
          if (name === PINNED) push(what, TCP, tcp, tcp);
          push(what, name, await this.stretch(() => this.moveAll(this.remotes[remote], opcode)), tcp);
        }
      }
      for (const [what] of WRITE_AND_READ) {
        const tcp = await this.stretch(() => this.tcpBuffer.move(what, this.regionBytes));
        push(what, TCP_BUFFER, tcp, tcp);
      }
      const rate = await this.peer.ask<number>('swapRate', 'file');
      const swap = { rate, cpu: Number.NaN };
      push('READ', SWAP, swap, swap);
      process.stderr.write(`bench: rdma: bandwidth, round ${round + 1} of ${rounds}\n`);
    }
    return [bandwidthTable('WRITE', rows.WRITE), bandwidthTable('READ', rows.READ)].join('\n\n');
  }

  /** Of pinned and of resident memory, in pairs whose first is now the one, now the other. */
  async processorTimes(pairs: number): Promise<string> {
    const kinds: readonly Kind[] = ['pinned', 'demand'];
    const rows: string[][] = [];
    for (const [what, opcode] of WRITE_AND_READ) {
      const cpu: Record<Kind, number[]> = { pinned: [], demand: [], bare: [] };
      for (let pair = -1; pair < pairs; pair++)
        for (const kind of pair % 2 === 0 ? kinds : kinds.toReversed()) {
          const stretch = await this.stretch(() => this.moveAll(this.remotes[kind], opcode));
          if (pair >= 0) cpu[kind].push(stretch.cpu);
        }
      const ratios = cpu.demand.map((value, i) => value / cpu.pinned[i]!);
      rows.push([what, digits(median(cpu.pinned)), digits(median(cpu.demand)), spread(ratios)]);
      process.stderr.write(`bench: rdma: processor time, ${what}\n`);
    }
    const head = [`CPU s/GiB, ${pairs} pairs`, 'pinned', RESIDENT, 'ratio (95 % of its median)'];
    return markdownTable(head, rows);
  }

  private async stretch(work: () => Promise<void>): Promise<Stretch> {
    const { user, system } = process.cpuUsage();
    const theirs = await this.peer.ask<number>('cpuUs');
    const began = performance.now();
    await work();
    const seconds = (performance.now() - began) / 1000;
    const ours = process.cpuUsage({ user, system });
    const cpuUs = ours.user + ours.system + (await this.peer.ask<number>('cpuUs')) - theirs;
    return { rate: this.regionBytes / seconds, cpu: (cpuUs / 1e6) * (2 ** 30 / this.regionBytes) };
  }

  private async moveAll(remote: Remote, opcode: typeof IBV_WR_RDMA_WRITE | typeof IBV_WR_RDMA_READ): Promise<void> {
    const { regionBytes } = this;
    function* blocks(): Generator<Piece, void> {
      for (let offset = 0; offset < regionBytes; offset += BLOCK_BYTES) yield { offset, length: BLOCK_BYTES };
    }
    await movePieces(remote, opcode, blocks(), {});
    // Behind the writes, so that they have all arrived.
    if (opcode === IBV_WR_RDMA_WRITE) await this.readOnce(remote, 0, 8);
  }

  private async readOnce(remote: Remote, offset: number, length: number): Promise<void> {
    const { qp, sendCq, buffers, served } = remote;
    const sgList = [{ addr: buffers.addr, length, lkey: buffers.lkey }];
    const wr = { wrId: 0, opcode: IBV_WR_RDMA_READ, sendFlags: IBV_SEND_SIGNALED, sgList } as const;
    qp.postSend({ ...wr, remoteAddr: served.addr + offset, rkey: served.rkey });
    await nextOf(remote, sendCq);
  }

  /** READ of 4 KiB, a page at a time, pages in random order. */
  async latencies(rounds: number): Promise<string> {
    const us = new Map<string, number[]>(STATES.map(({ name }) => [name, []]));
    for (let round = -1; round < rounds; round++) {
      for (const { name, remote, before } of STATES) {
        for (const call of before) await this.peer.ask(call, remote);
        for (const page of randomPages(this.regionBytes / 4096, LATENCY_SAMPLES)) {
          const began = performance.now();
          await this.readOnce(this.remotes[remote], page * 4096, 4096);
          if (round >= 0) us.get(name)!.push((performance.now() - began) * 1000);
        }
      }
      process.stderr.write(`bench: rdma: latency, round ${round + 1} of ${rounds}\n`);
    }
    return latencyTable(us);
  }
}

/** `count` different pages of `nrPages`, far from each other, so that no read-ahead has them. */
function randomPages(nrPages: number, count: number): number[] {
  const step = Math.floor(nrPages / count);
  const pages = Array.from({ length: count }, (_, i) => i * step);
  for (let i = count - 1, x = SEED; i > 0; i--) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    const j = x % (i + 1);
    [pages[i], pages[j]] = [pages[j]!, pages[i]!];
  }
  return pages;
}

/** The median, and between what values the median of all that could have been measured lies with 95 %: by rank, whatever the distribution (sign test). */
function spread(ratios: readonly number[]): string {
  const sorted = [...ratios].sort((a, b) => a - b);
  const rank = Math.max(0, Math.floor(sorted.length / 2 - 0.98 * Math.sqrt(sorted.length)));
  const [low, high] = [sorted[rank]!, sorted[sorted.length - 1 - rank]!];
  return `${median(ratios).toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
}

function bandwidthTable(what: string, all: Rows): string {
  const range = (ratios: number[]) =>
    `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`;
  const stretches = (name: string) => all.get(name)!.map(({ stretch }) => stretch);
  const beside = (name: string, to: string, value: (stretch: Stretch) => number) =>
    range(stretches(name).map((stretch, i) => value(stretch) / value(stretches(to)[i]!)));
  const isAlone = (name: string) => name === TCP || name === TCP_BUFFER || name === SWAP;
  const rows = [...all].map(([name, measured]) => [
    name,
    digits(median(stretches(name).map(({ rate }) => rate)) / 1e6),
    isAlone(name) ? '' : range(measured.map(({ stretch, tcp }) => stretch.rate / tcp.rate)),
    isAlone(name) ? '' : beside(name, TCP_BUFFER, ({ rate }) => rate),
    name === SWAP ? '' : digits(median(stretches(name).map(({ cpu }) => cpu))),
    isAlone(name) ? '' : beside(name, PINNED, ({ cpu }) => cpu),
    all.has(SWAP) && !isAlone(name) ? beside(name, SWAP, ({ rate }) => rate) : '',
  ]);
  const head = [
    ...[`${what}, 64 KiB each`, 'MB/s', 'of TCP', 'of TCP into one buffer'],
    ...['CPU s/GiB', 'CPU of pinned', 'of the swap file'],
  ];
  return markdownTable(head, rows);
}

function latencyTable(us: Map<string, number[]>): string {
  const base = median(us.get(PINNED)!);
  const rows = [...us].map(([name, all]) => [
    name,
    digits(quantile(all, 0.5)),
    digits(quantile(all, 0.99)),
    name === PINNED ? '' : digits(median(all) - base),
  ]);
  return markdownTable(['READ of 4 KiB, one at a time, µs', 'p50', 'p99', 'p50 above pinned'], rows);
}
