import { CONFIG_LOCKDEP, KernelError, LOCK_CLASSES, lockdepMayTake } from '../../base/index.js';
import { Deferred } from '../deferred.js';
import type { Host } from '../host.js';
import { PG_LOCKED, PG_READAHEAD, PG_SWAPBACKED } from '../page/frames.js';
import { dropRef, putPage, tryDropSwapCache } from '../page/page.js';

/**
 * Reading swapped pages back into the swap cache (Linux: swap_state.c). A frame that is being read is locked and in the cache, so
 * that everybody who wants the slot waits for the one read. When it is done the waiters look again: the page may be there, bad, or
 * gone for another reason.
 *
 * A read also takes neighbouring slots along, as long as that was of use lately. `startRuns` reads what its caller names and nothing beside it.
 *
 * What does not match its checksum is lost: the slot is marked bad, and the fault handler turns the ptes that name it into
 * poison. A transfer that failed is tried once more for the wanted slot alone before it counts as that.
 */

const MAX_PAGE_CLUSTER = 6;
/**
 * Slots of one transfer of a window: the more that are wanted, the longer. WHY: who waits for the first page of a run waits for all of it; but each transfer costs a thread of the pool and
 * this one some 20 µs, and direct I/O 2.5 µs a page by 64 KiB and 0.9 by 512.
 */
const RUN_SLOTS = 16;
const MAX_RUN_SLOTS = 128;
const RUNS_OF_WINDOW = 4;

interface ReadBatch {
  readonly slots: number[];
  readonly pfns: number[];
  /** The slot that somebody waits for; -1: none. */
  readonly wanted: number;
}

export class SwapIn {
  private readonly host: Host;
  /** Reads under way, by their number: the `index` of the frames that they fill. */
  private readonly reads = new Map<number, Deferred>();
  private nextRead = 0;
  private readonly maxWindow: number;
  private hits = 0;
  private lastWindow = 1;
  private lastSlot = -1;

  constructor(host: Host, pageCluster: number) {
    this.host = host;
    this.maxWindow = 1 << pageCluster;
  }

  /** Reads under way. */
  get nrReads(): number {
    return this.reads.size;
  }

  /** Starts the read of a slot that no frame caches, or joins it. Undefined when there is no free frame. */
  start(slot: number): Promise<void> | undefined {
    const reading = this.readOf(slot);
    if (reading !== undefined) return reading.promise;
    const batch = this.prepare(slot);
    if (batch === undefined) return undefined;
    this.host.vmstat.pgmajfault++;
    return this.submit(batch);
  }

  private readOf(slot: number): Deferred | undefined {
    return this.isReading(slot) ? this.reads.get(this.host.frames.index[this.host.swap.cache[slot]!]!) : undefined;
  }

  private submit(batch: ReadBatch): Promise<void> {
    const deferred = new Deferred();
    this.nextRead = (this.nextRead + 1) & 0x7fff_ffff;
    const number = this.nextRead;
    for (const pfn of batch.pfns) this.host.frames.index[pfn] = number;
    this.reads.set(number, deferred);
    void this.readAndComplete(batch).then(() => {
      this.reads.delete(number);
      deferred.resolve();
    });
    return deferred.promise;
  }

  /**
   * Starts the reads of slots that are wanted soon, all at once, consecutive ones in one transfer; as far as frames are free without reclaim, and no frame caches
   * them. Nobody waits here; who does later joins by `start`.
   */
  startRuns(slots: readonly number[]): void {
    const runSlots = Math.min(Math.max(RUN_SLOTS, Math.ceil(slots.length / RUNS_OF_WINDOW)), MAX_RUN_SLOTS);
    let batch: ReadBatch = { slots: [], pfns: [], wanted: -1 };
    for (const slot of slots) {
      const { length } = batch.slots;
      if (length === runSlots || (length > 0 && batch.slots[length - 1] !== slot - 1)) {
        void this.submit(batch);
        batch = { slots: [], pfns: [], wanted: -1 };
      }
      const pfn = this.lockWanted(slot);
      if (pfn === 0) continue;
      batch.slots.push(slot);
      batch.pfns.push(pfn);
    }
    if (batch.slots.length > 0) void this.submit(batch);
  }

  /** Whether a read of the slot is under way. */
  isReading(slot: number): boolean {
    const pfn = this.host.swap.cache[slot]!;
    return pfn !== 0 && (this.host.frames.flags[pfn]! & PG_LOCKED) !== 0;
  }

  /**
   * As `start`, blocking. A read of the slot that is under way cannot be waited for: its frame is put aside, to be freed when
   * that read ends, and the slot is read into another. False when there is no free frame.
   */
  readSync(slot: number): boolean {
    const { host } = this;
    const old = host.swap.cache[slot]!;
    if (old !== 0) {
      if (host.frames.nrFree === 0) return false;
      host.swap.removeFromCache(old);
      dropRef(host, old);
    }
    const batch = this.prepare(slot);
    if (batch === undefined) return false;
    host.vmstat.pgmajfault++;
    const error = this.transferSync(batch.slots, batch.pfns);
    const again = this.complete(batch, error);
    if (again !== undefined) this.complete(again, this.transferSync(again.slots, again.pfns));
    return true;
  }

  private transferSync(slots: number[], pfns: number[]): unknown {
    const { device } = this.host;
    try {
      device!.readSync!(slots, this.host.frameViews(pfns));
      return undefined;
    } catch (error) {
      return error ?? new Error('read failed');
    }
  }

  private async readAndComplete(batch: ReadBatch): Promise<void> {
    const again = this.complete(batch, await this.transfer(batch.slots, batch.pfns));
    if (again !== undefined) this.complete(again, await this.transfer(again.slots, again.pfns));
  }

  private async transfer(slots: number[], pfns: number[]): Promise<unknown> {
    try {
      await this.host.device!.read(slots, this.host.frameViews(pfns));
      return undefined;
    } catch (error) {
      return error ?? new Error('read failed');
    }
  }

  /** Frames for the slot and its neighbours, locked and in the cache. */
  private prepare(slot: number): ReadBatch | undefined {
    const pfn = this.lockFrame(slot, 0);
    if (pfn === 0) return undefined;
    const batch: ReadBatch = { slots: [], pfns: [], wanted: slot };
    const window = this.window(slot);
    const first = slot - (slot % window);
    for (let s = first; s < Math.min(first + window, this.host.swap.nrSlots); s++) {
      const p = s === slot ? pfn : this.lockAhead(s);
      if (p === 0) continue;
      batch.slots.push(s);
      batch.pfns.push(p);
    }
    return batch;
  }

  /** Slots to read at once: more while what was read ahead is used, fewer when not (Linux: swapin_nr_pages). */
  private window(slot: number): number {
    let window = 1;
    const wanted = this.hits === 0 ? (Math.abs(slot - this.lastSlot) === 1 ? 2 : 1) : this.hits + 2;
    while (window < wanted && window < this.maxWindow) window *= 2;
    window = Math.max(window, this.lastWindow >> 1);
    this.hits = 0;
    this.lastSlot = slot;
    this.lastWindow = window;
    return window;
  }

  countHit(pfn: number): void {
    const { flags } = this.host.frames;
    flags[pfn] = flags[pfn]! & ~PG_READAHEAD;
    this.hits++;
    this.host.vmstat.swapRaHit++;
  }

  /** A frame for the slot, if it has something to read, and there are enough. */
  private lockWanted(slot: number): number {
    const { swap, reclaim } = this.host;
    if (swap.count[slot] === 0 || swap.cache[slot] !== 0 || swap.isBad(slot)) return 0;
    return this.lockFrame(slot, reclaim.low);
  }

  private lockAhead(slot: number): number {
    const { frames, vmstat } = this.host;
    const pfn = this.lockWanted(slot);
    if (pfn === 0) return 0;
    frames.flags[pfn] = frames.flags[pfn]! | PG_READAHEAD;
    vmstat.swapRa++;
    return pfn;
  }

  /** The frame has two references: the cache's and the read's. */
  private lockFrame(slot: number, reserve: number): number {
    if (CONFIG_LOCKDEP) lockdepMayTake(LOCK_CLASSES.pageLock);
    const pfn = this.host.reclaim.allocFrame(reserve);
    if (pfn === 0) return 0;
    this.host.frames.flags[pfn] = PG_LOCKED | PG_SWAPBACKED;
    this.host.swap.addToCache(slot, pfn);
    return pfn;
  }

  /** Returns the batch to try once more, when the transfer of several failed. */
  private complete(batch: ReadBatch, error: unknown): ReadBatch | undefined {
    let again: ReadBatch | undefined;
    if (error !== undefined) this.host.reportSwapError('read', error);
    for (let i = 0; i < batch.slots.length; i++) {
      const slot = batch.slots[i]!;
      const pfn = batch.pfns[i]!;
      const retry = error !== undefined && batch.slots.length > 1 && slot === batch.wanted;
      if (this.host.swap.cache[slot] !== pfn) this.forget(pfn);
      else if (retry) again = { slots: [slot], pfns: [pfn], wanted: slot };
      else if (error === undefined && this.host.checksum(pfn, slot) === this.host.swap.checksumOf(slot))
        this.arrived(pfn, slot, slot === batch.wanted);
      else this.lost(slot, pfn, error === undefined || slot === batch.wanted);
    }
    return again;
  }

  private arrived(pfn: number, slot: number, wanted: boolean): void {
    const { host } = this;
    host.vmstat.pswpin++;
    this.unlock(pfn);
    if (wanted) host.workingset.refault(pfn, host.swap.shadow[slot]!);
    host.lru.add(pfn);
    tryDropSwapCache(host, pfn);
    putPage(host, pfn);
  }

  /** The frame means nothing. `bad`: neither does the slot. */
  private lost(slot: number, pfn: number, bad: boolean): void {
    const { host } = this;
    host.swap.removeFromCache(pfn);
    if (bad && !host.swap.isFree(slot)) host.swap.markBad(slot);
    if (bad) host.vmstat.swapReadErrors++;
    this.unlock(pfn);
    dropRef(host, pfn);
    putPage(host, pfn);
  }

  /** A synchronous read took the slot over meanwhile. */
  private forget(pfn: number): void {
    this.unlock(pfn);
    putPage(this.host, pfn);
  }

  private unlock(pfn: number): void {
    const { flags, index } = this.host.frames;
    flags[pfn] = flags[pfn]! & ~PG_LOCKED;
    index[pfn] = 0;
  }

  /** Resolves when no read is under way. */
  async drain(): Promise<void> {
    for (const { promise } of this.reads.values()) await promise;
  }
}

export function checkPageCluster(value: number): number {
  if (Number.isInteger(value) && value >= 0 && value <= MAX_PAGE_CLUSTER) return value;
  throw new KernelError('EINVAL', 'Host', `pageCluster ${value} must be an integer from 0 to ${MAX_PAGE_CLUSTER}`);
}
