import { bug } from '../../base/index.js';
import { type FrameTable, PG_SWAPCACHE } from '../page/frames.js';

/**
 * Swap slots and the swap cache (Linux: swapfile.c, swap_state.c).
 *
 * A slot is in use while ptes name it (`count`) or a frame caches it (`cache`). While cached, the frame's `private` is
 * the slot and the cache holds one reference of the frame. A clean cached frame can be given up without a write; a slot's
 * contents are stale once its frame is dirty.
 *
 * Each slot keeps a checksum of what was written last, over contents, slot and generation: another page's contents, an older
 * write's, and damage are told from the right ones.
 *
 * Slots are given out in runs, from a wholly free cluster where there is one, so that a batch of reclaim goes out in one transfer.
 */

const CLUSTER_SHIFT = 6;
const CLUSTER_SLOTS = 1 << CLUSTER_SHIFT;
/** What was read from the slot did not match, or could not be read: its contents are lost. */
const SLOT_BAD = 1;

export class SwapMap {
  readonly nrSlots: number;
  nrFree: number;
  /** Ptes that name the slot. */
  readonly count: Int32Array;
  /** The frame that caches the slot, or 0. */
  readonly cache: Int32Array;
  /** When the page in the slot was last seen used (workingset.ts). */
  readonly shadow: Int32Array;
  private readonly flags: Uint8Array;
  private readonly checksum: Uint32Array;
  private readonly generation: Uint32Array;
  private readonly freeInCluster: Uint8Array;
  private readonly frames: FrameTable;
  private next = 0;
  private writes = 0;

  constructor(frames: FrameTable, nrSlots: number) {
    this.frames = frames;
    this.nrSlots = nrSlots;
    this.nrFree = nrSlots;
    this.count = new Int32Array(nrSlots);
    this.cache = new Int32Array(nrSlots);
    this.shadow = new Int32Array(nrSlots);
    this.flags = new Uint8Array(nrSlots);
    this.checksum = new Uint32Array(nrSlots);
    this.generation = new Uint32Array(nrSlots);
    this.freeInCluster = new Uint8Array(Math.ceil(nrSlots / CLUSTER_SLOTS));
    for (let c = 0; c < this.freeInCluster.length; c++) {
      this.freeInCluster[c] = Math.min(CLUSTER_SLOTS, nrSlots - c * CLUSTER_SLOTS);
    }
  }

  get metadataBytes(): number {
    return this.nrSlots * (4 + 4 + 4 + 1 + 4 + 4) + this.freeInCluster.length;
  }

  /** Slots are short: pages that are read back give theirs up at once (Linux: vm_swap_full). */
  get isNearlyFull(): boolean {
    return this.nrFree < Math.min(this.nrSlots >> 3, 1024) || this.nrFree === 0;
  }

  isFree(slot: number): boolean {
    return this.count[slot] === 0 && this.cache[slot] === 0;
  }

  /** A free slot, the one after the last where possible, or -1. It is in use once a frame caches it: `addToCache` at once. */
  alloc(): number {
    if (this.nrFree === 0) return -1;
    if (this.next % CLUSTER_SLOTS === 0) this.next = this.pickCluster();
    for (;;) {
      const slot = this.next;
      this.next = slot + 1 === this.nrSlots ? 0 : slot + 1;
      if (this.isFree(slot)) return slot;
      if (this.next % CLUSTER_SLOTS === 0) this.next = this.pickCluster();
    }
  }

  /** First slot of the next cluster that is wholly free, else of the next with any free slot. */
  private pickCluster(): number {
    const nr = this.freeInCluster.length;
    const from = this.next >>> CLUSTER_SHIFT;
    let any = -1;
    for (let i = 0; i < nr; i++) {
      const c = (from + i) % nr;
      if (this.freeInCluster[c] === CLUSTER_SLOTS) return c << CLUSTER_SHIFT;
      if (any < 0 && this.freeInCluster[c]! > 0) any = c;
    }
    return any << CLUSTER_SHIFT;
  }

  /** The frame becomes the slot's cache; takes a reference of the frame. */
  addToCache(slot: number, pfn: number): void {
    if (this.cache[slot] !== 0) bug('N22', `swap slot ${slot} cached by frame ${this.cache[slot]} and ${pfn}`);
    if (this.count[slot] === 0) this.markUsed(slot);
    this.cache[slot] = pfn;
    const { frames } = this;
    frames.private[pfn] = slot;
    frames.flags[pfn] = frames.flags[pfn]! | PG_SWAPCACHE;
    frames.refcount[pfn] = frames.refcount[pfn]! + 1;
  }

  /** The frame leaves the cache; the reference of the cache becomes the caller's. A slot that no pte names is free then. */
  removeFromCache(pfn: number): void {
    const { frames } = this;
    const slot = frames.private[pfn]!;
    if (this.cache[slot] !== pfn) bug('N22', `frame ${pfn} is not the cache of swap slot ${slot}`);
    this.cache[slot] = 0;
    frames.private[pfn] = 0;
    frames.flags[pfn] = frames.flags[pfn]! & ~PG_SWAPCACHE;
    if (this.count[slot] === 0) this.markFree(slot);
  }

  /** One more pte names the slot. */
  get(slot: number): void {
    if (this.isFree(slot)) this.markUsed(slot);
    this.count[slot] = this.count[slot]! + 1;
  }

  /** One pte less names the slot. True when none does and nothing caches it: it is free. */
  put(slot: number): boolean {
    if (this.count[slot] === 0) bug('N22', `swap slot ${slot} put more often than taken`);
    this.count[slot] = this.count[slot]! - 1;
    if (!this.isFree(slot)) return false;
    this.markFree(slot);
    return true;
  }

  private markUsed(slot: number): void {
    this.nrFree--;
    this.freeInCluster[slot >>> CLUSTER_SHIFT]!--;
  }

  private markFree(slot: number): void {
    this.nrFree++;
    this.freeInCluster[slot >>> CLUSTER_SHIFT]!++;
    this.flags[slot] = 0;
  }

  markBad(slot: number): void {
    this.flags[slot] = SLOT_BAD;
  }

  isBad(slot: number): boolean {
    return this.flags[slot] === SLOT_BAD;
  }

  /** A write of the slot begins: returns the generation that its checksum covers. */
  newGeneration(slot: number): number {
    this.writes = (this.writes + 1) >>> 0;
    this.generation[slot] = this.writes;
    return this.writes;
  }

  generationOf(slot: number): number {
    return this.generation[slot]!;
  }

  setChecksum(slot: number, checksum: number): void {
    this.checksum[slot] = checksum;
  }

  checksumOf(slot: number): number {
    return this.checksum[slot]!;
  }
}
