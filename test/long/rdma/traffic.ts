import {
  type CompletionQueue,
  IBV_SEND_SIGNALED,
  IBV_WC_RECV,
  IBV_WC_SUCCESS,
  IBV_WC_WR_FLUSH_ERR,
  IBV_WR_ATOMIC_FETCH_AND_ADD,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  IBV_WR_SEND,
  type QueuePair,
  type WorkCompletion,
  wcStatusStr,
} from '../../../src/rdma/index.js';
import { HALF_BYTES, type Memory } from './layout.js';
import { bytesOf, Random } from './random.js';

/**
 * Requests of random kind, size and place, several at once. A model of the peer's first half, which nobody else writes, says what reads must bring; messages say themselves
 * what they must be. A read goes nowhere where a later write would meet it.
 */

const DEPTH = 12;
const SLOT_BYTES = 65536;
const NR_RECEIVES = 16;
const RECEIVE_BYTES = 32768;
/** Receives lie behind the slots of requests; their numbers too. */
const RECEIVES_AT = DEPTH * SLOT_BYTES;
const RECEIVE_ID = 1000;
/** The counter of the atomics, at the very beginning of the half. */
const COUNTER_BYTES = 64;

export interface TrafficCounts {
  readonly writes: number;
  readonly reads: number;
  readonly sends: number;
  readonly receives: number;
  readonly atomics: number;
  readonly bytesVerified: number;
}

interface UnderWay {
  readonly kind: 'write' | 'read' | 'send' | 'atomic';
  readonly at: number;
  readonly length: number;
  readonly counter: bigint;
}

export class Traffic {
  readonly counts = { writes: 0, reads: 0, sends: 0, receives: 0, atomics: 0, bytesVerified: 0 };
  mismatches = 0;
  private readonly qp: QueuePair;
  private readonly cq: CompletionQueue;
  private readonly buffers: Memory;
  private readonly peer: { readonly addr: number; readonly rkey: number };
  private readonly random: Random;
  private readonly model = new Uint8Array(HALF_BYTES);
  private counter = 0n;
  private readonly underWay: (UnderWay | undefined)[] = new Array(DEPTH).fill(undefined);
  private sent = 0;
  /** Messages of ours that the peer has taken and has room for again, as far as its messages have told; of its own, what we have told. */
  private acked = 0;
  private told = 0;
  /** Nothing more is posted and nothing is under way: whichever end disconnects first, what the other one waits to receive is flushed, and that is no error. */
  private idle = false;

  constructor(qp: QueuePair, cq: CompletionQueue, buffers: Memory, peer: { addr: number; rkey: number }, seed: number) {
    this.qp = qp;
    this.cq = cq;
    this.buffers = buffers;
    this.peer = peer;
    this.random = new Random(seed);
  }

  static postReceives(qp: QueuePair, buffers: Memory): void {
    for (let n = 0; n < NR_RECEIVES; n++) Traffic.postReceive(qp, buffers, RECEIVE_ID + n);
  }

  private static postReceive(qp: QueuePair, { va, mr }: Memory, wrId: number): void {
    const addr = va + RECEIVES_AT + (wrId - RECEIVE_ID) * RECEIVE_BYTES;
    qp.postRecv({ wrId, sgList: [{ addr, length: RECEIVE_BYTES, lkey: mr.lkey }] });
  }

  /** Posts until `endMs`, and resolves when nothing is under way. Messages are received after that too. */
  async run(endMs: number): Promise<void> {
    for (let slot = 0; slot < DEPTH; slot++) await this.start(slot);
    await new Promise<void>((resolve) => void this.loop(endMs, resolve));
  }

  private async loop(endMs: number, onIdle: () => void): Promise<void> {
    for await (const wc of this.cq) {
      if (this.idle && wc.status === IBV_WC_WR_FLUSH_ERR) return;
      if (wc.status !== IBV_WC_SUCCESS)
        throw new Error(`request ${wc.wrId}: ${wcStatusStr(wc.status)}: ${this.qp.reason}`);
      if (wc.opcode === IBV_WC_RECV) await this.received(wc);
      else await this.completed(wc.wrId);
      const free = this.underWay.indexOf(undefined);
      if (performance.now() < endMs) {
        if (free >= 0) await this.start(free);
      } else if (this.underWay.every((request) => request === undefined)) {
        this.idle = true;
        onIdle();
      }
    }
  }

  private slotVa(slot: number): number {
    return this.buffers.va + slot * SLOT_BYTES;
  }

  private async start(slot: number): Promise<void> {
    const kind = this.choose();
    const length =
      kind === 'atomic'
        ? 8
        : kind === 'send'
          ? 7 + this.random.size(RECEIVE_BYTES - 7)
          : this.random.size(SLOT_BYTES - 16);
    const at = kind === 'atomic' ? 0 : COUNTER_BYTES + this.random.below(HALF_BYTES - COUNTER_BYTES - length);
    if (kind === 'write' && this.meetsRead(at, length)) return this.start(slot);
    this.underWay[slot] = { kind, at, length, counter: this.counter };
    // Anywhere in its slot, as it comes.
    const va = this.slotVa(slot) + (kind === 'send' || kind === 'atomic' ? 0 : this.random.below(16));
    if (kind === 'write' || kind === 'send') {
      const bytes =
        kind === 'send'
          ? message(this.random.below(2 ** 30), length, this.tell())
          : bytesOf(this.random.below(2 ** 30), length);
      if (kind === 'write') this.model.set(bytes, at);
      await this.qp.pd.context.mm.write(va, bytes);
    }
    this.post(slot, kind, va, at, length);
  }

  private tell(): number {
    this.told = this.counts.receives;
    return this.told;
  }

  private choose(): UnderWay['kind'] {
    const n = this.random.below(10);
    if (n < 4) return 'write';
    if (n < 7) return 'read';
    if (n < 9 && this.maySend()) return 'send';
    return 'atomic';
  }

  /** The last place is for who has much to tell: so that both do not wait for each other. */
  private maySend(): boolean {
    const credits = NR_RECEIVES + this.acked - this.sent;
    return credits > 1 || (credits === 1 && this.counts.receives - this.told >= NR_RECEIVES / 2);
  }

  private meetsRead(at: number, length: number): boolean {
    return this.underWay.some((r) => r?.kind === 'read' && r.at < at + length && at < r.at + r.length);
  }

  private post(slot: number, kind: UnderWay['kind'], va: number, at: number, length: number): void {
    const opcode = {
      write: IBV_WR_RDMA_WRITE,
      read: IBV_WR_RDMA_READ,
      send: IBV_WR_SEND,
      atomic: IBV_WR_ATOMIC_FETCH_AND_ADD,
    } as const;
    const sgList = [{ addr: va, length, lkey: this.buffers.mr.lkey }];
    const wr = { wrId: slot, opcode: opcode[kind], sendFlags: IBV_SEND_SIGNALED, sgList };
    if (kind === 'send') {
      this.sent++;
      return this.qp.postSend(wr);
    }
    const to = { remoteAddr: this.peer.addr + at, rkey: this.peer.rkey };
    this.vaOf[slot] = va;
    if (kind !== 'atomic') return this.qp.postSend({ ...wr, ...to });
    this.counter += BigInt(slot + 1);
    this.qp.postSend({ ...wr, ...to, compareAdd: BigInt(slot + 1) });
  }

  private readonly vaOf: number[] = [];

  private async completed(slot: number): Promise<void> {
    const { kind, at, length, counter } = this.underWay[slot]!;
    this.counts[`${kind}s` as const]++;
    if (kind === 'read' || kind === 'atomic') {
      const seen = new Uint8Array(length);
      await this.qp.pd.context.mm.read(this.vaOf[slot]!, seen);
      const wanted =
        kind === 'read' ? this.model.subarray(at, at + length) : new Uint8Array(BigUint64Array.of(counter).buffer);
      if (Buffer.compare(seen, wanted) !== 0) this.mismatches++;
      this.counts.bytesVerified += length;
    }
    this.underWay[slot] = undefined;
  }

  /** A message says what it must be, and how many of ours the peer has taken. */
  private async received({ wrId, byteLen }: WorkCompletion): Promise<void> {
    const seen = new Uint8Array(byteLen);
    await this.qp.pd.context.mm.read(this.buffers.va + RECEIVES_AT + (wrId - RECEIVE_ID) * RECEIVE_BYTES, seen);
    const view = new DataView(seen.buffer);
    this.acked = view.getUint32(4);
    if (Buffer.compare(seen, message(view.getUint32(0), byteLen, this.acked)) !== 0) this.mismatches++;
    Traffic.postReceive(this.qp, this.buffers, wrId);
    this.counts.receives++;
    this.counts.bytesVerified += byteLen;
  }
}

/** `length` bytes, 8 at least: a number that says what follows the header, and what is to be told. */
function message(n: number, length: number, told: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, n);
  view.setUint32(4, told);
  bytes.set(bytesOf(n, length - 8), 8);
  return bytes;
}
