import { bug, type IntervalNode, IntervalTree } from '../../base/index.js';
import type { Deferred } from '../deferred.js';
import { bytesToPages, PAGE_SIZE } from '../layout.js';
import { type FrameTable, PG_DIRTY, PG_PRIVATE, PG_READAHEAD, PG_WRITEBACK } from '../page/frames.js';
import type { RmapRoot } from '../rmap/rmap.js';
import type { Vma } from '../vma/vma.js';
import { AsyncLock } from './asynclock.js';
import type { BackingStore, StorePages } from './backingstore.js';
import { ErrSeq } from './errseq.js';
import { XA_MARK_DIRTY, XA_MARK_WRITEBACK, XArray } from './xarray.js';

/**
 * The pages of one file that are in memory, and who maps them (Linux: struct address_space, and what it needs of the inode). There is one
 * for each backing store, and one for each piece of shared anonymous memory, which has no store: its pages go to swap.
 *
 * A cached page: `pages` has its pfn at its index; the frame has `mapping` = -id and that `index`, and one reference of the cache. What is not
 * positive in `pages` is, in shared memory, a swap slot (-1 - slot), in a file the shadow of an evicted page. Dirty pages and those under
 * write-back carry a mark in `pages`, in agreement with their flags; shared memory has no marks.
 *
 * Three lengths: `sizeBytes` is the file's, for all who read, write and map it. `storeBytes` is how much of it the store holds: behind that are
 * pages that were not written yet, or zeros. `owedTruncate` is a cut that the store still refuses; nothing is written before it is made.
 *
 * Use: `add` and `remove` pages, `setDirty`; `link` and `unlink` VMAs; `visit` is the reverse map.
 */

/** Bytes of the largest file: its last page has an index that fits an int32. */
export const MAX_FILE_BYTES = 2 ** 31 * PAGE_SIZE;

/** Pages in the caches of a host. */
export class PageCounts {
  /** Of files, dirty ones among them. */
  nrFilePages = 0;
  /** Of shared memory, in frames. */
  nrShmem = 0;
  nrDirty = 0;
  nrWriteback = 0;
  /** Since the start. */
  nrDirtied = 0;
  nrWritten = 0;
  /** Those that have dirty pages. */
  readonly dirtySpaces = new Set<AddressSpace>();
}

/** While a hole is being punched, nobody reads [start, end) from the store. */
export interface Punching {
  readonly start: number;
  readonly end: number;
  readonly done: Deferred;
}

export class AddressSpace implements RmapRoot {
  readonly id: number;
  readonly name: string;
  readonly store: BackingStore | undefined;
  readonly pages = new XArray();
  readonly wbErr = new ErrSeq();
  /** Held by those who change the length or write by call. */
  readonly inodeLock = new AsyncLock();
  sizeBytes: number;
  storeBytes: number;
  owedTruncate: number | undefined;
  punching: Punching | undefined;
  /** Where background write-back goes on. */
  writebackIndex = 0;
  /** Open files. A VMA holds its file open. */
  nrFiles = 0;
  nrPages = 0;
  private readonly counts: PageCounts;
  private readonly frames: FrameTable;
  private readonly iMmap = new IntervalTree<Vma>();
  private readonly nodes = new Map<Vma, IntervalNode<Vma>>();

  constructor(id: number, store: BackingStore | undefined, name: string, counts: PageCounts, frames: FrameTable) {
    this.id = id;
    this.store = store;
    this.name = name;
    this.counts = counts;
    this.frames = frames;
    this.sizeBytes = store?.sizeBytes ?? 0;
    this.storeBytes = this.sizeBytes;
    store?.attach?.(this.storePages());
  }

  get isShmem(): boolean {
    return this.store === undefined;
  }

  /** Pages that the file reaches into. */
  get endIndex(): number {
    return bytesToPages(this.sizeBytes);
  }

  /** The VMA enters, or its bounds have changed. */
  link(vma: Vma): void {
    this.unlink(vma);
    this.nodes.set(vma, this.iMmap.insert(vma.pgoff, vma.pgoff + vma.nrPages, vma));
  }

  unlink(vma: Vma): void {
    const node = this.nodes.get(vma);
    if (node === undefined) return;
    this.iMmap.remove(node);
    this.nodes.delete(vma);
  }

  /** Its contents in the store are about to change under a hole that is being punched. */
  isPunching(index: number): boolean {
    return this.punching !== undefined && index >= this.punching.start && index < this.punching.end;
  }

  get isMapped(): boolean {
    return this.nodes.size !== 0;
  }

  visit(index: number, fn: (vma: Vma) => unknown): boolean {
    return this.iMmap.visit(index, index + 1, fn);
  }

  /** Calls `fn` for each VMA that contains any of the pages [start, end). */
  visitRange(start: number, end: number, fn: (vma: Vma) => void): void {
    this.iMmap.visit(start, end, fn);
  }

  /** The frame becomes the page `index`; takes a reference of it. Returns what was there: 0, a shadow, or a swap slot. */
  add(index: number, pfn: number): number {
    const { frames } = this;
    const old = this.pages.set(index, pfn);
    if (old > 0) bug('N29', `${this.name}: page ${index} cached a second time`);
    frames.refcount[pfn] = frames.refcount[pfn]! + 1;
    frames.mapping[pfn] = -this.id;
    frames.index[pfn] = index;
    this.count(1);
    return old;
  }

  /**
   * The page leaves the cache, and `value` takes its place; no pte maps it. Dirty or not: what was not written is gone. The cache's reference is the
   * caller's to drop.
   */
  remove(pfn: number, value: number): void {
    const { frames } = this;
    const index = frames.index[pfn]!;
    const flags = frames.flags[pfn]!;
    if (this.pages.get(index) !== pfn) bug('N29', `${this.name}: frame ${pfn} is not its page ${index}`);
    if (frames.mapcount[pfn] !== 0) bug('N23', `${this.name}: page ${index} leaves the cache while it is mapped`);
    if (!this.isShmem && (flags & PG_WRITEBACK) !== 0)
      bug('N27', `${this.name}: page ${index} leaves under write-back`);
    if (!this.isShmem) this.clearDirty(pfn);
    if ((flags & PG_PRIVATE) !== 0) this.dropPrivate(pfn, index);
    this.pages.set(index, value);
    frames.mapping[pfn] = 0;
    frames.index[pfn] = 0;
    frames.flags[pfn] = frames.flags[pfn]! & ~PG_READAHEAD;
    this.count(-1);
  }

  /** Migration: frame `to`, which will have the row of `from` in the frame table, takes its place. Marks stay. */
  replace(from: number, to: number): void {
    const index = this.frames.index[from]!;
    if (this.pages.set(index, to) !== from) bug('N29', `${this.name}: frame ${from} is not its page ${index}`);
  }

  private count(nrPages: number): void {
    this.nrPages += nrPages;
    if (this.isShmem) this.counts.nrShmem += nrPages;
    else this.counts.nrFilePages += nrPages;
  }

  /** The cached page will have to be written. */
  setDirty(pfn: number): void {
    const { frames, counts } = this;
    if ((frames.flags[pfn]! & PG_DIRTY) !== 0) return;
    frames.flags[pfn] = frames.flags[pfn]! | PG_DIRTY;
    if (this.isShmem) return;
    if (this.pages.nrMarked(XA_MARK_DIRTY) === 0) counts.dirtySpaces.add(this);
    this.pages.setMark(frames.index[pfn]!, XA_MARK_DIRTY);
    counts.nrDirty++;
    counts.nrDirtied++;
  }

  clearDirty(pfn: number): void {
    const { frames, counts } = this;
    if ((frames.flags[pfn]! & PG_DIRTY) === 0) return;
    frames.flags[pfn] = frames.flags[pfn]! & ~PG_DIRTY;
    this.pages.clearMark(frames.index[pfn]!, XA_MARK_DIRTY);
    counts.nrDirty--;
    if (this.pages.nrMarked(XA_MARK_DIRTY) === 0) counts.dirtySpaces.delete(this);
  }

  setWriteback(pfn: number): void {
    const { frames } = this;
    frames.flags[pfn] = frames.flags[pfn]! | PG_WRITEBACK;
    this.pages.setMark(frames.index[pfn]!, XA_MARK_WRITEBACK);
    this.counts.nrWriteback++;
  }

  clearWriteback(pfn: number): void {
    const { frames } = this;
    frames.flags[pfn] = frames.flags[pfn]! & ~PG_WRITEBACK;
    this.pages.clearMark(frames.index[pfn]!, XA_MARK_WRITEBACK);
    this.counts.nrWriteback--;
  }

  get nrDirty(): number {
    return this.pages.nrMarked(XA_MARK_DIRTY);
  }

  /** Whether the store lets the page go; without a number of its own it has no say. */
  releasePrivate(pfn: number): boolean {
    const { frames, store } = this;
    if ((frames.flags[pfn]! & PG_PRIVATE) === 0 || store?.releasePage === undefined) return true;
    try {
      return store.releasePage(frames.index[pfn]!, frames.private[pfn]!) === true;
    } catch {
      return false;
    }
  }

  private dropPrivate(pfn: number, index: number): void {
    const { frames } = this;
    const value = frames.private[pfn]!;
    frames.private[pfn] = 0;
    frames.flags[pfn] = frames.flags[pfn]! & ~PG_PRIVATE;
    try {
      this.store!.invalidatePage?.(index, value);
    } catch {
      // It was told; what it makes of that is its own.
    }
  }

  private storePages(): StorePages {
    const { frames, pages } = this;
    return {
      getPrivate: (index) => {
        const pfn = pages.get(index);
        return pfn > 0 && (frames.flags[pfn]! & PG_PRIVATE) !== 0 ? frames.private[pfn]! : undefined;
      },
      setPrivate: (index, value) => {
        const pfn = pages.get(index);
        if (pfn <= 0) return false;
        frames.private[pfn] = value;
        frames.flags[pfn] = frames.flags[pfn]! | PG_PRIVATE;
        return true;
      },
    };
  }
}
