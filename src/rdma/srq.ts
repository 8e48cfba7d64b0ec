import { KernelError } from '../base/index.js';
import type { ContextImpl } from './context.js';
import { ringBytes, WorkRing, wqeStrideWords } from './nic/rings.js';
import type { Pd } from './pd.js';
import { postReceives } from './postwr.js';
import { MAX_QP_WR, MAX_SGE } from './qp.js';
import type { RecvWr, SharedReceiveQueue, SrqInitAttr } from './verbs.js';

/** Shared receive queues: one ring, from which the NIC takes for whichever queue pair a message comes to. */
export class SrqImpl implements SharedReceiveQueue {
  readonly pd: Pd;
  readonly address: number;
  nrUsers = 0;
  nrNicUsers = 0;
  private readonly context: ContextImpl;
  private readonly ring: WorkRing;
  private readonly maxWr: number;
  private readonly maxSge: number;
  private readonly lenBytes: number;
  private destroyed = false;

  /** Throws KernelError EINVAL, ENOMEM (arena). */
  constructor(pd: Pd, { maxWr, maxSge, srqLimit = 0 }: SrqInitAttr) {
    const check = (name: string, value: number, low: number, high: number): void => {
      if (!Number.isInteger(value) || value < low || value > high)
        throw new KernelError('EINVAL', 'createSrq', `${name} ${value} must be from ${low} to ${high}`);
    };
    check('maxWr', maxWr, 1, MAX_QP_WR);
    check('maxSge', maxSge, 1, MAX_SGE);
    check('srqLimit', srqLimit, 0, maxWr);
    this.pd = pd;
    this.context = pd.context;
    this.maxWr = maxWr;
    this.maxSge = maxSge;
    const stride = wqeStrideWords(maxSge);
    this.lenBytes = ringBytes(maxWr, stride);
    this.address = this.context.device.allocZeroed(this.lenBytes, 16);
    this.ring = new WorkRing(this.context.device.words, this.address).init(maxWr, stride) as WorkRing;
    this.ring.arm(srqLimit);
    this.context.addSrq(this);
  }

  postSrqRecv(...wrs: readonly RecvWr[]): void {
    this.refuseDestroyed('postSrqRecv');
    postReceives('postSrqRecv', this.ring, this.maxSge, this.maxWr, wrs);
  }

  refuseDestroyed(syscall: string): void {
    if (this.destroyed) throw new KernelError('EINVAL', syscall, 'the shared receive queue was destroyed');
  }

  modifySrq({ srqLimit }: { srqLimit: number }): void {
    this.refuseDestroyed('modifySrq');
    if (!Number.isInteger(srqLimit) || srqLimit < 0 || srqLimit > this.maxWr)
      throw new KernelError('EINVAL', 'modifySrq', `srqLimit ${srqLimit} must be from 0 to ${this.maxWr}`);
    this.ring.arm(srqLimit);
  }

  destroySrq(): void {
    if (this.destroyed) return;
    if (this.nrUsers > 0) throw new KernelError('EBUSY', 'destroySrq', `${this.nrUsers} queue pairs use it`);
    this.destroyed = true;
    this.context.forgetSrq(this);
    this.freeIfUnused();
  }

  freeIfUnused(): void {
    if (this.destroyed && this.nrNicUsers === 0) this.context.device.host.arenaFree(this.address, this.lenBytes);
  }
}
