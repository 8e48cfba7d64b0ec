import { ADVICE, type CallName, type Program, RET_ELSEWHERE, RET_SIGBUS, RET_SIGSEGV, RET_SKIPPED } from './step.js';
import {
  type Outcome,
  PAGE_IS_EXCLUSIVE,
  PAGE_IS_FILE,
  PAGE_IS_HASHED,
  PAGE_IS_PRESENT,
  PAGE_IS_SWAPPED,
  PAGE_IS_ZERO,
  SMAPS_NAMES,
  type Trace,
  type View,
  VM_FLAG_NAMES,
  type VmaView,
} from './trace.js';

/** Where two traces differ first, and how; the states that the interface leaves open are allowed (docs/oracle.md). */

export interface Difference {
  /** Index of the step. */
  readonly at: number;
  readonly what: string;
  readonly linux: string;
  readonly unpin: string;
}

export interface CompareOptions {
  /** Reclaim may have taken pages: what is resident says nothing. */
  readonly pressure: boolean;
}

interface Freedom extends CompareOptions {
  readonly call: CallName;
  /** MADV_PAGEOUT was called: Linux has swap or not, and takes what it likes. */
  readonly pagedOut: boolean;
  /** vmRead was called: Linux gives the reader a copy of its own of what forked processes share. */
  readonly unshared: boolean;
}

const ERRNO_NAMES: Record<number, string> = {
  1: 'EPERM',
  9: 'EBADF',
  11: 'EAGAIN',
  12: 'ENOMEM',
  13: 'EACCES',
  14: 'EFAULT',
  16: 'EBUSY',
  17: 'EEXIST',
  19: 'ENODEV',
  22: 'EINVAL',
  27: 'EFBIG',
  75: 'EOVERFLOW',
  95: 'EOPNOTSUPP',
};

export function describeResult(ret: number): string {
  if (ret === RET_ELSEWHERE) return 'an address elsewhere';
  if (ret === RET_SIGSEGV) return 'SIGSEGV';
  if (ret === RET_SIGBUS) return 'SIGBUS';
  if (ret === RET_SKIPPED) return 'passed over';
  if (ret < 0) return ERRNO_NAMES[-ret] ?? `errno ${-ret}`;
  return ret === 0 ? 'ok' : String(ret);
}

export function compareTraces(
  program: Program,
  linux: Trace,
  unpin: Trace,
  options: CompareOptions,
): Difference | undefined {
  const freedom = { ...options, pagedOut: false, unshared: false };
  for (let at = 0; at < program.steps.length; at++) {
    const { call, args } = program.steps[at]!;
    freedom.pagedOut ||= call === 'madvise' && args[2] === ADVICE.PAGEOUT;
    freedom.unshared ||= call === 'vmRead';
    const ours = unpin.outcomes[at];
    if (ours === undefined) return { at, what: 'Unpin broke', linux: 'ok', unpin: unpin.broken ?? 'ended' };
    const difference = compareOutcomes(linux.outcomes[at]!, ours, { ...freedom, call });
    if (difference !== undefined) return { at, ...difference };
  }
  if (unpin.broken === undefined) return undefined;
  return { at: program.steps.length - 1, what: 'Unpin broke at the end', linux: 'ok', unpin: unpin.broken };
}

type Found = Omit<Difference, 'at'> | undefined;

function found(what: string, linux: unknown, unpin: unknown): Found {
  return { what, linux: String(linux), unpin: String(unpin) };
}

function compareOutcomes(linux: Outcome, unpin: Outcome, options: Freedom): Found {
  if (linux.ret !== unpin.ret) return found('result', describeResult(linux.ret), describeResult(unpin.ret));
  const data = compareData(linux, unpin, options);
  if (data !== undefined) return data;
  if (linux.views === undefined || unpin.views === undefined) return undefined;
  const live = (o: Outcome) => [...o.views!.keys()].join(' ');
  if (live(linux) !== live(unpin)) return found('processes', live(linux), live(unpin));
  for (const [p, view] of linux.views) {
    const difference = compareViews(view, unpin.views.get(p)!, options);
    if (difference !== undefined) return { ...difference, what: `p${p} ${difference.what}` };
  }
  return undefined;
}

/** Contents, or what is resident, which may not be determined any more. */
function compareData(linux: Outcome, unpin: Outcome, { pressure, pagedOut, call }: Freedom): Found {
  if (unpin.data === undefined || (call === 'mincore' && (pressure || pagedOut))) return undefined;
  const [theirs, ours] = [linux.data!.join(' '), unpin.data.join(' ')];
  return theirs === ours ? undefined : found('data', theirs, ours);
}

function compareViews(linux: View, unpin: View, options: Freedom): Found {
  const vmas = compareVmas(linux, unpin);
  if (vmas !== undefined) return vmas;
  for (const name of ['total', 'data', 'locked'] as const)
    if (linux[name] !== unpin[name]) return found(`${name} pages`, linux[name], unpin[name]);
  return comparePages(linux, unpin, options) ?? compareSmaps(linux, unpin, options);
}

/** The counts of smaps, for anonymous memory, as long as the states of its pages are determined. */
function compareSmaps(linux: View, unpin: View, { pressure, pagedOut, unshared }: Freedom): Found {
  if (pressure || pagedOut || unshared) return undefined;
  for (const [i, vma] of linux.vmas.entries()) {
    if (vma.file !== 0) continue;
    const [theirs, ours] = [vma.counts, unpin.vmas[i]!.counts].map((counts) =>
      SMAPS_NAMES.map((name, k) => `${name} ${counts[k]}`).join(', '),
    );
    if (theirs !== ours) return found(`smaps of ${describeVma(vma)}`, theirs, ours);
  }
  return undefined;
}

function compareVmas(linux: View, unpin: View): Found {
  const theirs = linux.vmas.map(describeVma);
  const ours = unpin.vmas.map(describeVma);
  if (theirs.join() === ours.join()) return undefined;
  return found('VMAs', theirs.join('; '), ours.join('; '));
}

/** Files keep their number; other objects have none that both sides know. */
function describeVma(vma: VmaView): string {
  const perms = [...'rwx'].map((c, i) => ((vma.perms >> i) & 1 ? c : '-')).join('') + (vma.perms & 8 ? 's' : 'p');
  const flags = VM_FLAG_NAMES.filter((_, i) => vma.vmFlags & KNOWN_VM_FLAGS & (1 << i)).join(' ');
  const file = vma.file === 0 ? '' : vma.file <= 5 ? ` file ${vma.file - 1}+${vma.offset}` : ` shmem+${vma.offset}`;
  return `[${vma.startPage}, ${vma.endPage}) ${perms}${file}${flags && ` ${flags}`}`;
}

/** VmFlags that Unpin has by now. */
const KNOWN_VM_FLAGS = 0x3df;

function comparePages(linux: View, unpin: View, options: Freedom): Found {
  for (let page = 0; page < linux.states.length; page++) {
    const difference = options.pressure
      ? (compareContents(linux, unpin, page) ?? compareUntouched(linux, unpin, page))
      : (compareStates(linux, unpin, page, options) ?? compareContents(linux, unpin, page));
    if (difference !== undefined) return { ...difference, what: `page ${page}: ${difference.what}` };
  }
  return undefined;
}

/** With reclaim at work: what Linux has not touched since it was mapped reads as zeros. */
function compareUntouched(linux: View, unpin: View, page: number): Found {
  const { zeroHash } = unpin;
  const touched = (linux.states[page]! & (PAGE_IS_PRESENT | PAGE_IS_SWAPPED)) !== 0;
  if (touched || (unpin.states[page]! & PAGE_IS_HASHED) === 0 || unpin.hashes[page] === zeroHash) return undefined;
  const vma = linux.vmas.find((v) => page >= v.startPage && page < v.endPage);
  return vma?.file === 0 ? found('contents', 'untouched', unpin.hashes[page]!.toString(16)) : undefined;
}

function compareContents(linux: View, unpin: View, page: number): Found {
  const both = linux.states[page]! & unpin.states[page]! & PAGE_IS_HASHED;
  if (both === 0 || linux.hashes[page] === unpin.hashes[page]) return undefined;
  return found('contents', linux.hashes[page]!.toString(16), unpin.hashes[page]!.toString(16));
}

function compareStates(linux: View, unpin: View, page: number, options: Freedom): Found {
  if (options.pagedOut) return comparePopulated(linux, unpin, page);
  if (((linux.states[page]! | unpin.states[page]!) & PAGE_IS_FILE) !== 0) return compareFilePage(linux, unpin, page);
  const ignored = options.unshared ? PAGE_IS_EXCLUSIVE : 0;
  const theirs = normalState(linux, unpin, page) & ~ignored;
  const ours = normalState(unpin, linux, page) & ~ignored;
  return theirs === ours ? undefined : found('state', describeState(theirs), describeState(ours));
}

/** Anonymous pages may have gone to swap; but they are there. */
function comparePopulated(linux: View, unpin: View, page: number): Found {
  const [theirs, ours] = [linux.states[page]!, unpin.states[page]!];
  const there = (state: number) => (state & (PAGE_IS_PRESENT | PAGE_IS_SWAPPED)) !== 0;
  if (((theirs | ours) & (PAGE_IS_FILE | PAGE_IS_ZERO)) !== 0 || there(theirs) === there(ours)) return undefined;
  return found('state', describeState(theirs), describeState(ours));
}

/**
 * Linux maps the pages around a fault too, where they are in its cache, and large folios blur who maps what: what Unpin maps of a file Linux
 * must map as well, and not the other way.
 */
function compareFilePage(linux: View, unpin: View, page: number): Found {
  const [theirs, ours] = [linux.states[page]!, unpin.states[page]!];
  const mask = PAGE_IS_PRESENT | PAGE_IS_FILE;
  if (ours === 0 || (theirs & mask) === (ours & mask)) return undefined;
  return found('state', describeState(theirs), describeState(ours));
}

/** Where the other side cannot tell the zero page from a page of zeros, neither does this one. */
function normalState(view: View, other: View, page: number): number {
  let state = view.states[page]! & ~PAGE_IS_HASHED;
  const zero = ((view.states[page]! | other.states[page]!) & PAGE_IS_ZERO) !== 0;
  if (zero && !(view.knowsZero && other.knowsZero)) state &= ~(PAGE_IS_ZERO | PAGE_IS_EXCLUSIVE);
  return state;
}

const STATE_NAMES: readonly [number, string][] = [
  [PAGE_IS_PRESENT, 'present'],
  [PAGE_IS_SWAPPED, 'swapped'],
  [PAGE_IS_FILE, 'of a file'],
  [PAGE_IS_EXCLUSIVE, 'mapped once'],
  [PAGE_IS_ZERO, 'zero page'],
];

export function describeState(state: number): string {
  return (
    STATE_NAMES.filter(([bit]) => (state & bit) !== 0)
      .map(([, name]) => name)
      .join(', ') || 'absent'
  );
}
