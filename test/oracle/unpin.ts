import { KernelError } from '../../src/base/index.js';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  FAULT_RETRY,
  FAULT_SIGSEGV,
  Host,
  MAP_FIXED,
  MemorySwap,
  type Mm,
  MREMAP_DONTUNMAP,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  PAGE_SIZE,
  pfnToPa,
  RLIM_INFINITY,
  RLIMIT_AS,
  RLIMIT_DATA,
  RLIMIT_MEMLOCK,
  VA_SIZE,
  type Vma,
  vpnToVa,
} from '../../src/mm/index.js';
import { pteIsPresent, pteIsSwap, ptePfn } from '../../src/mm/pte.js';
import { VM_SHARED } from '../../src/mm/vma.js';
import type { Base } from './linux.js';
import {
  type CallName,
  FROM_TOP,
  FROM_ZERO,
  isFromTop,
  LEN_MAX,
  LEN_TOP,
  MAX_PROCS,
  type Program,
  RET_ELSEWHERE,
  RET_SIGBUS,
  RET_SIGSEGV,
  RET_SKIPPED,
  type Step,
} from './step.js';
import {
  hashBytes,
  type Outcome,
  PAGE_IS_EXCLUSIVE,
  PAGE_IS_HASHED,
  PAGE_IS_PRESENT,
  PAGE_IS_SWAPPED,
  PAGE_IS_ZERO,
  PERM_SHARED,
  pattern,
  type Trace,
  type View,
  type VmaView,
} from './trace.js';

/**
 * Unpin's side: the same programs on `src/mm`, one mm for each process. After each step the whole-state checker runs.
 *
 * Use: `new UnpinWorld(program, base)`, `await step(step)` for each, `await end()`.
 */

/** Where the window's 2 MiB boundary lies. */
const WINDOW = 0x40_0000_0000;
const FRAMES = 8192;
const FEW_FRAMES = 128;
/** Under pressure all contents are read after so many steps. */
const READ_EVERY = 5;
const SWAP_BYTES = 32 * 2 ** 20;
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

export interface UnpinCall {
  /** Whether Unpin can do it by now. */
  has?(mm: Mm): boolean;
  run(world: UnpinWorld, mm: Mm, args: readonly number[]): Promise<Result>;
}

export interface Result {
  readonly ret: number;
  readonly data?: Uint8Array;
}

export class UnpinWorld {
  readonly host: Host;
  readonly program: Omit<Program, 'steps'>;
  readonly procs: (Mm | undefined)[];
  readonly base: Base;
  private readonly calls: Partial<Record<CallName, UnpinCall>>;
  private readonly pressure: boolean;
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
    this.procs = [mm, ...Array<undefined>(MAX_PROCS - 1).fill(undefined)];
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
    const mm = this.procs.find((p) => p !== undefined);
    const names = Object.keys(this.calls) as CallName[];
    return names.filter((name) => mm !== undefined && (this.calls[name]?.has?.(mm) ?? this.calls[name] !== undefined));
  }

  /** Does one step, and looks at all processes. Rejects with what is not a refusal: a broken invariant, a hang. */
  async step(step: Step): Promise<Outcome> {
    const result = await withDeadline(this.call(step), step.call);
    checkHost(this.host);
    if (this.pressure) this.reclaim();
    const views = new Map<number, View>();
    for (const [p, mm] of this.procs.entries()) if (mm !== undefined) views.set(p, this.viewOf(mm));
    this.nrSteps++;
    return { ret: result.ret, data: result.data ?? NO_DATA, views };
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

  private viewOf(mm: Mm): View {
    const { windowPages } = this.program;
    const states = new Uint8Array(windowPages);
    const hashes = new Uint32Array(windowPages);
    const inWindow = this.vmasInWindow(mm);
    for (const vma of inWindow) {
      if (!this.pressure) this.lookAtPages(vma, states, hashes);
      else if (this.nrSteps % READ_EVERY === 0) this.readPages(vma, states, hashes);
    }
    return {
      total: mm.vm.total - this.base.totalPages,
      data: mm.vm.data - this.base.dataPages,
      locked: mm.vm.locked,
      vmas: inWindow.map((vma) => this.vmaView(vma, states)),
      states,
      hashes,
      knowsZero: true,
      zeroHash: this.hashOf(this.host.frames.zeroPfn),
    };
  }

  private vmaView(vma: Vma, states: Uint8Array): VmaView {
    const startPage = this.pageOf(vma.startVpn);
    const endPage = this.pageOf(vma.endVpn);
    const own = states.subarray(startPage, endPage);
    const count = (bit: number) =>
      own.reduce((sum, state) => sum + ((state & (bit | PAGE_IS_ZERO)) === bit ? 1 : 0), 0);
    return {
      startPage,
      endPage,
      perms: vma.prot | ((vma.flags & VM_SHARED) !== 0 ? PERM_SHARED : 0),
      vmFlags: vmFlagsOf(vma),
      rss: count(PAGE_IS_PRESENT),
      anonymous: count(PAGE_IS_PRESENT),
      swap: count(PAGE_IS_SWAPPED),
      locked: vma.locked ? count(PAGE_IS_PRESENT) : 0,
      offset: 0,
      file: 0,
    };
  }

  private lookAtPages(vma: Vma, states: Uint8Array, hashes: Uint32Array): void {
    const { pageTable } = vma.mm;
    const { frames } = this.host;
    for (let vpn = vma.startVpn; (vpn = pageTable.skipEmpty(vpn, vma.endVpn)) < vma.endVpn; vpn++) {
      const pte = pageTable.get(vpn);
      const page = this.pageOf(vpn);
      if (pteIsSwap(pte)) states[page] = PAGE_IS_SWAPPED;
      if (!pteIsPresent(pte)) continue;
      const pfn = ptePfn(pte);
      const kind = pfn === frames.zeroPfn ? PAGE_IS_ZERO : frames.mapcount[pfn] === 1 ? PAGE_IS_EXCLUSIVE : 0;
      states[page] = PAGE_IS_PRESENT | kind;
      if (!vma.allows(false)) continue;
      states[page]! |= PAGE_IS_HASHED;
      hashes[page] = this.hashOf(pfn);
    }
  }

  /** Reads all that can be read, wherever it is. */
  private readPages(vma: Vma, states: Uint8Array, hashes: Uint32Array): void {
    if (!vma.allows(false)) return;
    for (let vpn = vma.startVpn; vpn < vma.endVpn; vpn++) {
      const pfn = this.getPage(vma.mm, vpnToVa(vpn));
      if (pfn < 0) continue;
      states[this.pageOf(vpn)] = PAGE_IS_HASHED;
      hashes[this.pageOf(vpn)] = this.hashOf(pfn);
      vma.mm.putPage(pfn);
    }
  }

  private getPage(mm: Mm, va: number): number {
    for (;;) {
      const pfn = mm.tryGetPage(va, 0);
      if (pfn !== FAULT_RETRY) return pfn;
      mm.faultInSync(va, 0);
    }
  }

  private hashOf(pfn: number): number {
    return this.host.pageOps.checksum(pfnToPa(pfn), 0, 0) >>> 0;
  }

  /** The end of all processes; everything must have been given back. */
  async end(): Promise<void> {
    for (const mm of this.procs) mm?.exit();
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

/** Linux's numbers of the flags in VM_FLAG_NAMES; Unpin's are the same. */
const VM_FLAGS = [0x2000, 0x8_0000, 0x2_0000, 0x8000, 0x1_0000, 0x8000_0000, 0x20_0000, 0x10_0000, 0x200_0000];

function vmFlagsOf(vma: Vma): number {
  return VM_FLAGS.reduce((flags, bit, i) => flags | ((vma.flags & bit) !== 0 ? 1 << i : 0), 0);
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

/** As the CPU does: the first page that cannot be had gives its signal; what lies before was moved. */
async function access(world: UnpinWorld, mm: Mm, va: number, bytes: Uint8Array, write: boolean): Promise<Result> {
  const move = write ? mm.write(va, bytes) : mm.read(va, bytes);
  try {
    await move;
    return write ? { ret: 0 } : { ret: 0, data: hashData(bytes) };
  } catch (error) {
    if (!(error instanceof KernelError && error.code === 'EFAULT')) throw error;
    return { ret: await signalAt(world, mm, va, bytes.length, write) };
  }
}

async function signalAt(_world: UnpinWorld, mm: Mm, va: number, lenBytes: number, write: boolean): Promise<number> {
  const flags = write ? FAULT_FLAG_WRITE : 0;
  for (let at = va; at < va + lenBytes; at = Math.floor(at / PAGE_SIZE + 1) * PAGE_SIZE) {
    const pfn = mm.tryGetPage(at, flags);
    if (pfn > 0) mm.putPage(pfn);
    else if (pfn !== FAULT_RETRY) return pfn === FAULT_SIGSEGV ? RET_SIGSEGV : RET_SIGBUS;
    else await mm.faultIn(at, flags);
  }
  throw new Error(`EFAULT in [0x${va.toString(16)}, +${lenBytes}), and yet every page can be had`);
}

function hashData(bytes: Uint8Array): Uint8Array {
  const data = new Uint8Array(4);
  new DataView(data.buffer).setUint32(0, hashBytes(bytes), true);
  return data;
}

/** Whether something of the range is locked. */
function locks(mm: Mm, va: number, lenBytes: number): boolean {
  return mm.vmas.all().some((vma) => vma.locked && vma.start < va + lenBytes && va < vma.end);
}

const ok: Result = { ret: 0 };

export const UNPIN_CALLS: Partial<Record<CallName, UnpinCall>> = {
  mmap: {
    async run(world, mm, [addr, len, prot, flags]) {
      const va = mm.mmap(world.address(addr!), world.length(len!), prot!, flags!);
      if (!world.inWindow(va)) mm.munmap(va, world.length(len!));
      return world.addressResult(va);
    },
  },
  mprotect: {
    async run(world, mm, [addr, len, prot]) {
      mm.mprotect(world.address(addr!), world.length(len!), prot!);
      return ok;
    },
  },
  munmap: {
    async run(world, mm, [addr, len]) {
      mm.munmap(world.address(addr!), world.length(len!));
      return ok;
    },
  },
  madvise: {
    async run(world, mm, [addr, len, advice]) {
      await mm.madvise(world.address(addr!), world.length(len!), advice as number);
      return ok;
    },
  },
  mincore: {
    async run(world, mm, [addr, len]) {
      const nrPages = Math.ceil(Math.max(0, Math.min(world.length(len!), 2 ** 26)) / PAGE_SIZE);
      const vec = new Uint8Array(nrPages);
      mm.mincore(world.address(addr!), world.length(len!), vec);
      return { ret: 0, data: vec };
    },
  },
  mlock2: {
    async run(world, mm, [addr, len, flags]) {
      await mm.mlock(world.address(addr!), world.length(len!), flags!);
      return ok;
    },
  },
  mlockall: {
    async run(_world, mm, [flags]) {
      await mm.mlockall(flags!);
      return ok;
    },
  },
  munlockall: {
    async run(_world, mm) {
      mm.munlockall();
      return ok;
    },
  },
  setrlimit: {
    async run(world, mm, [which, bytes]) {
      const resource = ([RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_DATA] as const)[which!]!;
      const base = [0, world.base.totalPages, world.base.dataPages][which!]! * PAGE_SIZE;
      mm.setrlimit(resource, bytes! < 0 ? RLIM_INFINITY : base + bytes!);
      return ok;
    },
  },
  mlock: {
    async run(world, mm, [addr, len]) {
      await mm.mlock(world.address(addr!), world.length(len!));
      return ok;
    },
  },
  munlock: {
    async run(world, mm, [addr, len]) {
      mm.munlock(world.address(addr!), world.length(len!));
      return ok;
    },
  },
  load: {
    run: (world, mm, [addr, len]) => access(world, mm, world.address(addr!), new Uint8Array(len!), false),
  },
  store: {
    run: (world, mm, [addr, len, value]) => access(world, mm, world.address(addr!), pattern(len!, value!), true),
  },
  mremap: {
    async run(world, mm, [addr, oldLen, newLen, flags, newAddr, landing]) {
      const len = world.length(newLen!);
      if ((flags! & MREMAP_DONTUNMAP) !== 0 && locks(mm, world.address(addr!), len)) return { ret: RET_SKIPPED };
      const va = mm.mremap(world.address(addr!), world.length(oldLen!), len, flags!, world.address(newAddr!));
      if (!world.inWindow(va)) mm.mremap(va, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, world.address(landing!));
      return world.addressResult(va);
    },
  },
  fork: {
    async run(world, mm, [child]) {
      if (world.procs[child!] !== undefined) return { ret: RET_SKIPPED };
      world.procs[child!] = mm.fork();
      return ok;
    },
  },
  exit: {
    async run(world, mm) {
      mm.exit();
      world.procs[world.procs.indexOf(mm)] = undefined;
      return ok;
    },
  },
};
