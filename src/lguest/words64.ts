/** 64-bit values in two int32 halves, as registers and page table entries travel here: nothing is allocated. */

/** The canonical Sv39 address (negative in the upper half), or NaN. */
export function toAddress(low: number, high: number): number {
  return (high << 25) >> 25 === high ? high * 2 ** 32 + (low >>> 0) : Number.NaN;
}

/** As unsigned; from 2^53 on not exact, and larger than anything there is. */
export function toNumber(low: number, high: number): number {
  return (high >>> 0) * 2 ** 32 + (low >>> 0);
}

export function toBigint(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

export function lowOf(value: number): number {
  return value | 0;
}

/** Of an integer between -2^53 and 2^53. */
export function highOf(value: number): number {
  return Math.floor(value / 2 ** 32) | 0;
}

export function hex64(low: number, high: number): string {
  return `0x${toBigint(low, high).toString(16)}`;
}

/** Of an address that may be negative. */
export function hexAddress(address: number): string {
  return Number.isNaN(address) ? 'a non-canonical address' : hex64(lowOf(address), highOf(address));
}
