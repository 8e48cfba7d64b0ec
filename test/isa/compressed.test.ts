import { expect, it } from 'vitest';
import { decode } from '../../src/riscv/index.js';
import { aimAccess, aimJump, randomState } from './cases.js';
import { Lockstep } from './lockstep.js';
import { Random } from './random.js';
import { CODE, RAM_BASE } from './testhart.js';

/** Every one of the 49152 compressed words, legal or not, on the interpreter against the reference. */

const machine = new Lockstep();
const { hart, reference } = machine;
const addressOf = (word: number) => CODE + 2 * word;

/** All words one after the other, so that they are decoded by pages. */
function load(): void {
  for (let word = 0; word < 65536; word++) hart.view.setUint16(addressOf(word) - RAM_BASE, word, true);
}

function setUp(word: number, r: Random): void {
  randomState(reference, r);
  reference.pc = BigInt(addressOf(word));
  const decoded = decode(word);
  if (!decoded) return;
  const { instruction, rs1, rs2, imm } = decoded;
  if (instruction.access) aimAccess(reference, rs1, BigInt(imm), instruction.access.lenBytes, false, r);
  if (instruction.name === 'jalr') aimJump(reference, rs1, 0n, r);
  if (instruction.format === 'B' && r.oneIn(2)) reference.x[rs1] = reference.x[rs2]!;
}

it('each compressed word does what the manual says', () => {
  load();
  const r = new Random(42);
  const counts = { illegal: 0, done: 0 };
  for (let word = 0; word < 65536; word++) {
    if ((word & 3) === 3) continue;
    setUp(word, r);
    machine.copyState();
    const trap = machine.step(word, () => `${word.toString(16)}, ${decode(word)?.instruction.name}`);
    if (trap?.cause === 2) counts.illegal++;
    else counts.done++;
  }
  expect(counts.illegal + counts.done).toBe(49152);
  expect(counts.done).toBeGreaterThan(40000);
});

it('the halfword of all zeros, and of all ones, are illegal', () => {
  expect(decode(0)).toBeUndefined();
  expect(decode(-1)).toBeUndefined();
});
