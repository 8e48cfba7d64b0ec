import { KernelError } from '../../src/base/index.js';
import { File } from '../../src/mm/file/file.js';
import {
  checkHost,
  Host,
  MAP_FIXED,
  MemoryStore,
  MemorySwap,
  type Mm,
  PAGE_SIZE,
  VA_SIZE,
  type Vma,
} from '../../src/mm/index.js';
import type { Base } from './linux.js';
import { lookAtMm } from './look.js';
import {
  type CallName,
  FROM_TOP,
  FROM_ZERO,
  isFromTop,
  LEN_MAX,
  LEN_TOP,
  MAX_PROCS,
  NR_FILES,
  type Program,
  RET_ELSEWHERE,
  RET_SKIPPED,
  type Step,
} from './step.js';
import type { Outcome, Trace, View } from './trace.js';
import { OPEN, type Result, UNPIN_CALLS, type UnpinCall } from './unpincalls.js';

/**
 * Unpin's side: the same programs on `src/mm`, one mm for each process. After each step the whole-state checker runs.
 *
 * Use: `new UnpinWorld(program, base)`, `await step(step)` for each, `await end()`.
 */

/** Where the window's 2 MiB boundary lies. */
const WINDOW = 0x40_0000_0000;
const FRAMES = 4096;
const FEW_FRAMES = 128;
/** Under pressure all contents are read after so many steps. */
const READ_EVERY = 5;
const SWAP_BYTES = 16 * 2 ** 20;
/** What the real side's process has mapped beside its program, so that limits meet the same sums. */
const BASE_VA = 0x20_0000_0000;
const NO_DATA = new Uint8Array(0);
const HANG_MS = 10_000;

export interface UnpinOptions {
  /** Frames are few, and reclaim is forced between the steps; all contents are read at times, what is resident says nothing. */
  readonly pressure?: boolean;
  /** Replaces calls: for showing that the oracle finds what is wrong. */
  readonly calls?: Partial<Record<CallName, UnpinCall>>;
}

export class UnpinWorld {
  readonly host: Host;
  readonly program: Omit<Program, 'steps'>;
  readonly procs: (Mm | undefined)[];
  /** By descriptor. */
  readonly files: readonly File[];
  readonly base: Base;
  private readonly calls: Partial<Record<CallName, UnpinCall>>;
  readonly pressure: boolean;
  private nrSteps = 0;

  constructor(program: Omit<Program, 'steps'>, base: Base, options: UnpinOptions = {}) {
    this.program = program;
    this.base = base;
    this.calls = { ...UNPIN_CALLS, ...options.calls };
    this.pressure = options.pressure ?? false;
    this.host = new Host({
      frames: this.pressure ? FEW_FRAMES : FRAMES,
      arenaBytes: PAGE_SIZE,
      swap: new MemorySwap({ sizeBytes: SWAP_BYTES }),
      debug: true,
      defer: (fn) => setImmediate(fn),
    });
    const mm = this.host.createMm({ rlimitMemlock: base.memlockBytes });
    const flags = 0x22 | MAP_FIXED;
    mm.mmap(BASE_VA, base.dataPages * PAGE_SIZE, 3, flags);
    mm.mmap(BASE_VA + 2 ** 30, (base.totalPages - base.dataPages) * PAGE_SIZE, 1, flags);
    this.files = this.openFiles();
    this.procs = [mm, ...Array<undefined>(MAX_PROCS - 1).fill(undefined)];
  }

  private openFiles(): File[] {
    const open = (i: number) =>
      this.program.storage === 'memfd' ? this.host.memfdCreate(`file ${i}`) : this.host.openFile(new MemoryStore());
    const files = Array.from({ length: NR_FILES }, (_, i) => open(i));
    const { mapping } = files[0]!;
    return [...files, new File(this.host, mapping, 'r'), new File(this.host, mapping, 'w')];
  }

  get windowStart(): number {
    return WINDOW - this.program.leadPages * PAGE_SIZE;
  }

  /** The virtual address that an argument names. */
  address(arg: number): number {
    if (isFromTop(arg)) return VA_SIZE + (arg - FROM_TOP);
    return arg >= FROM_ZERO ? arg - FROM_ZERO : this.windowStart + arg;
  }

  length(arg: number): number {
    if (arg === LEN_TOP) return VA_SIZE;
    return arg === LEN_MAX ? -PAGE_SIZE : arg;
  }

  inWindow(va: number): boolean {
    return va >= this.windowStart && va < this.windowStart + this.program.windowPages * PAGE_SIZE;
  }

  /** An address as a result: bytes from the window's start. */
  addressResult(va: number): Result {
    return { ret: this.inWindow(va) ? va - this.windowStart : RET_ELSEWHERE };
  }

  /** Calls that a program can be made of today. */
  available(): CallName[] {
    return Object.keys(this.calls) as CallName[];
  }

  /** Does one step, and looks at all processes. Rejects with what is not a refusal: a broken invariant, a hang. */
  async step(step: Step): Promise<Outcome> {
    const result = await withDeadline(this.call(step), step.call);
    checkHost(this.host);
    if (this.pressure) this.reclaim();
    const what = !this.pressure ? 'present' : this.nrSteps % READ_EVERY === 0 ? 'everything' : 'VMAs';
    const views = new Map<number, View>();
    for (const [p, mm] of this.procs.entries()) if (mm !== undefined) views.set(p, lookAtMm(this, mm, what));
    this.nrSteps++;
    const data = result.data === OPEN ? undefined : (result.data ?? NO_DATA);
    return { ret: result.ret, data, views };
  }

  private reclaim(): void {
    for (let n = this.nrSteps % 4; n > 0; n--) this.host.reclaim.shrink(true, true, n === 2);
    checkHost(this.host);
  }

  private async call(step: Step): Promise<Result> {
    const mm = this.procs[step.p];
    const call = this.calls[step.call];
    if (mm === undefined || call === undefined) return { ret: RET_SKIPPED };
    try {
      return await call.run(this, mm, step.args);
    } catch (error) {
      if (error instanceof KernelError) return { ret: -error.errno };
      throw error;
    }
  }

  vmasInWindow(mm: Mm): Vma[] {
    return mm.vmas.all().filter((vma) => this.inWindow(vma.start));
  }

  pageOf(vpn: number): number {
    return vpn - this.windowStart / PAGE_SIZE;
  }

  /** The end of all processes; everything must have been given back. */
  async end(): Promise<void> {
    for (const mm of this.procs) mm?.exit();
    for (const file of this.files) file.close();
    await this.host.stop();
    checkHost(this.host);
    if (this.host.frames.nrFree !== this.host.frames.nrFrames) throw new Error('frames are lost after the end');
  }
}

/** Runs a whole program; a broken invariant ends it. */
export async function runOnUnpin(program: Program, base: Base, options: UnpinOptions = {}): Promise<Trace> {
  const world = new UnpinWorld(program, base, options);
  const outcomes: Outcome[] = [];
  try {
    for (const step of program.steps) outcomes.push(await world.step(step));
    await world.end();
    return { outcomes };
  } catch (error) {
    return { outcomes, broken: String(error) };
  }
}

async function withDeadline<T>(work: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} does not end`)), HANG_MS);
  });
  try {
    return await Promise.race([work, deadline]);
  } finally {
    clearTimeout(timer);
  }
}
