import { KernelError } from '../base/index.js';
import { IBV_QPS_ERR, IBV_QPS_INIT, IBV_QPS_RTS, type QpState } from './constants.js';
import type { ContextImpl } from './context.js';
import type { CqImpl } from './cq.js';
import { connectionBytes } from './nic/connection.js';
import { ringBytes, WorkRing, wqeStrideWords } from './nic/rings.js';
import type { Pd } from './pd.js';
import { postReceives, writeSendWr } from './postwr.js';
import type { SrqImpl } from './srq.js';
import type { QpCap, QpInitAttr, QueuePair, RecvWr, SendWr } from './verbs.js';

/**
 * Queue pairs, as their user has them: rings that the NIC works off, and a doorbell.
 *
 *   user                                   NIC
 *   writes the entry, moves HEAD           doorbell: ARMED = 0
 *   ARMED was 0? then 1, and a message     looks at HEAD
 *
 * Required outcome: what was posted is seen: either the NIC looks after HEAD has moved, or ARMED was 0, and a message is under way.
 */

export const MAX_QP_WR = 16384;
export const MAX_SGE = 32;
export const MAX_RD_ATOM = 64;
const MAX_INLINE = 1024;
const DEFAULT_CAP: QpCap = { maxSendWr: 16, maxRecvWr: 16, maxSendSge: 4, maxRecvSge: 4, maxInlineData: 64 };

function checkCap(cap: QpCap): void {
  const check = (name: keyof QpCap, low: number, high: number): void => {
    if (!Number.isInteger(cap[name]) || cap[name] < low || cap[name] > high)
      throw new KernelError('EINVAL', 'createQp', `${name} ${cap[name]} must be from ${low} to ${high}`);
  };
  check('maxSendWr', 0, MAX_QP_WR);
  check('maxRecvWr', 0, MAX_QP_WR);
  check('maxSendSge', 0, MAX_SGE);
  check('maxRecvSge', 0, MAX_SGE);
  check('maxInlineData', 0, MAX_INLINE);
}

export class QpImpl implements QueuePair {
  readonly pd: Pd;
  readonly qpNum: number;
  readonly sendCq: CqImpl;
  readonly recvCq: CqImpl;
  readonly srq: SrqImpl | undefined;
  readonly qpContext: unknown;
  readonly cap: QpCap;
  state: QpState = IBV_QPS_INIT;
  reason: string | undefined;
  /** A connection has it. */
  connected = false;
  private readonly context: ContextImpl;
  private readonly sq: WorkRing;
  private readonly rq: WorkRing | undefined;
  private readonly blocks: { addr: number; lenBytes: number }[] = [];
  private destroyed = false;

  /** Throws KernelError EINVAL, ENOMEM (arena). */
  constructor(pd: Pd, attr: QpInitAttr) {
    const { context } = pd;
    const { device } = context;
    this.context = context;
    this.pd = pd;
    this.cap = { ...DEFAULT_CAP, ...attr.cap };
    checkCap(this.cap);
    this.sendCq = attr.sendCq as CqImpl;
    this.recvCq = attr.recvCq as CqImpl;
    this.srq = attr.srq as SrqImpl | undefined;
    this.qpContext = attr.qpContext;
    if (this.sendCq.context !== context || this.recvCq.context !== context || (this.srq?.pd ?? pd) !== pd)
      throw new KernelError(
        'EINVAL',
        'createQp',
        'queues must be of the same context, and srq of the same protection domain',
      );
    for (const queue of [this.sendCq, this.recvCq, this.srq]) queue?.refuseDestroyed('createQp');
    const { maxSendWr, maxRecvWr, maxSendSge, maxRecvSge, maxInlineData } = this.cap;
    const sqStride = wqeStrideWords(maxSendSge, maxInlineData);
    const rqStride = wqeStrideWords(maxRecvSge);
    try {
      this.sq = new WorkRing(device.words, this.block(ringBytes(maxSendWr, sqStride))).init(
        maxSendWr,
        sqStride,
      ) as WorkRing;
      if (this.srq === undefined)
        this.rq = new WorkRing(device.words, this.block(ringBytes(maxRecvWr, rqStride))).init(
          maxRecvWr,
          rqStride,
        ) as WorkRing;
      this.qpNum = device.newQpNum();
      const { rxBytes, txBytes } = connectionBytes(device.bufferBytes);
      this.sendToNic(attr.sqSigAll ?? false, this.block(rxBytes), this.block(txBytes));
    } catch (error) {
      this.freeBlocks();
      throw error;
    }
    this.count(1);
    context.addQp(this);
  }

  private block(lenBytes: number): number {
    const addr = this.context.device.allocZeroed(lenBytes, 16);
    this.blocks.push({ addr, lenBytes });
    return addr;
  }

  private freeBlocks(): void {
    for (const { addr, lenBytes } of this.blocks.splice(0)) this.context.device.host.arenaFree(addr, lenBytes);
  }

  private sendToNic(sqSigAll: boolean, rxAddr: number, txAddr: number): void {
    const { device } = this.context;
    device.send({
      type: 'createQp',
      place: {
        qpNum: this.qpNum,
        pd: this.pd.handle,
        sqAddr: this.sq.base * 4,
        rqAddr: this.srq?.address ?? this.rq!.base * 4,
        isSrq: this.srq !== undefined,
        sendCqAddr: this.sendCq.address,
        recvCqAddr: this.recvCq.address,
        sqSigAll,
        rxAddr,
        txAddr,
        bufferBytes: device.bufferBytes,
      },
    });
  }

  private count(by: number): void {
    for (const user of [this.sendCq, this.recvCq, this.srq]) {
      if (user === undefined) continue;
      user.nrUsers += by;
      if (by > 0) user.nrNicUsers += by;
    }
  }

  private refuseDestroyed(syscall: string): void {
    if (this.destroyed) throw new KernelError('EINVAL', syscall, `queue pair ${this.qpNum} was destroyed`);
  }

  postSend(...wrs: readonly SendWr[]): void {
    this.refuseDestroyed('postSend');
    if (this.state !== IBV_QPS_RTS && this.state !== IBV_QPS_ERR)
      throw new KernelError('EINVAL', 'postSend', `queue pair ${this.qpNum} must be connected first`);
    try {
      for (const wr of wrs) this.postOne(wr);
    } finally {
      this.ring();
    }
  }

  private postOne(wr: SendWr): void {
    const { sq } = this;
    if (sq.used() >= this.cap.maxSendWr)
      throw new KernelError('ENOMEM', 'postSend', `${this.cap.maxSendWr} requests are outstanding already (maxSendWr)`);
    const head = sq.head();
    writeSendWr(sq, this.context.device.host.u8, sq.entryOf(head), wr, this.cap);
    sq.setHead(head + 1);
  }

  /** Pairs with the NIC's look at the ring. */
  private ring(): void {
    if (this.sq.exchangeArmed(1) === 0) this.context.device.send({ type: 'doorbell', qpNum: this.qpNum });
  }

  postRecv(...wrs: readonly RecvWr[]): void {
    this.refuseDestroyed('postRecv');
    if (this.rq === undefined)
      throw new KernelError('EINVAL', 'postRecv', 'it receives from a shared queue: postSrqRecv');
    try {
      postReceives('postRecv', this.rq, this.cap.maxRecvSge, this.cap.maxRecvWr, wrs);
    } finally {
      if (this.state === IBV_QPS_ERR) this.ring();
    }
  }

  modifyQp(state: QpState): void {
    this.refuseDestroyed('modifyQp');
    if (state !== IBV_QPS_ERR)
      throw new KernelError(
        'EINVAL',
        'modifyQp',
        `state ${state} must be IBV_QPS_ERR: the connection manager does the rest`,
      );
    if (this.state === IBV_QPS_ERR) return;
    this.state = IBV_QPS_ERR;
    this.context.device.send({ type: 'failQp', qpNum: this.qpNum, reason: 'modifyQp to the error state' });
  }

  /** The connection stands. */
  ready(): void {
    if (this.state === IBV_QPS_INIT) this.state = IBV_QPS_RTS;
  }

  /** The NIC has put it into the error state. What was posted before we knew is flushed too. */
  failed(reason: string): void {
    this.state = IBV_QPS_ERR;
    this.reason ??= reason;
    if (!this.destroyed) this.ring();
  }

  destroyQp(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.count(-1);
    this.context.device.send({ type: 'destroyQp', qpNum: this.qpNum });
  }

  get isDestroyed(): boolean {
    return this.destroyed;
  }

  /** The NIC uses nothing of it any more. */
  gone(): void {
    if (!this.destroyed) this.destroyQp();
    if (this.blocks.length === 0) return;
    this.freeBlocks();
    for (const user of [this.sendCq, this.recvCq, this.srq]) {
      if (user === undefined) continue;
      user.nrNicUsers--;
      user.freeIfUnused();
    }
  }
}
