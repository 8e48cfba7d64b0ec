import { CSR, MODE_SUPERVISOR, SSTATUS_FS_SHIFT, SSTATUS_SPP } from '../../src/riscv/index.js';
import { Reference } from './reference.js';
import type { Trap } from './reference-state.js';
import { DATA, DATA_BYTES, type Step, TestHart } from './testhart.js';

const CSRS = [CSR.sscratch, CSR.sepc, CSR.scause, CSR.stval];
const hex = (v: bigint) => `0x${v.toString(16)}`;

/** Gives the hart the reference's registers. */
export function copyState(hart: TestHart, h: Reference): void {
  hart.x.set(h.x);
  hart.f.set(h.f);
  hart.setFcsr(h.fflags, h.frm);
  hart.hart.pc = h.pc;
  // SPP, so that sret stays in S-mode.
  hart.hart.setMode(MODE_SUPERVISOR);
  hart.setCsr(CSR.sstatus, BigInt(SSTATUS_SPP | (h.fs ? 1 << SSTATUS_FS_SHIFT : 0)));
  for (const csr of CSRS) hart.setCsr(csr, h.csrs.get(csr) ?? 0n);
}

/** A hart and the reference, given the same state and the same instruction, and compared in all that they have. */
export class Lockstep {
  readonly hart = new TestHart();
  readonly reference = new Reference(BigInt(DATA), DATA_BYTES);
  private last: Step = { exit: 0 };

  copyState(): void {
    copyState(this.hart, this.reference);
  }

  copyMemory(): void {
    this.hart.data.set(this.reference.memory);
  }

  /** Both do `word`, which must be at pc. Throws with what differs, or `describe`d by what went before. */
  step(word: number, describe: () => string): Trap | undefined {
    const pc = this.reference.pc;
    const trap = this.reference.step(word);
    this.last = this.hart.step(pc);
    const differences = this.differences(trap, pc);
    if (differences.length > 0) throw new Error(`${describe()}: ${differences.join('; ')}`);
    return trap;
  }

  /** Both do the neighbours `first` and `second` in one run: the first alone where it traps or jumps away. */
  stepTwo(first: number, second: number, describe: () => string): void {
    const pc = this.reference.pc;
    const next = pc + BigInt((first & 3) === 3 ? 4 : 2);
    let trap = this.reference.step(first);
    const both = trap === undefined && this.reference.pc === next;
    if (both) trap = this.reference.step(second);
    this.last = this.hart.step(pc, both ? 2 : 1);
    const differences = this.differences(trap, both ? next : pc);
    if (differences.length > 0) throw new Error(`${describe()}: ${differences.join('; ')}`);
  }

  private differences(trap: Trap | undefined, pc: bigint): string[] {
    const out: string[] = [];
    const same = (what: string, was: bigint, expected: bigint) => {
      if (was !== expected) out.push(`${what} is ${hex(was)}, not ${hex(expected)}`);
    };
    const { hart, reference: h } = this;
    if ((trap === undefined) !== (this.last.trap === undefined)) {
      out.push(trap === undefined ? `trap ${this.last.trap!.cause}` : `no trap, but it should be ${trap.cause}`);
    } else if (trap !== undefined) {
      const { cause, tval, sepc } = this.last.trap!;
      same('scause', BigInt(cause), BigInt(trap.cause));
      same('stval', tval, trap.tval);
      same('sepc', sepc, pc);
    } else {
      same('pc', hart.hart.pc, h.pc);
      for (const csr of CSRS) same(`csr ${csr.toString(16)}`, hart.csr(csr), h.csrs.get(csr) ?? 0n);
    }
    for (let n = 0; n < 32; n++) {
      if (hart.x[n] !== h.x[n]) same(`x${n}`, hart.x[n]!, h.x[n]!);
      if (hart.f[n] !== h.f[n]) same(`f${n}`, hart.f[n]!, h.f[n]!);
    }
    same('fflags', BigInt(hart.fflags), BigInt(h.fflags));
    same('frm', BigInt(hart.frm), BigInt(h.frm));
    if (Buffer.compare(hart.data, h.memory) !== 0) out.push('memory differs');
    return out;
  }
}
