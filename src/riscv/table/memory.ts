import type { AtomicName, MemName, OpName } from '../../base/index.js';
import type { Emit, Instruction } from './types.js';

/** Loads, stores, A, and the moves between register files (unprivileged manual, chapters 2.6, 14, 21, 22). */

type Len = 1 | 2 | 4 | 8;

function load(name: string, opcode: number, funct3: number, mem: MemName, lenBytes: Len, dest: 'x' | 'f'): Instruction {
  return {
    name,
    format: 'I',
    mask: 0x707f,
    match: opcode | (funct3 << 12),
    dest,
    fp: dest === 'f',
    access: { lenBytes, write: false, signed: funct3 < 4 },
    emit: (e) => e.load(mem, lenBytes, dest),
  };
}

function store(name: string, opcode: number, funct3: number, mem: MemName, lenBytes: Len, fp: boolean): Instruction {
  return {
    name,
    format: 'S',
    mask: 0x707f,
    match: opcode | (funct3 << 12),
    dest: 'none',
    fp,
    access: { lenBytes, write: true },
    emit: (e) => e.store(mem, lenBytes, () => (fp ? e.frs2() : e.rs2())),
  };
}

function atomic(name: string, funct5: number, emit: (e: Emit, lenBytes: 4 | 8) => void): Instruction[] {
  return ([4, 8] as const).map((lenBytes) => ({
    name: `${name}.${lenBytes === 4 ? 'w' : 'd'}`,
    format: 'AMO',
    mask: 0xf800707f,
    match: 0x2f | ((lenBytes === 4 ? 2 : 3) << 12) | (funct5 << 27),
    dest: 'x',
    access: { lenBytes, write: true, atomic: true },
    emit: (e) => emit(e, lenBytes),
  }));
}

function amo(name: string, funct5: number, op32: AtomicName, op64: AtomicName): Instruction[] {
  return atomic(name, funct5, (e, lenBytes) => e.amo(lenBytes === 4 ? op32 : op64, lenBytes));
}

/** Minimum and maximum. */
function amoUnless(name: string, funct5: number, keeps32: OpName, keeps64: OpName): Instruction[] {
  return atomic(name, funct5, (e, lenBytes) => e.amoUnless(lenBytes === 4 ? keeps32 : keeps64, lenBytes));
}

function reserved(kind: 'lr' | 'sc', funct5: number): Instruction[] {
  return ([4, 8] as const).map((lenBytes) => ({
    name: `${kind}.${lenBytes === 4 ? 'w' : 'd'}`,
    format: 'AMO',
    mask: kind === 'lr' ? 0xf9f0707f : 0xf800707f,
    match: 0x2f | ((lenBytes === 4 ? 2 : 3) << 12) | (funct5 << 27),
    dest: 'x',
    access: { lenBytes, write: kind === 'sc', atomic: true },
    emit: (e) => (kind === 'lr' ? e.loadReserved(lenBytes) : e.storeConditional(lenBytes)),
  }));
}

/** The moves between the register files, bits as they are. */
function move(name: string, funct7: number, emit: (e: Emit) => void): Instruction {
  const dest = name.startsWith('fmv.x') ? 'x' : 'f';
  const source = dest === 'x' ? 'f' : 'x';
  return { name, format: 'R', mask: 0xfff0707f, match: 0x53 | (funct7 << 25), dest, source, fp: true, emit };
}

export const MEMORY: readonly Instruction[] = [
  load('lb', 0x03, 0, 'i64Load8S', 1, 'x'),
  load('lh', 0x03, 1, 'i64Load16S', 2, 'x'),
  load('lw', 0x03, 2, 'i64Load32S', 4, 'x'),
  load('ld', 0x03, 3, 'i64Load', 8, 'x'),
  load('lbu', 0x03, 4, 'i64Load8U', 1, 'x'),
  load('lhu', 0x03, 5, 'i64Load16U', 2, 'x'),
  load('lwu', 0x03, 6, 'i64Load32U', 4, 'x'),
  store('sb', 0x23, 0, 'i64Store8', 1, false),
  store('sh', 0x23, 1, 'i64Store16', 2, false),
  store('sw', 0x23, 2, 'i64Store32', 4, false),
  store('sd', 0x23, 3, 'i64Store', 8, false),
  load('flw', 0x07, 2, 'i64Load32U', 4, 'f'),
  load('fld', 0x07, 3, 'i64Load', 8, 'f'),
  store('fsw', 0x27, 2, 'i64Store32', 4, true),
  store('fsd', 0x27, 3, 'i64Store', 8, true),
  move('fmv.x.w', 0x70, (e) =>
    e.rd(() => {
      e.frs1();
      e.c.op('i64Extend32S');
    }),
  ),
  move('fmv.x.d', 0x71, (e) => e.rd(() => e.frs1())),
  move('fmv.w.x', 0x78, (e) =>
    e.frd(() => {
      e.rs1();
      e.c.i64(-1n << 32n).op('i64Or');
    }),
  ),
  move('fmv.d.x', 0x79, (e) => e.frd(() => e.rs1())),
  ...reserved('lr', 0x02),
  ...reserved('sc', 0x03),
  ...amo('amoswap', 0x01, 'i32Xchg', 'i64Xchg'),
  ...amo('amoadd', 0x00, 'i32Add', 'i64Add'),
  ...amo('amoxor', 0x04, 'i32Xor', 'i64Xor'),
  ...amo('amoand', 0x0c, 'i32And', 'i64And'),
  ...amo('amoor', 0x08, 'i32Or', 'i64Or'),
  ...amoUnless('amomin', 0x10, 'i32LeS', 'i64LeS'),
  ...amoUnless('amomax', 0x14, 'i32GeS', 'i64GeS'),
  ...amoUnless('amominu', 0x18, 'i32LeU', 'i64LeU'),
  ...amoUnless('amomaxu', 0x1c, 'i32GeU', 'i64GeU'),
];
