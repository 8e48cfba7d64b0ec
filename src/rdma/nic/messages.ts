import type { RemoteDescriptor } from '../../mm/index.js';
import type { StreamAddr } from '../environment.js';

/**
 * What the mm thread and the NIC tell each other: structured-cloneable, in order. Work, completions and translations are in shared memory (rings.ts, region.ts); these are doorbells,
 * faults, and what happens seldom.
 *
 * WHY messages and not a mailbox in shared memory, as a vCPU has one: that works since a vCPU and its owner take turns. Here many faults and connections are under way at
 * once, each of which would need a mailbox and a message to say that there is something in it.
 */

/** Where the parts of a queue pair are: byte addresses. */
export interface QpPlace {
  readonly qpNum: number;
  readonly pd: number;
  readonly sqAddr: number;
  readonly rqAddr: number;
  /** Its `rqAddr` is that of a shared receive queue. */
  readonly isSrq: boolean;
  readonly sendCqAddr: number;
  readonly recvCqAddr: number;
  readonly sqSigAll: boolean;
  /** Of the connection (connectionBytes): bytes are read into `rxAddr`, and segments made in the halves of `txAddr`. */
  readonly rxAddr: number;
  readonly txAddr: number;
  readonly bufferBytes: number;
}

export interface ConnWish {
  readonly privateData: Uint8Array;
  readonly ird: number;
  readonly ord: number;
  /** Whether the connection must have CRCs; of a peer it is not told. */
  readonly crc?: boolean;
}

export type ToNic =
  | { readonly type: 'openContext'; readonly context: number; readonly remote: RemoteDescriptor | undefined }
  | { readonly type: 'closeContext'; readonly context: number }
  | { readonly type: 'createQp'; readonly place: QpPlace }
  | { readonly type: 'destroyQp'; readonly qpNum: number }
  | { readonly type: 'failQp'; readonly qpNum: number; readonly reason: string }
  | { readonly type: 'doorbell'; readonly qpNum: number }
  /** `failed`: a FAILED_ code, and why, for people; or 0: look again. */
  | { readonly type: 'faulted'; readonly id: number; readonly failed: number; readonly reason: string | undefined }
  | { readonly type: 'listen'; readonly conn: number; readonly addr: StreamAddr; readonly backlog: number }
  | {
      readonly type: 'connect';
      readonly conn: number;
      readonly addr: StreamAddr;
      readonly qpNum: number;
      readonly wish: ConnWish;
    }
  | { readonly type: 'accept'; readonly conn: number; readonly qpNum: number; readonly wish: ConnWish }
  | { readonly type: 'reject'; readonly conn: number; readonly privateData: Uint8Array }
  | { readonly type: 'disconnect'; readonly conn: number }
  | { readonly type: 'closeConn'; readonly conn: number }
  | { readonly type: 'stop' };

export type FromNic =
  | { readonly type: 'cqEvent'; readonly cqAddr: number }
  | { readonly type: 'cqOverrun'; readonly cqAddr: number }
  | { readonly type: 'srqLimit'; readonly srqAddr: number }
  | {
      readonly type: 'fault';
      readonly id: number;
      readonly key: number;
      readonly page: number;
      readonly nrPages: number;
      readonly write: boolean;
    }
  /** The answer to fault `id` was looked at: its page may go. */
  | { readonly type: 'faultUsed'; readonly id: number }
  /** Pages that a stream will come to. */
  | {
      readonly type: 'readAhead';
      readonly key: number;
      readonly page: number;
      readonly nrPages: number;
      readonly write: boolean;
    }
  | {
      readonly type: 'qpError';
      readonly qpNum: number;
      readonly reason: string;
      readonly code: number;
      readonly byPeer: boolean;
    }
  | { readonly type: 'qpReady'; readonly qpNum: number }
  | { readonly type: 'qpGone'; readonly qpNum: number }
  | { readonly type: 'contextClosed'; readonly context: number }
  | { readonly type: 'listening'; readonly conn: number; readonly localAddr: StreamAddr }
  | {
      readonly type: 'connectRequest';
      readonly listener: number;
      /** Its number from now on: given by the NIC, below 0. */
      readonly conn: number;
      readonly wish: ConnWish;
      readonly localAddr: StreamAddr;
      readonly peerAddr: StreamAddr;
    }
  | {
      readonly type: 'established';
      readonly conn: number;
      readonly wish: ConnWish;
      readonly localAddr: StreamAddr;
      readonly peerAddr: StreamAddr;
    }
  /** It has not come about; `privateData`: of a peer that rejected. */
  | {
      readonly type: 'connectFailed';
      readonly conn: number;
      readonly code: string;
      readonly reason: string;
      readonly privateData: Uint8Array | undefined;
    }
  | { readonly type: 'disconnected'; readonly conn: number; readonly reason: string | undefined }
  | { readonly type: 'stopped' };
