/**
 * Whose page a page of the swap file is: our guest fills each page with an arithmetic progression that begins with
 * mix(seed + mix(version << 32 | page id)) (guests/memhog/work.c), and mix can be undone.
 */

const MASK = (1n << 64n) - 1n;
const GOLDEN = 0x9e3779b97f4a7c15n;
const GOLDEN2 = ((GOLDEN << 1n) | 1n) & MASK;
const MAX_VERSION = 100n;
const MAX_ID = 1n << 20n;

function mix(x: bigint): bigint {
  x = ((x ^ (x >> 31n)) * GOLDEN) & MASK;
  x = ((x ^ (x >> 29n)) * GOLDEN2) & MASK;
  return x ^ (x >> 32n);
}

/** Undoes y = x ^ x >> shift. */
function unshift(y: bigint, shift: bigint): bigint {
  let x = y;
  for (let done = shift; done < 64n; done += shift) x = y ^ (x >> shift);
  return x;
}

/** The number that `factor` times is 1, modulo 2^64, by Newton's iteration. */
function inverse(factor: bigint): bigint {
  let x = factor;
  for (let i = 0; i < 6; i++) x = (x * (2n - factor * x)) & MASK;
  return x;
}

function unmix(y: bigint): bigint {
  const x = unshift((unshift(y, 32n) * inverse(GOLDEN2)) & MASK, 29n);
  return unshift((x * inverse(GOLDEN)) & MASK, 31n);
}

/** Whether `page` holds what the kernel half of a guest with this `seed=` wrote. */
export function isKernelPageOf(seed: number, page: Uint8Array): boolean {
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  const first = view.getBigUint64(0, true);
  const second = view.getBigUint64(8, true);
  if (((second - first) & MASK) !== (mix(first) | 1n)) return false;
  const state = unmix((unmix(first) - BigInt(seed) * 256n) & MASK);
  return state >> 32n < MAX_VERSION && (state & 0xffffffffn) < MAX_ID;
}
