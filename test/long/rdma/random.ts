import { Random as Seeded } from '../../../src/explore/seed.js';

/** Numbers that follow from a seed. */
export class Random extends Seeded {
  /** From 1 to `most`, short ones as likely as long ones. */
  size(most: number): number {
    return Math.max(1, Math.floor(most ** (this.below(1000) / 999)));
  }
}

/** Bytes that follow from a number. */
export function bytesOf(n: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0, x = Math.imul(n, 2654435761) | 1; i < length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x;
  }
  return bytes;
}
