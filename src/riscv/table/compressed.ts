/**
 * The compressed instructions of RV64DC (unprivileged manual, chapter 28): each stands for one 32-bit instruction, which
 * is what `expand` returns; 0 for what is reserved or illegal. Hints become the instruction that they encode.
 */

const LOAD = 0x03;
const LOAD_FP = 0x07;
const OP_IMM = 0x13;
const OP_IMM_32 = 0x1b;
const STORE = 0x23;
const STORE_FP = 0x27;
const OP = 0x33;
const LUI = 0x37;
const OP_32 = 0x3b;
const BRANCH = 0x63;
const JALR = 0x67;
const JAL = 0x6f;
const EBREAK = 0x00100073;
const RA = 1;
const SP = 2;

export function expand(c: number): number {
  const funct3 = (c >>> 13) & 7;
  switch (c & 3) {
    case 0:
      return expand0(c, funct3);
    case 1:
      return expand1(c, funct3);
    default:
      return expand2(c, funct3);
  }
}

/** Bits hi..lo of `c`, moved to start at `to`. */
function bits(c: number, hi: number, lo: number, to: number): number {
  return ((c >>> lo) & ((1 << (hi - lo + 1)) - 1)) << to;
}

function signed(value: number, nrBits: number): number {
  return (value << (32 - nrBits)) >> (32 - nrBits);
}

function iType(opcode: number, funct3: number, rd: number, rs1: number, imm: number): number {
  return opcode | (rd << 7) | (funct3 << 12) | (rs1 << 15) | (imm << 20);
}

function rType(opcode: number, funct3: number, funct7: number, rd: number, rs1: number, rs2: number): number {
  return opcode | (rd << 7) | (funct3 << 12) | (rs1 << 15) | (rs2 << 20) | (funct7 << 25);
}

function sType(opcode: number, funct3: number, rs1: number, rs2: number, imm: number): number {
  return opcode | ((imm & 31) << 7) | (funct3 << 12) | (rs1 << 15) | (rs2 << 20) | ((imm >> 5) << 25);
}

function bType(funct3: number, rs1: number, imm: number): number {
  const low = bits(imm, 11, 11, 7) | bits(imm, 4, 1, 8);
  return BRANCH | low | (funct3 << 12) | (rs1 << 15) | bits(imm, 10, 5, 25) | bits(imm, 12, 12, 31);
}

function jType(rd: number, imm: number): number {
  const upper = bits(imm, 19, 12, 12) | bits(imm, 11, 11, 20) | bits(imm, 10, 1, 21) | bits(imm, 20, 20, 31);
  return JAL | (rd << 7) | upper;
}

function expand0(c: number, funct3: number): number {
  const rdS = 8 + ((c >>> 2) & 7);
  const rs1S = 8 + ((c >>> 7) & 7);
  const imm8 = bits(c, 12, 10, 3) | bits(c, 6, 5, 6);
  const imm4 = bits(c, 12, 10, 3) | bits(c, 6, 6, 2) | bits(c, 5, 5, 6);
  switch (funct3) {
    case 0: {
      const imm = bits(c, 12, 11, 4) | bits(c, 10, 7, 6) | bits(c, 6, 6, 2) | bits(c, 5, 5, 3);
      return imm === 0 ? 0 : iType(OP_IMM, 0, rdS, SP, imm);
    }
    case 1:
      return iType(LOAD_FP, 3, rdS, rs1S, imm8);
    case 2:
      return iType(LOAD, 2, rdS, rs1S, imm4);
    case 3:
      return iType(LOAD, 3, rdS, rs1S, imm8);
    case 5:
      return sType(STORE_FP, 3, rs1S, rdS, imm8);
    case 6:
      return sType(STORE, 2, rs1S, rdS, imm4);
    case 7:
      return sType(STORE, 3, rs1S, rdS, imm8);
    default:
      return 0;
  }
}

function expand1(c: number, funct3: number): number {
  const rd = (c >>> 7) & 31;
  const imm6 = signed(bits(c, 12, 12, 5) | bits(c, 6, 2, 0), 6);
  switch (funct3) {
    case 0:
      return iType(OP_IMM, 0, rd, rd, imm6);
    case 1:
      return rd === 0 ? 0 : iType(OP_IMM_32, 0, rd, rd, imm6);
    case 2:
      return iType(OP_IMM, 0, rd, 0, imm6);
    case 3:
      return expandLui(c, rd, imm6);
    case 4:
      return expandArithmetic(c, imm6);
    case 5:
      return jType(0, jumpOffset(c));
    default:
      return bType(funct3 & 1, 8 + ((c >>> 7) & 7), branchOffset(c));
  }
}

function expandLui(c: number, rd: number, imm6: number): number {
  if (rd !== SP) return imm6 === 0 ? 0 : LUI | (rd << 7) | (imm6 << 12);
  const imm = bits(c, 12, 12, 9) | bits(c, 6, 6, 4) | bits(c, 5, 5, 6) | bits(c, 4, 3, 7) | bits(c, 2, 2, 5);
  return imm === 0 ? 0 : iType(OP_IMM, 0, SP, SP, signed(imm, 10));
}

function expandArithmetic(c: number, imm6: number): number {
  const rd = 8 + ((c >>> 7) & 7);
  const rs2 = 8 + ((c >>> 2) & 7);
  switch ((c >>> 10) & 3) {
    case 0:
      return iType(OP_IMM, 5, rd, rd, imm6 & 63);
    case 1:
      return iType(OP_IMM, 5, rd, rd, (imm6 & 63) | 0x400);
    case 2:
      return iType(OP_IMM, 7, rd, rd, imm6);
    default:
      return expandRegisters(c, rd, rs2);
  }
}

function expandRegisters(c: number, rd: number, rs2: number): number {
  switch (((c >>> 10) & 4) | ((c >>> 5) & 3)) {
    case 0:
      return rType(OP, 0, 0x20, rd, rd, rs2);
    case 1:
      return rType(OP, 4, 0, rd, rd, rs2);
    case 2:
      return rType(OP, 6, 0, rd, rd, rs2);
    case 3:
      return rType(OP, 7, 0, rd, rd, rs2);
    case 4:
      return rType(OP_32, 0, 0x20, rd, rd, rs2);
    case 5:
      return rType(OP_32, 0, 0, rd, rd, rs2);
    default:
      return 0;
  }
}

function jumpOffset(c: number): number {
  const high = bits(c, 12, 12, 11) | bits(c, 11, 11, 4) | bits(c, 10, 9, 8) | bits(c, 8, 8, 10);
  const low = bits(c, 7, 7, 6) | bits(c, 6, 6, 7) | bits(c, 5, 3, 1) | bits(c, 2, 2, 5);
  return signed(high | low, 12);
}

function branchOffset(c: number): number {
  const high = bits(c, 12, 12, 8) | bits(c, 11, 10, 3);
  return signed(high | bits(c, 6, 5, 6) | bits(c, 4, 3, 1) | bits(c, 2, 2, 5), 9);
}

function expand2(c: number, funct3: number): number {
  const rd = (c >>> 7) & 31;
  const rs2 = (c >>> 2) & 31;
  const load8 = bits(c, 12, 12, 5) | bits(c, 6, 5, 3) | bits(c, 4, 2, 6);
  const load4 = bits(c, 12, 12, 5) | bits(c, 6, 4, 2) | bits(c, 3, 2, 6);
  const store8 = bits(c, 12, 10, 3) | bits(c, 9, 7, 6);
  const store4 = bits(c, 12, 9, 2) | bits(c, 8, 7, 6);
  switch (funct3) {
    case 0:
      return iType(OP_IMM, 1, rd, rd, bits(c, 12, 12, 5) | rs2);
    case 1:
      return iType(LOAD_FP, 3, rd, SP, load8);
    case 2:
      return rd === 0 ? 0 : iType(LOAD, 2, rd, SP, load4);
    case 3:
      return rd === 0 ? 0 : iType(LOAD, 3, rd, SP, load8);
    case 4:
      return expandJumps(c, rd, rs2);
    case 5:
      return sType(STORE_FP, 3, SP, rs2, store8);
    case 6:
      return sType(STORE, 2, SP, rs2, store4);
    default:
      return sType(STORE, 3, SP, rs2, store8);
  }
}

function expandJumps(c: number, rd: number, rs2: number): number {
  const add = (c & 0x1000) !== 0;
  if (rs2 !== 0) return rType(OP, 0, 0, rd, add ? rd : 0, rs2);
  if (rd !== 0) return iType(JALR, 0, add ? RA : 0, rd, 0);
  return add ? EBREAK : 0;
}
