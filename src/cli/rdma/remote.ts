import {
  type CmId,
  type CompletionQueue,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  type MemoryRegion,
  type QueuePair,
} from '../../rdma/index.js';
import type { RdmaClientOptions } from './command.js';
import { decodeRegion, mapMemory, type Rnic, type ServedRegion } from './service.js';

/** The client's end of a connection. */

/** Requests under way at once, each with a buffer of its own. WHY 32: with 16 of 64 KiB the two ends wait for each other: a sixth less. */
export const DEPTH = 32;
export const BUFFER_BYTES = 256 * 1024;
/** A connection to a server, and buffers to read and write from. */
export interface Remote {
  readonly served: ServedRegion;
  readonly rnic: Rnic;
  readonly qp: QueuePair;
  /** Of `qp`'s sends, and of its receives. */
  readonly sendCq: CompletionQueue;
  readonly recvCq: CompletionQueue;
  /** DEPTH buffers of BUFFER_BYTES. */
  readonly buffers: MemoryRegion;
}

/** Throws KernelError: nobody listens, or no `unpin rdma server`. */
export async function connect(
  rnic: Rnic,
  id: CmId,
  { host, port, crc }: Pick<RdmaClientOptions, 'host' | 'port' | 'crc'>,
): Promise<Remote> {
  const { context, pd, mm } = rnic;
  const [sendCq, recvCq] = [context.createCq(4 * DEPTH), context.createCq(4 * DEPTH)];
  const cap = { maxSendWr: 2 * DEPTH, maxRecvWr: DEPTH, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 64 };
  await id.resolveAddr({ host, port });
  const qp = id.createQp(pd, { sendCq, recvCq, cap });
  const { privateData } = await id.connect({ initiatorDepth: DEPTH, crc });
  const served = decodeRegion(privateData);
  const lenBytes = DEPTH * BUFFER_BYTES;
  const buffers = await pd.regMr(mapMemory(mm, lenBytes), lenBytes, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
  return { served, rnic, qp, sendCq, recvCq, buffers };
}
