import { EXC_BREAKPOINT, EXC_LOAD_MISALIGNED, EXC_STORE_MISALIGNED } from '../../src/riscv/index.js';
import { POINTERS, type Program } from './fuzz-program.js';
import type { Random } from './random.js';

/**
 * Many programs in one image of RAM, which a bare machine runs from RAM_BASE in M-mode, and a hart that begins in S-mode
 * from ENTRY; both end by a store to the test device. All that a program did is in RAM then: its registers, its data, and a
 * log of its traps. So two machines agree if their RAM does.
 *
 * A program's block: registers to begin with, registers at the end, the trap handler's own words, the log, data.
 */

export const RAM_BASE = 0x80000000;
export const ENTRY = RAM_BASE + 0x1000;
const PAGE_TABLE = RAM_BASE + 0x2000;
const CODE_BASE = RAM_BASE + 0x4000;
/** SiFive's test device on QEMU's virt board: 0x5555 ends the machine. */
export const TEST_DEVICE = 0x100000;
const TEST_PASS = 0x5555;
const TEST_FAIL = 0x13333;

export const DATA_BYTES = 8192;
export const LOG_ENTRIES = 400;
/** QEMU puts a device tree at the end of RAM. */
const QEMU_BYTES = 4 * 2 ** 20;
const NR_WORDS = 65;
const DUMP = NR_WORDS * 8;
/** Saved x30, where the log goes on, saved x29. */
const CONTROL = DUMP * 2;
const LOG = CONTROL + 24;
const DATA = Math.ceil((LOG + LOG_ENTRIES * 24) / 4096) * 4096;
export const BLOCK_BYTES = DATA + DATA_BYTES;

const SSTATUS_FS = 0x6000;
const PTE_LEAF_ALL = 0xcf;

const iType = (opcode: number, funct3: number, rd: number, rs1: number, imm: number) =>
  opcode | (rd << 7) | (funct3 << 12) | (rs1 << 15) | (imm << 20);
const sType = (opcode: number, funct3: number, rs2: number, rs1: number, imm: number) =>
  opcode | ((imm & 31) << 7) | (funct3 << 12) | (rs1 << 15) | (rs2 << 20) | ((imm >> 5) << 25);
const addi = (rd: number, rs1: number, imm: number) => iType(0x13, 0, rd, rs1, imm);
const ld = (rd: number, imm: number, rs1: number) => iType(0x03, 3, rd, rs1, imm);
const fld = (rd: number, imm: number, rs1: number) => iType(0x07, 3, rd, rs1, imm);
const sd = (rs2: number, imm: number, rs1: number) => sType(0x23, 3, rs2, rs1, imm);
const fsd = (rs2: number, imm: number, rs1: number) => sType(0x27, 3, rs2, rs1, imm);
const csrrw = (rd: number, csr: number, rs1: number) => iType(0x73, 1, rd, rs1, csr);
const csrrs = (rd: number, csr: number, rs1: number) => iType(0x73, 2, rd, rs1, csr);
const lui = (rd: number, imm: number) => 0x37 | (rd << 7) | (imm & 0xfffff000);
const [SSTATUS, STVEC, SSCRATCH, SEPC, SCAUSE, STVAL, SATP] = [
  0x100, 0x105, 0x140, 0x141, 0x142, 0x143, 0x180,
] as const;
const [MSTATUS, MEDELEG, MTVEC, MEPC, PMPCFG0, PMPADDR0, FCSR] = [0x300, 0x302, 0x305, 0x341, 0x3a0, 0x3b0, 3] as const;
const SRET = 0x10200073;
const MRET = 0x30200073;
const JUMP_TO_SELF = 0x6f;

/** `li rd, value` for a value of 32 bits, sign-extended. */
function li(rd: number, value: number): number[] {
  const low = (value << 20) >> 20;
  return [lui(rd, value - low), iType(0x1b, 0, rd, rd, low)];
}

/** `la rd, address`: the address is above 2 GiB, so it is made relative to pc. */
function la(rd: number, address: number, pc: number): number[] {
  const low = ((address - pc) << 20) >> 20;
  return [0x17 | (rd << 7) | ((address - pc - low) & 0xfffff000), addi(rd, rd, low)];
}

/** Bytes of RAM that `nr` programs of some kibibytes of code need. */
export function ramBytesFor(nr: number): number {
  return 2 ** Math.ceil(Math.log2(0x4000 + nr * (BLOCK_BYTES + 4096) + QEMU_BYTES));
}

export class FuzzImage {
  readonly ram: Uint8Array;
  readonly programs: readonly Program[];
  /** Where each program's own code begins. */
  readonly codeStarts: number[] = [];
  private readonly view: DataView;
  private at = 0;

  /** @param paged S-mode runs under Sv39, all of memory mapped as it is by a gigapage. */
  constructor(programs: readonly Program[], r: Random, paged: boolean) {
    this.programs = programs;
    this.ram = new Uint8Array(ramBytesFor(programs.length));
    this.view = new DataView(this.ram.buffer);
    this.machineMode();
    this.pageTable();
    const handler = this.handler(CODE_BASE);
    this.entry(handler, paged);
    programs.forEach((program, n) => {
      this.block(program, n, r);
      this.program(program, n);
    });
    this.emit(li(5, TEST_DEVICE), li(6, TEST_PASS), [sType(0x23, 2, 6, 5, 0), JUMP_TO_SELF]);
    if (this.at > this.blockOf(0)) throw new RangeError('fuzz: the code has grown into the blocks');
  }

  blockOf(program: number): number {
    return RAM_BASE + this.ram.length - QEMU_BYTES - (this.programs.length - program) * BLOCK_BYTES;
  }

  private emit(...parts: number[][]): void {
    for (const word of parts.flat()) {
      this.view.setUint32(this.at - RAM_BASE, word, true);
      this.at += 4;
    }
  }

  /** What firmware does: all of memory to S-mode, its traps too. A trap that comes here fails the run. */
  private machineMode(): void {
    this.at = RAM_BASE;
    this.emit(la(5, RAM_BASE + 0x200, this.at), [csrrw(0, MTVEC, 5)]);
    this.emit([
      addi(5, 0, -1),
      iType(0x13, 5, 5, 5, 10),
      csrrw(0, PMPADDR0, 5),
      addi(5, 0, 0x1f),
      csrrw(0, PMPCFG0, 5),
    ]);
    this.emit(li(5, 0xb1ff), [csrrw(0, MEDELEG, 5)], li(5, 0x800), [csrrw(0, MSTATUS, 5)]);
    this.emit(la(5, ENTRY, this.at), [csrrw(0, MEPC, 5), MRET]);
    this.at = RAM_BASE + 0x200;
    this.emit(li(5, TEST_DEVICE), li(6, TEST_FAIL), [sType(0x23, 2, 6, 5, 0), JUMP_TO_SELF]);
  }

  /** The test device's gigabyte, and RAM's. */
  private pageTable(): void {
    this.view.setUint32(PAGE_TABLE - RAM_BASE, PTE_LEAF_ALL, true);
    this.view.setUint32(PAGE_TABLE - RAM_BASE + 16, PTE_LEAF_ALL | ((RAM_BASE >>> 12) << 10), true);
  }

  /** Logs cause, value and pc, and goes on behind the instruction. Returns where it is. */
  private handler(at: number): number {
    this.at = at;
    this.emit([csrrw(31, SSCRATCH, 31), sd(30, 0, 31), ld(30, 8, 31), sd(29, 16, 31)]);
    this.emit([
      csrrs(29, SCAUSE, 0),
      sd(29, 0, 30),
      csrrs(29, STVAL, 0),
      sd(29, 8, 30),
      csrrs(29, SEPC, 0),
      sd(29, 16, 30),
    ]);
    this.emit([addi(30, 30, 24), sd(30, 8, 31), iType(0x03, 5, 30, 29, 0)]);
    // Low bits 3: 4 bytes; else 2.
    this.emit([
      iType(0x13, 7, 30, 30, 3),
      addi(30, 30, 1),
      iType(0x13, 5, 30, 30, 2),
      iType(0x13, 1, 30, 30, 1),
      addi(30, 30, 2),
    ]);
    this.emit([0x33 | (29 << 7) | (29 << 15) | (30 << 20), csrrw(0, SEPC, 29)]);
    this.emit([ld(29, 16, 31), ld(30, 0, 31), csrrw(31, SSCRATCH, 31), SRET]);
    return at;
  }

  private entry(handler: number, paged: boolean): void {
    const start = this.at;
    this.at = ENTRY;
    this.emit(la(5, handler, this.at), [csrrw(0, STVEC, 5)], li(5, SSTATUS_FS), [csrrs(0, SSTATUS, 5)]);
    if (paged) {
      this.emit([addi(5, 0, 8), iType(0x13, 1, 5, 5, 60)], li(6, PAGE_TABLE >>> 12), [
        0x33 | (5 << 7) | (5 << 15) | (6 << 20),
      ]);
      this.emit([csrrw(0, SATP, 5)]);
    }
    // To the first program.
    this.emit(la(5, start, this.at), [iType(0x67, 0, 0, 5, 0)]);
    this.at = start;
  }

  private block(program: Program, n: number, r: Random): void {
    const at = this.blockOf(n) - RAM_BASE;
    const set = (offset: number, value: bigint) => this.view.setBigUint64(at + offset, value, true);
    for (const [i, value] of [...program.x, ...program.f, BigInt(program.fcsr)].entries()) set(8 * i, value);
    for (const [i, register] of POINTERS.entries()) {
      set(8 * register, BigInt(this.blockOf(n) + DATA + program.offsets[i]!));
    }
    set(CONTROL + 8, BigInt(this.blockOf(n) + LOG));
    for (let offset = 0; offset < DATA_BYTES; offset += 8) set(DATA + offset, r.next());
  }

  private program(program: Program, n: number): void {
    const registers = Array.from({ length: 32 }, (_, i) => i);
    const block = this.blockOf(n);
    this.emit(la(30, block + CONTROL, this.at), [csrrw(0, SSCRATCH, 30)]);
    this.emit(la(31, block, this.at), [ld(30, 8 * 64, 31), csrrw(0, FCSR, 30)]);
    this.emit(
      registers.map((i) => fld(i, 8 * (32 + i), 31)),
      registers.slice(1).map((i) => ld(i, 8 * i, 31)),
    );
    this.codeStarts.push(this.at);
    for (const half of program.halves) {
      this.view.setUint16(this.at - RAM_BASE, half, true);
      this.at += 2;
    }
    // The end is aligned, though nothing needs it to be.
    if (this.at % 4 !== 0) {
      this.view.setUint16(this.at - RAM_BASE, 1, true);
      this.at += 2;
    }
    this.dump(registers);
  }

  /** All registers into the block; sscratch leads there. */
  private dump(registers: readonly number[]): void {
    const to = DUMP - CONTROL;
    this.emit(
      [csrrw(31, SSCRATCH, 31)],
      registers.slice(0, 31).map((i) => sd(i, to + 8 * i, 31)),
    );
    this.emit([csrrs(30, SSCRATCH, 0), sd(30, to + 8 * 31, 31), csrrs(30, FCSR, 0), sd(30, to + 8 * 64, 31)]);
    this.emit(registers.map((i) => fsd(i, to + 8 * (32 + i), 31)));
  }

  /**
   * Takes out of the logs what the manual leaves open or QEMU 7.2 does in a way of its own: stval of ebreak may be 0; QEMU
   * gives the cause of a misaligned load to a misaligned AMO.
   */
  private normalize(ram: Uint8Array): void {
    const view = new DataView(ram.buffer, ram.byteOffset, ram.length);
    for (let n = 0; n < this.programs.length; n++) {
      const log = this.blockOf(n) - RAM_BASE + LOG;
      for (let at = log; at < log + LOG_ENTRIES * 24; at += 24) {
        const cause = view.getUint32(at, true);
        if (cause === EXC_BREAKPOINT) view.setBigUint64(at + 8, 0n, true);
        if (cause === EXC_LOAD_MISALIGNED) view.setUint32(at, EXC_STORE_MISALIGNED, true);
      }
    }
  }

  /** What differs between two machines' RAM after a run of this image, for each program; empty: nothing. */
  differences(expected: Uint8Array, actual: Uint8Array): { program: number; what: string }[] {
    const out: { program: number; what: string }[] = [];
    this.normalize(expected);
    this.normalize(actual);
    for (let n = 0; n < this.programs.length; n++) {
      const at = this.blockOf(n) - RAM_BASE;
      const [want, have] = [expected, actual].map((ram) => ram.subarray(at, at + BLOCK_BYTES)) as [
        Uint8Array,
        Uint8Array,
      ];
      if (Buffer.compare(want, have) !== 0) out.push({ program: n, what: describe(want, have) });
    }
    return out;
  }
}

const viewOf = (block: Uint8Array) => new DataView(block.buffer, block.byteOffset, block.length);

function nameOf(offset: number): string {
  if (offset < CONTROL) {
    const n = (offset - DUMP) / 8;
    return n < 32 ? `x${n}` : n < 64 ? `f${n - 32}` : 'fcsr';
  }
  if (offset < LOG) return `log end`;
  if (offset < DATA)
    return `trap ${Math.floor((offset - LOG) / 24)} ${['scause', 'stval', 'sepc'][((offset - LOG) / 8) % 3]}`;
  return `data + 0x${(offset - DATA).toString(16)}`;
}

function describe(want: Uint8Array, have: Uint8Array): string {
  const out: string[] = [];
  const [a, b] = [viewOf(want), viewOf(have)];
  for (let offset = DUMP; offset < BLOCK_BYTES && out.length < 8; offset += 8) {
    const [w, h] = [a.getBigUint64(offset, true), b.getBigUint64(offset, true)];
    // The handler's saved registers are no part of the result.
    if (w !== h && offset !== CONTROL && offset !== CONTROL + 16)
      out.push(`${nameOf(offset)} is 0x${h.toString(16)}, QEMU says 0x${w.toString(16)}`);
  }
  return out.join('; ');
}
