import { createMemory } from '../../src/base/index.js';
import { CSR, FlatMmu, type Hart, type HartExit, RiscvEngine } from '../../src/riscv/index.js';
import * as L from '../../src/riscv/layout.js';
import { bumpAllocator } from './arena.js';

/**
 * A hart on flat memory without a board, of which a test sets and sees all: registers as typed arrays over the hart's own
 * state, one instruction at a time.
 *
 * Use: `put` an instruction at pc, set the state, `step`.
 */

export const RAM_BASE = 0x80000000;
export const RAM_BYTES = 8 * 2 ** 20;
/** Jumps reach 1 MiB about it. */
export const CODE = RAM_BASE + 4 * 2 ** 20;
/** Where traps go. */
export const VECTOR = RAM_BASE + 0x1000;
/** Pages for loads and stores. */
export const DATA = RAM_BASE + 0x10000;
export const DATA_BYTES = 4 * 4096;

const ARENA_BYTES = 4 * 2 ** 20;
const NR_DECODED_PAGES = 128;

export interface Step {
  readonly exit: HartExit;
  /** Set if the instruction trapped. */
  readonly trap?: { readonly cause: number; readonly tval: bigint; readonly sepc: bigint };
}

export class TestHart {
  readonly memory = createMemory(ARENA_BYTES + RAM_BYTES);
  readonly engine: RiscvEngine;
  readonly hart: Hart;
  readonly mmu: FlatMmu;
  readonly x: BigUint64Array;
  readonly f: BigUint64Array;
  /** The data pages. */
  readonly data: Uint8Array;
  /** All of RAM. */
  readonly ram: Uint8Array;
  readonly view: DataView;

  constructor(options: { deprivileged?: boolean } = {}) {
    const { memory } = this;
    this.engine = new RiscvEngine({
      memory,
      alloc: bumpAllocator(ARENA_BYTES),
      free: () => {},
      nrDecodedPages: NR_DECODED_PAGES,
    });
    this.mmu = new FlatMmu(this.engine.i32, RAM_BASE, RAM_BYTES, ARENA_BYTES);
    this.hart = this.engine.createHart({ hartId: 0, mmu: this.mmu, now: () => 0, ...options });
    this.x = new BigUint64Array(memory.buffer, this.hart.base + L.X, 32);
    this.f = new BigUint64Array(memory.buffer, this.hart.base + L.F, 32);
    this.ram = new Uint8Array(memory.buffer, ARENA_BYTES, RAM_BYTES);
    this.data = new Uint8Array(memory.buffer, ARENA_BYTES + DATA - RAM_BASE, DATA_BYTES);
    this.view = new DataView(memory.buffer, ARENA_BYTES, RAM_BYTES);
    this.setCsr(CSR.stvec, BigInt(VECTOR));
    this.fs = true;
  }

  /** Host page of a guest-physical address. */
  hostPage(gpa: number): number {
    return this.mmu.host(gpa) >>> 12;
  }

  /** Writes an instruction word, as a loader would: code decoded before is dropped. */
  put(gpa: number, word: number): void {
    this.view.setUint32(gpa - RAM_BASE, word, true);
    this.hart.dropCode(this.hostPage(gpa));
    this.hart.dropCode(this.hostPage(gpa + 3));
  }

  /** Handler of the record for the code at `gpa`. */
  handlerAt(gpa: number): number {
    const records = this.engine.records.get(this.hostPage(gpa));
    return this.engine.u16[(records + (gpa & 0xfff) * 4 + L.REC_HANDLER) >>> 1]!;
  }

  csr(number: number): bigint {
    const { csr } = this.hart;
    csr.read(number);
    return (BigInt(csr.high >>> 0) << 32n) | BigInt(csr.low >>> 0);
  }

  setCsr(number: number, value: bigint): void {
    this.hart.csr.write(number, Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)));
  }

  get fflags(): number {
    return this.engine.i32[(this.hart.base + L.FFLAGS) >>> 2]!;
  }

  get frm(): number {
    return this.engine.i32[(this.hart.base + L.FRM) >>> 2]!;
  }

  setFcsr(fflags: number, frm: number): void {
    this.engine.i32[(this.hart.base + L.FFLAGS) >>> 2] = fflags;
    this.engine.i32[(this.hart.base + L.FRM) >>> 2] = frm;
  }

  /** sstatus.FS: Off, or Initial. */
  set fs(on: boolean) {
    this.engine.i32[(this.hart.base + L.FS) >>> 2] = on ? 1 : 0;
  }

  get fsField(): number {
    return this.engine.i32[(this.hart.base + L.FS) >>> 2]!;
  }

  /** Runs the instruction at pc, or more of them, of which only the last may trap. */
  step(pc = this.hart.pc, nrInstructions = 1): Step {
    this.hart.pc = pc;
    const exit = this.hart.run(nrInstructions);
    if (this.hart.pc !== BigInt(VECTOR)) return { exit };
    const trap = { cause: Number(this.csr(CSR.scause)), tval: this.csr(CSR.stval), sepc: this.csr(CSR.sepc) };
    return { exit, trap };
  }
}
