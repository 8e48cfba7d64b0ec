import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createMemory } from '../../src/base/index.js';
import { FlatMmu, HART_EXIT_BUDGET, HART_EXIT_MMIO, RiscvEngine } from '../../src/riscv/index.js';
import { DATA_BYTES, ENTRY, FuzzImage, RAM_BASE, TEST_DEVICE } from './fuzz-image.js';
import { randomProgram } from './fuzz-program.js';
import { Random } from './random.js';

/**
 * Random programs on our hart and on QEMU (`qemu-system-riscv64 -M virt`), from one image of RAM; afterwards RAM must be the
 * same. QEMU's RAM is a file: nothing has to be printed.
 */

export interface FuzzOptions {
  seed: number;
  nrPrograms: number;
  nrItems: number;
}

export interface FuzzFailure {
  seed: number;
  program: number;
  what: string;
  /** Halfwords of the program, and the address that they are at. */
  halves: readonly number[];
  at: number;
}

const QEMU = 'qemu-system-riscv64';
const QEMU_TIMEOUT_MS = 30_000;
const MAX_INSTRUCTIONS = 50_000_000;
const ARENA_BYTES = 16 * 2 ** 20;

export function qemuMissing(): string | undefined {
  const { error } = spawnSync(QEMU, ['--version']);
  return error ? `${QEMU} cannot be run (${error.message}); Debian's qemu-system-misc has it` : undefined;
}

export function runQemu(ram: Uint8Array): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), 'unpin-fuzz-'));
  try {
    const file = join(folder, 'ram');
    writeFileSync(file, ram);
    const memory = `memory-backend-file,id=ram,size=${ram.length},mem-path=${file},share=on`;
    const machine = ['-M', 'virt,memory-backend=ram', '-m', `${ram.length}B`];
    const args = [
      ...machine,
      '-object',
      memory,
      '-bios',
      'none',
      '-display',
      'none',
      '-serial',
      'none',
      '-monitor',
      'none',
    ];
    const { status, error, stderr } = spawnSync(QEMU, args, { timeout: QEMU_TIMEOUT_MS, encoding: 'utf8' });
    if (error || status !== 0) throw new Error(`${QEMU} ended with ${error ?? status}: ${stderr}`);
    return new Uint8Array(readFileSync(file));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** @param nrDecodedPages as few as 2: then nearly each jump to another page drops code that was decoded. */
export function runOurs(ram: Uint8Array, nrDecodedPages: number): Uint8Array {
  const memory = createMemory(ARENA_BYTES + ram.length);
  let free = 4096;
  const alloc = (lenBytes: number, align: number) => {
    const at = Math.ceil(free / align) * align;
    free = at + lenBytes;
    return at;
  };
  const engine = new RiscvEngine({ memory, alloc, free: () => {}, nrDecodedPages });
  const mmu = new FlatMmu(engine.i32, RAM_BASE, ram.length, ARENA_BYTES);
  const hart = engine.createHart({ hartId: 0, mmu, now: () => 0 });
  const ours = engine.u8.subarray(ARENA_BYTES, ARENA_BYTES + ram.length);
  ours.set(ram);
  hart.pc = BigInt(ENTRY);
  const exit = hart.run(MAX_INSTRUCTIONS);
  const ended = exit === HART_EXIT_MMIO && hart.mmioIsWrite && hart.mmioGpa === TEST_DEVICE;
  if (!ended) throw new Error(exit === HART_EXIT_BUDGET ? 'the programs do not end' : hart.describeExit(exit));
  return ours;
}

/** The image of a seed: half of them run under paging. */
export function fuzzImage({ seed, nrPrograms, nrItems }: FuzzOptions): FuzzImage {
  const r = new Random(seed);
  const programs = Array.from({ length: nrPrograms }, () => randomProgram(r, nrItems, DATA_BYTES));
  return new FuzzImage(programs, r, seed % 2 === 1);
}

export function fuzz(options: FuzzOptions): FuzzFailure[] {
  const image = fuzzImage(options);
  const nrDecodedPages = options.seed % 4 < 2 ? 256 : options.seed % 4;
  const differences = image.differences(runQemu(image.ram), runOurs(image.ram, nrDecodedPages));
  return differences.map(({ program, what }) => ({
    seed: options.seed,
    program,
    what,
    halves: image.programs[program]!.halves,
    at: image.codeStarts[program]!,
  }));
}
