/** The few instructions that the privileged tests write by hand. Registers are numbers, immediates signed. */

const iType = (opcode: number, funct3: number, rd: number, rs1: number, imm: number) =>
  opcode | (rd << 7) | (funct3 << 12) | (rs1 << 15) | (imm << 20);
const sType = (opcode: number, funct3: number, rs2: number, imm: number, rs1: number) =>
  opcode | ((imm & 31) << 7) | (funct3 << 12) | (rs1 << 15) | (rs2 << 20) | ((imm >> 5) << 25);

export const addi = (rd: number, rs1: number, imm: number): number => iType(0x13, 0, rd, rs1, imm);
export const lw = (rd: number, imm: number, rs1: number): number => iType(0x03, 2, rd, rs1, imm);
export const ld = (rd: number, imm: number, rs1: number): number => iType(0x03, 3, rd, rs1, imm);
export const sw = (rs2: number, imm: number, rs1: number): number => sType(0x23, 2, rs2, imm, rs1);
export const sd = (rs2: number, imm: number, rs1: number): number => sType(0x23, 3, rs2, imm, rs1);
export const fsd = (rs2: number, imm: number, rs1: number): number => sType(0x27, 3, rs2, imm, rs1);
export const csrrw = (rd: number, csr: number, rs1: number): number => iType(0x73, 1, rd, rs1, csr);
export const csrrs = (rd: number, csr: number, rs1: number): number => iType(0x73, 2, rd, rs1, csr);
export const csrrc = (rd: number, csr: number, rs1: number): number => iType(0x73, 3, rd, rs1, csr);
export const csrrsi = (rd: number, csr: number, imm: number): number => iType(0x73, 6, rd, imm, csr);
export const csrrci = (rd: number, csr: number, imm: number): number => iType(0x73, 7, rd, imm, csr);
export const sfenceVma = (rs1: number, rs2: number): number => 0x12000073 | (rs1 << 15) | (rs2 << 20);
export const fmvDX = (fd: number, rs1: number): number => 0xf2000053 | (fd << 7) | (rs1 << 15) | 0;
export const ECALL = 0x73;
export const EBREAK = 0x100073;
export const SRET = 0x10200073;
export const WFI = 0x10500073;
export const FENCE_I = 0x100f;
