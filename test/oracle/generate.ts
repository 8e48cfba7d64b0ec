import type { Mm } from '../../src/mm/index.js';
import { Random } from '../isa/random.js';
import {
  ADVICE,
  type CallName,
  FROM_TOP,
  FROM_ZERO,
  isFromTop,
  LEN_MAX,
  LEN_TOP,
  MAX_PROCS,
  NR_FILES,
  PAGE,
  type Step,
} from './step.js';
import type { UnpinWorld } from './unpin.js';

/**
 * Makes programs up. The next step is chosen by looking at Unpin's state, so that most calls meet something: ranges lie inside of
 * VMAs, over their edges, and sometimes nowhere; one argument in some dozens is wrong on purpose. A seed always gives the same
 * program for the same Unpin.
 *
 * Use: `new Generator(seed, world, calls)`, then in turn `next()` and the world's `step`.
 */
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MAP_POPULATE = 0x8000;
const MAP_FIXED_NOREPLACE = 0x10_0000;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;
const MREMAP_DONTUNMAP = 4;
const PROT_RW = 3;

/** How often each call comes, beside the others. */
const WEIGHTS: Record<CallName, number> = {
  mmap: 14,
  munmap: 7,
  mprotect: 10,
  madvise: 12,
  mincore: 3,
  mlock: 4,
  munlock: 4,
  mlock2: 2,
  mlockall: 1,
  munlockall: 1,
  mremap: 9,
  fork: 3,
  exit: 2,
  load: 12,
  store: 18,
  vmRead: 3,
  vmWrite: 3,
  msync: 2,
  ftruncate: 3,
  fallocate: 3,
  pread: 2,
  pwrite: 4,
  fsync: 1,
  setrlimit: 1,
};

type Args = number[];

export class Generator {
  private readonly r: Random;
  private readonly world: UnpinWorld;
  private readonly calls: readonly CallName[];
  private readonly total: number;
  /** Calls that leave something open for all of the program after them come in some programs alone. */
  private readonly pagesOut: boolean;
  private readonly vmReads: boolean;

  constructor(seed: number, world: UnpinWorld, calls: readonly CallName[]) {
    this.r = new Random(seed);
    this.pagesOut = this.r.oneIn(4);
    this.vmReads = calls.includes('vmRead') && (!calls.includes('vmWrite') || this.r.oneIn(4));
    this.world = world;
    this.calls = calls;
    this.total = calls.reduce((sum, call) => sum + WEIGHTS[call], 0);
  }

  /** Undefined when no process is left. */
  next(): Step | undefined {
    const live = [...this.world.procs.keys()].filter((p) => this.world.procs[p] !== undefined);
    if (live.length === 0) return undefined;
    const p = this.r.oneIn(3) ? this.r.pick(live) : live[0]!;
    const mm = this.world.procs[p]!;
    let call = this.pickCall();
    // The last process stays, and programs begin with something mapped.
    if (call === 'exit' && live.length === 1) call = 'mmap';
    if (call === 'vmRead' && !this.vmReads) call = 'vmWrite';
    if (this.world.vmasInWindow(mm).length < 2 && this.r.oneIn(2)) call = 'mmap';
    return { call, p, args: this.args(call, mm) };
  }

  private pickCall(): CallName {
    let at = this.r.below(this.total);
    for (const call of this.calls) {
      at -= WEIGHTS[call];
      if (at < 0) return call;
    }
    return this.calls[0]!;
  }

  private args(call: CallName, mm: Mm): Args {
    switch (call) {
      case 'mmap':
        return this.mmap(mm);
      case 'mprotect':
        return [...this.range(mm), this.r.oneIn(60) ? 0x40 : this.prot()];
      case 'madvise':
        return [...this.boundedRange(mm), this.advice()];
      case 'mincore':
        return this.boundedRange(mm);
      case 'mlock2':
        return [...this.range(mm), this.r.oneIn(20) ? 2 : this.r.below(2)];
      case 'mlockall':
        return [this.r.pick([1, 1, 2, 3, 3, 5, 6, 7, 4, 0, 8])];
      case 'mremap':
        return this.mremap(mm);
      case 'fork':
        return [1 + this.r.below(MAX_PROCS - 1)];
      case 'munlockall':
      case 'exit':
        return [];
      case 'load':
        return this.span(mm);
      case 'store':
        return [...this.span(mm), this.byte()];
      case 'vmRead':
        return this.vmAccess(mm);
      case 'vmWrite':
        return [...this.vmAccess(mm), this.byte()];
      case 'msync':
        return [...this.range(mm), this.r.pick([0, 1, 2, 4, 4, 4, 5, 6, 8])];
      case 'setrlimit':
        return this.setrlimit();
      case 'ftruncate':
      case 'fallocate':
      case 'pread':
      case 'pwrite':
      case 'fsync':
        return this.fileCall(call);
      default:
        return this.range(mm);
    }
  }

  private advice(): number {
    const advice = this.r.pick(ALL_ADVICE);
    // Under pressure pages that were given up are gone or not.
    if (advice === ADVICE.FREE && this.world.pressure) return ADVICE.COLD;
    return advice === ADVICE.PAGEOUT && !this.pagesOut ? ADVICE.COLD : advice;
  }

  private byte(): number {
    return 1 + this.r.below(255);
  }

  private get nrPages(): number {
    return this.world.program.windowPages;
  }

  /** A length in pages: mostly few. */
  private few(limit: number): number {
    const most = this.r.oneIn(8) ? limit : Math.min(limit, 12);
    return 1 + this.r.below(Math.max(most, 1));
  }

  /** First page and number of pages, inside the window. */
  private pages(mm: Mm): [start: number, nr: number] {
    const vmas = this.world.vmasInWindow(mm);
    if (vmas.length === 0 || this.r.oneIn(6)) return this.anyPages();
    const vma = this.r.pick(vmas);
    const start = this.world.pageOf(vma.startVpn);
    switch (this.r.below(6)) {
      case 0:
        return this.clip(start, vma.nrPages);
      case 1:
        return this.clip(start + this.r.below(7) - 3, this.few(vma.nrPages + 3));
      case 2:
        return this.clip(start + vma.nrPages - 1 - this.r.below(4), this.few(16));
      default: {
        const from = this.r.below(vma.nrPages);
        return this.clip(start + from, this.few(vma.nrPages - from));
      }
    }
  }

  private anyPages(): [number, number] {
    const start = this.r.below(this.nrPages);
    return this.clip(start, this.few(this.nrPages - start));
  }

  private clip(start: number, nr: number): [number, number] {
    const from = Math.min(Math.max(start, 0), this.nrPages - 1);
    return [from, Math.max(1, Math.min(nr, this.nrPages - from))];
  }

  /** Address and length in bytes; now and then a wrong one. */
  private range(mm: Mm): Args {
    const [start, nr] = this.pages(mm);
    if (this.r.oneIn(40)) return this.wrongRange(start * PAGE, nr * PAGE);
    return [start * PAGE, this.lenOf(nr)];
  }

  /** One that does not reach what the process has beside the window. */
  private boundedRange(mm: Mm): Args {
    const [addr, len] = this.range(mm) as [number, number];
    return [addr, len === LEN_TOP ? LEN_MAX : len];
  }

  /** Pages in bytes, sometimes less by a part of the last one. */
  private lenOf(nr: number): number {
    return this.r.oneIn(10) ? nr * PAGE - this.r.below(PAGE) : nr * PAGE;
  }

  private wrongRange(addr: number, len: number): Args {
    switch (this.r.below(7)) {
      case 0:
        return [addr + 1 + this.r.below(PAGE - 1), len];
      case 1:
        return [addr, 0];
      case 2:
        // Nothing lies there, neither here nor in the process of the real side.
        return [FROM_ZERO + this.r.below(2) * PAGE, Math.min(len, 64 * PAGE)];
      case 3:
        return [FROM_TOP + (this.r.below(4) - 2) * PAGE, len];
      case 4:
        return [addr, LEN_TOP];
      case 5:
        return [addr, LEN_MAX];
      default:
        return [addr + 1 + this.r.below(PAGE - 1), 0];
    }
  }

  /** As `wrongRange`, but low addresses only where this machine refuses them too. */
  private wrongPlace(addr: number, len: number): Args {
    const range = this.wrongRange(addr, len);
    const low = range[0]! >= FROM_ZERO && !isFromTop(range[0]!);
    return low && !this.world.base.refusesLow ? [addr + 1, len] : range;
  }

  private prot(): number {
    return this.r.pick([PROT_RW, PROT_RW, PROT_RW, PROT_RW, 1, 1, 0, 5, 2]);
  }

  private mmap(mm: Mm): Args {
    const [start, nr] = this.r.oneIn(2) ? this.anyPages() : this.pages(mm);
    const file = this.r.oneIn(4) && this.calls.includes('pwrite') ? this.r.below(NR_FILES + 2) : -1;
    let flags = this.kindOf(file) | this.place();
    if (this.r.oneIn(12) && this.calls.includes('mprotect')) flags |= MAP_NORESERVE;
    if (this.r.oneIn(12) && this.calls.includes('mprotect')) flags |= MAP_POPULATE;
    const offset = file < 0 ? 0 : this.r.below(12) * PAGE + (this.r.oneIn(60) ? 7 : 0);
    const prot = this.r.oneIn(3) ? this.prot() : PROT_RW;
    if (this.r.oneIn(50)) return [...this.wrongPlace(start * PAGE, nr * PAGE), prot, flags, file, offset];
    if (this.r.oneIn(80)) flags = this.wrongKind(flags);
    return [start * PAGE, this.lenOf(nr), prot, flags, file, offset];
  }

  private kindOf(file: number): number {
    if (file >= 0) return this.r.oneIn(2) ? MAP_SHARED : MAP_PRIVATE;
    const shared = this.r.oneIn(6) && this.calls.includes('pwrite');
    return MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE);
  }

  private wrongKind(flags: number): number {
    const rest = flags & ~(MAP_SHARED | MAP_PRIVATE);
    return this.r.oneIn(2) || (flags & MAP_ANONYMOUS) === 0 ? rest : rest | MAP_SHARED | MAP_PRIVATE;
  }

  private place(): number {
    return this.r.pick([MAP_FIXED, MAP_FIXED, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_FIXED_NOREPLACE, 0]);
  }

  private mremap(mm: Mm): Args {
    const [start, nr] = this.pages(mm);
    const [target, room] = this.anyPages();
    const grown = this.r.oneIn(2) ? nr : this.few(24);
    const newNr = Math.min(grown, room, this.nrPages - start);
    let flags = this.r.pick([0, MREMAP_MAYMOVE, MREMAP_MAYMOVE, MREMAP_MAYMOVE | MREMAP_FIXED, 7, 5]);
    if (this.r.oneIn(40)) flags = this.r.below(16);
    const oldNr = (flags & MREMAP_DONTUNMAP) !== 0 && !this.r.oneIn(10) ? newNr : nr;
    let range = [start * PAGE, oldNr * PAGE];
    if (this.r.oneIn(30)) range = this.wrongRange(range[0]!, range[1]!);
    return [...range, newNr * PAGE, flags, target * PAGE, Math.min(target, this.nrPages - newNr) * PAGE];
  }

  /** Bytes for an access: mostly in one page, sometimes over some pages. */
  private span(mm: Mm): Args {
    const [start, nr] = this.pages(mm);
    if (this.r.oneIn(4)) return [start * PAGE, Math.min(nr, 64) * PAGE];
    const offset = this.r.below(PAGE);
    const len = this.r.oneIn(6) ? 1 + this.r.below(2 * PAGE) : 1 + this.r.below(Math.min(64, PAGE - offset));
    return [start * PAGE + offset, Math.min(len, (this.nrPages - start) * PAGE - offset)];
  }

  private vmAccess(mm: Mm): Args {
    const live = [...this.world.procs.keys()].filter((p) => this.world.procs[p] !== undefined);
    const target = this.r.oneIn(20) ? this.r.below(MAX_PROCS) : this.r.pick(live);
    const nr = this.r.oneIn(20) ? 0 : 1 + this.r.below(4);
    const remote: number[] = [];
    let bytes = 0;
    for (let i = 0; i < 4; i++) {
      const [addr, len] = this.span(this.world.procs[target] ?? mm) as [number, number];
      remote.push(addr, this.r.oneIn(12) ? 0 : Math.min(len, 4 * PAGE));
      if (i < nr) bytes += remote.at(-1)!;
    }
    const nrLocal = 1 + this.r.below(4);
    const local: number[] = [];
    for (let i = 0; i < 4; i++) local.push(i === nrLocal - 1 ? bytes : this.r.below(Math.floor(bytes / 2) + 1));
    return [target, nrLocal, ...local, nr, ...remote];
  }

  private setrlimit(): Args {
    const which = this.r.below(3);
    if (this.r.oneIn(3)) return [which, which === 0 ? this.world.base.memlockBytes : -1];
    return [which, this.r.below(this.nrPages) * PAGE + (this.r.oneIn(4) ? 100 : 0)];
  }

  private fileCall(call: CallName): Args {
    const file = this.r.oneIn(20) ? this.r.below(NR_FILES + 2) : this.r.below(NR_FILES);
    const at = () => this.r.below(24) * PAGE + (this.r.oneIn(3) ? this.r.below(PAGE) : 0);
    const len = this.r.oneIn(3) ? 1 + this.r.below(3 * PAGE) : 1 + this.r.below(100);
    switch (call) {
      case 'ftruncate':
        return [file, this.r.oneIn(40) ? -1 : at()];
      case 'fallocate':
        return [file, this.r.oneIn(8) ? this.r.below(4) : 3, at(), this.r.oneIn(20) ? 0 : 1 + this.r.below(6 * PAGE)];
      case 'pread':
        return [file, at(), len];
      case 'pwrite':
        return [file, at(), len, this.byte()];
      default:
        return [file];
    }
  }
}

/** What madvise is called with, DONTNEED more than others, and what is no advice. */
const ALL_ADVICE: readonly number[] = [
  ...Array<number>(6).fill(ADVICE.DONTNEED),
  ...Object.values(ADVICE),
  ADVICE.POPULATE_WRITE,
  ADVICE.FREE,
  5,
  99,
  -1,
];
