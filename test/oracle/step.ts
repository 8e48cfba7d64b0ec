/**
 * The language of the oracle's programs. A program is a list of steps; a step is one call of one process, with numbers for
 * arguments, so that it can be sent, printed and made smaller without knowing what it means.
 *
 * Addresses are bytes from the start of the window, an area of some hundred pages that each side places where it likes; from
 * FROM_ZERO and FROM_TOP on they count from address 0 and from the end of the address space.
 */
export interface Step {
  readonly call: CallName;
  /** Which process does it: 0 is there from the start, the others by `fork`. */
  readonly p: number;
  readonly args: readonly number[];
}

export interface Program {
  readonly windowPages: number;
  /** Pages of the window before a 2 MiB boundary. */
  readonly leadPages: number;
  /** What its files are: memory (memfd_create), or files of a filesystem. */
  readonly storage: 'memfd' | 'file';
  readonly steps: readonly Step[];
}

/** As in peer/peer.h. */
export const FROM_ZERO = 2 ** 41;
export const FROM_TOP = 2 ** 42;
const NEAR = 2 ** 30;
export const LEN_TOP = 2 ** 43;
export const LEN_MAX = 2 ** 44;
/** Results that are no errno: an address that is not in the window, a signal, a step that was passed over. */
export const RET_ELSEWHERE = 2 ** 45;
export const RET_SIGSEGV = -1001;
export const RET_SIGBUS = -1002;
export const RET_SKIPPED = -2000;

export const MAX_PROCS = 6;
/** Files of a program; descriptors 3 and 4 are file 0 again, for reading alone and for writing alone. */
export const NR_FILES = 3;
export const NR_DESCRIPTORS = 5;

export function isFromTop(addr: number): boolean {
  return addr >= FROM_TOP - NEAR && addr < LEN_TOP;
}

/** What an argument is: how it is printed and made smaller. */
export type ArgKind = 'addr' | 'len' | 'bytes' | 'prot' | 'mapFlags' | 'flags' | 'advice' | 'number' | 'proc';

/** The arguments of each call, in the order of peer/calls.c. */
export const CALLS = {
  mmap: { addr: 'addr', len: 'len', prot: 'prot', flags: 'mapFlags', file: 'number', offset: 'len' },
  munmap: { addr: 'addr', len: 'len' },
  mprotect: { addr: 'addr', len: 'len', prot: 'prot' },
  madvise: { addr: 'addr', len: 'len', advice: 'advice' },
  mincore: { addr: 'addr', len: 'len' },
  mlock: { addr: 'addr', len: 'len' },
  munlock: { addr: 'addr', len: 'len' },
  mlock2: { addr: 'addr', len: 'len', flags: 'flags' },
  mlockall: { flags: 'flags' },
  munlockall: {},
  /** `landing` is where the area is moved to when it was moved out of the window. */
  mremap: { addr: 'addr', oldLen: 'len', newLen: 'len', flags: 'flags', newAddr: 'addr', landing: 'addr' },
  fork: { child: 'proc' },
  exit: {},
  /** The CPU's own accesses. */
  load: { addr: 'addr', len: 'bytes' },
  store: { addr: 'addr', len: 'bytes', value: 'number' },
  vmRead: vmAccessArgs(),
  vmWrite: { ...vmAccessArgs(), value: 'number' },
  msync: { addr: 'addr', len: 'len', flags: 'flags' },
  ftruncate: { file: 'number', size: 'len' },
  fallocate: { file: 'number', mode: 'flags', offset: 'len', len: 'len' },
  pread: { file: 'number', offset: 'len', len: 'bytes' },
  pwrite: { file: 'number', offset: 'len', len: 'bytes', value: 'number' },
  fsync: { file: 'number' },
  /** `which`: 0 RLIMIT_MEMLOCK, 1 RLIMIT_AS, 2 RLIMIT_DATA; bytes beyond what the process has at its start, -1: unlimited. */
  setrlimit: { which: 'number', bytes: 'len' },
} as const satisfies Record<string, Record<string, ArgKind>>;

export type CallName = keyof typeof CALLS;
export const CALL_NAMES = Object.keys(CALLS) as CallName[];

function vmAccessArgs(): Record<string, ArgKind> {
  const args: Record<string, ArgKind> = { target: 'proc', nrLocal: 'number' };
  for (let i = 0; i < 4; i++) args[`local${i}`] = 'bytes';
  args.nrRemote = 'number';
  for (let i = 0; i < 4; i++) Object.assign(args, { [`addr${i}`]: 'addr', [`len${i}`]: 'bytes' });
  return args;
}

export const PAGE = 4096;

export function argKinds(call: CallName): [name: string, kind: ArgKind][] {
  return Object.entries(CALLS[call]);
}

const MAP_FLAGS: readonly [number, string][] = [
  [0x1, 'SHARED'],
  [0x2, 'PRIVATE'],
  [0x10, 'FIXED'],
  [0x20, 'ANONYMOUS'],
  [0x4000, 'NORESERVE'],
  [0x8000, 'POPULATE'],
  [0x10_0000, 'FIXED_NOREPLACE'],
  [0x2000, 'LOCKED'],
];

export const ADVICE = {
  NORMAL: 0,
  RANDOM: 1,
  SEQUENTIAL: 2,
  WILLNEED: 3,
  DONTNEED: 4,
  FREE: 8,
  DONTFORK: 10,
  DOFORK: 11,
  REMOVE: 9,
  DONTDUMP: 16,
  DODUMP: 17,
  WIPEONFORK: 18,
  KEEPONFORK: 19,
  COLD: 20,
  PAGEOUT: 21,
  POPULATE_READ: 22,
  POPULATE_WRITE: 23,
  DONTNEED_LOCKED: 24,
} as const;

/** `p0 mmap(addr 12p, len 3p, prot RW, flags PRIVATE|ANONYMOUS|FIXED, file -1, offset 0)` */
export function describeStep(step: Step): string {
  const args = argKinds(step.call).map(([name, kind], i) => `${name} ${describeArg(kind, step.args[i] ?? 0)}`);
  return `p${step.p} ${step.call}(${args.join(', ')})`;
}

function describeArg(kind: ArgKind, value: number): string {
  if (kind === 'addr' || kind === 'len') return describeBytes(value);
  if (kind === 'prot') return value === 0 ? 'NONE' : [...'RWX'].filter((_, i) => (value >> i) & 1).join('');
  if (kind === 'mapFlags') return describeFlags(value);
  if (kind === 'advice') return Object.entries(ADVICE).find(([, n]) => n === value)?.[0] ?? String(value);
  return String(value);
}

/** Pages where it is whole pages. */
function describeBytes(value: number): string {
  if (value === LEN_TOP) return 'TASK_SIZE';
  if (value === LEN_MAX) return '-1p';
  if (isFromTop(value)) return `end+${describeBytes(value - FROM_TOP)}`;
  if (value >= FROM_ZERO) return `zero+${describeBytes(value - FROM_ZERO)}`;
  const rest = value % PAGE;
  const pages = Math.trunc(value / PAGE);
  if (rest === 0) return pages === 0 ? '0' : `${pages}p`;
  return pages === 0 ? String(rest) : `${pages}p${rest < 0 ? '' : '+'}${rest}`;
}

function describeFlags(value: number): string {
  const names = MAP_FLAGS.filter(([bit]) => (value & bit) !== 0).map(([, name]) => name);
  const rest = MAP_FLAGS.reduce((left, [bit]) => left & ~bit, value);
  if (rest !== 0) names.push(`0x${rest.toString(16)}`);
  return names.join('|') || '0';
}
