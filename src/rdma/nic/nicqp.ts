import type { WasmMemory, Words } from '../../base/index.js';
import {
  IBV_ACCESS_REMOTE_ATOMIC,
  IBV_ACCESS_REMOTE_READ,
  IBV_ACCESS_REMOTE_WRITE,
  IBV_WC_LOC_LEN_ERR,
  IBV_WC_RECV,
  IBV_WC_RECV_RDMA_WITH_IMM,
  IBV_WC_RETRY_EXC_ERR,
  IBV_WC_SUCCESS,
  IBV_WC_WITH_IMM,
  IBV_WC_WITH_INV,
  IBV_WC_WR_FLUSH_ERR,
  type WcStatus,
} from '../constants.js';
import {
  type AtomicRequest,
  RDMAP_IMMEDIATE,
  RDMAP_IMMEDIATE_SE,
  RDMAP_READ_RESPONSE,
  type RdmaStream,
  type RxMessage,
  refuse,
  type StreamEnd,
  type StreamOwner,
  TERM_DDP_LOCAL_CATASTROPHIC,
  TERM_DDP_NO_BUFFER,
  TERM_DDP_TOO_LONG,
  type TxMessage,
} from '../wire/index.js';
import { Access } from './access.js';
import { doAtomic } from './atomic.js';
import type { FromNic, QpPlace } from './messages.js';
import type { NicMemory } from './nicmemory.js';
import { Receive, type RecvQueue } from './recvqueue.js';
import { type Cqe, CqRing, NOTIFY_ANY, NOTIFY_SOLICITED } from './rings.js';
import { IMMEDIATE_OF_SEND, SendQueue } from './sendqueue.js';
import { localStatus, refuseInvalidation, refusePlacement, refuseSource, remoteStatus } from './wcstatus.js';

/**
 * A queue pair in the NIC: between its queues, the memory, and its connection's stream. Every key that the peer or the user names is looked at against the protection
 * domain, rights and bounds for each piece that is moved (nicmemory.ts).
 *
 *   made -> (attached to a connection) -> ready -> failed: all that is posted is flushed, and all that will be
 */

const MAX_RECV_SGE = 32;
/** A peer ends the keys of regions that it may reach at all. */
const REMOTE_RIGHTS = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

export interface QpOwner {
  readonly memory: WasmMemory;
  readonly words: Words;
  readonly nicMemory: NicMemory;
  /** Pages of a window of read-ahead, at most. */
  readonly maxWindow: number;
  recvQueueAt(address: number): RecvQueue;
  post(message: FromNic): void;
  /** There is a completion; `cqAddr`: the event of that queue is due, or 0. */
  completed(cqAddr: number): void;
}

export class NicQp implements StreamOwner {
  readonly where: QpPlace;
  readonly sq: SendQueue;
  /** The connection's; set when it is attached. */
  stream: RdmaStream | undefined;
  /** Called when memory that was waited for may be there. */
  onResumeRx: () => void = () => {};
  onResumeTx: () => void = () => {};
  /** The stream is at its end. */
  onEnded: (end: StreamEnd) => void = () => {};
  failed = false;
  ready = false;
  private readonly owner: QpOwner;
  private readonly rq: RecvQueue;
  private readonly rx: Access;
  private readonly tx: Access;
  private readonly receive = new Receive(MAX_RECV_SGE);
  private receiveStatus: WcStatus = IBV_WC_WR_FLUSH_ERR;
  private readonly sendCq: CqRing;
  private readonly recvCq: CqRing;
  private readonly cqe: Cqe;
  private readonly big: BigInt64Array;
  private vendorErr = 0;
  /** Immediate data that belongs to the next SEND, or -1. */
  private immediate = -1;

  constructor(owner: QpOwner, place: QpPlace) {
    const { memory, words } = owner;
    this.owner = owner;
    this.where = place;
    this.sendCq = new CqRing(words, place.sendCqAddr);
    this.recvCq = new CqRing(words, place.recvCqAddr);
    this.rq = owner.recvQueueAt(place.rqAddr);
    this.rx = new Access(() => this.onResumeRx(), owner.maxWindow);
    this.tx = new Access(() => this.onResumeTx(), owner.maxWindow);
    this.big = new BigInt64Array(memory.buffer);
    this.sq = new SendQueue(words, memory, place.sqAddr, place.qpNum, {
      memory: owner.nicMemory,
      pd: place.pd,
      sqSigAll: place.sqSigAll,
      complete: (cqe) => this.push(this.sendCq, place.sendCqAddr, cqe, false),
      failed: (reason) => this.fail(reason, 0, false),
      nrOutstanding: () => this.stream?.nrOutstanding ?? 0,
    });
    this.cqe = {
      wrId: 0,
      status: IBV_WC_SUCCESS,
      opcode: IBV_WC_RECV,
      byteLen: 0,
      immData: 0,
      wcFlags: 0,
      qpNum: place.qpNum,
      vendorErr: 0,
      invalidatedRkey: 0,
    };
  }

  /** Completions of failures are solicited. */
  private push(cq: CqRing, cqAddr: number, cqe: Cqe, solicited: boolean): void {
    if (!cq.push(cqe)) {
      this.owner.post({ type: 'cqOverrun', cqAddr });
      return;
    }
    const armed = cq.armed();
    const wanted = armed === NOTIFY_ANY || (armed === NOTIFY_SOLICITED && (solicited || cqe.status !== IBV_WC_SUCCESS));
    this.owner.completed(wanted && cq.exchangeArmed(0) !== 0 ? cqAddr : 0);
  }

  // Receiving: tagged.

  checkPlacement(opcode: number, stag: number, to: number, lenBytes: number): number {
    if (opcode === RDMAP_READ_RESPONSE) return 0;
    const { nicMemory } = this.owner;
    const failed = nicMemory.check(stag, to, lenBytes, IBV_ACCESS_REMOTE_WRITE, this.where.pd);
    return failed === 0 ? 0 : refusePlacement(failed);
  }

  place(opcode: number, stag: number, to: number, bytes: Uint8Array, start: number, end: number): number {
    if (opcode === RDMAP_READ_RESPONSE) return this.sq.place(this.rx, stag, to, bytes, start, end);
    const { nicMemory } = this.owner;
    const result = nicMemory.write(this.rx, stag, to, IBV_ACCESS_REMOTE_WRITE, this.where.pd, bytes, start, end);
    return result < 0 ? refusePlacement(result) : result;
  }

  // Receiving: queue 0.

  beginReceive(opcode: number): number {
    if (this.rq.isEmpty()) return refuse(TERM_DDP_NO_BUFFER);
    // Whether it takes a receive is told by what is in it.
    if (opcode === RDMAP_IMMEDIATE || opcode === RDMAP_IMMEDIATE_SE) return 0;
    this.takeReceive();
    return Math.min(this.receive.lenBytes, 0xffff_ffff);
  }

  private takeReceive(): boolean {
    if (!this.rq.take(this.receive)) return false;
    this.receiveStatus = IBV_WC_WR_FLUSH_ERR;
    if (this.where.isSrq && this.rq.takeLimit()) this.owner.post({ type: 'srqLimit', srqAddr: this.rq.address });
    return true;
  }

  placeReceive(offset: number, bytes: Uint8Array, start: number, end: number): number {
    const { nicMemory } = this.owner;
    const result = this.receive.place(nicMemory, this.rx, this.where.pd, offset, bytes, start, end);
    if (result >= 0) return result;
    this.receiveStatus = localStatus(result);
    return refuse(TERM_DDP_LOCAL_CATASTROPHIC);
  }

  endReceive(message: RxMessage): number {
    const isImmediate = message.opcode === RDMAP_IMMEDIATE || message.opcode === RDMAP_IMMEDIATE_SE;
    if (isImmediate && message.immediateHigh === IMMEDIATE_OF_SEND) {
      this.immediate = message.immediateLow >>> 0;
      return 0;
    }
    if (isImmediate && !this.takeReceive()) return refuse(TERM_DDP_NO_BUFFER);
    if (message.invalidate) {
      const failed = this.owner.nicMemory.invalidate(message.invalidateStag, this.where.pd, REMOTE_RIGHTS);
      if (failed !== 0) return refuseInvalidation(failed);
    }
    this.completeReceive(message, isImmediate);
    return 0;
  }

  private completeReceive(message: RxMessage, isImmediate: boolean): void {
    const { cqe, receive } = this;
    receive.active = false;
    cqe.wrId = receive.wrId;
    cqe.status = IBV_WC_SUCCESS;
    cqe.opcode = isImmediate ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV;
    cqe.byteLen = message.lenBytes;
    const hasImmediate = isImmediate || this.immediate >= 0;
    cqe.immData = isImmediate ? message.immediateLow : Math.max(this.immediate, 0);
    cqe.wcFlags = (hasImmediate ? IBV_WC_WITH_IMM : 0) | (message.invalidate ? IBV_WC_WITH_INV : 0);
    cqe.invalidatedRkey = message.invalidate ? message.invalidateStag : 0;
    cqe.vendorErr = 0;
    this.immediate = -1;
    this.push(this.recvCq, this.where.recvCqAddr, cqe, message.solicited);
  }

  // Receiving: the peer's reads and atomics.

  checkSource(stag: number, to: number, lenBytes: number): number {
    const { nicMemory } = this.owner;
    const failed = nicMemory.check(stag, to, lenBytes, IBV_ACCESS_REMOTE_READ, this.where.pd);
    if (failed !== 0) return refuseSource(failed);
    this.tx.beginMessage(stag, to, lenBytes);
    return 0;
  }

  fetchSource(stag: number, to: number, out: Uint8Array, at: number, lenBytes: number): number {
    const { nicMemory } = this.owner;
    const result = nicMemory.read(this.tx, stag, to, IBV_ACCESS_REMOTE_READ, this.where.pd, out, at, lenBytes);
    return result < 0 ? refuseSource(result) : result;
  }

  atomic(request: AtomicRequest): number {
    const { nicMemory } = this.owner;
    const use = (pa: number): void => doAtomic(this.big, pa, request);
    const result = nicMemory.withWord(this.tx, request.stag, request.to, IBV_ACCESS_REMOTE_ATOMIC, this.where.pd, use);
    return result < 0 ? refuseSource(result) : result;
  }

  // Sending.

  nextMessage(message: TxMessage): boolean {
    return !this.failed && this.sq.nextMessage(message);
  }

  fetch(message: TxMessage, offset: number, out: Uint8Array, at: number, lenBytes: number): number {
    return this.sq.fetch(this.tx, message, offset, out, at, lenBytes);
  }

  sent(message: TxMessage): void {
    this.sq.sent(message);
  }

  readDone(id: number): void {
    this.sq.readDone(id);
  }

  completeAtomic(id: number, original: bigint): number {
    return this.sq.completeAtomic(this.rx, id, original);
  }

  ended(end: StreamEnd): void {
    this.vendorErr = end.code;
    if (end.byPeer && end.failedId >= 0) this.sq.fail(end.failedId, remoteStatus(end.code), end.code);
    if (!end.byPeer && end.code === TERM_DDP_TOO_LONG && this.receive.active) this.receiveStatus = IBV_WC_LOC_LEN_ERR;
    const reason = end.byPeer ? `the peer has ended the connection: ${end.reason}` : this.withWhy(end.reason);
    this.fail(reason, end.code, end.byPeer);
    this.onEnded({ ...end, reason });
  }

  /** A Terminate message has but a code for "no memory" and "damaged in swap"; here it is told which. */
  private withWhy(reason: string): string {
    const why = this.rx.why ?? this.tx.why;
    return why === undefined ? reason : `${reason}: ${why}`;
  }

  /** The connection is lost. */
  lost(reason: string): void {
    if (this.failed) return;
    this.sq.failOldest(IBV_WC_RETRY_EXC_ERR);
    this.fail(reason, 0, false);
  }

  /** Into the error state. */
  fail(reason: string, code: number, byPeer: boolean): void {
    if (this.failed) return;
    this.failed = true;
    this.ready = false;
    this.owner.post({ type: 'qpError', qpNum: this.where.qpNum, reason, code, byPeer });
    this.flush();
  }

  /** All that is posted and not done completes as flushed; a shared queue's buffers stay, but for the one in use. */
  flush(): void {
    this.sq.flush();
    if (this.receive.active) this.flushReceive(this.receiveStatus);
    while (!this.where.isSrq && this.rq.take(this.receive)) this.flushReceive(IBV_WC_WR_FLUSH_ERR);
  }

  private flushReceive(status: WcStatus): void {
    const { cqe, receive } = this;
    receive.active = false;
    cqe.wrId = receive.wrId;
    cqe.status = status;
    cqe.opcode = IBV_WC_RECV;
    cqe.byteLen = 0;
    cqe.wcFlags = 0;
    cqe.vendorErr = status === IBV_WC_WR_FLUSH_ERR ? 0 : this.vendorErr;
    this.push(this.recvCq, this.where.recvCqAddr, cqe, true);
  }
}
