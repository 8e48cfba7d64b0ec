import type { CmEventType } from './constants.js';
import type { ProtectionDomain, QpInitAttr, QueuePair } from './verbs.js';

/**
 * The connection manager: rdma_cm as TypeScript has it. Calls that answer by an event there return a promise here (an id without a channel, in
 * rdma_cm's words); what comes by itself comes out of `events`.
 *
 *   active: createId, resolveAddr, createQp, connect                 passive: createId, bindAddr, listen; of each CONNECT_REQUEST the id:
 *           disconnect, or DISCONNECTED comes                                 createQp, accept or reject
 */

export interface CmAddr {
  /** A name or an address of IPv4 or IPv6. Default: 127.0.0.1 to connect, all addresses to listen. */
  readonly host?: string;
  /** 0, to listen: any. */
  readonly port: number;
}

export interface ConnParam {
  /** At most 508 bytes: MPA's 512 without RFC 6581's four. Linux's siw takes 252. */
  readonly privateData?: Uint8Array;
  /** Reads and atomics that the peer may have outstanding here; at most 64, default 16. What is agreed on is the lower of both sides. */
  readonly responderResources?: number;
  /** And that this side may have there. */
  readonly initiatorDepth?: number;
  /**
   * MPA's CRC32C over all that is sent and received (RFC 5044, 4.4 and 7.1); default true. It is left out only where both sides say false: then
   * TCP's checksum alone guards, as on a host that both sides are on.
   */
  readonly crc?: boolean;
}

export interface CmEvent {
  readonly event: CmEventType;
  /** Whom it concerns: for CONNECT_REQUEST a new id. */
  readonly id: CmId;
  /** The listener, for CONNECT_REQUEST. */
  readonly listenId?: CmId;
  readonly privateData: Uint8Array;
  readonly responderResources: number;
  readonly initiatorDepth: number;
  /** DISCONNECTED: why, in one line; absent where a side has asked for it. */
  readonly reason?: string;
}

/** What a connection, or a listener, is called by (struct rdma_cm_id). */
export interface CmId {
  readonly qp: QueuePair | undefined;
  readonly localAddr: Required<CmAddr> | undefined;
  readonly peerAddr: Required<CmAddr> | undefined;
  /** What comes by itself, in order, without end; leaves off when the id is destroyed. One loop at a time. */
  readonly events: AsyncIterable<CmEvent>;
  /** Where to connect; name and route are looked up when it connects. Rejects with KernelError EINVAL. */
  resolveAddr(addr: CmAddr): Promise<void>;
  /** Where to listen. */
  bindAddr(addr: CmAddr): Promise<void>;
  /** Throws KernelError EINVAL (it has one), and as `pd.createQp`. */
  createQp(pd: ProtectionDomain, attr: QpInitAttr): QueuePair;
  /**
   * Connects; the event is ESTABLISHED, with what the peer said of itself. Rejects with KernelError ECONNREFUSED (nobody listens, or a peer that
   * rejected: then `error.cause` is its private data, a Uint8Array), ECONNRESET, EHOSTUNREACH, ETIMEDOUT, EPROTO (no MPA), EINVAL.
   */
  connect(param?: ConnParam): Promise<CmEvent>;
  /** Resolves when it listens: `localAddr` has the port. Rejects with KernelError EADDRINUSE, EADDRNOTAVAIL, EACCES, EHOSTUNREACH (no such host), EINVAL. `backlog`: requests nobody has looked at; default 16. */
  listen(backlog?: number): Promise<void>;
  /** The request is accepted; resolves when the connection stands. Rejects with KernelError ECONNRESET, EINVAL. */
  accept(param?: ConnParam): Promise<void>;
  reject(privateData?: Uint8Array): Promise<void>;
  /** Ends the connection in order: what was sent before arrives. Resolves when it is down; what is still posted is flushed. */
  disconnect(): Promise<void>;
  /** Ends it and its connection; a request is rejected. Its queue pair is the caller's to destroy. */
  destroyId(): void;
}
