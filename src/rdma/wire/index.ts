/** iWARP: MPA, DDP and RDMAP over bytes. No sockets, no memory management: those are `rdma`'s. */

export * from './codes.js';
export type { Crc32c } from './crc32c.js';
export { MPA_PRIVATE_DATA_MAX, type MpaAgreed, type MpaEnhanced, type MpaFrame, type MpaOffer } from './mpasetup.js';
export type { AtomicRequest, RxMessage, StreamEnd, StreamOwner, TxMessage } from './owner.js';
export {
  type OpenStream,
  type RdmaStream,
  type StreamOptions,
  TX_CREDIT,
  TX_DONE,
  TX_FULL,
  TX_HELD,
  TX_IDLE,
  TX_MEMORY,
} from './stream.js';
