import type { Host, Mm } from '../mm/index.js';
import type { CmId } from './cm.js';
import type { AdviseMrAdvice, AsyncEventType, QpState, WcOpcode, WcStatus, WrOpcode } from './constants.js';

/**
 * The verbs: libibverbs as TypeScript has it. Each verb is a method of its first argument, under its own name in camelCase, and so are the fields of
 * its structures. Addresses and lengths are bytes; addresses are those of the context's mm, or iovas, below 2^53. What a verb refuses is a
 * KernelError with the errno of libibverbs; what goes wrong with posted work is the status of its completion.
 *
 *   const device = openDevice(host, env)                    a NIC in this host, perhaps in a thread of its own
 *   const context = device.openContext(mm)                  its user: regions are over this mm
 *   const pd = context.allocPd()
 *   const mr = await pd.regMr(va, length, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ON_DEMAND)
 *   const cq = context.createCq(64)
 *   const id = context.createId(); await id.resolveAddr({ host, port })
 *   const qp = id.createQp(pd, { sendCq: cq, recvCq: cq, cap: {...} }); await id.connect()
 *   qp.postSend({ wrId: 1, opcode: IBV_WR_RDMA_WRITE, sendFlags: IBV_SEND_SIGNALED, sgList: [...], remoteAddr, rkey })
 *   for await (const wc of cq) ...
 *   await id.disconnect(); qp.destroyQp(); ...; await context.close(); await device.close()
 */

/** A NIC of a host (ibv_device), and the thread that it may have. */
export interface Device {
  readonly name: string;
  readonly host: Host;
  /** Its users, an mm each or several of one (ibv_open_device). Throws KernelError ENODEV (closed, dead), EFAULT (exited), ENOMEM. */
  openContext(mm: Mm): Context;
  /** Counters since it was opened. */
  stats(): DeviceStats;
  /** Ends connections, contexts and the thread. */
  close(): Promise<void>;
}

/** What the counters of a device say; those of pages as Linux's `rdma statistic` names them. */
export interface DeviceStats {
  /** Network faults: pages that were present or zeros, and those that waited for I/O or a frame. */
  minorFaults: number;
  majorFaults: number;
  /** Faults that a bracket came between, and that were done again. */
  retries: number;
  /** Entries that notifiers took away; pages brought by `adviseMr`. */
  pageInvalidations: number;
  pagePrefetches: number;
  /** How often a notifier waited for a copy to end. */
  copyWaits: number;
  /** Frames that regions without IBV_ACCESS_ON_DEMAND pin. */
  pinnedPages: number;
  /** Pages with a reference until the NIC has had its turn with them, after a fault. */
  heldPages: number;
  /** On the wire, after the set-up. */
  bytesReceived: number;
  bytesSent: number;
  /** Connections that were ended for a breach of the protocol or of protection, by either side. */
  terminatesSent: number;
  terminatesReceived: number;
  nrQps: number;
  nrMrs: number;
}

export interface AsyncEvent {
  readonly eventType: AsyncEventType;
  readonly qp?: QueuePair;
  readonly cq?: CompletionQueue;
  readonly srq?: SharedReceiveQueue;
  /** What happened, in one line. */
  readonly reason: string;
}

/** What a process has of a device (ibv_context): all that follows belongs to one. */
export interface Context {
  readonly device: Device;
  readonly mm: Mm;
  queryDeviceEx(): DeviceAttrEx;
  /** Throws KernelError ENOMEM. */
  allocPd(): ProtectionDomain;
  createCompChannel(): CompChannel;
  /** A queue for at least `cqe` completions. Throws KernelError EINVAL, ENOMEM. */
  createCq(cqe: number, options?: { readonly channel?: CompChannel; readonly cqContext?: unknown }): CompletionQueue;
  /** An id of the connection manager (rdma_create_id). */
  createId(): CmId;
  /** Called with what happens outside of completions (ibv_get_async_event). */
  onAsyncEvent: ((event: AsyncEvent) => void) | undefined;
  /** Ends all that belongs to it. */
  close(): Promise<void>;
}

export interface DeviceAttrEx {
  readonly origAttr: {
    readonly fwVer: string;
    readonly maxMrSize: number;
    readonly pageSizeCap: number;
    readonly maxQp: number;
    readonly maxQpWr: number;
    readonly maxSge: number;
    readonly maxCq: number;
    readonly maxCqe: number;
    readonly maxMr: number;
    readonly maxPd: number;
    readonly maxQpRdAtom: number;
    readonly maxQpInitRdAtom: number;
    readonly atomicCap: number;
    readonly maxSrq: number;
    readonly maxSrqWr: number;
    readonly maxSrqSge: number;
  };
  readonly transport: number;
  /** IBV_ODP_SUPPORT and what each operation may do with demand paged memory. */
  readonly odpCaps: {
    readonly generalCaps: number;
    readonly perTransportCaps: { readonly rcOdpCaps: number; readonly ucOdpCaps: number; readonly udOdpCaps: number };
  };
}

/** What regions and queue pairs must share to be used together (ibv_pd). */
export interface ProtectionDomain {
  readonly context: Context;
  /** By which a message names it; not secret. */
  readonly handle: number;
  /**
   * Registers the bytes [addr, addr + length) of the context's mm; rights by IBV_ACCESS flags. With IBV_ACCESS_ON_DEMAND nothing is touched or pinned, and what
   * is mapped there may come and go. With `addr` 0 and `length` Infinity the region is implicit: all of the mm, now and later. Without
   * the flag all pages are brought in and pinned. Rejects with KernelError EINVAL, EFAULT (not mapped with the rights, where pinned; exited), ENOMEM (memlock
   * limit, arena, no key), EOPNOTSUPP (implicit without ON_DEMAND).
   */
  regMr(addr: number, length: number, access: number): Promise<MemoryRegion>;
  /** As `regMr`, where the region's own addresses begin at `iova`, which lies in its page where `addr` does: EINVAL. */
  regMrIova(addr: number, length: number, iova: number, access: number): Promise<MemoryRegion>;
  /**
   * Brings in what `sgList` names of demand paged regions, before the network asks for it. Without IBV_ADVISE_MR_FLAG_FLUSH it resolves at once, and says nothing of what failed.
   * Rejects with KernelError EINVAL (also for a pinned region), ENOENT (no such key), EFAULT (bounds, or no such page), EPERM (another protection domain's; PREFETCH_WRITE
   * without the right), ENOMEM.
   */
  adviseMr(advice: AdviseMrAdvice, flags: number, sgList: readonly Sge[]): Promise<void>;
  /** Outside of the connection manager, as for tests: `id.createQp` is the usual way. Throws KernelError EINVAL, ENOMEM. */
  createQp(attr: QpInitAttr): QueuePair;
  createSrq(attr: SrqInitAttr): SharedReceiveQueue;
  /** Throws KernelError EBUSY while anything is of it. */
  deallocPd(): void;
}

/** A run of bytes of a region (ibv_sge). */
export interface Sge {
  readonly addr: number;
  readonly length: number;
  readonly lkey: number;
}

/** Registered memory (ibv_mr). */
export interface MemoryRegion {
  readonly pd: ProtectionDomain;
  readonly addr: number;
  /** Where its own addresses begin: `addr`, but for regMrIova. */
  readonly iova: number;
  readonly length: number;
  /** Random; both keys are the same, as with iWARP's stag. */
  readonly lkey: number;
  readonly rkey: number;
  readonly access: number;
  readonly isImplicit: boolean;
  /** Whether its key is good: not after deregMr, an invalidation, or the end of its mm. */
  readonly isValid: boolean;
  /**
   * Changes what IBV_REREG_MR flags name; the key is another afterwards. On EINVAL it is as it was; on another failure nothing is registered any more, and `deregMr`
   * is all that is left to do (IBV_REREG_MR_ERR_CMD). Rejects as `regMr`, and with EBUSY while another reregMr is under way.
   */
  reregMr(
    flags: number,
    change: {
      readonly pd?: ProtectionDomain;
      readonly addr?: number;
      readonly length?: number;
      readonly access?: number;
    },
  ): Promise<void>;
  /**
   * Ends it: when it resolves no copy to or from it is under way, and nothing of it is pinned. Work that names it is an access error from then on.
   * Throws KernelError EINVAL when it was ended before.
   */
  deregMr(): Promise<void>;
  /** As Linux's `rdma statistic show mr`. */
  stats(): { pageFaults: number; pageInvalidations: number; pagePrefetches: number; residentPages: number };
}

/** Where completion queues tell that they have something (ibv_comp_channel). */
export interface CompChannel {
  /** The next queue that was armed and has got a completion; waits. Rejects with KernelError EBADF when the channel is destroyed. */
  getCqEvent(): Promise<CompletionQueue>;
  /** Throws KernelError EBUSY while queues use it. */
  destroyCompChannel(): void;
}

/** A completion (ibv_wc). */
export interface WorkCompletion {
  readonly wrId: number;
  readonly status: WcStatus;
  /** Of a failed one it says nothing. */
  readonly opcode: WcOpcode;
  /** Of a receive, a read, an atomic. */
  readonly byteLen: number;
  /** With IBV_WC_WITH_IMM; unsigned. */
  readonly immData: number;
  /** With IBV_WC_WITH_INV: the key of ours that the peer invalidated. */
  readonly invalidatedRkey: number;
  readonly wcFlags: number;
  readonly qpNum: number;
  /** What the wire said of a failure: layer, type and code of a Terminate message (RFC 5040, 4.8), or 0. */
  readonly vendorErr: number;
}

/** A queue of completions (ibv_cq). */
export interface CompletionQueue extends AsyncIterable<WorkCompletion> {
  readonly context: Context;
  readonly channel: CompChannel | undefined;
  readonly cqContext: unknown;
  readonly cqe: number;
  /** At most `numEntries` completions, oldest first; none: []. Throws KernelError EIO after an overrun. */
  pollCq(numEntries: number): WorkCompletion[];
  /** The next completion is told to the channel, once; with `solicitedOnly` the next that a peer solicited, or that failed. Poll again afterwards. */
  reqNotifyCq(solicitedOnly?: boolean): void;
  /** Takes note of `n` events of the channel (ibv_ack_cq_events). */
  ackCqEvents(n: number): void;
  /** Completions as they come, without end; leaves off when the queue is destroyed. One loop at a time, and not beside the channel. */
  [Symbol.asyncIterator](): AsyncIterator<WorkCompletion>;
  /** Throws KernelError EBUSY while queue pairs use it. */
  destroyCq(): void;
}

export interface QpCap {
  /** Work requests that may be outstanding. */
  readonly maxSendWr: number;
  readonly maxRecvWr: number;
  readonly maxSendSge: number;
  readonly maxRecvSge: number;
  /** Bytes. */
  readonly maxInlineData: number;
}

export interface QpInitAttr {
  readonly sendCq: CompletionQueue;
  readonly recvCq: CompletionQueue;
  readonly srq?: SharedReceiveQueue;
  /** Default: 16 of each kind, 4 pieces each, 64 bytes inline. */
  readonly cap?: Partial<QpCap>;
  /** Every request is signalled. */
  readonly sqSigAll?: boolean;
  readonly qpContext?: unknown;
}

/** A request for the send queue (ibv_send_wr). */
export interface SendWr {
  /** The completion's; an integer below 2^53. */
  readonly wrId: number;
  readonly opcode: WrOpcode;
  readonly sendFlags?: number;
  /** The data, or where it is to go (READ, atomics: the old value, 8 bytes, as this machine stores an integer). */
  readonly sgList?: readonly Sge[];
  /** With IBV_SEND_INLINE instead of `sgList`. */
  readonly inlineData?: Uint8Array;
  /** For RDMA and atomics; the latter a multiple of 8. */
  readonly remoteAddr?: number;
  readonly rkey?: number;
  /** With immediate: 32 bits. */
  readonly immData?: number;
  /** SEND_WITH_INV: the peer's key; LOCAL_INV: ours. */
  readonly invalidateRkey?: number;
  /** FETCH_AND_ADD: what is added; CMP_AND_SWP: what is compared; 64 bits. */
  readonly compareAdd?: bigint;
  /** CMP_AND_SWP: what is stored where they are equal. */
  readonly swap?: bigint;
}

/** A buffer for the next message (ibv_recv_wr). */
export interface RecvWr {
  readonly wrId: number;
  readonly sgList: readonly Sge[];
}

/** One end of a connection (ibv_qp). */
export interface QueuePair {
  readonly pd: ProtectionDomain;
  readonly qpNum: number;
  readonly sendCq: CompletionQueue;
  readonly recvCq: CompletionQueue;
  readonly srq: SharedReceiveQueue | undefined;
  readonly qpContext: unknown;
  readonly cap: QpCap;
  readonly state: QpState;
  /** Why it is in the error state, in one line. */
  readonly reason: string | undefined;
  /**
   * Posts requests, in order; the first that is refused throws, and those before it stay posted. KernelError EINVAL (opcode, flags, too many pieces, state), ENOMEM (the queue
   * is full).
   */
  postSend(...wrs: readonly SendWr[]): void;
  postRecv(...wrs: readonly RecvWr[]): void;
  /** Only to IBV_QPS_ERR: all else the connection manager does. What is posted is flushed, and what the peer still sends is dropped. */
  modifyQp(state: QpState): void;
  /** Ends it, and its connection; what is posted has no completions any more. */
  destroyQp(): void;
}

export interface SrqInitAttr {
  readonly maxWr: number;
  readonly maxSge: number;
  /** IBV_EVENT_SRQ_LIMIT_REACHED comes once when fewer buffers than these are left. */
  readonly srqLimit?: number;
}

/** Buffers for the messages of several queue pairs (ibv_srq). */
export interface SharedReceiveQueue {
  readonly pd: ProtectionDomain;
  postSrqRecv(...wrs: readonly RecvWr[]): void;
  /** Arms the limit (ibv_modify_srq with IBV_SRQ_LIMIT). */
  modifySrq(attr: { readonly srqLimit: number }): void;
  /** Throws KernelError EBUSY while queue pairs use it. */
  destroySrq(): void;
}
