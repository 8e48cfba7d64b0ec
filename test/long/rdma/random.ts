/** Numbers that follow from a seed (mulberry32). */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed | 0;
  }

  /** A whole number from 0 to n - 1. */
  below(n: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  }

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
