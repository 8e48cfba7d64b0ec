import type { OpName } from '../../base/index.js';
import type { Emit, Instruction } from './types.js';

/** RV64I's computational instructions, and M (unprivileged manual, chapters 2, 4 and 13). */

const OP = 0x33;
const OP_32 = 0x3b;
const OP_IMM = 0x13;
const OP_IMM_32 = 0x1b;

type Value = (e: Emit) => void;

function regReg(name: string, opcode: number, funct3: number, funct7: number, value: Value): Instruction {
  const match = opcode | (funct3 << 12) | (funct7 << 25);
  return { name, format: 'R', mask: 0xfe00707f, match, dest: 'x', pure: true, emit: (e) => e.rd(() => value(e)) };
}

function regImm(name: string, opcode: number, funct3: number, value: Value): Instruction {
  const match = opcode | (funct3 << 12);
  return { name, format: 'I', mask: 0x707f, match, dest: 'x', pure: true, emit: (e) => e.rd(() => value(e)) };
}

/** `top` is the part of the word above the shift amount, which has 6 bits, or 5 in the W forms. */
function shiftImm(name: string, opcode: number, funct3: number, top: number, value: Value): Instruction {
  const mask = opcode === OP_IMM ? 0xfc00707f : 0xfe00707f;
  const match = opcode | (funct3 << 12) | (top << 25);
  return { name, format: 'SHIFT', mask, match, dest: 'x', pure: true, emit: (e) => e.rd(() => value(e)) };
}

const both = (op: OpName) => (e: Emit) => {
  e.rs1();
  e.rs2();
  e.c.op(op);
};
const withImm = (op: OpName) => (e: Emit) => {
  e.rs1();
  e.imm();
  e.c.op(op);
};
const bothW = (op: OpName) => (e: Emit) => {
  e.rs1w();
  e.rs2w();
  e.c.op(op).op('i64ExtendI32S');
};
const withImmW = (op: OpName) => (e: Emit) => {
  e.rs1w();
  e.imm32();
  e.c.op(op).op('i64ExtendI32S');
};
const compare = (op: OpName) => (e: Emit) => {
  both(op)(e);
  e.c.op('i64ExtendI32U');
};
const compareImm = (op: OpName) => (e: Emit) => {
  withImm(op)(e);
  e.c.op('i64ExtendI32U');
};
const helper = (name: string) => (e: Emit) => {
  e.rs1();
  e.rs2();
  e.call(name);
};
const helperW = (name: string) => (e: Emit) => {
  e.rs1w();
  e.rs2w();
  e.call(name);
  e.c.op('i64ExtendI32S');
};

export const INTEGER: readonly Instruction[] = [
  { name: 'lui', format: 'U', mask: 0x7f, match: 0x37, dest: 'x', pure: true, emit: (e) => e.rd(() => e.imm()) },
  {
    name: 'auipc',
    format: 'U',
    mask: 0x7f,
    match: 0x17,
    dest: 'x',
    pure: true,
    emit: (e) =>
      e.rd(() => {
        e.pc();
        e.imm();
        e.c.op('i64Add');
      }),
  },
  regImm('addi', OP_IMM, 0, withImm('i64Add')),
  regImm('slti', OP_IMM, 2, compareImm('i64LtS')),
  regImm('sltiu', OP_IMM, 3, compareImm('i64LtU')),
  regImm('xori', OP_IMM, 4, withImm('i64Xor')),
  regImm('ori', OP_IMM, 6, withImm('i64Or')),
  regImm('andi', OP_IMM, 7, withImm('i64And')),
  shiftImm('slli', OP_IMM, 1, 0x00, withImm('i64Shl')),
  shiftImm('srli', OP_IMM, 5, 0x00, withImm('i64ShrU')),
  shiftImm('srai', OP_IMM, 5, 0x20, withImm('i64ShrS')),
  regReg('add', OP, 0, 0x00, both('i64Add')),
  regReg('sub', OP, 0, 0x20, both('i64Sub')),
  regReg('sll', OP, 1, 0x00, both('i64Shl')),
  regReg('slt', OP, 2, 0x00, compare('i64LtS')),
  regReg('sltu', OP, 3, 0x00, compare('i64LtU')),
  regReg('xor', OP, 4, 0x00, both('i64Xor')),
  regReg('srl', OP, 5, 0x00, both('i64ShrU')),
  regReg('sra', OP, 5, 0x20, both('i64ShrS')),
  regReg('or', OP, 6, 0x00, both('i64Or')),
  regReg('and', OP, 7, 0x00, both('i64And')),
  regImm('addiw', OP_IMM_32, 0, withImmW('i32Add')),
  shiftImm('slliw', OP_IMM_32, 1, 0x00, withImmW('i32Shl')),
  shiftImm('srliw', OP_IMM_32, 5, 0x00, withImmW('i32ShrU')),
  shiftImm('sraiw', OP_IMM_32, 5, 0x20, withImmW('i32ShrS')),
  regReg('addw', OP_32, 0, 0x00, bothW('i32Add')),
  regReg('subw', OP_32, 0, 0x20, bothW('i32Sub')),
  regReg('sllw', OP_32, 1, 0x00, bothW('i32Shl')),
  regReg('srlw', OP_32, 5, 0x00, bothW('i32ShrU')),
  regReg('sraw', OP_32, 5, 0x20, bothW('i32ShrS')),
  regReg('mul', OP, 0, 1, both('i64Mul')),
  regReg('mulh', OP, 1, 1, helper('mulh')),
  regReg('mulhsu', OP, 2, 1, helper('mulhsu')),
  regReg('mulhu', OP, 3, 1, helper('mulhu')),
  regReg('div', OP, 4, 1, helper('div')),
  regReg('divu', OP, 5, 1, helper('divu')),
  regReg('rem', OP, 6, 1, helper('rem')),
  regReg('remu', OP, 7, 1, helper('remu')),
  regReg('mulw', OP_32, 0, 1, bothW('i32Mul')),
  regReg('divw', OP_32, 4, 1, helperW('divw')),
  regReg('divuw', OP_32, 5, 1, helperW('divuw')),
  regReg('remw', OP_32, 6, 1, helperW('remw')),
  regReg('remuw', OP_32, 7, 1, helperW('remuw')),
];
