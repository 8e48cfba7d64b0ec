import { KernelError } from '../../src/base/index.js';
import {
  FAULT_FLAG_WRITE,
  FAULT_RETRY,
  FAULT_SIGSEGV,
  type File,
  MAP_POPULATE,
  type Mm,
  MREMAP_DONTUNMAP,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  PAGE_SIZE,
  RLIM_INFINITY,
  RLIMIT_AS,
  RLIMIT_DATA,
  RLIMIT_MEMLOCK,
  type Vma,
  vaToVpn,
} from '../../src/mm/index.js';
import { type CallName, PAGE, RET_SIGBUS, RET_SIGSEGV, RET_SKIPPED } from './step.js';
import { hashBytes, pattern } from './trace.js';
import type { UnpinWorld } from './unpin.js';

/** The calls of a program, done by Unpin: what peer/calls.c does on the real side. A refusal is thrown, as Unpin does. */

export interface UnpinCall {
  run(world: UnpinWorld, mm: Mm, args: readonly number[]): Promise<Result>;
}

export interface Result {
  readonly ret: number;
  /** What was read; OPEN where it is not determined. */
  readonly data?: Uint8Array | typeof OPEN;
}

export const OPEN = 'open';

const OK: Result = { ret: 0 };
/** What Linux leaves open, and so is done by neither side. */
const UNDETERMINED: Result = { ret: RET_SKIPPED };

/** Of a call whose arguments are an address, a length and perhaps a third. */
type RangeCall = (mm: Mm, va: number, len: number, third: number) => unknown;

function onRange(call: RangeCall): UnpinCall {
  return {
    async run(world, mm, [addr, len, third]) {
      await call(mm, world.address(addr!), world.length(len!), third!);
      return OK;
    },
  };
}

/** Of a call on one of the program's files. */
function onFile(call: (file: File, args: readonly number[]) => Promise<Result>): UnpinCall {
  return { run: (world, _mm, [file, ...args]) => call(world.files[file!]!, args) };
}

export const UNPIN_CALLS: Partial<Record<CallName, UnpinCall>> = {
  mmap: { run: mmap },
  munmap: onRange((mm, va, len) => mm.munmap(va, len)),
  mprotect: onRange(mprotect),
  madvise: onRange((mm, va, len, advice) => mm.madvise(va, len, advice)),
  mincore: { run: mincore },
  mlock: onRange((mm, va, len) => mm.mlock(va, len)),
  munlock: onRange((mm, va, len) => mm.munlock(va, len)),
  mlock2: onRange((mm, va, len, flags) => mm.mlock(va, len, flags)),
  msync: onRange((mm, va, len, flags) => mm.msync(va, len, flags)),
  mlockall: { run: (_world, mm, [flags]) => done(mm.mlockall(flags!)) },
  munlockall: { run: async (_world, mm) => done(mm.munlockall()) },
  mremap: { run: mremap },
  fork: { run: fork },
  exit: { run: exit },
  load: { run: (world, mm, [addr, len]) => access(mm, world.address(addr!), new Uint8Array(len!), false) },
  store: { run: store },
  vmRead: { run: (world, _mm, args) => vmAccess(world, args, false) },
  vmWrite: { run: (world, _mm, args) => vmAccess(world, args, true) },
  ftruncate: onFile((file, [size]) => done(file.truncate(size!))),
  fallocate: onFile((file, [mode, offset, len]) => done(file.fallocate(mode!, offset!, len!))),
  fsync: onFile((file) => done(file.fsync())),
  pread: onFile(pread),
  pwrite: onFile(async (file, [offset, len, value]) => ({ ret: await file.write(pattern(len!, value!), offset!) })),
  setrlimit: { run: setrlimit },
};

async function done(work: unknown): Promise<Result> {
  await work;
  return OK;
}

async function mmap(world: UnpinWorld, mm: Mm, args: readonly number[]): Promise<Result> {
  const [addr, len, prot, flags, file, offset] = args as [number, number, number, number, number, number];
  const va = mm.mmap(world.address(addr), world.length(len), prot, flags, world.files[file], offset);
  if (!world.inWindow(va)) mm.munmap(va, world.length(len));
  else if ((flags & MAP_POPULATE) !== 0 || mm.findVma(va)!.locked) await populate(mm, va, world.length(len));
  return world.addressResult(va);
}

/** What the call itself brought in as far as that needed no waiting. What cannot be had is not told, as in Linux. */
async function populate(mm: Mm, va: number, lenBytes: number): Promise<void> {
  try {
    await mm.populate(va, lenBytes);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
  }
}

/** What of a file lies in the page cache is not determined. */
async function mincore(world: UnpinWorld, mm: Mm, [addr, len]: readonly number[]): Promise<Result> {
  const [va, lenBytes] = [world.address(addr!), world.length(len!)];
  const vec = new Uint8Array(Math.max(0, Math.ceil(lenBytes / PAGE_SIZE)));
  mm.mincore(va, lenBytes, vec);
  return { ret: 0, data: vmasOf(mm, va, lenBytes).some((vma) => vma.file !== undefined) ? OPEN : vec };
}

/** What is locked and becomes writable is brought in, also where the call is refused half-way. */
async function mprotect(mm: Mm, va: number, lenBytes: number, prot: number): Promise<void> {
  const candidates = vmasOf(mm, va, lenBytes)
    .filter((vma) => vma.locked && !vma.shared && !vma.allows(true))
    .map((vma) => [Math.max(vma.start, va), Math.min(vma.end, va + lenBytes)] as const);
  try {
    mm.mprotect(va, lenBytes, prot);
  } finally {
    for (const [start, end] of candidates) if (mm.findVma(start)!.allows(true)) await populate(mm, start, end - start);
  }
}

async function mremap(world: UnpinWorld, mm: Mm, args: readonly number[]): Promise<Result> {
  const [addr, oldLen, newLen, flags, newAddr, landing] = args as [number, number, number, number, number, number];
  const from = world.address(addr);
  const len = world.length(newLen);
  if ((flags & MREMAP_DONTUNMAP) !== 0 && vmasOf(mm, from, len).some((vma) => vma.locked)) return UNDETERMINED;
  const va = mm.mremap(from, world.length(oldLen), len, flags, world.address(newAddr));
  const at = world.inWindow(va) ? va : mm.mremap(va, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, world.address(landing));
  const tail = at + Math.ceil(world.length(oldLen) / PAGE_SIZE) * PAGE_SIZE;
  if (tail < at + len && mm.findVma(at)!.locked) await populate(mm, tail, at + len - tail);
  return world.addressResult(va);
}

function vmasOf(mm: Mm, va: number, lenBytes: number): Vma[] {
  return mm.vmas.all().filter((vma) => vma.start < va + lenBytes && va < vma.end);
}

async function fork(world: UnpinWorld, mm: Mm, [child]: readonly number[]): Promise<Result> {
  if (world.procs[child!] !== undefined) return { ret: RET_SKIPPED };
  world.procs[child!] = mm.fork();
  return OK;
}

async function exit(world: UnpinWorld, mm: Mm): Promise<Result> {
  mm.exit();
  world.procs[world.procs.indexOf(mm)] = undefined;
  return OK;
}

async function setrlimit(world: UnpinWorld, mm: Mm, [which, bytes]: readonly number[]): Promise<Result> {
  const resource = ([RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_DATA] as const)[which!]!;
  const base = [0, world.base.totalPages, world.base.dataPages][which!]! * PAGE_SIZE;
  mm.setrlimit(resource, bytes! < 0 ? RLIM_INFINITY : base + bytes!);
  return OK;
}

async function store(world: UnpinWorld, mm: Mm, [addr, len, value]: readonly number[]): Promise<Result> {
  const va = world.address(addr!);
  if (writesPastEnd(mm, va, len!)) return UNDETERMINED;
  return access(mm, va, pattern(len!, value!), true);
}

/** Whether bytes of a shared page behind its file's end would be written: who sees them, and how long, is nowhere said. */
function writesPastEnd(mm: Mm, va: number, lenBytes: number): boolean {
  return vmasOf(mm, va, lenBytes).some((vma) => {
    if (!vma.shared) return false;
    const { sizeBytes } = vma.file!;
    const tail = vma.start + (Math.ceil(sizeBytes / PAGE) - vma.pgoff) * PAGE - ((PAGE - (sizeBytes % PAGE)) % PAGE);
    const tailEnd = Math.min(Math.ceil(tail / PAGE) * PAGE, vma.end);
    return tail >= vma.start && va < tailEnd && va + lenBytes > tail;
  });
}

/** As the CPU does: the first page that cannot be had gives its signal; what lies before was moved. */
async function access(mm: Mm, va: number, bytes: Uint8Array, write: boolean): Promise<Result> {
  try {
    await (write ? mm.write(va, bytes) : mm.read(va, bytes));
    return write ? OK : { ret: 0, data: hashData(bytes) };
  } catch (error) {
    if (!(error instanceof KernelError && error.code === 'EFAULT')) throw error;
    return { ret: await signalAt(mm, va, bytes.length, write) };
  }
}

async function signalAt(mm: Mm, va: number, lenBytes: number, write: boolean): Promise<number> {
  const flags = write ? FAULT_FLAG_WRITE : 0;
  for (let at = va; at < va + lenBytes; ) {
    const pfn = mm.tryGetPage(at, flags);
    if (pfn > 0) {
      mm.putPage(pfn);
      at = (vaToVpn(at) + 1) * PAGE_SIZE;
    } else if (pfn !== FAULT_RETRY) return pfn === FAULT_SIGSEGV ? RET_SIGSEGV : RET_SIGBUS;
    else await mm.faultIn(at, flags);
  }
  throw new Error(`EFAULT in [0x${va.toString(16)}, +${lenBytes}), and yet every page can be had`);
}

/** args: target, number of local pieces, 4 lengths, number of remote pieces, 4 pairs of address and length, value */
async function vmAccess(world: UnpinWorld, args: readonly number[], write: boolean): Promise<Result> {
  const target = world.procs[args[0]!];
  if (target === undefined) return { ret: RET_SKIPPED };
  const lengths = args.slice(2, 6);
  const all = sum(lengths);
  const bytes = write ? pattern(all, args[15]!) : new Uint8Array(all);
  const local = lengths.slice(0, args[1]).map((len, i) => bytes.subarray(sum(lengths.slice(0, i))).subarray(0, len));
  const remote: { va: number; lenBytes: number }[] = [];
  for (let i = 0; i < args[6]!; i++) remote.push({ va: world.address(args[7 + 2 * i]!), lenBytes: args[8 + 2 * i]! });
  // Linux brings in all pages of a remote piece, and then moves as much as there is room for.
  if (sum(local.map((piece) => piece.length)) < sum(remote.map((piece) => piece.lenBytes))) return UNDETERMINED;
  if (write && remote.some(({ va, lenBytes }) => writesPastEnd(target, va, lenBytes))) return UNDETERMINED;
  const ret = await (write ? target.processVmWritev(local, remote) : target.processVmReadv(local, remote));
  return write ? { ret } : { ret, data: hashData(bytes) };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0);
}

async function pread(file: File, [offset, len]: readonly number[]): Promise<Result> {
  const bytes = new Uint8Array(len!);
  const ret = await file.read(bytes, offset!);
  return ret === 0 ? { ret } : { ret, data: hashData(bytes.subarray(0, ret)) };
}

function hashData(bytes: Uint8Array): Uint8Array {
  const data = new Uint8Array(bytes.length === 0 ? 0 : 4);
  if (data.length > 0) new DataView(data.buffer).setUint32(0, hashBytes(bytes), true);
  return data;
}
