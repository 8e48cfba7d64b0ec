import type { Instruction } from '../../src/riscv/index.js';
import { float, integer, type Random } from './random.js';
import type { Reference } from './reference.js';
import { s64 } from './reference-state.js';
import { CODE, DATA, DATA_BYTES } from './testhart.js';

/** Instruction words of a table entry, and the operands that they are tried with. */

/** What a program may read and write without more ado; two that do not exist; read-only ones. */
export const CSRS = [0x001, 0x002, 0x003, 0x140, 0x141, 0x142, 0x143, 0x000, 0x7c0, 0xc00];

const isCsr = (i: Instruction) => i.format === 'CSR' || i.format === 'CSRI';

/** A word of the entry: free bits at random, registers now and then x0 or the same one twice. */
export function randomWord(instruction: Instruction, r: Random): number {
  let word = r.word();
  if (isCsr(instruction)) word = (word & 0xfffff) | (r.pick(CSRS) << 20);
  if (r.oneIn(4)) word &= ~(31 << 7);
  if (r.oneIn(6)) word = copyField(word, 15, 20);
  if (r.oneIn(6)) word = copyField(word, 15, 7);
  if (r.oneIn(6)) word = copyField(word, 20, 7);
  if (instruction.rm && r.below(8) !== 0 && [5, 6].includes((word >>> 12) & 7)) word &= ~0x7000;
  word = (word & ~instruction.mask) | instruction.match;
  // A base of x0 reaches no memory that is there.
  if ((instruction.access || instruction.name === 'jalr') && ((word >>> 15) & 31) === 0) word |= 1 << 15;
  return word;
}

function copyField(word: number, from: number, to: number): number {
  return (word & ~(31 << to)) | (((word >>> from) & 31) << to);
}

/** Registers and fcsr, for a hart and its reference alike. */
export function randomState(h: Reference, r: Random): void {
  for (let n = 1; n < 32; n++) h.x[n] = integer(r);
  for (let n = 0; n < 32; n++) h.f[n] = float(r);
  h.fflags = r.oneIn(2) ? 0 : r.below(32);
  h.frm = r.oneIn(8) ? 5 + r.below(3) : r.below(5);
  h.fs = !r.oneIn(16);
  h.pc = BigInt(CODE);
}

/** Moves the base register so that the access is within the data pages, often across their borders. */
export function aimAccess(
  h: Reference,
  base: number,
  imm: bigint,
  lenBytes: number,
  aligned: boolean,
  r: Random,
): void {
  let offset = r.oneIn(3) ? 4096 * (1 + r.below(2)) - r.below(lenBytes + 1) : r.below(DATA_BYTES - 8);
  if (aligned) offset -= offset % lenBytes;
  h.x[base] = BigInt.asUintN(64, BigInt(DATA + offset) - imm);
}

/** Moves the base of an indirect jump so that it stays in RAM. */
export function aimJump(h: Reference, base: number, imm: bigint, r: Random): void {
  h.x[base] = BigInt.asUintN(64, BigInt(CODE - 65536 + r.below(131072)) - imm);
}

/** Sets the operands up for what `word`, of the entry, needs of them. */
export function aim(h: Reference, instruction: Instruction, word: number, r: Random): void {
  const rs1 = (word >>> 15) & 31;
  const { access, format } = instruction;
  if (access) {
    const imm = format === 'AMO' ? 0 : format === 'S' ? ((word >> 25) << 5) | ((word >>> 7) & 31) : word >> 20;
    aimAccess(h, rs1, BigInt(imm), access.lenBytes, access.atomic === true && !r.oneIn(8), r);
  }
  if (instruction.name === 'jalr') aimJump(h, rs1, BigInt(word >> 20), r);
  if (format === 'B' && r.oneIn(3)) h.x[(word >>> 20) & 31] = h.x[rs1]!;
  if (format === 'B' && r.oneIn(6)) h.x[(word >>> 20) & 31] = BigInt.asUintN(64, s64(h.x[rs1]!) + 1n);
  h.x[0] = 0n;
}
