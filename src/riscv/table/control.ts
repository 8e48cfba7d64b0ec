import type { OpName } from '../../base/index.js';
import type { CsrKind, Emit, Format, Instruction } from './types.js';

/** Jumps, branches, and the instructions of the privileged architecture, fences and CSRs, which slow.ts carries out. */

function branch(name: string, funct3: number, op: OpName): Instruction {
  return {
    name,
    format: 'B',
    mask: 0x707f,
    match: 0x63 | (funct3 << 12),
    dest: 'none',
    emit: (e) =>
      e.branch(() => {
        e.rs1();
        e.rs2();
        e.c.op(op);
      }),
  };
}

function slow(name: string, format: Format, mask: number, match: number, more: Partial<Instruction> = {}): Instruction {
  return { name, format, mask, match, dest: 'none', ...more };
}

function csr(name: string, funct3: number): Instruction {
  const immediate = funct3 > 4;
  const kind = ((funct3 & 3) - 1) as CsrKind;
  const emit = (e: Emit) => e.csr(kind, immediate);
  return slow(name, immediate ? 'CSRI' : 'CSR', 0x707f, 0x73 | (funct3 << 12), { dest: 'x', emit });
}

export const CONTROL: readonly Instruction[] = [
  {
    name: 'jal',
    format: 'J',
    mask: 0x7f,
    match: 0x6f,
    dest: 'x',
    ends: true,
    emit: (e) => {
      e.rd(() => e.nextPc());
      e.jump();
    },
  },
  {
    name: 'jalr',
    format: 'I',
    mask: 0x707f,
    match: 0x67,
    dest: 'x',
    ends: true,
    emit: (e) => {
      const target = e.temp64(0);
      e.rs1();
      e.imm();
      e.c.op('i64Add').i64(-2).op('i64And').set(target);
      e.rd(() => e.nextPc());
      e.jumpRegister(() => e.c.get(target));
    },
  },
  branch('beq', 0, 'i64Eq'),
  branch('bne', 1, 'i64Ne'),
  branch('blt', 4, 'i64LtS'),
  branch('bge', 5, 'i64GeS'),
  branch('bltu', 6, 'i64LtU'),
  branch('bgeu', 7, 'i64GeU'),
  { name: 'fence', format: 'FENCE', mask: 0x707f, match: 0x0f, dest: 'none', emit: (e) => e.fence() },
  slow('fence.i', 'NONE', 0x707f, 0x100f),
  slow('ecall', 'NONE', 0xffffffff, 0x73, { ends: true }),
  slow('ebreak', 'NONE', 0xffffffff, 0x100073, { ends: true }),
  slow('sret', 'NONE', 0xffffffff, 0x10200073, { ends: true, emit: (e) => e.sret() }),
  slow('wfi', 'NONE', 0xffffffff, 0x10500073),
  slow('sfence.vma', 'R', 0xfe007fff, 0x12000073),
  csr('csrrw', 1),
  csr('csrrs', 2),
  csr('csrrc', 3),
  csr('csrrwi', 5),
  csr('csrrsi', 6),
  csr('csrrci', 7),
];
