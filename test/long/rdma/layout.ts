import type { MemoryRegion } from '../../../src/rdma/index.js';

/** Of the region, a half is the peer's to write, the other its owner's. */
export const HALF_BYTES = 4 * 2 ** 20;
export const BUFFERS_BYTES = 2 * 2 ** 20;
export interface Memory {
  readonly va: number;
  readonly mr: MemoryRegion;
}
