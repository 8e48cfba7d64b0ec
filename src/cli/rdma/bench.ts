import {
  IBV_SEND_SIGNALED,
  IBV_WR_ATOMIC_FETCH_AND_ADD,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  type SendWr,
} from '../../rdma/index.js';
import { table } from '../table.js';
import { nextOf, pingOnce } from './ping.js';
import { movePieces, type Opcode, type Piece } from './pipeline.js';
import { DEPTH, type Remote } from './remote.js';

/** Latency and bandwidth of one connection, as perftest measures them (ib_send_lat, ib_read_lat, ib_atomic_lat, ib_write_bw, ib_read_bw). */

export interface BenchReport {
  /** Microseconds, of a request alone on the connection until it is complete; of `send` until the answer is there. */
  readonly latencyUs: Record<'send' | 'read' | 'atomic', { readonly p50: number; readonly p99: number }>;
  /** Bytes a second, 64 KiB each, DEPTH under way; of writes until a read behind them has come back. */
  readonly bytesPerSecond: Record<'write' | 'read', number>;
}

const ROUNDS = 1000;
const BLOCK_BYTES = 65536;

export async function bench(remote: Remote, seconds: number): Promise<BenchReport> {
  const read = { opcode: IBV_WR_RDMA_READ } as const;
  const atomic = { opcode: IBV_WR_ATOMIC_FETCH_AND_ADD, compareAdd: 0n } as const;
  return {
    latencyUs: {
      send: await latency((n) => pingOnce(remote, n)),
      read: await latency(() => once(remote, read)),
      atomic: await latency(() => once(remote, atomic)),
    },
    bytesPerSecond: {
      write: await bandwidth(remote, IBV_WR_RDMA_WRITE, seconds),
      read: await bandwidth(remote, IBV_WR_RDMA_READ, seconds),
    },
  };
}

async function latency(measure: (n: number) => Promise<number>): Promise<{ p50: number; p99: number }> {
  const times: number[] = [];
  for (let n = -ROUNDS / 10; n < ROUNDS; n++) {
    const us = await measure(Math.max(n, 0));
    if (n >= 0) times.push(us);
  }
  times.sort((a, b) => a - b);
  return { p50: times[ROUNDS / 2]!, p99: times[Math.floor(ROUNDS * 0.99)]! };
}

/** Microseconds of one request over the region's first 8 bytes. */
async function once(remote: Remote, wr: Pick<SendWr, 'opcode' | 'compareAdd'>): Promise<number> {
  const { qp, sendCq, buffers, served } = remote;
  const sgList = [{ addr: buffers.addr, length: 8, lkey: buffers.lkey }];
  const began = performance.now();
  qp.postSend({ ...wr, wrId: 0, sendFlags: IBV_SEND_SIGNALED, sgList, remoteAddr: served.addr, rkey: served.rkey });
  await nextOf(remote, sendCq);
  return (performance.now() - began) * 1000;
}

async function bandwidth(remote: Remote, opcode: Opcode, seconds: number): Promise<number> {
  const block = Math.min(BLOCK_BYTES, remote.served.length);
  const nrBlocks = Math.floor(remote.served.length / block);
  const began = performance.now();
  let bytes = 0;
  function* blocks(): Generator<Piece, void> {
    for (let n = 0; performance.now() - began < seconds * 1000 || n < DEPTH; n++) {
      bytes += block;
      yield { offset: (n % nrBlocks) * block, length: block };
    }
  }
  await movePieces(remote, opcode, blocks(), {});
  if (opcode === IBV_WR_RDMA_WRITE) await once(remote, { opcode: IBV_WR_RDMA_READ });
  return bytes / ((performance.now() - began) / 1000);
}

export function benchText({ latencyUs, bytesPerSecond }: BenchReport): string {
  const latencies = Object.entries(latencyUs).map(([name, { p50, p99 }]) => [
    name,
    `${p50.toFixed(0)} µs`,
    `${p99.toFixed(0)} µs`,
  ]);
  const rates = Object.entries(bytesPerSecond).map(([name, rate]) => [name, `${(rate / 1e6).toFixed(0)} MB/s`]);
  return `\n${table([['latency', 'p50', 'p99'], ...latencies])}\n\n${table([['bandwidth', '64 KiB each'], ...rates])}\n`;
}
