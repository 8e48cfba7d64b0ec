import { KernelError } from '../../base/index.js';
import {
  type CompletionQueue,
  IBV_SEND_INLINE,
  IBV_WC_SUCCESS,
  IBV_WR_SEND,
  type WorkCompletion,
  wcStatusStr,
} from '../../rdma/index.js';
import type { Remote } from './remote.js';
import { ECHO_BYTES } from './service.js';

/** A message there and back. */

export interface PingReport {
  readonly count: number;
  /** Round trips, microseconds. */
  readonly minUs: number;
  readonly medianUs: number;
  readonly maxUs: number;
}

const SHOWN = 10;
const MAX_POLLED = 16;

export async function ping(remote: Remote, count: number): Promise<PingReport> {
  const times: number[] = [];
  for (let n = 0; n < count; n++) {
    const us = await pingOnce(remote, n);
    times.push(us);
    if (n < SHOWN) process.stdout.write(`${ECHO_BYTES} bytes back: ping ${n + 1}, ${us.toFixed(0)} µs\n`);
  }
  const sorted = times.sort((a, b) => a - b);
  const [minUs, medianUs, maxUs] = [sorted[0]!, sorted[count >> 1]!, sorted[count - 1]!];
  process.stdout.write(
    `${count} pings: ${minUs.toFixed(0)} µs at least, ${medianUs.toFixed(0)} median, ${maxUs.toFixed(0)} at most\n`,
  );
  return { count, minUs, medianUs, maxUs };
}

/** Microseconds until message `n` has come back. Throws KernelError where another one does. */
export async function pingOnce(remote: Remote, n: number): Promise<number> {
  const { qp, recvCq, buffers, rnic } = remote;
  const message = Buffer.alloc(ECHO_BYTES, `ping ${n} `);
  const { addr, lkey } = buffers;
  qp.postRecv({ wrId: n, sgList: [{ addr, length: ECHO_BYTES, lkey }] });
  const began = performance.now();
  qp.postSend({ wrId: n, opcode: IBV_WR_SEND, sendFlags: IBV_SEND_INLINE, inlineData: message });
  await nextOf(remote, recvCq);
  const us = (performance.now() - began) * 1000;
  const back = Buffer.alloc(ECHO_BYTES);
  await rnic.mm.read(addr, back);
  if (!back.equals(message)) throw new KernelError('EPROTO', 'ping', `message ${n} must come back as it went`);
  return us;
}

/** The next completion of a queue of `remote`, a good one. Throws KernelError EIO: what became of the connection. */
export async function nextOf(remote: Remote, cq: AsyncIterable<WorkCompletion>): Promise<WorkCompletion> {
  for await (const wc of cq) return isGood(wc) ? wc : refuse(remote, wc);
  throw new KernelError('EIO', 'pollCq', 'the queue is gone');
}

/** The completions that are there, or else the next one, all of them good. Throws as `nextOf`. WHY: no promises for each. */
export async function someOf(remote: Remote, cq: CompletionQueue): Promise<readonly WorkCompletion[]> {
  const there = cq.pollCq(MAX_POLLED);
  if (there.length === 0) return [await nextOf(remote, cq)];
  const bad = there.find((wc) => !isGood(wc));
  return bad === undefined ? there : refuse(remote, bad);
}

const isGood = (wc: WorkCompletion): boolean => wc.status === IBV_WC_SUCCESS;

/** Completions are in shared memory; the reason comes as a message behind them. */
async function refuse({ qp }: Remote, wc: WorkCompletion): Promise<never> {
  for (let n = 0; n < 100 && qp.reason === undefined; n++) await new Promise((resolve) => setTimeout(resolve, 10));
  const why = qp.reason === undefined ? '' : `: ${qp.reason}`;
  throw new KernelError('EIO', 'pollCq', `request ${wc.wrId}: ${wcStatusStr(wc.status)}${why}`);
}
