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
/** The instruction lies across the end of the page. */
export const HANDLER_CROSSING = 5;
export const FIRST_HANDLER = 6;

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

/**
 * Pairs of neighbours that one handler does: the second begins without a dispatch. The record of the first has the handler of the pair,
 * that of the second stays as it is, for jumps to it.
 *
 * WHY: a dispatch is an indirect jump, badly predicted in long straight code. Debian's boot takes 4.0 s of processor time instead of
 * 5.8, crc32 1.4 s instead of 3.0. These are the commonest pairs of that boot, a compressor and the programs of guests/linux;
 * with a hundred V8's code for the one large function gets worse again. `z`: rd is x0.
 */
const PAIRS = `
add/2 add/2, ld/2 ld/2, add/2 addi/2, mul/4 add/2, slli/4 srli/4, addi/2 addi/2, add/2 sltu/4, ld/2 add/2, sd/2 sd/2,
slli/4 add/2, sd/4 sd/4, add/2 bgeu/4, addi/2 bne/4, sltu/4 add/2, add/4 ld/2, srli/2 add/2, slli/2 add/2,
add/2 bne/4, slli/4 srli/2, slli/2 add/4, sd/4 add/2, add/2 slli/4, sub/4 slli/2, ld/2 addi/2, add/2 addiw/2,
ld/4 ld/4, mul/4 mul/4, srli/4 mul/4, mul/4 slli/4, addiw/2 slli/4, add/2 mul/4, srli/2 srli/2, bne/4 ld/2,
addi/2 xor/2, andi/4 slli/2, xor/2 andi/4, addiw/2 bne/4, add/2 lw/4, lw/2 lw/2, xor/4 xor/4, lbu/4 bne/4,
bne/4 lbu/4, add/4 lbu/4, ld/4 add/2, and/2 xor/2, xor/2 xor/2, add/2 bltu/4, srli/4 add/2, beq/4 sltu/4,
lbu/4 addi/2, addiw/2 addi/2, ld/4 ld/2, add/2 sub/4, lbu/4 lbu/4, sub/4 sltiu/4, and/4 sltu/4, sltiu/4 and/4,
sd/2 addi/2, addi/2 jal/2z, bne/4 ld/4, add/2 beq/4, or/4 add/2, auipc/4 jalr/4, addi/2 jalr/2z, beq/4 lbu/4,
subw/4 slli/4
`;

export interface Pair {
  readonly first: Handler;
  readonly second: Handler;
}

function numberOf(form: string): number {
  const [name, length] = form.split('/');
  const number = BY_FORM.get(key(name!, Number.parseInt(length!, 10), length!.endsWith('z')));
  if (number === undefined) throw new Error(`no instruction has the form ${form}`);
  return number;
}

export const FIRST_PAIR = FIRST_HANDLER + HANDLERS.length;
const PAIR_NUMBERS = PAIRS.split(',').map((pair) => pair.trim().split(' ').map(numberOf) as [number, number]);
const BY_PAIR = new Map(PAIR_NUMBERS.map(([first, second], i) => [first * 2 ** 16 + second, FIRST_PAIR + i] as const));

/** Handler FIRST_PAIR + i is entry i. */
export const FUSED: readonly Pair[] = PAIR_NUMBERS.map(([first, second]) => ({
  first: HANDLERS[first - FIRST_HANDLER]!,
  second: HANDLERS[second - FIRST_HANDLER]!,
}));

/** The handler that does two neighbours, given theirs; undefined where there is none. */
export function pairOf(first: number, second: number): number | undefined {
  return BY_PAIR.get(first * 2 ** 16 + second);
}

/** The form that a record's handler number stands for, of a pair the first; undefined for those before FIRST_HANDLER. */
export function formOf(handler: number): Handler | undefined {
  return handler < FIRST_PAIR ? HANDLERS[handler - FIRST_HANDLER] : FUSED[handler - FIRST_PAIR]!.first;
}
