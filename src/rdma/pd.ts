import { KernelError } from '../base/index.js';
import {
  type AdviseMrAdvice,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT,
  IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
  IBV_ADVISE_MR_FLAG_FLUSH,
} from './constants.js';
import type { ContextImpl } from './context.js';
import { Mr } from './mr.js';
import { adviseRegion } from './prefetch.js';
import { QpImpl } from './qp.js';
import { SrqImpl } from './srq.js';
import type { MemoryRegion, ProtectionDomain, QpInitAttr, Sge, SrqInitAttr } from './verbs.js';

/** Protection domains. */
export class Pd implements ProtectionDomain {
  readonly context: ContextImpl;
  readonly handle: number;
  private gone = false;

  constructor(context: ContextImpl, handle: number) {
    this.context = context;
    this.handle = handle;
  }

  private refuseGone(syscall: string): void {
    this.context.refuseClosed(syscall);
    if (this.gone) throw new KernelError('EINVAL', syscall, 'the protection domain was deallocated');
  }

  async regMr(addr: number, length: number, access: number): Promise<MemoryRegion> {
    return this.regMrIova(addr, length, addr, access);
  }

  async regMrIova(addr: number, length: number, iova: number, access: number): Promise<MemoryRegion> {
    this.refuseGone('regMr');
    return Mr.register(this.context, this, { addr, length, iova, access });
  }

  async adviseMr(advice: AdviseMrAdvice, flags: number, sgList: readonly Sge[]): Promise<void> {
    this.refuseGone('adviseMr');
    if (![0, 1, 2].includes(advice)) throw new KernelError('EINVAL', 'adviseMr', `advice ${advice} must be 0, 1 or 2`);
    if ((flags & ~IBV_ADVISE_MR_FLAG_FLUSH) !== 0)
      throw new KernelError(
        'EINVAL',
        'adviseMr',
        `flags 0x${flags.toString(16)} must be 0 or IBV_ADVISE_MR_FLAG_FLUSH`,
      );
    const parts = sgList.map((sge) => this.regionOf(sge, advice === IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE));
    const work = Promise.all(parts.map(({ mr, sge }) => adviseRegion(mr, sge, advice)));
    work.catch(() => {});
    const waits = (flags & IBV_ADVISE_MR_FLAG_FLUSH) !== 0 || advice === IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT;
    if (waits) await work;
  }

  private regionOf(sge: Sge, write: boolean): { mr: Mr; sge: Sge } {
    const mr = this.context.device.mrOf(sge.lkey);
    const where = `lkey 0x${sge.lkey.toString(16)}`;
    if (mr === undefined) throw new KernelError('ENOENT', 'adviseMr', `${where} must be a region's`);
    if (mr.pd !== this)
      throw new KernelError('EPERM', 'adviseMr', `${where} must be a region's of this protection domain`);
    if (mr.pinned !== undefined)
      throw new KernelError('EINVAL', 'adviseMr', `${where} must be registered with IBV_ACCESS_ON_DEMAND`);
    if (!(sge.addr >= mr.iova && sge.length >= 0 && sge.addr + sge.length <= mr.iova + mr.length))
      throw new KernelError('EFAULT', 'adviseMr', `[0x${sge.addr.toString(16)}, +${sge.length}) must be in the region`);
    if (write && (mr.access & IBV_ACCESS_LOCAL_WRITE) === 0)
      throw new KernelError('EPERM', 'adviseMr', `${where} must have IBV_ACCESS_LOCAL_WRITE`);
    return { mr, sge };
  }

  createQp(attr: QpInitAttr): QpImpl {
    this.refuseGone('createQp');
    return new QpImpl(this, attr);
  }

  createSrq(attr: SrqInitAttr): SrqImpl {
    this.refuseGone('createSrq');
    return new SrqImpl(this, attr);
  }

  deallocPd(): void {
    if (this.gone) throw new KernelError('EINVAL', 'deallocPd', 'the protection domain was deallocated before');
    if (this.context.uses(this))
      throw new KernelError('EBUSY', 'deallocPd', 'regions, queue pairs or shared receive queues are of it');
    this.gone = true;
    this.context.forgetPd(this);
  }
}
