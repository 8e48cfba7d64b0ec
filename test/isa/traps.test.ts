import { beforeEach, describe, expect, it } from 'vitest';
import {
  CSR,
  HART_EXIT_BUDGET,
  HART_EXIT_ECALL,
  HART_EXIT_WFI,
  IRQ_S_EXT,
  IRQ_S_SOFT,
  IRQ_S_TIMER,
  MODE_SUPERVISOR,
  MODE_USER,
  SSTATUS_FS,
  SSTATUS_FS_SHIFT,
  SSTATUS_MXR,
  SSTATUS_SIE,
  SSTATUS_SPIE,
  SSTATUS_SPP,
  SSTATUS_SUM,
} from '../../src/riscv/index.js';
import * as a from './assemble.js';
import { CODE, DATA, type Step, TestHart, VECTOR } from './testhart.js';

/**
 * The privileged architecture as a hypervisor starts a guest in it: S-mode with everything delegated (privileged manual,
 * chapter 12), on a hart without paging; sv39.test.ts has the paging.
 */

const machine = new TestHart();
const { hart } = machine;
const UXL_64 = 2n << 32n;
const SD = 1n << 63n;
const INTERRUPT = 1n << 63n;

beforeEach(() => {
  machine.setCsr(CSR.satp, 0n);
  hart.setMode(MODE_SUPERVISOR);
  for (const csr of [CSR.sstatus, CSR.sie, CSR.scounteren, CSR.sepc, CSR.scause, CSR.stval]) machine.setCsr(csr, 0n);
  machine.setCsr(CSR.stvec, BigInt(VECTOR));
  for (const cause of [IRQ_S_SOFT, IRQ_S_TIMER, IRQ_S_EXT]) hart.setInterruptPending(cause, false);
  machine.x.fill(0n);
  // An interrupt is taken before the one instruction of a step, which is the handler's first then.
  machine.put(VECTOR, a.addi(0, 0, 0));
});

/** Runs one instruction at CODE. */
function execute(word: number): Step {
  machine.put(CODE, word);
  return machine.step(BigInt(CODE));
}

function status(bits: number): void {
  machine.setCsr(CSR.sstatus, BigInt(bits >>> 0));
}

describe('exceptions', () => {
  it('of U-mode: SPP is clear, SPIE holds SIE, SIE is clear, the cause is direct even if stvec is vectored', () => {
    status(SSTATUS_SIE | SSTATUS_SUM);
    machine.setCsr(CSR.stvec, BigInt(VECTOR + 1));
    hart.setMode(MODE_USER);
    expect(execute(a.ECALL).trap).toEqual({ cause: 8, tval: 0n, sepc: BigInt(CODE) });
    expect(hart.mode).toBe(MODE_SUPERVISOR);
    expect(machine.csr(CSR.sstatus)).toBe(UXL_64 | BigInt(SSTATUS_SPIE | SSTATUS_SUM));
  });

  it('of S-mode: SPP is set, SPIE holds the SIE that was clear', () => {
    status(SSTATUS_SPIE);
    expect(execute(a.EBREAK).trap).toEqual({ cause: 3, tval: BigInt(CODE), sepc: BigInt(CODE) });
    expect(machine.csr(CSR.sstatus)).toBe(UXL_64 | BigInt(SSTATUS_SPP));
  });

  it('ecall of S-mode is a call of the hypervisor, not a trap', () => {
    const step = execute(a.ECALL);
    expect(step).toEqual({ exit: HART_EXIT_ECALL });
    expect(hart.pc).toBe(BigInt(CODE + 4));
  });

  it('illegal instructions have their word in stval, compressed ones half of it', () => {
    expect(execute(0xffffffff | 0).trap).toEqual({ cause: 2, tval: 0xffffffffn, sepc: BigInt(CODE) });
    expect(execute(0x12340000).trap).toEqual({ cause: 2, tval: 0n, sepc: BigInt(CODE) });
    expect(execute(0x12349c61).trap).toEqual({ cause: 2, tval: 0x9c61n, sepc: BigInt(CODE) });
  });

  it('a fetch outside of memory is an access fault at the target', () => {
    expect(machine.step(0x1000n).trap).toEqual({ cause: 1, tval: 0x1000n, sepc: 0x1000n });
    expect(machine.step(1n << 60n).trap).toEqual({ cause: 1, tval: 1n << 60n, sepc: 1n << 60n });
  });
});

describe('what U-mode may not do', () => {
  const forbidden: [string, number][] = [
    ['sret', a.SRET],
    ['wfi', a.WFI],
    ['sfence.vma', a.sfenceVma(0, 0)],
    ...Object.entries(CSR)
      .filter(([, number]) => number >>> 8 === 1)
      .map(([name, number]): [string, number] => [`reading ${name}`, a.csrrs(5, number, 0)]),
  ];
  for (const [what, word] of forbidden) {
    it(what, () => {
      hart.setMode(MODE_USER);
      expect(execute(word).trap).toEqual({ cause: 2, tval: BigInt(word >>> 0), sepc: BigInt(CODE) });
    });
  }

  it("counters, but for those that scounteren opens; S-mode always may, and nobody's write is legal", () => {
    const counters = [CSR.cycle, CSR.time, CSR.instret];
    for (const open of counters) {
      machine.setCsr(CSR.scounteren, BigInt(1 << (open - CSR.cycle)));
      for (const counter of counters) {
        hart.setMode(MODE_USER);
        expect(execute(a.csrrs(5, counter, 0)).trap === undefined, `${counter} ${open}`).toBe(counter === open);
        hart.setMode(MODE_SUPERVISOR);
        expect(execute(a.csrrs(5, counter, 0)).trap).toBeUndefined();
        expect(execute(a.csrrw(5, counter, 0)).trap).toMatchObject({ cause: 2 });
      }
    }
  });
});

describe('CSRs', () => {
  it('those of machine mode and those that do not exist are illegal', () => {
    for (const csr of [0x300, 0x341, 0xf14, 0xb00, 0x5c0, 0x200, 0xc03, 0x106 + 0x100]) {
      expect(execute(a.csrrs(5, csr, 0)).trap, csr.toString(16)).toMatchObject({ cause: 2 });
    }
  });

  /** Writes all ones, then all zeros: what can be read back. */
  function writable(csr: number): [bigint, bigint] {
    machine.x[6] = BigInt.asUintN(64, -1n);
    expect(execute(a.csrrw(0, csr, 6)).trap).toBeUndefined();
    const ones = machine.csr(csr);
    expect(execute(a.csrrw(0, csr, 0)).trap).toBeUndefined();
    return [ones, machine.csr(csr)];
  }

  it('keep the fields that they have', () => {
    const all = BigInt.asUintN(64, -1n);
    const fields = SSTATUS_SIE | SSTATUS_SPIE | SSTATUS_SPP | SSTATUS_SUM | SSTATUS_MXR | SSTATUS_FS;
    const expected: [number, bigint, bigint][] = [
      [CSR.sie, 0x222n, 0n],
      [CSR.sip, 0x2n, 0n],
      [CSR.scounteren, 7n, 0n],
      [CSR.senvcfg, 1n, 0n],
      [CSR.sscratch, all, 0n],
      [CSR.sepc, all - 1n, 0n],
      [CSR.stvec, all - 2n, 0n],
      [CSR.scause, all, 0n],
      [CSR.stval, all, 0n],
    ];
    for (const [csr, ones, zeros] of expected) expect(writable(csr), csr.toString(16)).toEqual([ones, zeros]);
    // Last: with SIE set and interrupts pending it would trap.
    expect(writable(CSR.sstatus)).toEqual([SD | UXL_64 | BigInt(fields), UXL_64]);
  });

  it('csrrs, csrrc with x0 and 0 do not write; csrrw does, always', () => {
    machine.setCsr(CSR.sscratch, 0x55n);
    for (const word of [a.csrrs(5, CSR.sscratch, 0), a.csrrc(5, CSR.sscratch, 0), a.csrrsi(5, CSR.sscratch, 0)]) {
      expect(execute(word).trap).toBeUndefined();
      expect([machine.x[5], machine.csr(CSR.sscratch)]).toEqual([0x55n, 0x55n]);
    }
    execute(a.csrrw(5, CSR.sscratch, 0));
    expect(machine.csr(CSR.sscratch)).toBe(0n);
  });

  it('the source may be the destination', () => {
    machine.setCsr(CSR.sscratch, 7n);
    machine.x[5] = 9n;
    execute(a.csrrw(5, CSR.sscratch, 5));
    expect([machine.x[5], machine.csr(CSR.sscratch)]).toEqual([7n, 9n]);
  });

  it('satp: a mode that there is not changes nothing at all', () => {
    const sv39 = (8n << 60n) | (0x1234n << 44n) | 0x80020n;
    machine.setCsr(CSR.satp, sv39);
    expect(machine.csr(CSR.satp)).toBe(sv39);
    for (const mode of [1n, 2n, 7n, 9n, 10n, 11n, 15n]) {
      machine.setCsr(CSR.satp, (mode << 60n) | (0x4321n << 44n) | 0x77777n);
      expect(machine.csr(CSR.satp), `mode ${mode}`).toBe(sv39);
    }
    machine.setCsr(CSR.satp, 0n);
    expect(machine.csr(CSR.satp)).toBe(0n);
  });

  it('satp holds all of a PPN of 44 bits and an ASID of 16', () => {
    const all = (8n << 60n) | ((1n << 60n) - 1n);
    machine.setCsr(CSR.satp, all);
    expect(machine.csr(CSR.satp)).toBe(all);
  });

  it('instret counts what retires, and a trap does not', () => {
    const words = [a.csrrs(5, CSR.instret, 0), a.addi(0, 0, 0), a.addi(0, 0, 0), a.csrrs(6, CSR.instret, 0)];
    for (const [n, word] of words.entries()) machine.put(CODE + 4 * n, word);
    hart.pc = BigInt(CODE);
    expect(hart.run(4)).toBe(HART_EXIT_BUDGET);
    expect(machine.x[6]! - machine.x[5]!).toBe(3n);
    const before = hart.instret;
    expect(execute(-1).trap).toBeDefined();
    expect(hart.instret).toBe(before);
  });
});

describe('sret', () => {
  it('goes where sepc says, in the mode of SPP; SIE gets SPIE, SPIE is set, SPP clear', () => {
    for (const spp of [0, SSTATUS_SPP]) {
      for (const spie of [0, SSTATUS_SPIE]) {
        hart.setMode(MODE_SUPERVISOR);
        status(spp | spie | SSTATUS_MXR);
        machine.setCsr(CSR.sepc, BigInt(CODE + 0x102));
        expect(execute(a.SRET).trap).toBeUndefined();
        expect(hart.pc).toBe(BigInt(CODE + 0x102));
        expect(hart.mode).toBe(spp ? MODE_SUPERVISOR : MODE_USER);
        const sie = spie ? SSTATUS_SIE : 0;
        expect(machine.csr(CSR.sstatus)).toBe(UXL_64 | BigInt(SSTATUS_SPIE | SSTATUS_MXR | sie));
      }
    }
  });

  it('takes an interrupt that it enables, at the instruction that it went to', () => {
    machine.setCsr(CSR.sie, BigInt(1 << IRQ_S_TIMER));
    hart.setInterruptPending(IRQ_S_TIMER, true);
    status(SSTATUS_SPIE | SSTATUS_SPP);
    machine.setCsr(CSR.sepc, BigInt(CODE + 0x40));
    expect(execute(a.SRET).trap).toBeDefined();
    expect(machine.csr(CSR.scause)).toBe(INTERRUPT | BigInt(IRQ_S_TIMER));
    expect(machine.csr(CSR.sepc)).toBe(BigInt(CODE + 0x40));
  });
});

describe('a reservation', () => {
  const LR = 0x1005b52f;
  const SC = 0x18c5b6af;

  /** LR of DATA, then `between`, then SC: 0 where it stored. */
  function outcome(between: () => void): bigint {
    hart.setMode(MODE_SUPERVISOR);
    machine.x[11] = BigInt(DATA);
    execute(LR);
    between();
    execute(SC);
    return machine.x[13]!;
  }

  it('holds over ordinary instructions, and is lost to a trap, to sret, and to an SC of another address', () => {
    expect(outcome(() => execute(a.addi(5, 5, 1)))).toBe(0n);
    expect(outcome(() => execute(-1))).toBe(1n);
    const returns = () => {
      status(SSTATUS_SPP);
      execute(a.SRET);
    };
    expect(outcome(returns)).toBe(1n);
    const elsewhere = () => {
      machine.x[11] = BigInt(DATA + 8);
      execute(SC);
      machine.x[11] = BigInt(DATA);
    };
    expect(outcome(elsewhere)).toBe(1n);
  });
});

describe('interrupts', () => {
  const pendAll = () => {
    for (const cause of [IRQ_S_SOFT, IRQ_S_TIMER, IRQ_S_EXT]) hart.setInterruptPending(cause, true);
  };

  /** The cause that is taken before a nop, or undefined. */
  function taken(): number | undefined {
    machine.put(CODE, a.addi(0, 0, 0));
    hart.pc = BigInt(CODE);
    hart.run(1);
    const scause = machine.csr(CSR.scause);
    return scause >> 63n === 1n ? Number(scause & 0xffn) : undefined;
  }

  it('the external one goes before the software one, that before the timer; only what sie has', () => {
    const [ext, soft, timer] = [1 << IRQ_S_EXT, 1 << IRQ_S_SOFT, 1 << IRQ_S_TIMER];
    for (const [enabled, expected] of [
      [ext | soft | timer, IRQ_S_EXT],
      [soft | timer, IRQ_S_SOFT],
      [timer, IRQ_S_TIMER],
      [ext | timer, IRQ_S_EXT],
      [0, undefined],
    ] as const) {
      pendAll();
      machine.setCsr(CSR.scause, 0n);
      machine.setCsr(CSR.sie, BigInt(enabled));
      hart.setMode(MODE_SUPERVISOR);
      status(SSTATUS_SIE);
      expect(taken(), `sie ${enabled}`).toBe(expected);
    }
  });

  it('S-mode takes them with SIE alone, U-mode always; the vector is by cause', () => {
    pendAll();
    machine.setCsr(CSR.sie, BigInt(1 << IRQ_S_TIMER));
    machine.setCsr(CSR.stvec, BigInt(VECTOR + 1));
    machine.put(VECTOR + 4 * IRQ_S_TIMER, a.addi(7, 0, 1));
    expect(taken()).toBeUndefined();
    hart.setMode(MODE_USER);
    expect(taken()).toBe(IRQ_S_TIMER);
    expect([machine.x[7], machine.csr(CSR.sepc), machine.csr(CSR.stval)]).toEqual([1n, BigInt(CODE), 0n]);
    expect(hart.mode).toBe(MODE_SUPERVISOR);
    expect(machine.csr(CSR.sstatus) & BigInt(SSTATUS_SPP)).toBe(0n);
  });

  it('enabling one that is pending is at once: by sstatus, by sie, by sip', () => {
    for (const word of [a.csrrsi(0, CSR.sstatus, SSTATUS_SIE), a.csrrs(0, CSR.sie, 6), a.csrrsi(0, CSR.sip, 2)]) {
      hart.setInterruptPending(IRQ_S_SOFT, word !== a.csrrsi(0, CSR.sip, 2));
      hart.setMode(MODE_SUPERVISOR);
      machine.x[6] = 2n;
      machine.setCsr(CSR.sie, word === a.csrrs(0, CSR.sie, 6) ? 0n : 2n);
      status(word === a.csrrsi(0, CSR.sstatus, SSTATUS_SIE) ? 0 : SSTATUS_SIE);
      expect(execute(word).trap).toBeDefined();
      expect(machine.csr(CSR.scause)).toBe(INTERRUPT | BigInt(IRQ_S_SOFT));
      expect(machine.csr(CSR.sepc)).toBe(BigInt(CODE + 4));
    }
  });

  it('software lowers SSIP, and neither STIP nor SEIP', () => {
    pendAll();
    expect(execute(a.csrrw(5, CSR.sip, 0)).trap).toBeUndefined();
    expect(machine.x[5]).toBe(0x222n);
    expect(machine.csr(CSR.sip)).toBe(0x220n);
  });

  it('wfi waits, unless something that sie has is pending, though SIE be clear', () => {
    expect(execute(a.WFI).exit).toBe(HART_EXIT_WFI);
    expect(hart.pc).toBe(BigInt(CODE + 4));
    hart.setInterruptPending(IRQ_S_TIMER, true);
    expect(execute(a.WFI).exit).toBe(HART_EXIT_WFI);
    machine.setCsr(CSR.sie, BigInt(1 << IRQ_S_TIMER));
    expect(execute(a.WFI)).toEqual({ exit: HART_EXIT_BUDGET });
    expect(hart.pc).toBe(BigInt(CODE + 4));
  });
});

describe('sstatus.FS', () => {
  const fs = () => Number((machine.csr(CSR.sstatus) >> BigInt(SSTATUS_FS_SHIFT)) & 3n);

  it('becomes Dirty by what writes floating-point state, and SD with it', () => {
    for (const word of [a.fmvDX(3, 0), a.csrrw(0, CSR.fcsr, 0), a.csrrsi(0, CSR.fflags, 1), a.csrrw(0, CSR.frm, 0)]) {
      status(1 << SSTATUS_FS_SHIFT);
      expect(execute(word).trap).toBeUndefined();
      expect(fs()).toBe(3);
      expect(machine.csr(CSR.sstatus) >> 63n).toBe(1n);
    }
  });

  it('stays Clean by what reads it', () => {
    machine.x[11] = BigInt(DATA);
    for (const word of [a.fsd(3, 0, 11), a.csrrs(5, CSR.fcsr, 0)]) {
      status(2 << SSTATUS_FS_SHIFT);
      expect(execute(word).trap).toBeUndefined();
      expect(fs()).toBe(2);
      expect(machine.csr(CSR.sstatus) >> 63n).toBe(0n);
    }
  });

  it('Off makes the three CSRs illegal too', () => {
    for (const csr of [CSR.fflags, CSR.frm, CSR.fcsr]) {
      expect(execute(a.csrrs(5, csr, 0)).trap).toMatchObject({ cause: 2 });
    }
  });
});
