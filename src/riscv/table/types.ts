import type { AtomicName, Code, MemName, OpName } from '../../base/index.js';

/**
 * The instruction table: one entry an instruction, with its encoding and its meaning.
 *
 * The meaning is a function that emits WebAssembly over abstract operands: `e.rs1()` pushes the value of rs1, `e.rd(f)`
 * stores what `f` pushes. The interpreter (interp.ts) implements `Emit` with operands read from a decoded record; a
 * compiler of hot code implements it with constants and locals. An entry never says where an operand comes from, so both,
 * and the decoder, the disassembler and the tests, come from the same table.
 *
 * What needs the hart's world (CSRs, traps, fences) runs in TypeScript, by its name, in slow.ts: it has no emit, or one that does the common cases.
 */

export type Format = 'R' | 'R4' | 'I' | 'SHIFT' | 'S' | 'B' | 'U' | 'J' | 'CSR' | 'CSRI' | 'AMO' | 'FENCE' | 'NONE';

export interface Instruction {
  readonly name: string;
  readonly format: Format;
  readonly mask: number;
  readonly match: number;
  /** Which file rd names; none: no destination. */
  readonly dest: 'x' | 'f' | 'none';
  /** With rd = x0 it does nothing at all, and cannot trap. */
  readonly pure?: boolean;
  /** Which file rs1 of an instruction that computes names, and rs2 and rs3 if it has them; without it: f if `fp`, else x. */
  readonly source?: 'x' | 'f';
  /** Reads or writes floating-point state: illegal while sstatus.FS is Off. */
  readonly fp?: boolean;
  /** Has a rounding mode field: 5 and 6 are illegal, 7 is frm's. */
  readonly rm?: boolean;
  /** It never falls through: decoding ahead stops there. */
  readonly ends?: boolean;
  /** A load or store of so many bytes: what the slow path needs to know. */
  readonly access?: Access;
  readonly emit?: (e: Emit) => void;
}

export interface Access {
  readonly lenBytes: 1 | 2 | 4 | 8;
  readonly write: boolean;
  readonly signed?: boolean;
  readonly atomic?: boolean;
}

/** CSR_WRITE, CSR_SET or CSR_CLEAR of csrhelpers.ts. */
export type CsrKind = 0 | 1 | 2;

export interface Emit {
  readonly c: Code;
  /** Push a 64-bit register. */
  rs1(): void;
  rs2(): void;
  /** Push the low 32 bits of a register, as i32. */
  rs1w(): void;
  rs2w(): void;
  /** Push bits of a floating-point register as i64. */
  frs1(): void;
  frs2(): void;
  frs3(): void;
  /** Push the sign-extended immediate as i64, as i32. */
  imm(): void;
  imm32(): void;
  /** Push the address of this instruction, of the next one, as i64. */
  pc(): void;
  nextPc(): void;
  /** x[rd] = the i64 that `value` pushes. */
  rd(value: () => void): void;
  /** f[rd] = the i64 that `value` pushes; marks the floating-point state dirty. */
  frd(value: () => void): void;
  /** Push the rounding mode in force (0 to 4) as i32. */
  rm(): void;
  /** Accrues the exception flags that `flags` pushes as i32. */
  accrue(flags: () => void): void;
  /** To pc + imm if `condition` pushes other than 0. */
  branch(condition: () => void): void;
  /** To pc + imm; rd, if there is one, was set before. */
  jump(): void;
  /** To the i64 address that `target` pushes. */
  jumpRegister(target: () => void): void;
  /** `use` gets the host address on the stack once rs1 + imm is in the TLB for it, and consumes it. */
  load(mem: MemName, lenBytes: number, dest: 'x' | 'f'): void;
  store(mem: MemName, lenBytes: number, value: () => void): void;
  /** rd = memory at rs1 by an atomic operation of `lenBytes`, sign-extended. */
  amo(op: AtomicName, lenBytes: 4 | 8): void;
  /** The same where WebAssembly has no operation: memory stays if `keeps` holds of (memory, rs2), else it becomes rs2. */
  amoUnless(keeps: OpName, lenBytes: 4 | 8): void;
  loadReserved(lenBytes: 4 | 8): void;
  storeConditional(lenBytes: 4 | 8): void;
  /** `fence`, with the sets of imm: bits 7..4 what comes before, 3..0 what comes after; each I, O, R, W. */
  fence(): void;
  /** rd = the CSR whose number is imm; it changes as `kind` says by rs1, or by the 5 bits of that field. The slow path does what csrhelpers.ts leaves. */
  csr(kind: CsrKind, immediate: boolean): void;
  /** Likewise. */
  sret(): void;
  /** Calls a helper of the module by its name (see helpers.ts). */
  call(helper: string): void;
  /** A scratch local, 0 to 3; what it holds is gone with the instruction. */
  temp64(n: number): number;
  temp32(n: number): number;
  tempF64(n: number): number;
}
