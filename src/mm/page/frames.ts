import { bug, KernelError, type WasmMemory } from '../../base/index.js';
import { FRAME_FIELDS, type Layout, PAGE_SIZE, pfnToPa } from '../layout.js';

/**
 * The frame table (Linux: struct page, and the free list of the buddy allocator). One row a frame, as typed arrays over
 * the shared memory, indexed by pfn.
 *
 * refcount: one for each pte, one for the swap cache, one for the page cache, one for each `tryGetPage`. mapcount: ptes alone;
 * mlockcount: those of them in locked VMAs. mapping and index: where the reverse map starts: an anonVma's id, or minus an address
 * space's (a page of a file); valid while mapcount is not 0 or the page is in the page cache. private: the swap slot while PG_SWAPCACHE is set,
 * else the filesystem's; it is never a driver's. stamp: when the page was last seen used
 * (workingset.ts). generation: counts how often the frame was given out; what remembers it can tell a stale frame.
 *
 * The zero page is one frame more, below the first: read faults on untouched anonymous memory map it. Ptes do not count it.
 *
 * All of it is written by the mm thread alone.
 *
 * Use: `alloc` (refcount 1), `fields`, `free` when the refcount is 0 and the frame is on no list.
 */

export const PG_DIRTY = 1 << 0;
/** On one of the lru lists, `PG_ACTIVE` and `PG_UNEVICTABLE` say which. */
export const PG_LRU = 1 << 1;
export const PG_ACTIVE = 1 << 2;
export const PG_UNEVICTABLE = 1 << 3;
export const PG_SWAPCACHE = 1 << 4;
/** A read into the frame is under way; its contents mean nothing yet. */
export const PG_LOCKED = 1 << 5;
/** Its contents are being written to swap. */
export const PG_WRITEBACK = 1 << 6;
/** Mapped by a locked VMA: mlockcount is not 0. */
export const PG_MLOCKED = 1 << 7;
/** A poisoned subscription may still map it: never reused (N19). */
export const PG_PINNED = 1 << 8;
/** Read ahead, and not used yet. */
export const PG_READAHEAD = 1 << 10;
/** On the free list. */
export const PG_FREE = 1 << 9;

/** Its contents go to swap when it is reclaimed: anonymous and shared memory. Without it: pages of files, and those given up by MADV_FREE. */
export const PG_SWAPBACKED = 1 << 11;
/** Never freed: the zero page. */
export const PG_RESERVED = 1 << 12;
/** `private` is a number of the store's, of which it is told when the page leaves the page cache. */
export const PG_PRIVATE = 1 << 13;
/** Reclaim wants the page as soon as it is written. */
export const PG_RECLAIM = 1 << 14;

/** A page of a file was read or written by call once since it came to the inactive list. */
export const PG_REFERENCED = 1 << 15;

/** Not used since idle page tracking marked it (stat/pageidle.ts). */
export const PG_IDLE = 1 << 16;
/** Used before that: its tracking has taken the marks, which reclaim has not seen. */
export const PG_YOUNG = 1 << 17;

/** What a frame may still have when it is freed. */
const FREED_FLAGS = PG_DIRTY | PG_ACTIVE | PG_READAHEAD | PG_SWAPBACKED | PG_REFERENCED | PG_IDLE | PG_YOUNG;

/** What a freed frame is filled with in debug builds: unlike zero, and unlike an address. */
export const FREE_PATTERN = 0x6b;

export class FrameTable {
  readonly firstPfn: number;
  readonly endPfn: number;
  readonly nrFrames: number;
  readonly zeroPfn: number;
  readonly flags: Int32Array;
  readonly refcount: Int32Array;
  readonly mapcount: Int32Array;
  readonly mlockcount: Int32Array;
  readonly lruNext: Int32Array;
  readonly lruPrev: Int32Array;
  readonly mapping: Int32Array;
  readonly index: Int32Array;
  readonly private: Int32Array;
  readonly stamp: Int32Array;
  readonly generation: Int32Array;
  nrFree = 0;
  nrFreeLowest: number;
  private freeHead = 0;
  private readonly fillOnFree: ((pa: number) => void) | undefined;

  constructor(memory: WasmMemory, layout: Layout, fillOnFree: ((pa: number) => void) | undefined) {
    this.firstPfn = layout.firstPfn;
    this.endPfn = layout.endPfn;
    this.nrFrames = layout.endPfn - layout.firstPfn;
    this.zeroPfn = layout.firstPfn - 1;
    this.fillOnFree = fillOnFree;
    const field = (k: number) =>
      new Int32Array(memory.buffer, layout.frameTableBase + k * layout.endPfn * 4, layout.endPfn);
    this.flags = field(0);
    this.refcount = field(1);
    this.mapcount = field(2);
    this.lruNext = field(3);
    this.lruPrev = field(4);
    this.mapping = field(5);
    this.index = field(6);
    this.private = field(7);
    this.mlockcount = field(8);
    this.stamp = field(9);
    this.generation = field(FRAME_FIELDS - 1);
    this.flags[this.zeroPfn] = PG_RESERVED;
    this.refcount[this.zeroPfn] = 1;
    for (let pfn = this.endPfn - 1; pfn >= this.firstPfn; pfn--) this.pushFree(pfn);
    this.nrFreeLowest = this.nrFree;
  }

  /** A frame with refcount 1 and undefined contents, or 0 when there is none beyond `reserve`. */
  alloc(reserve: number): number {
    if (this.nrFree <= reserve) return 0;
    const pfn = this.freeHead;
    this.freeHead = this.lruNext[pfn]!;
    if (--this.nrFree < this.nrFreeLowest) this.nrFreeLowest = this.nrFree;
    this.claim(pfn);
    return pfn;
  }

  /** Gives back a frame that nothing refers to. Its generation moves on the next `alloc`; in debug builds now too, before its contents go. */
  free(pfn: number): void {
    if (this.refcount[pfn] !== 0 || this.mapcount[pfn] !== 0) this.freedInUse(pfn);
    if ((this.flags[pfn]! & ~FREED_FLAGS) !== 0) this.freedInUse(pfn);
    this.mapping[pfn] = 0;
    this.index[pfn] = 0;
    this.private[pfn] = 0;
    this.unclaim(pfn);
  }

  /** WHY not where it is seen: the engine writes the number out before it asks, with every frame that is freed, for 90 instructions. */
  private freedInUse(pfn: number): never {
    const [refcount, mapcount, flags] = [this.refcount[pfn]!, this.mapcount[pfn]!, this.flags[pfn]!];
    bug('N4', `frame ${pfn} freed with refcount ${refcount}, mapcount ${mapcount}, flags 0x${flags.toString(16)}`);
  }

  /** The frame `to`, newly given out, becomes what `from` was, in all but contents and place on a list; `from` is nobody's then. */
  moveRow(from: number, to: number): void {
    for (const field of [
      this.flags,
      this.refcount,
      this.mapcount,
      this.mlockcount,
      this.mapping,
      this.index,
      this.private,
    ]) {
      field[to] = field[from]!;
      field[from] = 0;
    }
  }

  /** Empties the free list: its frames, sorted. Each is then `claim`ed or given back by `unclaim`, before anything else runs. */
  takeFree(): number[] {
    const list = this.freeList().sort((a, b) => a - b);
    this.freeHead = 0;
    this.nrFree = 0;
    return list;
  }

  /** As `alloc`, of a frame from `takeFree`. */
  claim(pfn: number): void {
    this.flags[pfn] = 0;
    this.refcount[pfn] = 1;
    this.lruNext[pfn] = 0;
    this.generation[pfn] = this.generation[pfn]! + 1;
  }

  unclaim(pfn: number): void {
    if (this.fillOnFree !== undefined) {
      this.generation[pfn] = this.generation[pfn]! + 1;
      this.fillOnFree(pfnToPa(pfn));
    }
    this.pushFree(pfn);
  }

  isFree(pfn: number): boolean {
    return (this.flags[pfn]! & PG_FREE) !== 0;
  }

  private pushFree(pfn: number): void {
    this.flags[pfn] = PG_FREE;
    this.lruNext[pfn] = this.freeHead;
    this.freeHead = pfn;
    this.nrFree++;
  }

  /** A frame of the host, the zero page among them. */
  isFrame(pfn: number): boolean {
    return pfn >= this.zeroPfn && pfn < this.endPfn;
  }

  /** Frames on the free list, walked: for the checker. */
  freeList(): number[] {
    const list: number[] = [];
    for (let pfn = this.freeHead; pfn !== 0; pfn = this.lruNext[pfn]!) list.push(pfn);
    return list;
  }
}

/** The frames that an mm, its reclaim and one instruction of a guest need to go on (N26). */
export const MIN_FRAMES = 64;

export function checkNrFrames(nrFrames: number): void {
  if (Number.isInteger(nrFrames) && nrFrames >= MIN_FRAMES) return;
  const kib = (MIN_FRAMES * PAGE_SIZE) / 1024;
  throw new KernelError(
    'EINVAL',
    'Host',
    `frames ${nrFrames} must be an integer of at least ${MIN_FRAMES} (${kib} KiB)`,
  );
}
