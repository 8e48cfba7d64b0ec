import { gunzipSync } from 'node:zlib';
import { createMemory } from '../../src/base/index.js';
import {
  boardDeviceTree,
  loadKernel,
  planBoot,
  RAM_BASE,
  Sbi,
  type SbiHost,
  type SbiResult,
} from '../../src/machine/index.js';
import {
  FlatMmu,
  HART_EXIT_BUDGET,
  HART_EXIT_ECALL,
  HART_EXIT_WFI,
  type Hart,
  IRQ_S_TIMER,
  RiscvEngine,
} from '../../src/riscv/index.js';
import { bumpAllocator } from './arena.js';

/**
 * The least board that an S-mode program runs on: one hart on flat memory, and the SBI. No device, no mm. Its clock goes by
 * instructions (and jumps over a wfi), so that a run is the same each time.
 *
 * Use: `new FlatBoard(kernel, options).run(maxInstructions)`, once.
 */

export interface FlatBoardOptions {
  ramBytes?: number;
  bootargs?: string;
}

export interface FlatBoardResult {
  /** How it ended: by SRST (reason 0 is a success), or not. */
  end: 'shutdown' | 'failure' | 'stuck' | 'budget';
  console: string;
  instructions: number;
  /** What the hart said last, for `stuck`. */
  detail: string;
}

const MIB = 2 ** 20;
const DEFAULT_RAM_BYTES = 16 * MIB;
/** Room for the hart and its decoded code, from 4096 on: address 0 stays unused. */
const ARENA_BYTES = 16 * MIB;
const NR_DECODED_PAGES = 512;
const INSTRUCTIONS_PER_TICK = 20;
/** Longest run at once; a timer is looked at between. */
const SLICE = 1_000_000;

export class FlatBoard {
  readonly hart: Hart;
  private readonly u8: Uint8Array;
  private readonly sbi: Sbi;
  private readonly ramBytes: number;
  private output = '';
  private ended: number | undefined;
  private deadline = Number.POSITIVE_INFINITY;
  private skippedTicks = 0;

  constructor(kernel: Uint8Array, { ramBytes = DEFAULT_RAM_BYTES, bootargs = '' }: FlatBoardOptions = {}) {
    const memory = createMemory(ARENA_BYTES + ramBytes);
    this.u8 = new Uint8Array(memory.buffer);
    this.ramBytes = ramBytes;
    const engine = new RiscvEngine({
      memory,
      alloc: bumpAllocator(ARENA_BYTES),
      free: () => {},
      nrDecodedPages: NR_DECODED_PAGES,
    });
    const mmu = new FlatMmu(engine.i32, RAM_BASE, ramBytes, ARENA_BYTES);
    this.hart = engine.createHart({ hartId: 0, mmu, now: () => this.now() });
    this.sbi = new Sbi(this.sbiHost(), 1);
    this.load(kernel, bootargs);
  }

  private now(): number {
    return this.skippedTicks + Math.floor(this.hart.instretNow() / INSTRUCTIONS_PER_TICK);
  }

  private load(bytes: Uint8Array, bootargs: string): void {
    const kernel = loadKernel(bytes, gunzipSync);
    const dtb = boardDeviceTree({ ramBytes: this.ramBytes, bootargs });
    const plan = planBoot({ ramBase: RAM_BASE, ramBytes: this.ramBytes, kernel, initrdBytes: 0, dtbBytes: dtb.length });
    for (const { address, bytes } of plan.segments) this.u8.set(bytes, this.host(address));
    this.u8.set(dtb, this.host(plan.dtbStart));
    this.hart.pc = BigInt(plan.entry);
    this.hart.setX(11, BigInt(plan.dtbStart));
  }

  private host(gpa: number): number {
    return gpa - RAM_BASE + ARENA_BYTES;
  }

  run(maxInstructions: number): FlatBoardResult {
    let detail = '';
    while (this.ended === undefined && this.hart.instret < maxInstructions && detail === '') {
      this.hart.setInterruptPending(IRQ_S_TIMER, this.now() >= this.deadline);
      const toDeadline = Math.max(1, (this.deadline - this.now()) * INSTRUCTIONS_PER_TICK);
      detail = this.serve(this.hart.run(Math.min(SLICE, maxInstructions - this.hart.instret, toDeadline)));
    }
    const end =
      detail !== '' ? 'stuck' : this.ended === undefined ? 'budget' : this.ended === 0 ? 'shutdown' : 'failure';
    return { end, console: this.output, instructions: this.hart.instret, detail };
  }

  /** Does what the exit asks for; not empty: why the hart cannot go on. */
  private serve(exit: number): string {
    if (exit === HART_EXIT_BUDGET) return '';
    if (exit === HART_EXIT_ECALL) this.sbiCall();
    else if (exit === HART_EXIT_WFI && this.deadline !== Number.POSITIVE_INFINITY) this.skipToDeadline();
    else return this.hart.describeExit(exit);
    return '';
  }

  private skipToDeadline(): void {
    this.skippedTicks += Math.max(0, this.deadline - this.now());
  }

  private sbiCall(): void {
    const { hart } = this;
    const args = [10, 11, 12, 13, 14, 15].map((n) => hart.getX(n));
    const { error, value } = this.sbi.call(0, { eid: hart.getX(17), fid: hart.getX(16), args }) as SbiResult;
    hart.setX(10, error);
    if (value !== undefined) hart.setX(11, value);
  }

  private sbiHost(): SbiHost {
    const inRam = (gpa: bigint, lenBytes: number) =>
      gpa >= BigInt(RAM_BASE) && gpa + BigInt(lenBytes) <= BigInt(RAM_BASE + this.ramBytes);
    return {
      setTimer: (_, ticks) => {
        this.deadline = ticks;
      },
      systemReset: (_, reason) => {
        this.ended = reason;
      },
      consoleWrite: (bytes) => {
        this.output += String.fromCharCode(...bytes);
      },
      consoleRead: () => -1,
      readGuest: (gpa, n) =>
        inRam(gpa, n) ? this.u8.slice(this.host(Number(gpa)), this.host(Number(gpa)) + n) : undefined,
      writeGuest: (gpa, bytes) => {
        if (inRam(gpa, bytes.length)) this.u8.set(bytes, this.host(Number(gpa)));
        return inRam(gpa, bytes.length);
      },
      hartStatus: () => 0,
      sendIpi: refuse('sendIpi'),
      clearIpi: refuse('clearIpi'),
      remoteFenceI: refuse('remoteFenceI'),
      remoteSfenceVma: refuse('remoteSfenceVma'),
      hartStart: refuse('hartStart'),
      hartStop: refuse('hartStop'),
      hartSuspend: refuse('hartSuspend'),
      readGuestVirtual: refuse('readGuestVirtual'),
    };
  }
}

/** A call that none of our programs for this board makes. */
function refuse(name: string): () => never {
  return () => {
    throw new Error(`FlatBoard has no ${name}`);
  };
}
