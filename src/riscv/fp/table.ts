import type { Emit, Instruction } from '../table/types.js';
import { TO_UNSIGNED, TO_WORD } from './convert.js';
import { SIGN, SINGLE } from './format.js';

/**
 * F and D: arithmetic, conversions, comparisons, sign injection (unprivileged manual, chapters 21 and 22). Loads, stores
 * and moves are in table/memory.ts. The functions called are those of emitFpFunctions.
 */

const OP_FP = 0x53;

/** The format of an instruction, as its name ends and as it is encoded. */
interface Precision {
  readonly suffix: 's' | 'd';
  readonly code: 0 | 1;
  readonly control: number;
  readonly sign: bigint;
}

const S: Precision = { suffix: 's', code: 0, control: SINGLE, sign: 0x80000000n };
const D: Precision = { suffix: 'd', code: 1, control: 0, sign: SIGN };

type Push = (e: Emit) => void;

/** Operands and a call that leaves bits and flags, then the register and the flags. */
const floatResult = (value: Push) => (e: Emit) => {
  value(e);
  keep(e);
  e.frd(() => e.c.get(e.temp64(0)));
  e.accrue(() => e.c.get(e.temp32(0)));
};

const integerResult = (value: Push) => (e: Emit) => {
  value(e);
  keep(e);
  e.rd(() => e.c.get(e.temp64(0)));
  e.accrue(() => e.c.get(e.temp32(0)));
};

function keep(e: Emit): void {
  e.c.set(e.temp32(0)).set(e.temp64(0));
}

/** A rounding mode is in funct3's place, or funct3 is part of the opcode. */
function opFp(name: string, funct7: number, more: Partial<Instruction>, funct3?: number, rs2?: number): Instruction {
  let mask = 0xfe00007f;
  let match = OP_FP | (funct7 << 25);
  if (funct3 !== undefined) {
    mask |= 0x7000;
    match |= funct3 << 12;
  }
  if (rs2 !== undefined) {
    mask |= 0x1f00000;
    match |= rs2 << 20;
  }
  const rm = funct3 === undefined;
  return { name, format: 'R', mask: mask >>> 0, match: match >>> 0, dest: 'f', fp: true, rm, ...more };
}

/** Push an operand as a double. */
function wide(e: Emit, p: Precision, operand: Push): void {
  operand(e);
  if (p === S) e.call('fp.widen');
}

/** Push an operand as it stands in the register; a single that is not boxed as the canonical NaN. */
function own(e: Emit, p: Precision, operand: Push): void {
  operand(e);
  if (p === S) e.call('fp.unbox');
}

const frs1: Push = (e) => e.frs1();
const frs2: Push = (e) => e.frs2();

function negated(e: Emit, p: Precision): void {
  e.c.i64(p.sign).op('i64Xor');
}

function arithmetic(p: Precision): Instruction[] {
  const binary = (name: string, funct7: number, helper: string, negate = false) =>
    opFp(`${name}.${p.suffix}`, funct7 | p.code, {
      emit: floatResult((e) => {
        e.frs1();
        e.frs2();
        if (negate) negated(e, p);
        e.rm();
        e.call(`${helper}.${p.suffix}`);
      }),
    });
  const root: Push = (e) => {
    e.frs1();
    e.rm();
    e.call(`fsqrt.${p.suffix}`);
  };
  return [
    binary('fadd', 0x00, 'fadd'),
    binary('fsub', 0x04, 'fadd', true),
    binary('fmul', 0x08, 'fmul'),
    binary('fdiv', 0x0c, 'fdiv'),
    opFp(`fsqrt.${p.suffix}`, 0x2c | p.code, { emit: floatResult(root) }, undefined, 0),
  ];
}

/** The four signs of a fused multiply-add are signs of its operands. */
function fused(p: Precision): Instruction[] {
  const one = (name: string, opcode: number, negateProduct: boolean, negateAddend: boolean): Instruction => ({
    name: `${name}.${p.suffix}`,
    format: 'R4',
    mask: 0x0600007f,
    match: opcode | (p.code << 25),
    dest: 'f',
    fp: true,
    rm: true,
    emit: floatResult((e) => {
      e.frs1();
      if (negateProduct) negated(e, p);
      e.frs2();
      e.frs3();
      if (negateAddend) negated(e, p);
      e.rm();
      e.call(`fmadd.${p.suffix}`);
    }),
  });
  return [
    one('fmadd', 0x43, false, false),
    one('fmsub', 0x47, false, true),
    one('fnmsub', 0x4b, true, false),
    one('fnmadd', 0x4f, true, true),
  ];
}

/** frd = rs1 with the sign that `sign` makes of both (on the stack: rs1, rs2). */
function signInjection(p: Precision): Instruction[] {
  const one = (name: string, funct3: number, sign: Push) =>
    opFp(
      `${name}.${p.suffix}`,
      0x10 | p.code,
      {
        emit: (e) =>
          e.frd(() => {
            own(e, p, frs1);
            e.c.i64(~p.sign).op('i64And');
            sign(e);
            e.c.i64(p.sign).op('i64And').op('i64Or');
          }),
      },
      funct3,
    );
  const second: Push = (e) => own(e, p, frs2);
  return [
    one('fsgnj', 0, second),
    one('fsgnjn', 1, (e) => {
      second(e);
      e.c.i64(-1).op('i64Xor');
    }),
    one('fsgnjx', 2, (e) => {
      own(e, p, frs1);
      second(e);
      e.c.op('i64Xor');
    }),
  ];
}

function comparisons(p: Precision): Instruction[] {
  const compare = (name: string, funct3: number) => {
    const value: Push = (e) => {
      wide(e, p, frs1);
      wide(e, p, frs2);
      e.call(`fp.${name}`);
    };
    return opFp(`f${name}.${p.suffix}`, 0x50 | p.code, { dest: 'x', emit: integerResult(value) }, funct3);
  };
  const minMax = (name: string, funct3: number) => {
    const value: Push = (e) => {
      own(e, p, frs1);
      own(e, p, frs2);
      wide(e, p, frs1);
      wide(e, p, frs2);
      e.c.i32(funct3).i32(p.control);
      e.call('fp.minMax');
    };
    return opFp(`${name}.${p.suffix}`, 0x14 | p.code, { emit: floatResult(value) }, funct3);
  };
  return [
    compare('le', 0),
    compare('lt', 1),
    compare('eq', 2),
    minMax('fmin', 0),
    minMax('fmax', 1),
    opFp(`fclass.${p.suffix}`, 0x70 | p.code, { dest: 'x', emit: classify(p) }, 1, 0),
  ];
}

const classify = (p: Precision) => (e: Emit) =>
  e.rd(() => {
    own(e, p, frs1);
    if (p === S) e.c.i64(32).op('i64Shl');
    e.c.i64(p === S ? 8 : 11);
    e.call('fp.class');
  });

/** rs2's field says which integer: w, wu, l, lu. */
function integerConversions(p: Precision): Instruction[] {
  return ['w', 'wu', 'l', 'lu'].flatMap((type, rs2) => {
    const kind = (rs2 & 1 ? TO_UNSIGNED : 0) | (rs2 < 2 ? TO_WORD : 0);
    const to: Push = (e) => {
      wide(e, p, frs1);
      e.rm();
      e.c.i32(kind);
      e.call('fp.toInteger');
    };
    const from: Push = (e) => {
      if (rs2 < 2) e.rs1w();
      else e.rs1();
      if (rs2 < 2) e.c.op(rs2 === 0 ? 'i64ExtendI32S' : 'i64ExtendI32U');
      e.rm();
      e.c.i32(p.control).op('i32Or');
      e.call(rs2 === 3 ? 'fp.fromUnsignedLong' : 'fp.fromLong');
    };
    return [
      opFp(`fcvt.${type}.${p.suffix}`, 0x60 | p.code, { dest: 'x', emit: integerResult(to) }, undefined, rs2),
      opFp(`fcvt.${p.suffix}.${type}`, 0x68 | p.code, { source: 'x', emit: floatResult(from) }, undefined, rs2),
    ];
  });
}

const toSingle: Push = (e) => {
  e.frs1();
  e.rm();
  e.call('fcvt.s.d');
};

const toDouble: Push = (e) => {
  e.frs1();
  e.call('fcvt.d.s');
};

function instructions(p: Precision): Instruction[] {
  return [...arithmetic(p), ...fused(p), ...signInjection(p), ...comparisons(p), ...integerConversions(p)];
}

export const FLOAT: readonly Instruction[] = [
  ...instructions(S),
  ...instructions(D),
  opFp('fcvt.s.d', 0x20, { emit: floatResult(toSingle) }, undefined, 1),
  opFp('fcvt.d.s', 0x21, { emit: floatResult(toDouble) }, undefined, 0),
];
