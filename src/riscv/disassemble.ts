import { CSR } from './csr.js';
import { type Decoded, decode, isCompressed } from './decode.js';

/**
 * Instructions as text, from the same table that decodes them, as objdump writes them without its aliases; a compressed
 * one as the instruction that it stands for.
 */

const X = [
  ...'zero ra sp gp tp t0 t1 t2 s0 s1'.split(' '),
  ...'a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6'.split(' '),
];
const F = [
  ...'ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1'.split(' '),
  ...'fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11'.split(' '),
];
const ROUNDING = ['rne', 'rtz', 'rdn', 'rup', 'rmm'];
const EXACT = new Set(['fcvt.d.w', 'fcvt.d.wu', 'fcvt.d.s']);
const CSR_NAMES = new Map<number, string>(Object.entries(CSR).map(([name, number]) => [number, name]));

/**
 * @param word 32 bits, of which a compressed instruction uses the low half. @param pc its address, for targets of jumps.
 * @returns such as `addi a0,a0,-1`, `bne a0,zero,0x80000010`, `fadd.d fa0,fa1,fa2,rtz`; what is no instruction as data.
 */
export function disassemble(word: number, pc: bigint): string {
  const decoded = decode(word);
  if (decoded === undefined) return isCompressed(word) ? `.2byte ${hex(word & 0xffff)}` : `.4byte ${hex(word >>> 0)}`;
  const { name } = decoded.instruction;
  const operands = operandsOf(decoded, pc);
  if (decoded.instruction.format === 'AMO') return `${name}${ordering(decoded.word)} ${operands}`;
  return operands === '' ? name : `${name} ${operands}`;
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

function operandsOf(d: Decoded, pc: bigint): string {
  const { instruction, imm } = d;
  const { name, format, access } = instruction;
  const [rd, rs1, rs2] = [(instruction.dest === 'f' ? F : X)[d.rd]!, X[d.rs1]!, X[d.rs2]!];
  const target = hex(BigInt.asUintN(64, pc + BigInt(imm)));
  switch (format) {
    case 'I':
      return access || name === 'jalr' ? `${rd},${imm}(${rs1})` : `${rd},${rs1},${imm}`;
    case 'SHIFT':
      return `${rd},${rs1},${hex(imm)}`;
    case 'S':
      return `${instruction.fp ? F[d.rs2] : rs2},${imm}(${rs1})`;
    case 'B':
      return `${rs1},${rs2},${target}`;
    case 'U':
      return `${rd},${hex(imm >>> 12)}`;
    case 'J':
      return `${rd},${target}`;
    case 'CSR':
      return `${rd},${csrName(imm)},${rs1}`;
    case 'CSRI':
      return `${rd},${csrName(imm)},${d.rs1}`;
    case 'AMO':
      return name.startsWith('lr.') ? `${rd},(${rs1})` : `${rd},${rs2},(${rs1})`;
    case 'FENCE':
      return fenceSets(d.word);
    case 'NONE':
      return '';
    default:
      return registers(d).join(',');
  }
}

function csrName(number: number): string {
  return CSR_NAMES.get(number) ?? hex(number);
}

function ordering(word: number): string {
  return ['', '.rl', '.aq', '.aqrl'][(word >>> 25) & 3]!;
}

/** Predecessor and successor sets. */
function fenceSets(word: number): string {
  const set = (bits: number) => [...'iorw'].filter((_, i) => (bits & (8 >> i)) !== 0).join('') || '0';
  return `${set((word >>> 24) & 15)},${set((word >>> 20) & 15)}`;
}

/** The rounding mode that is not written: frm's, or what assemblers give to a conversion that is exact anyway. */
function usualRounding({ instruction }: Decoded): number {
  return EXACT.has(instruction.name) ? 0 : 7;
}

/** Operands of R and R4: those whose fields are not part of the opcode. */
function registers(d: Decoded): string[] {
  const { mask, dest, fp, rm, source, format } = d.instruction;
  const from = fp && source !== 'x' ? F : X;
  const out = dest === 'none' ? [] : [(dest === 'f' ? F : X)[d.rd]!];
  out.push(from[d.rs1]!);
  if (((mask >>> 20) & 31) === 0) out.push(from[d.rs2]!);
  if (format === 'R4') out.push(from[d.rs3]!);
  if (rm && d.rm !== usualRounding(d)) out.push(ROUNDING[d.rm] ?? 'dyn');
  return out;
}
