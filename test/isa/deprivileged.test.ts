import { beforeEach, describe, expect, it } from 'vitest';
import {
  CSR,
  HART_EXIT_BUDGET,
  HART_EXIT_ECALL,
  HART_EXIT_TRAP,
  type HartExit,
  IRQ_S_TIMER,
  MODE_SUPERVISOR,
  MODE_USER,
  SSTATUS_SIE,
} from '../../src/riscv/index.js';
import * as a from './assemble.js';
import { CODE, RAM_BASE, TestHart, VECTOR } from './testhart.js';

/** A hart whose S-mode has nothing of the machine: all that traps comes out, and what is privileged traps. */

const machine = new TestHart({ deprivileged: true });
const { hart } = machine;
const A0 = 10;
const BEYOND = 0x1000;

beforeEach(() => {
  hart.setMode(MODE_SUPERVISOR);
  machine.setCsr(CSR.scounteren, 7n);
  machine.x.fill(0n);
});

/** Runs the instruction at CODE; how it came out, with scause and stval where it trapped. */
function execute(word: number): { exit: HartExit; cause?: bigint; tval?: bigint } {
  machine.put(CODE, word);
  hart.pc = BigInt(CODE);
  const exit = hart.run(1);
  return exit === HART_EXIT_TRAP ? { exit, cause: machine.csr(CSR.scause), tval: machine.csr(CSR.stval) } : { exit };
}

const illegal = (word: number) => ({ exit: HART_EXIT_TRAP, cause: 2n, tval: BigInt(word >>> 0) });

describe('S-mode of a deprivileged hart', () => {
  const PRIVILEGED = {
    sret: a.SRET,
    wfi: a.WFI,
    'sfence.vma': a.sfenceVma(0, 0),
    ...Object.fromEntries(
      ['sstatus', 'sie', 'stvec', 'scounteren', 'senvcfg', 'sscratch', 'sepc', 'scause', 'stval', 'sip', 'satp'].map(
        (name) => [`csrr ${name}`, a.csrrs(A0, CSR[name as keyof typeof CSR], 0)],
      ),
    ),
    'csrw satp': a.csrrw(0, CSR.satp, A0),
    'csrsi sstatus': a.csrrsi(0, CSR.sstatus, SSTATUS_SIE),
  };

  it.each(Object.entries(PRIVILEGED))('%s is illegal, and changes nothing', (_name, word) => {
    machine.x[A0] = 0x8000000000080000n;
    expect(execute(word)).toEqual(illegal(word));
    expect(hart.pc).toBe(BigInt(CODE));
    expect(hart.mode).toBe(MODE_SUPERVISOR);
    expect(machine.x[A0]).toBe(0x8000000000080000n);
    expect(hart.satp).toBe(0n);
  });

  it('what user mode may do it may do: rdtime, rdinstret, fence.i, floating-point CSRs', () => {
    for (const word of [a.csrrs(A0, CSR.time, 0), a.csrrs(A0, CSR.instret, 0), a.FENCE_I, a.csrrw(0, CSR.fcsr, 0)])
      expect(execute(word)).toEqual({ exit: HART_EXIT_BUDGET });
  });

  it('an ecall of it is told from one of U-mode', () => {
    expect(execute(a.ECALL)).toEqual({ exit: HART_EXIT_ECALL });
    expect(hart.pc).toBe(BigInt(CODE + 4));
    hart.setMode(MODE_USER);
    expect(execute(a.ECALL)).toEqual({ exit: HART_EXIT_TRAP, cause: 8n, tval: 0n });
    expect(hart.pc).toBe(BigInt(CODE));
  });
});

describe('traps of a deprivileged hart', () => {
  it.each([MODE_USER, MODE_SUPERVISOR])('of mode %s come out, with mode and pc as they were', (mode) => {
    hart.setMode(mode);
    machine.setCsr(CSR.stvec, BigInt(VECTOR));
    machine.x[A0] = BigInt(BEYOND);
    expect(execute(a.EBREAK)).toEqual({ exit: HART_EXIT_TRAP, cause: 3n, tval: BigInt(CODE) });
    expect(execute(0)).toEqual({ exit: HART_EXIT_TRAP, cause: 2n, tval: 0n });
    machine.x[A0] = (1n << 60n) + 1n;
    expect(execute(a.ld(1, 0, A0))).toEqual({ exit: HART_EXIT_TRAP, cause: 5n, tval: (1n << 60n) + 1n });
    expect(hart.mode).toBe(mode);
    expect(hart.pc).toBe(BigInt(CODE));
  });

  it('of a fetch come out, and the instructions before it are counted', () => {
    // jalr x0, 0(a0)
    machine.put(CODE, 0x67 | (A0 << 15));
    machine.x[A0] = 1n << 60n;
    hart.pc = BigInt(CODE);
    const before = hart.instret;
    expect(hart.run(10)).toBe(HART_EXIT_TRAP);
    expect([machine.csr(CSR.scause), machine.csr(CSR.stval), hart.pc]).toEqual([1n, 1n << 60n, 1n << 60n]);
    expect(hart.instret - before).toBe(1);
    expect(hart.run(10)).toBe(HART_EXIT_TRAP);
    expect(hart.instret - before).toBe(1);
  });

  it('a trap of an instruction uses budget and retires nothing', () => {
    machine.put(CODE, a.addi(A0, A0, 1));
    machine.put(CODE + 4, a.EBREAK);
    hart.pc = BigInt(CODE);
    const before = hart.instret;
    expect(hart.run(10)).toBe(HART_EXIT_TRAP);
    expect(hart.instret - before).toBe(1);
    expect(hart.pc).toBe(BigInt(CODE + 4));
  });

  it('returnTo goes on in the mode, and takes a reservation', () => {
    // lr.d a0, (a1); then from another place sc.d a0, a2, (a1)
    machine.x[11] = BigInt(RAM_BASE + 0x10000);
    expect(execute(0x1005b52f).exit).toBe(HART_EXIT_BUDGET);
    hart.returnTo(MODE_USER, (CODE + 64) | 0, Math.floor((CODE + 64) / 2 ** 32));
    expect([hart.mode, hart.pc]).toEqual([MODE_USER, BigInt(CODE + 64)]);
    machine.put(CODE + 64, 0x18c5b52f);
    hart.run(1);
    expect(machine.x[A0]).toBe(1n);
  });

  it('no interrupt is taken: they are the embedder’s', () => {
    machine.setCsr(CSR.sie, BigInt(1 << IRQ_S_TIMER));
    machine.setCsr(CSR.sstatus, BigInt(SSTATUS_SIE));
    hart.setInterruptPending(IRQ_S_TIMER, true);
    expect(execute(a.addi(A0, A0, 1))).toEqual({ exit: HART_EXIT_BUDGET });
    expect(machine.x[A0]).toBe(1n);
    hart.setInterruptPending(IRQ_S_TIMER, false);
  });
});
