import type { Decoded } from './decode.js';
import { INSTRUCTIONS, type Instruction } from './table/index.js';

/**
 * The interpreter's handlers: one for each instruction and form. The forms are the length in memory (2 or 4 bytes), and
 * whether rd is x0, so that no handler asks at run time.
 */

export interface Handler {
  readonly instruction: Instruction;
  readonly lenBytes: 2 | 4;
  /** rd is x0: the result is dropped. */
  readonly zero: boolean;
}

/** Not decoded yet. */
export const HANDLER_DECODE = 0;
/** Past the end of the page: look the next one up. */
export const HANDLER_PAGE_END = 1;
export const HANDLER_ILLEGAL = 2;
/** A pure instruction with rd = x0, of 2 and of 4 bytes. */
export const HANDLER_NOP2 = 3;
export const HANDLER_NOP4 = 4;
export const FIRST_HANDLER = 5;

/** What has a compressed form (compressed.ts). */
const COMPRESSED = new Set(
  (
    'addi addiw lui srli srai andi slli add sub xor or and addw subw jal jalr beq bne ' + 'lw ld fld sw sd fsd ebreak'
  ).split(' '),
);

function forms(instruction: Instruction): Handler[] {
  const lengths: (2 | 4)[] = COMPRESSED.has(instruction.name) ? [2, 4] : [4];
  const zeros = instruction.dest === 'x' && !instruction.pure ? [false, true] : [false];
  return lengths.flatMap((lenBytes) => zeros.map((zero) => ({ instruction, lenBytes, zero })));
}

/** Handler FIRST_HANDLER + i is entry i. */
export const HANDLERS: readonly Handler[] = INSTRUCTIONS.flatMap(forms);

function key(name: string, lenBytes: number, zero: boolean): string {
  return `${name}/${lenBytes}/${zero}`;
}

const BY_FORM = new Map(
  HANDLERS.map((h, i) => [key(h.instruction.name, h.lenBytes, h.zero), FIRST_HANDLER + i] as const),
);

export function handlerOf(decoded: Decoded): number {
  const { instruction, lenBytes, rd } = decoded;
  const toX0 = instruction.dest === 'x' && rd === 0;
  if (toX0 && instruction.pure) return lenBytes === 2 ? HANDLER_NOP2 : HANDLER_NOP4;
  return BY_FORM.get(key(instruction.name, lenBytes, toX0))!;
}

/** The form that a record's handler number stands for; undefined for the first five. */
export function formOf(handler: number): Handler | undefined {
  return HANDLERS[handler - FIRST_HANDLER];
}
