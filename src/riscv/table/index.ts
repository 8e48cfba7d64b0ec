import { FLOAT } from '../fp/table.js';
import { CONTROL } from './control.js';
import { INTEGER } from './integer.js';
import { MEMORY } from './memory.js';
import type { Instruction } from './types.js';

/** All instructions of RV64IMAFD with Zicsr, Zifencei and the supervisor's; the compressed forms are in compressed.ts. */
export const INSTRUCTIONS: readonly Instruction[] = [...INTEGER, ...MEMORY, ...CONTROL, ...FLOAT];

export type { Access, CsrKind, Emit, Instruction } from './types.js';
