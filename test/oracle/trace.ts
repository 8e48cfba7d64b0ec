/** What running a program has shown on one side, in the same terms for both. */

/** Bits of a page's state, as in peer/observe.c. */
export const PAGE_IS_PRESENT = 1;
export const PAGE_IS_SWAPPED = 2;
/** Of a file or of shared anonymous memory. */
export const PAGE_IS_FILE = 4;
/** Mapped once. */
export const PAGE_IS_EXCLUSIVE = 8;
/** It is the zero page. */
export const PAGE_IS_ZERO = 16;
/** Its contents were looked at. */
export const PAGE_IS_HASHED = 32;

/** Bits of `perms`. */
export const PERM_SHARED = 8;

/** Bits of `vmFlags`, by the names of smaps, in the order of peer/observe.c. */
export const VM_FLAG_NAMES = ['lo', 'lf', 'dc', 'sr', 'rr', 'mg', 'nr', 'ac', 'wf', 'dd'] as const;

/** Fields of smaps that are compared, for anonymous memory. */
export const SMAPS_NAMES = ['Rss', 'Pss', 'Anonymous', 'Locked'] as const;

export interface VmaView {
  readonly startPage: number;
  readonly endPage: number;
  /** Bits 1 read, 2 write, 4 execute, 8 shared. */
  readonly perms: number;
  readonly vmFlags: number;
  /** In KiB, by SMAPS_NAMES. */
  readonly counts: readonly number[];
  /** Bytes in the file. */
  readonly offset: number;
  /** 0: none; 1 to NR_FILES: that file; else any number that stands for a shared anonymous object. */
  readonly file: number;
}

/** One process after a step. */
export interface View {
  /** Pages beyond those at the start: VmSize and VmData; and VmLck. */
  readonly total: number;
  readonly data: number;
  readonly locked: number;
  readonly vmas: readonly VmaView[];
  /** For each page of the window. */
  readonly states: Uint8Array;
  /** XXH64 of the contents, its low 32 bits, where PAGE_IS_HASHED. */
  readonly hashes: Uint32Array;
  /** False where this side cannot tell the zero page. */
  readonly knowsZero: boolean;
  /** Of a page of zeros, where this side says it. */
  readonly zeroHash?: number;
}

export interface Outcome {
  /** Result or -errno. */
  readonly ret: number;
  /** What was read; undefined where this side does not say, because it is not determined. */
  readonly data: Uint8Array | undefined;
  /** By process; undefined where it was not looked. */
  readonly views: Map<number, View> | undefined;
}

export interface Trace {
  readonly outcomes: readonly Outcome[];
  /** Why the run ended before its program: a broken invariant, a hang. */
  readonly broken?: string;
}

/** FNV-1a, as in peer/calls.c. */
export function hashBytes(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** What `store` and its like write: as in peer/calls.c. */
export function pattern(lenBytes: number, value: number): Uint8Array {
  const bytes = new Uint8Array(lenBytes);
  for (let i = 0; i < lenBytes; i++) bytes[i] = value + i * 7;
  return bytes;
}
