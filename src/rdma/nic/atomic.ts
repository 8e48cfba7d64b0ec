import { ATOMIC_CMP_SWAP, ATOMIC_FETCH_ADD, type AtomicRequest } from '../wire/index.js';

/**
 * Atomic operations on 8 bytes of the host's memory (RFC 7306 section 5), atomic to vCPUs and all others who use atomic operations there. Integers are as this
 * machine stores them: little endian.
 */

/** Carries out `request` at `pa`, a multiple of 8, and puts the old value into `request.original`. */
export function doAtomic(big: BigInt64Array, pa: number, request: AtomicRequest): void {
  for (;;) {
    const old = Atomics.load(big, pa / 8);
    const value = BigInt.asIntN(64, newValue(BigInt.asUintN(64, old), request));
    if (Atomics.compareExchange(big, pa / 8, old, value) !== old) continue;
    request.original = BigInt.asUintN(64, old);
    return;
  }
}

function newValue(old: bigint, request: AtomicRequest): bigint {
  const { opcode, addOrSwap, addOrSwapMask, compare, compareMask } = request;
  if (opcode === ATOMIC_FETCH_ADD) return maskedAdd(old, addOrSwap, addOrSwapMask);
  if (opcode === ATOMIC_CMP_SWAP && (old & compareMask) !== (compare & compareMask)) return old;
  return (old & ~addOrSwapMask) | (addOrSwap & addOrSwapMask);
}

/** A bit of `mask` is the last of a field: no carry leaves it (RFC 7306 section 5.1.1). */
function maskedAdd(old: bigint, add: bigint, mask: bigint): bigint {
  if (mask === 0n) return old + add;
  // Without the top bit of each field no carry can leave it; those bits are added without one.
  return ((old & ~mask) + (add & ~mask)) ^ ((old ^ add) & mask);
}
