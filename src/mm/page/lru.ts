import { type FrameTable, PG_ACTIVE, PG_LRU, PG_MLOCKED, PG_PINNED, PG_SWAPBACKED, PG_UNEVICTABLE } from './frames.js';

/**
 * The lists of frames in order of use (Linux: struct lruvec): inactive and active, of anonymous and shared memory and of files, and
 * unevictable for what is locked or pinned. New pages enter at the head of an inactive list; reclaim looks at the tails. A frame's flags say
 * which list it is on.
 */

export const LRU_INACTIVE_ANON = 0;
export const LRU_ACTIVE_ANON = 1;
export const LRU_INACTIVE_FILE = 2;
export const LRU_ACTIVE_FILE = 3;
export const LRU_UNEVICTABLE = 4;
export const NR_LRU_LISTS = 5;

export class Lru {
  readonly nr = new Int32Array(NR_LRU_LISTS);
  private readonly heads = new Int32Array(NR_LRU_LISTS);
  private readonly tails = new Int32Array(NR_LRU_LISTS);
  private readonly frames: FrameTable;

  constructor(frames: FrameTable) {
    this.frames = frames;
  }

  /** Puts the frame at the head of the list that its flags call for. */
  add(pfn: number): void {
    const { flags, lruNext, lruPrev } = this.frames;
    let f = flags[pfn]! | PG_LRU;
    if ((f & (PG_MLOCKED | PG_PINNED)) !== 0) f |= PG_UNEVICTABLE;
    flags[pfn] = f;
    const list = listOf(f);
    const head = this.heads[list]!;
    lruNext[pfn] = head;
    lruPrev[pfn] = 0;
    if (head !== 0) lruPrev[head] = pfn;
    else this.tails[list] = pfn;
    this.heads[list] = pfn;
    this.nr[list] = this.nr[list]! + 1;
  }

  /** Takes the frame off its list; keeps `PG_ACTIVE`. */
  remove(pfn: number): void {
    const { flags, lruNext, lruPrev } = this.frames;
    const list = listOf(flags[pfn]!);
    const next = lruNext[pfn]!;
    const prev = lruPrev[pfn]!;
    if (next !== 0) lruPrev[next] = prev;
    else this.tails[list] = prev;
    if (prev !== 0) lruNext[prev] = next;
    else this.heads[list] = next;
    flags[pfn] = flags[pfn]! & ~(PG_LRU | PG_UNEVICTABLE);
    this.nr[list] = this.nr[list]! - 1;
  }

  /** `to`, which has the flags of `from` already, takes its place on its list. */
  replace(from: number, to: number): void {
    const { flags, lruNext, lruPrev } = this.frames;
    const list = listOf(flags[to]!);
    const next = lruNext[from]!;
    const prev = lruPrev[from]!;
    lruNext[to] = next;
    lruPrev[to] = prev;
    if (next !== 0) lruPrev[next] = to;
    else this.tails[list] = to;
    if (prev !== 0) lruNext[prev] = to;
    else this.heads[list] = to;
  }

  /** Takes the frame to the head of the list that its flags, changed in between, call for. */
  move(pfn: number, setFlags: number, clearFlags: number): void {
    this.remove(pfn);
    this.frames.flags[pfn] = (this.frames.flags[pfn]! | setFlags) & ~clearFlags;
    this.add(pfn);
  }

  /** The frame that is longest on the list, or 0. */
  tail(list: number): number {
    return this.tails[list]!;
  }

  /** The list from its head, walked: for the checker. */
  walk(list: number): number[] {
    const pfns: number[] = [];
    for (let pfn = this.heads[list]!; pfn !== 0; pfn = this.frames.lruNext[pfn]!) pfns.push(pfn);
    return pfns;
  }
}

/** The list that a frame with these flags belongs to. */
export function listOf(flags: number): number {
  if ((flags & PG_UNEVICTABLE) !== 0) return LRU_UNEVICTABLE;
  const active = (flags & PG_ACTIVE) !== 0 ? 1 : 0;
  return (flags & PG_SWAPBACKED) !== 0 ? LRU_INACTIVE_ANON + active : LRU_INACTIVE_FILE + active;
}
