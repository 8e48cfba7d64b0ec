import { expect, it } from 'vitest';
import { decode, HART_EXIT_MMIO, INSTRUCTIONS, type Instruction } from '../../src/riscv/index.js';
import { randomWord } from './cases.js';
import { Random } from './random.js';
import { CODE, RAM_BASE, RAM_BYTES, TestHart } from './testhart.js';

/** Accesses to where no RAM is: a hart leaves for its owner, who does them; what cannot be done so is an access fault. */

const DEVICE = 0x10000000;
const VALUE = 0x89abcdef_f1e2d3c4n;
const machine = new TestHart();
const { hart } = machine;

function immediate(word: number): number {
  return decode(word)!.imm;
}

/** A word of the entry, with x11 as its base: x11 + imm is `address`, x12 and f12 hold VALUE. */
function place(instruction: Instruction, address: number, r: Random): number {
  const fields = instruction.access!.write ? (11 << 15) | (12 << 20) : (11 << 15) | (13 << 7);
  const registers = instruction.access!.write ? (31 << 15) | (31 << 20) : (31 << 15) | (31 << 7);
  const word = (randomWord(instruction, r) & ~registers) | fields;
  machine.put(CODE, word);
  machine.x[11] = BigInt.asUintN(64, BigInt(address - immediate(word)));
  machine.x[12] = VALUE;
  machine.f[12] = VALUE;
  return word;
}

const plain = INSTRUCTIONS.filter((i) => i.access && !i.access.atomic);
const atomic = INSTRUCTIONS.filter((i) => i.access?.atomic);

/** What a load makes of the device's bytes. */
function loaded({ access, dest, name }: Instruction): bigint {
  const nrBits = access!.lenBytes * 8;
  if (dest === 'f') return nrBits === 32 ? (VALUE & 0xffffffffn) | (0xffffffffn << 32n) : VALUE;
  const unsigned = name.endsWith('u');
  return BigInt.asUintN(64, unsigned ? BigInt.asUintN(nrBits, VALUE) : BigInt.asIntN(nrBits, VALUE));
}

for (const instruction of plain) {
  it(`${instruction.name} of a device leaves, with pc behind it`, () => {
    const { lenBytes, write } = instruction.access!;
    place(instruction, DEVICE + 8, new Random(3));
    expect(machine.step(BigInt(CODE)).exit).toBe(HART_EXIT_MMIO);
    expect([hart.mmioGpa, hart.mmioLen, hart.mmioIsWrite]).toEqual([DEVICE + 8, lenBytes, write]);
    expect(hart.pc).toBe(BigInt(CODE + 4));
    if (write) {
      expect(hart.mmioValue).toBe(BigInt.asUintN(lenBytes * 8, VALUE));
      return;
    }
    hart.completeMmioRead(VALUE);
    expect((instruction.dest === 'f' ? machine.f : machine.x)[13]).toBe(loaded(instruction));
  });
}

it('a load to x0 is done all the same, and leaves x0 zero', () => {
  const word = place(INSTRUCTIONS.find((i) => i.name === 'lw')!, DEVICE, new Random(4));
  machine.put(CODE, word & ~(31 << 7));
  expect(machine.step(BigInt(CODE)).exit).toBe(HART_EXIT_MMIO);
  hart.completeMmioRead(VALUE);
  expect(machine.x[0]).toBe(0n);
});

for (const instruction of atomic.filter((i) => !i.name.startsWith('sc.'))) {
  it(`${instruction.name} of a device is an access fault`, () => {
    place(instruction, DEVICE, new Random(5));
    const cause = instruction.access!.write ? 7 : 5;
    expect(machine.step(BigInt(CODE)).trap).toEqual({ cause, tval: BigInt(DEVICE), sepc: BigInt(CODE) });
  });
}

for (const instruction of plain.filter((i) => i.access!.lenBytes > 1)) {
  it(`${instruction.name} from RAM into nothing is an access fault at the first byte that is not there`, () => {
    const end = RAM_BASE + RAM_BYTES;
    const before = machine.ram.slice(RAM_BYTES - 8);
    place(instruction, end - 1, new Random(6));
    const cause = instruction.access!.write ? 7 : 5;
    expect(machine.step(BigInt(CODE)).trap).toEqual({ cause, tval: BigInt(end), sepc: BigInt(CODE) });
    expect(machine.ram.slice(RAM_BYTES - 8)).toEqual(before);
  });
}
