import type { SbiCall, SbiResult } from '../machine/index.js';
import type { Hart } from '../riscv/index.js';

/** The registers of an SBI call (specification 2.0, chapter 3), for whoever answers it: the mm thread (sbi.ts) or the vCPU's own (threadsbi.ts). */

const A0 = 10;
const A1 = 11;
const A6 = 16;
const A7 = 17;
const ARGUMENTS = [A0, 11, 12, 13, 14, 15] as const;

export function sbiCallOf(hart: Hart): SbiCall {
  return { eid: hart.getX(A7), fid: hart.getX(A6), args: ARGUMENTS.map((n) => hart.getX(n)) };
}

export function answerSbi(hart: Hart, { error, value }: SbiResult): void {
  hart.setX(A0, error);
  if (value !== undefined) hart.setX(A1, value);
}
