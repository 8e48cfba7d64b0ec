/** Seeded randomness (xorshift64*) and the operands at which instructions go wrong. */
export class Random {
  private s: bigint;

  constructor(seed: bigint | number) {
    this.s = BigInt.asUintN(64, BigInt(seed) * 0x9e3779b97f4a7c15n + 1n) || 1n;
    for (let i = 0; i < 4; i++) this.next();
  }

  /** 64 random bits. */
  next(): bigint {
    let s = this.s;
    s ^= s >> 12n;
    s = BigInt.asUintN(64, s ^ (s << 25n));
    s ^= s >> 27n;
    this.s = s;
    return BigInt.asUintN(64, s * 0x2545f4914f6cdd1dn);
  }

  /** 32 random bits, as an int32. */
  word(): number {
    return Number(BigInt.asIntN(32, this.next() >> 16n));
  }

  /** 0 to n - 1. */
  below(n: number): number {
    return Number((this.next() >> 11n) % BigInt(n));
  }

  /** True once in n times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

const around = (v: bigint) => [v - 1n, v, v + 1n];

/** Ends of the ranges, and shift amounts about the widths. */
export const EDGE_INTEGERS: readonly bigint[] = [
  ...[0n, 1n << 31n, 1n << 32n, 1n << 63n, 31n, 63n, 0x7fffffffn << 32n].flatMap(around),
  0x5555555555555555n,
  0xaaaaaaaaaaaaaaaan,
  0xffffffff80000000n,
  2n,
  3n,
  100n,
].map((v) => BigInt.asUintN(64, v));

export function integer(r: Random): bigint {
  const kind = r.below(8);
  if (kind < 4) return r.pick(EDGE_INTEGERS);
  const bits = r.next();
  return kind < 6 ? bits : BigInt.asUintN(64, BigInt.asIntN(64, bits) >> (bits & 63n));
}

function edges(fractionBits: number, exponentBits: number): bigint[] {
  const one = 1n << BigInt(fractionBits);
  const bias = BigInt(2 ** (exponentBits - 1) - 1);
  const top = (1n << BigInt(exponentBits)) - 1n;
  const values = [0n, 1n, one - 1n, top * one, top * one + 1n, top * one + one / 2n, (top - 1n) * one + one - 1n];
  for (const e of [1n, bias - 1n, bias, bias + 1n, bias + 31n, bias + 32n, bias + 63n, bias + 64n])
    values.push(e * one, e * one + 1n, e * one + one / 2n);
  return values.flatMap((v) => [v, v | (1n << BigInt(fractionBits + exponentBits))]);
}

const BOX = 0xffffffffn << 32n;
export const EDGE_DOUBLES: readonly bigint[] = edges(52, 11);
/** NaN-boxed. */
export const EDGE_SINGLES: readonly bigint[] = edges(23, 8).map((v) => v | BOX);

/** What a floating-point register may hold: doubles, boxed singles, near ones of both, and singles that are not boxed. */
export function float(r: Random): bigint {
  const bits = r.next();
  switch (r.below(8)) {
    case 0:
      return r.pick(EDGE_DOUBLES);
    case 1:
      return r.pick(EDGE_SINGLES);
    case 2:
      return bits;
    case 3:
      return bits | BOX;
    case 4:
      return (bits & 0x800fffffffffffffn) | ((1019n + (bits >> 60n)) << 52n);
    case 5:
      return BOX | (bits & 0x807fffffn) | ((123n + (bits >> 61n)) << 23n);
    case 6:
      return BOX | (bits & 0x807ff000n) | ((126n + (bits >> 63n)) << 23n);
    default:
      return bits & 0xffffffffn;
  }
}
