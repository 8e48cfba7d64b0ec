import type { AddressSpace } from './addressspace.js';

/**
 * Read-ahead (Linux: readahead.c): which pages to read beside the one that is wanted. Each opener has a window; who reads in sequence gets a
 * window that grows, who does not gets the pages that he asked for.
 *
 *                 |<----------- size ----------->|
 *   ....read......|--------------------#---------|
 *                 start                | <- asyncSize ->
 *
 * The page at `#` carries PG_READAHEAD: when it is used the next window is read, so that a reader in sequence never waits.
 */

/** Misses of faults in a mapping, more than hits, after which no neighbours are read around them (Linux: MMAP_LOTSAMISS). */
const MMAP_LOTSAMISS = 100;

export class FileRa {
  /** Linux: VM_READAHEAD_PAGES, 128 KiB. */
  static readonly DEFAULT_PAGES = 32;
  start = 0;
  size = 0;
  asyncSize = 0;
  /** Window in pages at most; 0 for none. */
  raPages = FileRa.DEFAULT_PAGES;
  /** Faults that missed, less those that hit. */
  mmapMiss = 0;
  /** The page that was read last. */
  prevIndex = -1;
  /** By fadvise. */
  random = false;
  /** Its reader blocks: what is read while he runs on would not arrive. */
  blocking = false;

  /** No window is open. */
  reset(): void {
    this.start = 0;
    this.size = 0;
    this.asyncSize = 0;
  }

  get end(): number {
    return this.start + this.size;
  }

  /** The page that carries the mark, or -1. */
  get marker(): number {
    return this.asyncSize === 0 ? -1 : this.end - this.asyncSize;
  }

  /** `nrPages` from `index` on, and no mark. */
  exactly(index: number, nrPages: number): void {
    this.start = index;
    this.size = nrPages;
    this.asyncSize = 0;
  }

  /** The window for page `index`, which is not cached, where the reader wants `nrPages`. */
  onMiss(as: AddressSpace, index: number, nrPages: number): void {
    const sequential = index === 0 || index === this.prevIndex || index === this.prevIndex + 1;
    if (this.random || this.raPages === 0) this.exactly(index, Math.max(1, nrPages));
    else if (this.size > 0 && index === this.end) this.grow();
    else if (sequential || nrPages > this.raPages || this.hasHistory(as, index, nrPages)) this.open(index, nrPages);
    else this.exactly(index, nrPages);
  }

  /** The window after page `index`, which carried the mark. */
  onMark(as: AddressSpace, index: number): void {
    if (index === this.marker) this.grow();
    else this.open(firstAbsent(as, index + 1, index + 1 + this.raPages), 1);
  }

  /** The window of a fault at `index`: as much behind as before it (Linux: do_sync_mmap_readahead). */
  around(index: number): void {
    this.start = Math.max(0, index - (this.raPages >> 1));
    this.size = this.raPages;
    this.asyncSize = this.raPages >> 2;
  }

  /** A fault has to read. Whether too many had to. The fault itself ends as a hit: it counts twice here. */
  missed(): boolean {
    if (this.mmapMiss < MMAP_LOTSAMISS * 10) this.mmapMiss += 2;
    return this.mmapMiss > MMAP_LOTSAMISS;
  }

  hit(): void {
    if (this.mmapMiss > 0) this.mmapMiss--;
  }

  private open(index: number, nrPages: number): void {
    this.start = index;
    this.size = initialSize(nrPages, this.raPages);
    this.asyncSize = this.size > nrPages ? this.size - nrPages : this.size;
  }

  private grow(): void {
    this.start += this.size;
    this.size = nextSize(this.size, this.raPages);
    this.asyncSize = this.size;
  }

  /** Pages before it are cached, as many as are wanted: somebody reads in sequence, whose window we don't know. */
  private hasHistory(as: AddressSpace, index: number, nrPages: number): boolean {
    let nr = 0;
    while (nr <= nrPages && index - 1 - nr >= 0 && as.pages.get(index - 1 - nr) > 0) nr++;
    return nr > nrPages;
  }
}

function firstAbsent(as: AddressSpace, index: number, end: number): number {
  while (index < end && as.pages.get(index) > 0) index++;
  return index;
}

function initialSize(nrPages: number, max: number): number {
  let size = 1;
  while (size < nrPages) size *= 2;
  if (size <= max / 32) return Math.min(size * 4, max);
  return size <= max / 4 ? Math.min(size * 2, max) : max;
}

function nextSize(size: number, max: number): number {
  if (size < max / 16) return size * 4;
  return size <= max / 2 ? size * 2 : max;
}
