import { expand } from './table/compressed.js';
import { INSTRUCTIONS, type Instruction } from './table/index.js';

/**
 * From an instruction word to its entry of the table and its operands.
 */

export interface Decoded {
  readonly instruction: Instruction;
  readonly lenBytes: 2 | 4;
  /** The word as it is in memory, for stval of an illegal instruction. */
  readonly word: number;
  readonly rd: number;
  readonly rs1: number;
  readonly rs2: number;
  readonly rs3: number;
  readonly rm: number;
  readonly imm: number;
}

/** Entries by their major opcode, the ones with more mask bits first. */
const BY_OPCODE: Instruction[][] = Array.from({ length: 128 }, (_, opcode) =>
  INSTRUCTIONS.filter((i) => (i.match & 0x7f) === opcode).sort((a, b) => bitCount(b.mask) - bitCount(a.mask)),
);

function bitCount(mask: number): number {
  let n = 0;
  for (let m = mask >>> 0; m !== 0; m >>>= 1) n += m & 1;
  return n;
}

export function isCompressed(low16: number): boolean {
  return (low16 & 3) !== 3;
}

/** `word` is 32 bits, of which a compressed instruction uses the low half. Undefined: an illegal instruction. */
export function decode(word: number): Decoded | undefined {
  const compressed = isCompressed(word);
  const full = compressed ? expand(word & 0xffff) : word;
  if (full === 0) return undefined;
  const instruction = BY_OPCODE[full & 0x7f]!.find((i) => ((full ^ i.match) & i.mask) === 0);
  if (instruction === undefined) return undefined;
  const rm = (full >>> 12) & 7;
  if (instruction.rm && (rm === 5 || rm === 6)) return undefined;
  return {
    instruction,
    lenBytes: compressed ? 2 : 4,
    word: compressed ? word & 0xffff : word,
    rd: (full >>> 7) & 31,
    rs1: (full >>> 15) & 31,
    rs2: (full >>> 20) & 31,
    rs3: full >>> 27,
    rm,
    imm: immediate(instruction.format, full),
  };
}

function immediate(format: Instruction['format'], w: number): number {
  switch (format) {
    case 'I':
      return w >> 20;
    case 'SHIFT':
      return (w >>> 20) & 63;
    case 'S':
      return ((w >> 25) << 5) | ((w >>> 7) & 31);
    case 'B':
      return ((w >> 31) << 12) | ((w & 0x80) << 4) | ((w >>> 20) & 0x7e0) | ((w >>> 7) & 0x1e);
    case 'U':
      return w & 0xfffff000;
    case 'J':
      return ((w >> 31) << 20) | (w & 0xff000) | ((w >>> 9) & 0x800) | ((w >>> 20) & 0x7fe);
    case 'CSR':
    case 'CSRI':
      return w >>> 20;
    case 'FENCE':
      return (w >>> 20) & 0xff;
    default:
      return 0;
  }
}
