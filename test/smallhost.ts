import { Host, MemorySwap, type SwapDevice } from '../src/mm/index.js';

/** A host for one or two small guests: what they write is found in swap as it was, and freed frames are filled with a pattern. */
export function smallHost(
  frames: number,
  arenaBytes: number,
  swap: SwapDevice = new MemorySwap({ sizeBytes: 4 * 2 ** 20 }),
): Host {
  return new Host({ frames, arenaBytes, swap, sameFilled: false, debug: true, defer: (fn) => setImmediate(fn) });
}
