import { field, type ReferenceState, s32, s64, u32 } from './reference-state.js';

/**
 * The compressed instructions as the manual's tables give them (unprivileged manual, chapter 28.8): what each does, not
 * which long instruction it stands for.
 */

/**
 * Puts an immediate together from the manual's notation: `5:4|9:6|2|3` names the bits of the immediate that the instruction's
 * bits hold from `top` downward.
 */
function gather(c: number, notation: string, top: number): number {
  let value = 0;
  let from = top;
  for (const part of notation.split('|')) {
    const [hi, lo = hi] = part.split(':').map(Number) as [number, number?];
    for (let bit = hi; bit >= lo; bit--) value |= ((c >>> from--) & 1) << bit;
  }
  return value;
}

const extend = (value: number, nrBits: number): bigint => BigInt.asIntN(nrBits, BigInt(value));
/** Two parts of an immediate, in the places that most formats have them. */
const at12and6 = (c: number, high: string, low: string): number => gather(c, high, 12) | gather(c, low, 6);

export function compressed(h: ReferenceState, c: number): void {
  const quadrant = c & 3;
  if (quadrant === 0) quadrant0(h, c);
  else if (quadrant === 1) quadrant1(h, c);
  else quadrant2(h, c);
}

function quadrant0(h: ReferenceState, c: number): void {
  const rd = 8 + field(c, 4, 2);
  const base = h.x[8 + field(c, 9, 7)]!;
  const word = base + BigInt(at12and6(c, '5:3', '2|6'));
  const double = base + BigInt(at12and6(c, '5:3', '7:6'));
  const funct3 = c >>> 13;
  if (funct3 === 1 || funct3 === 5) h.needFs(c);
  switch (funct3) {
    case 0: {
      const imm = gather(c, '5:4|9:6|2|3', 12);
      if (imm === 0) h.illegal(c);
      return h.set(rd, h.x[2]! + BigInt(imm));
    }
    case 1:
      return h.loadFloat(rd, double, 8);
    case 2:
      return h.set(rd, h.load(word, 4, true));
    case 3:
      return h.set(rd, h.load(double, 8, true));
    case 5:
      return h.store(double, 8, h.f[rd]!);
    case 6:
      return h.store(word, 4, h.x[rd]!);
    case 7:
      return h.store(double, 8, h.x[rd]!);
    default:
      h.illegal(c);
  }
}

function quadrant1(h: ReferenceState, c: number): void {
  const rd = field(c, 11, 7);
  const imm = extend(at12and6(c, '5', '4:0'), 6);
  switch (c >>> 13) {
    case 0:
      return h.set(rd, h.x[rd]! + imm);
    case 1:
      if (rd === 0) h.illegal(c);
      return h.set(rd, s32(h.x[rd]! + imm));
    case 2:
      return h.set(rd, imm);
    case 3:
      if (imm === 0n) h.illegal(c);
      if (rd === 2) return h.set(2, h.x[2]! + extend(at12and6(c, '9', '4|6|8:7|5'), 10));
      return h.set(rd, imm << 12n);
    case 4:
      return arithmetic(h, c, 8 + field(c, 9, 7), imm);
    case 5:
      return h.jump(h.pc + extend(gather(c, '11|4|9:8|10|6|7|3:1|5', 12), 12));
    default: {
      const zero = h.x[8 + field(c, 9, 7)] === 0n;
      if (zero === (c >>> 13 === 6)) h.jump(h.pc + extend(at12and6(c, '8|4:3', '7:6|2:1|5'), 9));
    }
  }
}

function arithmetic(h: ReferenceState, c: number, rd: number, imm: bigint): void {
  const a = h.x[rd]!;
  const b = h.x[8 + field(c, 4, 2)]!;
  const shift = imm & 63n;
  const kind = field(c, 11, 10);
  if (kind === 0) return h.set(rd, a >> shift);
  if (kind === 1) return h.set(rd, s64(a) >> shift);
  if (kind === 2) return h.set(rd, BigInt.asUintN(64, imm) & a);
  const op = (field(c, 12, 12) << 2) | field(c, 6, 5);
  const results = [a - b, a ^ b, a | b, a & b, s32(u32(a - b)), s32(u32(a + b))];
  h.set(rd, results[op] ?? h.illegal(c));
}

function quadrant2(h: ReferenceState, c: number): void {
  const rd = field(c, 11, 7);
  const rs2 = field(c, 6, 2);
  const sp = h.x[2]!;
  const funct3 = c >>> 13;
  if (funct3 === 1 || funct3 === 5) h.needFs(c);
  switch (funct3) {
    case 0:
      return h.set(rd, h.x[rd]! << BigInt(at12and6(c, '5', '4:0')));
    case 1:
      return h.loadFloat(rd, sp + BigInt(at12and6(c, '5', '4:3|8:6')), 8);
    case 2:
      if (rd === 0) h.illegal(c);
      return h.set(rd, h.load(sp + BigInt(at12and6(c, '5', '4:2|7:6')), 4, true));
    case 3:
      if (rd === 0) h.illegal(c);
      return h.set(rd, h.load(sp + BigInt(at12and6(c, '5', '4:3|8:6')), 8, true));
    case 4:
      return jumpsAndMoves(h, c, rd, rs2);
    case 5:
      return h.store(sp + BigInt(gather(c, '5:3|8:6', 12)), 8, h.f[rs2]!);
    case 6:
      return h.store(sp + BigInt(gather(c, '5:2|7:6', 12)), 4, h.x[rs2]!);
    default:
      return h.store(sp + BigInt(gather(c, '5:3|8:6', 12)), 8, h.x[rs2]!);
  }
}

function jumpsAndMoves(h: ReferenceState, c: number, rd: number, rs2: number): void {
  const set = field(c, 12, 12) === 1;
  if (rs2 !== 0) return h.set(rd, set ? h.x[rd]! + h.x[rs2]! : h.x[rs2]!);
  if (rd === 0) return set ? h.trap(3, h.pc) : h.illegal(c);
  const target = h.x[rd]! & ~1n;
  if (set) h.link(1);
  h.jump(target);
}
