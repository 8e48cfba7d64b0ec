import { describe, expect, it } from 'vitest';
import { CSR, decode, HART_EXIT_BUDGET, INSTRUCTIONS, type Instruction } from '../../src/riscv/index.js';
import { aim, CSRS, randomState, randomWord } from './cases.js';
import { Lockstep } from './lockstep.js';
import { Random } from './random.js';
import { CODE, DATA } from './testhart.js';

/**
 * Every entry of the instruction table, on the interpreter, against a reference written from the manual: encodings with
 * all kinds of registers, operands at the edges and at random, memory across pages, misaligned, and what must trap.
 */

const NR_WORDS = 14;
const NR_STATES = 14;

const machine = new Lockstep();
const tested = new Set<string>();

function fillMemory(r: Random): void {
  const view = new DataView(machine.reference.memory.buffer);
  for (let at = 0; at < machine.reference.memory.length; at += 8) view.setBigUint64(at, r.next(), true);
  machine.copyMemory();
}

function tryWord(instruction: Instruction, word: number, r: Random, counts: { trapped: number; done: number }): void {
  machine.hart.put(CODE, word);
  for (let n = 0; n < NR_STATES; n++) {
    randomState(machine.reference, r);
    aim(machine.reference, instruction, word, r);
    machine.reference.csrs.set(CSR.sepc, BigInt(CODE + 4 * r.below(64)));
    if (instruction.name.startsWith('sc.')) reserve(word, r);
    machine.copyState();
    const trap = machine.step(word, () => `${instruction.name} ${(word >>> 0).toString(16)}, state ${n}`);
    if (trap) counts.trapped++;
    else counts.done++;
  }
}

/** Before an SC: mostly an LR of the same bytes, to x0; sometimes memory changes in between, or the address. */
function reserve(word: number, r: Random): void {
  if (r.oneIn(4)) return;
  const base = (word >>> 15) & 31;
  const lr = 0x1000202f | (word & 0x7000) | (base << 15);
  const { reference, hart } = machine;
  const address = reference.x[base]!;
  if (r.oneIn(4)) reference.x[base] = BigInt.asUintN(64, address ^ 8n);
  reference.pc = BigInt(CODE + 64);
  hart.put(CODE + 64, lr);
  machine.copyState();
  machine.step(lr, () => 'lr');
  reference.x[base] = address;
  reference.pc = BigInt(CODE);
  if (!r.oneIn(4)) return;
  const offset = Number(address - reference.memoryBase);
  reference.memory[offset]! ^= 1;
  machine.copyMemory();
}

describe('each instruction does what the manual says', () => {
  for (const [index, instruction] of INSTRUCTIONS.entries()) {
    it(instruction.name, () => {
      const r = new Random(1000 + index);
      const counts = { trapped: 0, done: 0 };
      fillMemory(r);
      for (let n = 0; n < NR_WORDS; n++) {
        const word = randomWord(instruction, r);
        const entry = decode(word)?.instruction;
        // A reserved rounding mode is all that may keep a word from being its entry's.
        if (entry !== undefined || !instruction.rm) expect(entry?.name).toBe(instruction.name);
        tryWord(instruction, word, r, counts);
      }
      tested.add(instruction.name);
      if (instruction.name !== 'ebreak') expect(counts.done).toBeGreaterThan(NR_STATES);
    });
  }

  it('none is left out', () => {
    expect([...tested].sort()).toEqual(INSTRUCTIONS.map((i) => i.name).sort());
    expect(new Set(INSTRUCTIONS.map((i) => i.name)).size).toBe(INSTRUCTIONS.length);
  });
});

describe('what writes into the page it is in', () => {
  const at = DATA + 0x800;

  function writeBeside(instruction: Instruction, word: number, r: Random): void {
    const { reference, hart } = machine;
    randomState(reference, r);
    reference.pc = BigInt(at);
    reference.fs = true;
    const imm = instruction.format === 'S' ? ((word >> 25) << 5) | ((word >>> 7) & 31) : 0;
    reference.x[(word >>> 15) & 31] = BigInt.asUintN(64, BigInt(DATA + 8 * r.below(200) - imm));
    // Executed before, so that the page has decoded code when it is written.
    hart.put(at - 4, 0x13);
    hart.put(at, word);
    reference.memory.set(hart.data);
    machine.copyState();
    hart.step(BigInt(at - 4));
    machine.step(word, () => `${instruction.name} ${(word >>> 0).toString(16)}`);
  }

  for (const instruction of INSTRUCTIONS.filter((i) => i.access?.write)) {
    it(instruction.name, () => {
      const r = new Random(9);
      for (let n = 0; n < 20; n++) writeBeside(instruction, randomWord(instruction, r), r);
    });
  }
});

it('no word has two entries', () => {
  for (const a of INSTRUCTIONS) {
    for (const b of INSTRUCTIONS) {
      if (a !== b) expect((a.match ^ b.match) & a.mask & b.mask, `${a.name} and ${b.name}`).not.toBe(0);
    }
  }
});

it('with sstatus.FS Off, each floating-point instruction is illegal, and changes nothing', () => {
  const r = new Random(5);
  for (const instruction of INSTRUCTIONS.filter((i) => i.fp)) {
    for (let n = 0; n < 6; n++) {
      let word = randomWord(instruction, r);
      if (n === 0) word &= ~(31 << 7);
      machine.hart.put(CODE, word);
      randomState(machine.reference, r);
      aim(machine.reference, instruction, word, r);
      machine.reference.fs = false;
      machine.copyState();
      const trap = machine.step(word, () => `${instruction.name} ${(word >>> 0).toString(16)}`);
      expect(trap?.cause).toBe(2);
      expect(machine.hart.fsField).toBe(0);
    }
  }
});

describe('words that are no instruction', () => {
  /** Like the reference: a word is illegal to both, with the word in stval, or to neither. */
  function same(word: number, r: Random): boolean {
    // A csr instruction gets one of the CSRs that the reference knows.
    if ((word & 0x7f) === 0x73 && (word & 0x3000) !== 0) word = (word & 0xfffff) | (r.pick(CSRS) << 20);
    machine.hart.put(CODE, word);
    randomState(machine.reference, r);
    machine.reference.fs = true;
    machine.reference.csrs.set(CSR.sepc, BigInt(CODE));
    const instruction = decode(word)?.instruction;
    if (instruction?.access && ((word >>> 15) & 31) === 0) return false;
    if (instruction?.name === 'jalr' && ((word >>> 15) & 31) === 0) return false;
    if (instruction) aim(machine.reference, instruction, word, r);
    machine.copyState();
    return machine.step(word, () => (word >>> 0).toString(16))?.cause === 2;
  }

  it('trap, at random', () => {
    const r = new Random(6);
    let illegal = 0;
    for (let n = 0; n < 8000; n++) if (same(r.word() | 3, r)) illegal++;
    expect(illegal).toBeGreaterThan(3000);
  });

  it('trap, one bit from an instruction', () => {
    const r = new Random(7);
    let illegal = 0;
    for (const instruction of INSTRUCTIONS) {
      for (let bit = 2; bit < 32; bit++) {
        if ((instruction.mask >>> bit) & 1 && same(randomWord(instruction, r) ^ (1 << bit), r)) illegal++;
      }
    }
    expect(illegal).toBeGreaterThan(500);
  });
});

it('a jump out of memory as the last of the budget leaves the trap to the next run', () => {
  const { hart } = machine;
  hart.put(CODE, 0x00008067);
  hart.x.fill(0n);
  hart.hart.pc = BigInt(CODE);
  expect(hart.hart.run(1)).toBe(HART_EXIT_BUDGET);
  expect(hart.hart.pc).toBe(0n);
  expect(hart.step().trap).toEqual({ cause: 1, tval: 0n, sepc: 0n });
});
