/**
 * Guest code of a few instructions, by the encodings of the RISC-V unprivileged manual (chapter 35, instruction set listings).
 */

export const ZERO = 0;
export const T0 = 5;
export const A0 = 10;
export const A1 = 11;
export const A7 = 17;

export const addi = (rd: number, rs1: number, imm: number) => ((imm << 20) | (rs1 << 15) | (rd << 7) | 0x13) >>> 0;
export const ld = (rd: number, rs1: number) => ((rs1 << 15) | (3 << 12) | (rd << 7) | 0x03) >>> 0;
export const sd = (rs2: number, rs1: number) => ((rs2 << 20) | (rs1 << 15) | (3 << 12) | 0x23) >>> 0;
export const jalr = (rs1: number) => ((rs1 << 15) | 0x67) >>> 0;
export const SFENCE_VMA = 0x12000073;
export const ECALL = 0x00000073;
/** jal zero, 0 */
export const LOOP = 0x0000006f;

export function code(...words: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(words).buffer);
}
