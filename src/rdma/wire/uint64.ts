/**
 * 64-bit numbers as pairs of uint32 (high, low).
 */

export const TWO_32 = 0x1_0000_0000;

/** One number of a pair, which is rounded above 2^53. */
export function joined(high: number, low: number): number {
  return high * TWO_32 + low;
}

/** Whether a range of `lenBytes` from (high, low) on leaves 64 bits: its last byte would be below its first. */
export function wraps(high: number, low: number, lenBytes: number): boolean {
  return lenBytes > 0 && high + Math.floor((low + lenBytes - 1) / TWO_32) >= TWO_32;
}
