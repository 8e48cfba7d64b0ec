import { KernelError } from '../base/index.js';
import { createRemote, type Mm, type RemoteArea } from '../mm/index.js';
import { CmIdImpl } from './cmid.js';
import {
  type AsyncEventType,
  IBV_ATOMIC_GLOB,
  IBV_EVENT_CQ_ERR,
  IBV_EVENT_DEVICE_FATAL,
  IBV_EVENT_QP_ACCESS_ERR,
  IBV_EVENT_QP_FATAL,
  IBV_EVENT_QP_LAST_WQE_REACHED,
  IBV_EVENT_SRQ_LIMIT_REACHED,
  IBV_ODP_SUPPORT,
  IBV_ODP_SUPPORT_ATOMIC,
  IBV_ODP_SUPPORT_IMPLICIT,
  IBV_ODP_SUPPORT_READ,
  IBV_ODP_SUPPORT_RECV,
  IBV_ODP_SUPPORT_SEND,
  IBV_ODP_SUPPORT_SRQ_RECV,
  IBV_ODP_SUPPORT_WRITE,
  IBV_TRANSPORT_IWARP,
} from './constants.js';
import { CompChannelImpl, CqImpl, MAX_CQE } from './cq.js';
import type { DeviceImpl } from './device.js';
import { MAX_MR_BYTES, type Mr } from './mr.js';
import type { FromNic } from './nic/messages.js';
import type { NicPages } from './nic/nicmemory.js';
import { Pd } from './pd.js';
import { MAX_QP_WR, MAX_RD_ATOM, MAX_SGE, type QpImpl } from './qp.js';
import type { SrqImpl } from './srq.js';
import type { AsyncEvent, CompChannel, Context, DeviceAttrEx } from './verbs.js';

/** A user of a device: an mm, and what it has registered, made and connected. Messages of the NIC find their addressee here. */

const ODP_OPS =
  IBV_ODP_SUPPORT_SEND |
  IBV_ODP_SUPPORT_RECV |
  IBV_ODP_SUPPORT_WRITE |
  IBV_ODP_SUPPORT_READ |
  IBV_ODP_SUPPORT_ATOMIC |
  IBV_ODP_SUPPORT_SRQ_RECV;

const MAX_OF_EACH = 65536;

export class ContextImpl implements Context {
  readonly device: DeviceImpl;
  readonly mm: Mm;
  readonly id: number;
  onAsyncEvent: ((event: AsyncEvent) => void) | undefined;
  /** For a NIC on this thread. */
  readonly pages: NicPages;
  /** For a NIC in a thread of its own: frames that it may map by itself. */
  readonly area: RemoteArea | undefined;
  readonly mrs = new Set<Mr>();
  private readonly pds = new Set<Pd>();
  private readonly cqs = new Map<number, CqImpl>();
  private readonly srqs = new Map<number, SrqImpl>();
  private readonly qps = new Map<number, QpImpl>();
  private readonly ids = new Map<number, CmIdImpl>();
  private readonly channels = new Set<CompChannelImpl>();
  private onClosedByNic: () => void = () => {};
  private isGone = false;
  private nrPds = 0;
  private closing: Promise<void> | undefined;

  constructor(device: DeviceImpl, mm: Mm, id: number) {
    this.device = device;
    this.mm = mm;
    this.id = id;
    this.pages = {
      tryGetPage: (va, flags) => mm.tryGetPage(va, flags),
      putPage: (pfn) => mm.putPage(pfn),
      mapZero: () => -1,
    };
    if (device.threaded) {
      this.area = createRemote(mm);
      this.area.refill();
    }
    device.send({ type: 'openContext', context: id, remote: this.area?.descriptor });
  }

  get nrQps(): number {
    return this.qps.size;
  }

  queryDeviceEx(): DeviceAttrEx {
    return {
      origAttr: {
        fwVer: '1.0',
        maxMrSize: MAX_MR_BYTES,
        pageSizeCap: 4096,
        maxQp: MAX_OF_EACH,
        maxQpWr: MAX_QP_WR,
        maxSge: MAX_SGE,
        maxCq: MAX_OF_EACH,
        maxCqe: MAX_CQE,
        maxMr: this.device.regions.nrSlots,
        maxPd: MAX_OF_EACH,
        maxQpRdAtom: MAX_RD_ATOM,
        maxQpInitRdAtom: MAX_RD_ATOM,
        atomicCap: IBV_ATOMIC_GLOB,
        maxSrq: MAX_OF_EACH,
        maxSrqWr: MAX_QP_WR,
        maxSrqSge: MAX_SGE,
      },
      transport: IBV_TRANSPORT_IWARP,
      odpCaps: {
        generalCaps: IBV_ODP_SUPPORT | IBV_ODP_SUPPORT_IMPLICIT,
        perTransportCaps: { rcOdpCaps: ODP_OPS, ucOdpCaps: 0, udOdpCaps: 0 },
      },
    };
  }

  refuseClosed(syscall: string): void {
    this.device.refuseDead(syscall);
    if (this.closing !== undefined) throw new KernelError('ENODEV', syscall, 'the context is closed');
  }

  allocPd(): Pd {
    this.refuseClosed('allocPd');
    // Handles are unique over the device: a region of another context never fits.
    const pd = new Pd(this, this.id * MAX_OF_EACH + ++this.nrPds);
    this.pds.add(pd);
    return pd;
  }

  forgetPd(pd: Pd): void {
    this.pds.delete(pd);
  }

  createCompChannel(): CompChannel {
    this.refuseClosed('createCompChannel');
    const channel = new CompChannelImpl();
    this.channels.add(channel);
    return channel;
  }

  createCq(cqe: number, options: { channel?: CompChannel; cqContext?: unknown } = {}): CqImpl {
    this.refuseClosed('createCq');
    const cq = new CqImpl(this, cqe, options.channel as CompChannelImpl | undefined, options.cqContext);
    this.cqs.set(cq.address, cq);
    return cq;
  }

  forgetCq(cq: CqImpl): void {
    this.cqs.delete(cq.address);
  }

  createId(): CmIdImpl {
    this.refuseClosed('createId');
    return this.addId(new CmIdImpl(this, this.device.newConn()));
  }

  addId(id: CmIdImpl): CmIdImpl {
    this.ids.set(id.conn, id);
    return id;
  }

  forgetId(id: CmIdImpl): void {
    this.ids.delete(id.conn);
  }

  addMr(mr: Mr): void {
    this.mrs.add(mr);
  }

  removeMr(mr: Mr): void {
    this.mrs.delete(mr);
  }

  addQp(qp: QpImpl): void {
    this.qps.set(qp.qpNum, qp);
  }

  addSrq(srq: SrqImpl): void {
    this.srqs.set(srq.address, srq);
  }

  forgetSrq(srq: SrqImpl): void {
    this.srqs.delete(srq.address);
  }

  uses(pd: Pd): boolean {
    const has = (things: Iterable<{ pd: unknown }>): boolean => [...things].some((thing) => thing.pd === pd);
    return has(this.mrs) || has(this.qps.values()) || has(this.srqs.values());
  }

  /** Whether the message is for this context. */
  receive(message: FromNic): boolean {
    switch (message.type) {
      case 'cqEvent':
        return this.with(this.cqs.get(message.cqAddr), (cq) => cq.notified());
      case 'cqOverrun':
        return this.with(this.cqs.get(message.cqAddr), (cq) =>
          this.event(IBV_EVENT_CQ_ERR, 'a completion found no room in its queue', { cq }),
        );
      case 'srqLimit':
        return this.with(this.srqs.get(message.srqAddr), (srq) =>
          this.event(IBV_EVENT_SRQ_LIMIT_REACHED, 'fewer buffers are left than the limit', { srq }),
        );
      case 'qpError':
        return this.with(this.qps.get(message.qpNum), (qp) => this.qpFailed(qp, message));
      case 'qpGone':
        return this.with(this.qps.get(message.qpNum), (qp) => {
          this.qps.delete(qp.qpNum);
          qp.gone();
        });
      case 'contextClosed':
        if (message.context === this.id) this.onClosedByNic();
        return message.context === this.id;
      default:
        return this.receiveCm(message);
    }
  }

  private receiveCm(message: FromNic): boolean {
    if (message.type === 'connectRequest')
      return this.with(this.ids.get(message.listener), (id) => id.requested(message));
    if (!('conn' in message)) return false;
    return this.with(this.ids.get(message.conn), (id) => id.receive(message));
  }

  private with<T>(thing: T | undefined, use: (thing: T) => void): boolean {
    if (thing === undefined) return false;
    use(thing);
    return true;
  }

  private qpFailed(qp: QpImpl, { reason, code, byPeer }: FromNic & { type: 'qpError' }): void {
    qp.failed(reason);
    if (code !== 0) this.event(byPeer ? IBV_EVENT_QP_ACCESS_ERR : IBV_EVENT_QP_FATAL, reason, { qp });
    if (qp.srq !== undefined) this.event(IBV_EVENT_QP_LAST_WQE_REACHED, reason, { qp });
  }

  private event(eventType: AsyncEventType, reason: string, of: Partial<AsyncEvent>): void {
    this.onAsyncEvent?.({ eventType, reason, ...of });
  }

  deviceDied(reason: string): void {
    for (const id of [...this.ids.values()]) id.deviceDied(reason);
    for (const qp of this.qps.values()) qp.failed(reason);
    this.isGone = true;
    this.area?.recover();
    this.onClosedByNic();
    this.event(IBV_EVENT_DEVICE_FATAL, reason, {});
    for (const cq of this.cqs.values()) cq.notified();
  }

  close(): Promise<void> {
    return (this.closing ??= this.closeAll());
  }

  private async closeAll(): Promise<void> {
    for (const id of [...this.ids.values()]) id.destroyId();
    for (const qp of [...this.qps.values()]) qp.destroyQp();
    // Regions go when no connection is there any more: a peer hears of the end, not of a key that is void.
    await this.closeInNic();
    for (const mr of [...this.mrs]) await mr.deregMr();
    for (const qp of [...this.qps.values()]) qp.gone();
    this.qps.clear();
    for (const srq of [...this.srqs.values()]) srq.destroySrq();
    for (const cq of [...this.cqs.values()]) cq.destroyCq();
    for (const channel of this.channels) channel.end();
    this.area?.destroy();
    this.device.contexts.delete(this.id);
  }

  /** When it resolves the NIC uses nothing of it any more. */
  private async closeInNic(): Promise<void> {
    if (this.isGone || this.device.dead !== undefined) return;
    const closed = new Promise<void>((resolve) => {
      this.onClosedByNic = resolve;
    });
    this.device.send({ type: 'closeContext', context: this.id });
    await closed;
  }
}
