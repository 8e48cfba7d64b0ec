import { decode, INSTRUCTIONS, type Instruction } from '../../src/riscv/index.js';
import { float, integer, type Random } from './random.js';

/**
 * Random programs of instructions from the table, as lists of halfwords. They end, since they only jump forward; they
 * reach memory through x2, x8 and x9 alone, which nothing else writes; whatever traps is skipped by the handler of the image
 * (fuzz-image.ts).
 */

/** The bases of all loads and stores. */
export const POINTERS = [2, 8, 9];
/** Never run: they leave the program, or what they do depends on the machine. */
const EXCLUDED = new Set(['ecall', 'sret', 'wfi', 'sfence.vma', 'jal', 'jalr']);
const FLOAT_CSRS = [1, 2, 3];
/** One that no machine has. */
const NO_CSR = 0x5c0;
/** Longest way forward of a jump, in items. */
const JUMP_ITEMS = 8;

const PLAIN = INSTRUCTIONS.filter((i) => !EXCLUDED.has(i.name) && i.format !== 'B' && !/^(lr|sc)\./.test(i.name));
const BRANCHES = INSTRUCTIONS.filter((i) => i.format === 'B');

/** Some instructions that belong together, and where among them a jump's offset belongs. */
interface Item {
  halves: number[];
  /** Encodes the jump at halfword `at`, given its offset in bytes. */
  jump?: { at: number; target: number; encode: (offset: number) => number[] };
}

export interface Program {
  readonly halves: readonly number[];
  readonly x: readonly bigint[];
  readonly f: readonly bigint[];
  readonly fcsr: number;
  /** Offsets of the three pointers into the data. */
  readonly offsets: readonly number[];
}

export function randomProgram(r: Random, nrItems: number, dataBytes: number): Program {
  const items: Item[] = [];
  for (let n = 0; n < nrItems; n++) items.push(randomItem(r, n));
  const middle = dataBytes / 2;
  return {
    halves: assemble(items),
    x: Array.from({ length: 32 }, () => integer(r)),
    f: Array.from({ length: 32 }, () => float(r)),
    fcsr: r.oneIn(2) ? 0 : r.below(256),
    // Mostly aligned, so that AMOs are done; the third is not at times.
    offsets: [middle + 8 * r.below(16), middle - 8 * r.below(16), middle + (r.oneIn(3) ? r.below(64) : 0)],
  };
}

function assemble(items: readonly Item[]): number[] {
  const starts: number[] = [];
  let length = 0;
  for (const item of items) {
    starts.push(length);
    length += item.halves.length;
  }
  const startOf = (item: number) => starts[item] ?? length;
  return items.flatMap(({ halves, jump }, n) => {
    if (!jump) return halves;
    const encoded = jump.encode(2 * (startOf(jump.target) - starts[n]! - jump.at));
    return [...halves.slice(0, jump.at), ...encoded, ...halves.slice(jump.at + encoded.length)];
  });
}

const halvesOf = (word: number): number[] => [word & 0xffff, word >>> 16];

function randomItem(r: Random, n: number): Item {
  const kind = r.below(20);
  const target = n + 1 + r.below(JUMP_ITEMS);
  if (kind === 0) return jumpItem(r, target);
  if (kind < 3) return branchItem(r, target);
  if (kind === 3) return reservedItem(r);
  return { halves: kind < 10 ? compressed(r) : halvesOf(plain(r)) };
}

/** rd: anything but a pointer. */
function destination(r: Random): number {
  for (;;) {
    const rd = r.below(32);
    if (!POINTERS.includes(rd)) return rd;
  }
}

function plain(r: Random): number {
  const instruction = r.pick(PLAIN);
  let word = (r.word() & ~instruction.mask) | instruction.match;
  if (instruction.dest === 'x') word = withField(word, 7, destination(r));
  if (instruction.access) word = withField(word, 15, r.pick(POINTERS));
  if (instruction.rm && [5, 6].includes((word >>> 12) & 7) && !r.oneIn(8)) word &= ~0x7000;
  if (instruction.format === 'CSR' || instruction.format === 'CSRI') {
    word = (word & 0xfffff) | ((r.oneIn(16) ? NO_CSR : r.pick(FLOAT_CSRS)) << 20);
  }
  return word;
}

function withField(word: number, at: number, register: number): number {
  return (word & ~(31 << at)) | (register << at);
}

/** A compressed word that may stand anywhere, or one that is illegal. */
function compressed(r: Random): number[] {
  for (;;) {
    const word = r.below(65536);
    if ((word & 3) === 3) continue;
    const decoded = decode(word);
    if (decoded === undefined) {
      if (r.oneIn(20)) return [word];
      continue;
    }
    const { instruction, rd, rs1 } = decoded;
    if (EXCLUDED.has(instruction.name) || instruction.format === 'B') continue;
    if (instruction.dest === 'x' && POINTERS.includes(rd)) continue;
    if (instruction.access && !POINTERS.includes(rs1)) continue;
    return [word];
  }
}

/** An LR and an SC, of which the second may have another base or width; now and then one more SC, which must fail. */
function reservedItem(r: Random): Item {
  const base = r.pick(POINTERS);
  const width = () => (r.oneIn(2) ? 2 : 3) << 12;
  const lrWidth = width();
  const lr = 0x1000002f | lrWidth | (destination(r) << 7) | (base << 15) | (r.below(4) << 25);
  const sc = (rs1: number) =>
    0x1800002f | (r.oneIn(4) ? width() : lrWidth) | (destination(r) << 7) | (rs1 << 15) | (r.below(32) << 20);
  // Whether a misaligned SC that fails traps is for the machine to say: only aligned bases here.
  const other = r.oneIn(4) ? r.pick([2, 8]) : base;
  if (other === 9) return { halves: halvesOf(lr) };
  const halves = [...halvesOf(lr), ...halvesOf(sc(other))];
  return { halves: r.oneIn(4) ? [...halves, ...halvesOf(sc(r.pick([2, 8])))] : halves };
}

function bType(instruction: Instruction, rs1: number, rs2: number, offset: number): number {
  const high = (((offset >> 12) & 1) << 31) | (((offset >> 5) & 63) << 25);
  const low = (((offset >> 1) & 15) << 8) | (((offset >> 11) & 1) << 7);
  return instruction.match | high | low | (rs1 << 15) | (rs2 << 20);
}

function jType(rd: number, offset: number): number {
  const low = (((offset >> 1) & 0x3ff) << 21) | (((offset >> 11) & 1) << 20) | (offset & 0xff000);
  return 0x6f | (rd << 7) | low | (((offset >> 20) & 1) << 31);
}

/** Compressed jumps and branches by what they do: `beq/rs1/imm` to the word. */
const COMPRESSED_JUMPS = new Map<string, number>();
for (let word = 0; word < 65536; word++) {
  const d = (word & 3) === 3 ? undefined : decode(word);
  if (d && (d.instruction.format === 'B' || d.instruction.format === 'J'))
    COMPRESSED_JUMPS.set(`${d.instruction.name}/${d.rs1}/${d.imm}`, word);
}

function branchItem(r: Random, target: number): Item {
  if (r.oneIn(3)) {
    const key = `${r.pick(['beq', 'bne'])}/${r.pick([8, 9, 10, 11, 12, 13, 14, 15])}`;
    const encode = (offset: number) => [COMPRESSED_JUMPS.get(`${key}/${offset}`)!];
    return { halves: [0], jump: { at: 0, target, encode } };
  }
  const [instruction, rs1, rs2] = [r.pick(BRANCHES), r.below(32), r.below(32)];
  const encode = (offset: number) => halvesOf(bType(instruction, rs1, rs2, offset));
  return { halves: [0, 0], jump: { at: 0, target, encode } };
}

/** jal, c.j, or an address made by auipc and taken by jalr, whose offset is odd at times (the lowest bit is dropped). */
function jumpItem(r: Random, target: number): Item {
  const rd = destination(r);
  if (r.oneIn(3)) {
    // The decoder gives jumps the fields of a long jal: of rs1, which it has not, the offset's bits.
    const encode = (offset: number) => [compressedJump(offset)];
    return { halves: [0], jump: { at: 0, target, encode } };
  }
  if (r.oneIn(2)) return { halves: [0, 0], jump: { at: 0, target, encode: (offset) => halvesOf(jType(rd, offset)) } };
  let link = destination(r);
  while (link === 0) link = destination(r);
  const odd = r.below(2);
  const auipc = halvesOf(0x17 | (link << 7));
  const encode = (offset: number) => halvesOf(0x67 | (rd << 7) | (link << 15) | ((offset + 4 + odd) << 20));
  return { halves: [...auipc, 0, 0], jump: { at: 2, target, encode } };
}

function compressedJump(offset: number): number {
  for (const [key, word] of COMPRESSED_JUMPS) if (key.startsWith('jal/') && key.endsWith(`/${offset}`)) return word;
  throw new RangeError(`no c.j reaches ${offset}`);
}
