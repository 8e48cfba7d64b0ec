/** iWARP: MPA, DDP and RDMAP over bytes. No sockets, no memory management: those are `rdma`'s. */

export * from './codes.js';
export { CRC32C_SCRATCH_BYTES, type Crc32c, createCrc32c } from './crc32c.js';
export { FPDU_BYTES_MAX } from './fpdu.js';
export {
  encodeMpaFrame,
  MPA_DEPTH_NONE,
  MPA_PRIVATE_DATA_MAX,
  type MpaFrame,
  MpaFrameReader,
} from './mpaframe.js';
export {
  type MpaAgreed,
  type MpaOffer,
  mpaAccept,
  mpaFinish,
  mpaReject,
  mpaRequest,
} from './mpasetup.js';
export type { AtomicRequest, RxMessage, StreamEnd, StreamOwner, TxMessage } from './owner.js';
export { ATOMIC_CMP_SWAP, ATOMIC_FETCH_ADD, ATOMIC_SWAP } from './rdmap.js';
export { RdmaStream, type StreamOptions } from './stream.js';
export { terminateText } from './terminatetext.js';
export { TX_DONE, TX_FULL, TX_HELD, TX_IDLE } from './txstate.js';
