import type { Stream, StreamHandler } from '../environment.js';
import { type Crc32c, FPDU_BYTES_MAX, type MpaAgreed, RdmaStream, TX_IDLE } from '../wire/index.js';
import { ConnSetup } from './connsetup.js';
import type { CopyOps } from './copyops.js';
import type { ConnWish, FromNic } from './messages.js';
import type { NicQp } from './nicqp.js';

/**
 * A connection in the NIC: a TCP stream, MPA's set-up on it (connsetup.ts), then the RDMAP stream of a queue pair. It moves bytes and waits; what they mean is the stream's, where they go the
 * queue pair's.
 *
 *   initiator: connected -> request out -> reply in -> open          responder: request in -> (accept, reject) -> reply out -> open
 *   open: bytes in -> receive; where memory is missing TCP is held back (pause) until it is there; transmit -> bytes out, as many at once as there are
 *   the end: in order (disconnect: all that is posted goes out, then FIN); by Terminate; by the peer; by TCP
 *
 * Bytes are read to a fixed place, READ_AT. An FPDU that TCP has cut is moved to where it ends there, so that what is read next goes on with it, and each FPDU is looked at where it was
 * read, in the host's memory:
 *
 *     0                READ_AT          READ_AT + bufferBytes
 *     |     cut FPDU ->| read            |
 *
 * What a peer can make it hold: a read buffer and one FPDU; before the set-up is done a small buffer (connsetup.ts).
 */

/** A peer that does not close its side by then is cut off. */
const CLOSE_MS = 5_000;
/** Room for all of an FPDU but its last byte, aligned. */
const READ_AT = (FPDU_BYTES_MAX + 15) & ~15;
/** Sent before what was received has its turn. */
const TURN_BYTES = 4 * 2 ** 20;
/**
 * Sent at once, in read buffers. WHY 512 KiB where 128 are read: a write costs TCP less the longer it is, 0.50 s for a GiB in pieces of 64 KiB, 0.41 of 128, 0.31 of 256 and 0.22 of 512
 * (loopback, BBR); what is read is best looked at while it is in the second-level cache.
 */
const SENT_AT_ONCE = 4;
/** Headers and trailers of the segments in a buffer. */
const HEADERS_BYTES = 1024;

/** Of the memory that a connection reads into, and of that which it sends from. */
export function connectionBytes(bufferBytes: number): { rxBytes: number; txBytes: number } {
  return { rxBytes: READ_AT + bufferBytes, txBytes: SENT_AT_ONCE * bufferBytes + HEADERS_BYTES };
}

export interface ConnOwner {
  readonly crc: Crc32c;
  readonly counters: Float64Array;
  readonly u8: Uint8Array;
  readonly copyOps: CopyOps;
  setTimer(fn: () => void, ms: number): () => void;
  /** Calls `fn` when all I/O that is there has had its turn. */
  defer(fn: () => void): void;
  post(message: FromNic): void;
  /** It is over: nothing more will come of it. */
  forget(conn: NicConn): void;
  /** Half-closes a stream that was answered in the set-up, so that the peer reads the answer; one that does not close is cut off. */
  linger(stream: Stream): void;
  /** A responder's request is whole; false: there are too many that nobody has looked at. */
  requested(conn: NicConn, wish: ConnWish): boolean;
}

const NO_BYTES = new Uint8Array(0);

export const BYTES_RECEIVED = 0;
export const BYTES_SENT = 1;
export const TERMINATES_SENT = 2;
export const TERMINATES_RECEIVED = 3;
export const NR_COUNTERS = 8;

export class NicConn implements StreamHandler {
  readonly id: number;
  /** The listener that it came from; 0 of an initiator. */
  readonly listener: number;
  net!: Stream;
  qp: NicQp | undefined;
  private readonly owner: ConnOwner;
  private readonly setup: ConnSetup;
  private buffer: Uint8Array;
  private nextReadBuffer: Uint8Array;
  /** Where the read that is under way goes. */
  private reading: Uint8Array;
  private stream: RdmaStream | undefined;
  private cancelTimer: (() => void) | undefined;
  /** Bytes of `buffer` that the stream has not taken. */
  private rxAt = READ_AT;
  private rxEnd = READ_AT;
  private paused = false;
  /** Where it is sent from, and whether TCP has not taken all of that yet. */
  private out: Uint8Array = NO_BYTES;
  private isWriting = false;
  private isTxDeferred = false;
  /** Chunks that were received, and that TCP has taken. */
  private nrMoves = 0;
  private closing = false;
  private sentEnd = false;
  /** The error state is over in CLOSE_MS. */
  private isLimited = false;
  private peerEnded = false;
  private over = false;
  private reason: string | undefined;
  /** The peer has closed between messages, and nothing had failed. */
  private inOrder = false;

  constructor(owner: ConnOwner, id: number, listener: number) {
    this.owner = owner;
    this.id = id;
    this.listener = listener;
    this.setup = this.newSetup();
    this.buffer = this.nextReadBuffer = this.reading = this.setup.buffer;
  }

  get readBuffer(): Uint8Array {
    this.reading = this.nextReadBuffer;
    return this.reading;
  }

  // Setting up.

  private newSetup(): ConnSetup {
    const { owner } = this;
    return new ConnSetup(
      {
        setTimer: (fn, ms) => owner.setTimer(fn, ms),
        answer: (bytes) => this.net.write(bytes, () => {}),
        requested: (wish) => {
          if (!owner.requested(this, wish)) this.reject(new Uint8Array(0));
        },
        agreed: (agreed, privateData) => this.open(agreed, privateData),
        refuseReply: (code, reason) => this.refuseReply(code, reason),
        failed: (code, reason, privateData) => this.abort(code, reason, privateData),
      },
      this.listener === 0,
    );
  }

  /** Of an initiator, before it connects. */
  attach(qp: NicQp, wish: ConnWish): void {
    this.qp = qp;
    this.setup.offer(wish);
    const { rxAddr, txAddr, bufferBytes } = qp.where;
    const { rxBytes, txBytes } = connectionBytes(bufferBytes);
    const at = (addr: number, lenBytes: number): Uint8Array => new Uint8Array(this.owner.u8.buffer, addr, lenBytes);
    this.buffer = at(rxAddr, rxBytes);
    this.nextReadBuffer = at(rxAddr + READ_AT, bufferBytes);
    this.out = at(txAddr, txBytes);
  }

  connected(): void {
    this.setup.connected();
  }

  accept(qp: NicQp, wish: ConnWish): void {
    if (this.over || !this.setup.hasRequest) return;
    this.attach(qp, wish);
    this.setup.accept(wish.privateData);
  }

  reject(privateData: Uint8Array): void {
    if (this.over || !this.setup.hasRequest) return;
    this.setup.reject(privateData);
    this.end('rejected');
  }

  private open({ crc, ird, ord, rtr }: MpaAgreed, peerPrivateData: Uint8Array): void {
    const qp = this.qp!;
    this.stream = new RdmaStream(qp, {
      initiator: this.listener === 0,
      crc: crc ? this.owner.crc : undefined,
      ird,
      ord,
      rtr,
    });
    qp.stream = this.stream;
    qp.ready = true;
    qp.onResumeRx = () => this.pumpRx();
    qp.onResumeTx = () => this.pumpTx();
    qp.onEnded = ({ byPeer, reason }) => {
      this.owner.counters[byPeer ? TERMINATES_RECEIVED : TERMINATES_SENT]!++;
      this.reason ??= reason;
    };
    const wish = { privateData: peerPrivateData, ird, ord };
    const { localAddr, peerAddr } = this.net;
    this.owner.post({ type: 'established', conn: this.id, wish, localAddr, peerAddr });
    this.pumpTx();
  }

  /** What follows the frame of the set-up is the stream's. */
  private setupData(nrBytes: number): void {
    const taken = this.setup.receive(this.reading, nrBytes);
    if (this.stream === undefined) return;
    this.rxAt = READ_AT + taken;
    this.rxEnd = READ_AT + nrBytes;
    this.pumpRx();
  }

  /** The peer is told why, by a Terminate message. */
  private refuseReply(code: number, reason: string): void {
    const stream = new RdmaStream(this.qp!, { initiator: true, crc: undefined, ird: 0, ord: 0 });
    const { out } = this;
    stream.terminate(code, reason);
    this.net.write(out.subarray(0, stream.transmit(out, 0, out.length)), () => {});
    this.abort('EPROTO', reason);
  }

  // Open.

  data(nrBytes: number): void {
    if (this.over) return;
    if (this.stream === undefined) return this.setupData(nrBytes);
    this.owner.counters[BYTES_RECEIVED]! += nrBytes;
    this.nrMoves++;
    // The read that was under way when the queue pair came.
    if (this.reading === this.setup.buffer) this.buffer.set(this.reading.subarray(0, nrBytes), READ_AT);
    this.rxEnd = READ_AT + nrBytes;
    this.pumpRx();
  }

  private pumpRx(): void {
    const { stream } = this;
    if (stream === undefined || this.over) return;
    // In the error state nothing is placed any more: what still comes is dropped.
    if (this.qp!.failed) this.rxAt = this.rxEnd;
    else if (this.rxAt < this.rxEnd || stream.rxStalled) this.rxAt = stream.receive(this.buffer, this.rxAt, this.rxEnd);
    const holds = !this.qp!.failed && stream.rxStalled;
    if (!holds) this.moveRest();
    this.holdBack(holds);
    if (this.peerEnded && !holds) this.peerClosed();
    this.pumpTx();
  }

  /** The beginning of an FPDU, to where the next read goes on with it. */
  private moveRest(): void {
    const restBytes = this.rxEnd - this.rxAt;
    const { byteOffset } = this.buffer;
    if (restBytes > 0 && this.rxEnd !== READ_AT)
      this.owner.copyOps.copy(byteOffset + READ_AT - restBytes, byteOffset + this.rxAt, restBytes);
    this.rxAt = READ_AT - restBytes;
    this.rxEnd = READ_AT;
  }

  /** While memory is not there TCP keeps the peer from sending. */
  private holdBack(hold: boolean): void {
    if (hold === this.paused) return;
    this.paused = hold;
    if (hold) this.net.pause();
    else this.net.resume();
  }

  pumpTx(): void {
    const { stream, out } = this;
    if (stream === undefined || this.over || this.sentEnd) return;
    for (let sentBytes = 0; !this.isWriting; ) {
      if (sentBytes >= TURN_BYTES) return this.pumpTxLater();
      const end = stream.transmit(out, 0, out.length);
      if (end === 0) break;
      this.send(end);
      sentBytes += end;
    }
    if (this.mayEnd()) this.sendEnd();
    else if (this.qp!.failed && !this.isLimited) this.limit('the peer takes no bytes any more');
  }

  /** What was received has its turn first. */
  private pumpTxLater(): void {
    if (this.isTxDeferred) return;
    this.isTxDeferred = true;
    this.owner.defer(() => {
      this.isTxDeferred = false;
      this.pumpTx();
    });
  }

  /** It ends within CLOSE_MS, whatever the peer does. */
  private limit(reason: string): void {
    this.isLimited = true;
    this.cancelTimer?.();
    this.cancelTimer = this.owner.setTimer(() => this.end(reason), CLOSE_MS);
  }

  /** Bytes [0, end) of `out`. */
  private send(end: number): void {
    this.owner.counters[BYTES_SENT]! += end;
    this.nrMoves++;
    this.isWriting = !this.net.write(this.out.subarray(0, end), () => {
      this.isWriting = false;
      this.nrMoves++;
      if (!this.over) this.pumpTx();
    });
  }

  /** Whether nothing more is to be sent: after the stream's end, or when all that was posted is done. */
  private mayEnd(): boolean {
    if (this.isWriting) return false;
    if (this.qp!.failed) return true;
    return this.closing && this.qp!.sq.isIdle() && this.stream!.txState === TX_IDLE;
  }

  private sendEnd(): void {
    this.sentEnd = true;
    this.qp!.fail(this.reason ?? 'disconnected', 0, false);
    this.net.end();
    this.limit('the peer does not close');
    if (this.peerEnded) this.end(undefined);
  }

  // The end.

  /** In order. */
  disconnect(): void {
    if (this.over) return;
    this.closing = true;
    if (this.stream === undefined) return this.end('disconnected before it was set up');
    this.pumpTx();
    if (!this.sentEnd && !this.isLimited) this.watch();
  }

  /** Until all that was posted is done: a peer with which nothing moves for CLOSE_MS is cut off. */
  private watch(): void {
    const { nrMoves } = this;
    this.cancelTimer = this.owner.setTimer(() => {
      if (this.nrMoves === nrMoves) this.end('the peer does not answer');
      else this.watch();
    }, CLOSE_MS);
  }

  ended(): void {
    if (this.over) return;
    this.peerEnded = true;
    if (this.stream === undefined) this.abort('ECONNRESET', 'the peer has closed the connection during the set-up');
    else this.pumpRx();
  }

  private peerClosed(): void {
    const qp = this.qp!;
    if (this.stream!.atBoundary && this.rxAt === this.rxEnd && !qp.failed) {
      this.inOrder = true;
      qp.fail('the peer has disconnected', 0, true);
    } else if (!qp.failed) {
      this.reason = 'the peer has closed the connection in the middle of a message';
      qp.lost(this.reason);
    }
    if (this.sentEnd) this.end(undefined);
  }

  closed(error: Error | undefined): void {
    if (this.over) return;
    const { code } = (error ?? {}) as { code?: string };
    if (this.stream === undefined)
      return this.abort(code ?? 'ECONNRESET', error?.message ?? 'the connection is closed');
    const reason = this.reason ?? error?.message ?? 'the connection is closed';
    if (!this.peerEnded && !this.qp!.failed) this.qp!.lost(reason);
    this.end(this.inOrder ? this.reason : reason);
  }

  /** The set-up has failed. */
  private abort(code: string, reason: string, privateData?: Uint8Array): void {
    if (this.over) return;
    if (this.setup.isKnown && this.stream === undefined)
      this.owner.post({ type: 'connectFailed', conn: this.id, code, reason, privateData });
    this.over = true;
    this.finish();
  }

  /** It is down. */
  private end(reason: string | undefined): void {
    if (this.over) return;
    this.over = true;
    if (this.stream !== undefined) {
      this.qp!.fail(reason ?? 'disconnected', 0, false);
      this.owner.post({ type: 'disconnected', conn: this.id, reason: this.reason ?? reason });
    }
    this.finish();
  }

  private finish(): void {
    this.setup.end();
    this.cancelTimer?.();
    if (this.stream === undefined && !this.closing) this.owner.linger(this.net);
    else this.net.destroy();
    this.owner.forget(this);
  }

  /** The queue pair, or the NIC, goes: at once. */
  destroy(): void {
    this.closing = true;
    this.end('destroyed');
    if (!this.over) this.abort('ECONNABORTED', 'destroyed');
  }
}
