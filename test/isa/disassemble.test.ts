import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CSR, decode, disassemble, INSTRUCTIONS, type Instruction } from '../../src/riscv/index.js';
import { randomWord } from './cases.js';
import { Random } from './random.js';

/** The disassembler against GNU objdump, on random words of every entry and on all compressed ones. */

const OBJDUMPS = ['riscv64-linux-gnu-objdump', 'riscv64-unknown-elf-objdump'];
const objdump = OBJDUMPS.find((command) => spawnSync(command, ['--version']).error === undefined);
if (!objdump) process.stderr.write(`SKIPPED: disassembly against ${OBJDUMPS[0]} (binutils-riscv64-linux-gnu)\n`);

/** What objdump makes of words of 2 or 4 bytes that lie one after the other from 0, without its comments. */
function dump(words: readonly number[]): string[] {
  const bytes = words.flatMap((w) =>
    (w & 3) === 3 ? [w & 255, (w >> 8) & 255, (w >> 16) & 255, w >>> 24] : [w & 255, w >> 8],
  );
  const folder = mkdtempSync(join(tmpdir(), 'unpin-objdump-'));
  try {
    const file = join(folder, 'words');
    writeFileSync(file, Uint8Array.from(bytes));
    const args = ['-D', '-z', '-b', 'binary', '-m', 'riscv:rv64', '-M', 'no-aliases', file];
    const { stdout } = spawnSync(objdump!, args, { encoding: 'utf8', maxBuffer: 64 * 2 ** 20 });
    return [...stdout.matchAll(/^ *[0-9a-f]+:\t[0-9a-f]+ *\t(.*)$/gm)].map((line) =>
      line[1]!.replace(/ +#.*/, '').trim(),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A compressed instruction of objdump's as the one that it stands for. */
function expanded(text: string): string {
  const [name, list = ''] = text.split('\t') as [string, string?];
  const [a = '', b = '', c = ''] = list.split(',');
  const base = name.replace(/^c\./, '').replace(/sp$/, '');
  switch (name) {
    case 'c.addi':
    case 'c.addiw':
    case 'c.andi':
    case 'c.slli':
    case 'c.srli':
    case 'c.srai':
      return `${base} ${a},${a},${b}`;
    case 'c.slli64':
    case 'c.srli64':
    case 'c.srai64':
      return `${base.replace('64', '')} ${a},${a},0x0`;
    case 'c.nop':
      return `addi zero,zero,${a || 0}`;
    case 'c.addi4spn':
      return `addi ${a},${b},${c}`;
    case 'c.addi16sp':
      return `addi ${a},${a},${b}`;
    case 'c.li':
      return `addi ${a},zero,${b}`;
    case 'c.mv':
      return `add ${a},zero,${b}`;
    case 'c.add':
    case 'c.sub':
    case 'c.xor':
    case 'c.or':
    case 'c.and':
    case 'c.addw':
    case 'c.subw':
      return `${base} ${a},${a},${b}`;
    case 'c.j':
      return `jal zero,${a}`;
    case 'c.jr':
      return `jalr zero,0(${a})`;
    case 'c.jalr':
      return `jalr ra,0(${a})`;
    case 'c.beqz':
      return `beq ${a},zero,${b}`;
    case 'c.bnez':
      return `bne ${a},zero,${b}`;
    default:
      return list === '' ? base : `${base} ${list}`;
  }
}

const plain = (text: string) => expanded(text).replace('\t', ' ');

/** CSRs that both have names for, or neither. */
const CSRS = [...Object.values(CSR), 0x7c0];

function words(instruction: Instruction, r: Random): number[] {
  return Array.from({ length: 24 }, () => {
    const word = randomWord(instruction, r);
    return instruction.format.startsWith('CSR') ? (word & 0xfffff) | (r.pick(CSRS) << 20) : word;
  }).filter((word) => decode(word) !== undefined);
}

/** What objdump does not know though the manual gives it a meaning: fields to be ignored, modes that make no difference. */
const UNKNOWN_TO_OBJDUMP = /^(fence|fence\.i|fcvt\.d\.(w|wu|s))( |$)/;

/** Where they differ: ours | theirs. */
function differences(all: readonly number[], lenBytes: number): string[] {
  const theirs = dump(all).map(plain);
  expect(theirs.length).toBe(all.length);
  return all.flatMap((word, n) => {
    const ours = disassemble(word, BigInt(lenBytes * n));
    if (theirs[n]!.startsWith('.4byte') && UNKNOWN_TO_OBJDUMP.test(ours)) return [];
    return ours === theirs[n] ? [] : [`${ours} | ${theirs[n]}`];
  });
}

describe.skipIf(!objdump)('like objdump', () => {
  it('instructions of 4 bytes', () => {
    const r = new Random(21);
    const all = INSTRUCTIONS.flatMap((i) => words(i, r));
    expect(differences(all, 4)).toEqual([]);
  });

  it('compressed instructions, apart from a name for zeros and a reserved c.addi16sp', () => {
    const all = Array.from({ length: 65536 }, (_, word) => word).filter((word) => (word & 3) !== 3);
    expect(differences(all, 2)).toEqual(['.2byte 0x0 | unimp', '.2byte 0x6101 | addi sp,sp,0']);
  });
});

it('gives targets from the address, and what is no instruction as data', () => {
  expect(disassemble(0xfe000ee3 | 0, 0x80000004n)).toBe('beq zero,zero,0x80000000');
  expect(disassemble(0xa001, 0xffffffc000000000n)).toBe('jal zero,0xffffffc000000000');
  expect(disassemble(0xffdff06f | 0, 0n)).toBe('jal zero,0xfffffffffffffffc');
  expect(disassemble(-1, 0n)).toBe('.4byte 0xffffffff');
  expect(disassemble(0, 0n)).toBe('.2byte 0x0');
});
