import { KernelError } from '../../base/index.js';
import type { Host } from '../host.js';
import { LRU_ACTIVE_FILE, LRU_INACTIVE_FILE } from '../page/lru.js';
import type { AddressSpace } from './addressspace.js';
import { XA_MAX_INDEX } from './xarray.js';

/**
 * Keeps dirty pages of files within bounds (Linux: balance_dirty_pages and the flusher threads). Above `dirtyBackgroundRatio` percent of what
 * could be dirty, they are written in the background; above `dirtyRatio` percent, who makes more has to wait for that.
 *
 * Nobody waits for a store that fails or hangs: when a round of the flusher has written nothing, those who wait go on.
 */

export interface DirtyRatios {
  /** Percent of free frames and file pages; Linux: vm.dirty_ratio. */
  readonly dirtyRatio: number;
  /** Linux: vm.dirty_background_ratio. */
  readonly dirtyBackgroundRatio: number;
}

/** Pages of one file that are written before the next one's turn (Linux: MIN_WRITEBACK_PAGES). */
const TURN_PAGES = 1024;
/** Transfers that wrote nothing, beside those under way, after which the flusher gives up: the next who makes pages dirty wakes it again. */
const MAX_FRUITLESS = 4;

export class DirtyThrottle {
  private readonly host: Host;
  private readonly ratios: DirtyRatios;
  /** True while one who has waited goes on: he may make one page dirty. */
  pass = false;
  private flusher: Promise<void> | undefined;
  private stopped = false;

  constructor(host: Host, ratios: DirtyRatios) {
    this.host = host;
    this.ratios = ratios;
    checkPercent('dirtyRatio', ratios.dirtyRatio);
    checkPercent('dirtyBackgroundRatio', ratios.dirtyBackgroundRatio);
  }

  /** Frames that could hold dirty pages of files. */
  private get dirtyable(): number {
    const { frames, lru } = this.host;
    return frames.nrFree + lru.nr[LRU_INACTIVE_FILE]! + lru.nr[LRU_ACTIVE_FILE]!;
  }

  private get nrUnwritten(): number {
    const { counts } = this.host.pageCache;
    return counts.nrDirty + counts.nrWriteback;
  }

  /** Whether who makes pages dirty has to wait first. */
  get isOverLimit(): boolean {
    return this.nrUnwritten * 100 > this.dirtyable * this.ratios.dirtyRatio;
  }

  private get isOverBackground(): boolean {
    const percent = Math.min(this.ratios.dirtyBackgroundRatio, this.ratios.dirtyRatio);
    return this.host.pageCache.counts.nrDirty * 100 > this.dirtyable * percent;
  }

  /** After pages became dirty: the flusher is woken in time. */
  poke(): void {
    if (this.flusher === undefined && this.isOverBackground && !this.stopped) this.wakeFlusher();
  }

  private wakeFlusher(): void {
    this.flusher = this.flush().finally(() => {
      this.flusher = undefined;
    });
  }

  private async flush(): Promise<void> {
    const { counts, writeback } = this.host.pageCache;
    await new Promise<void>((resolve) => this.host.defer(resolve));
    for (
      let fruitless = 0;
      !this.stopped && this.isOverBackground && fruitless <= writeback.nrActive + MAX_FRUITLESS;
    ) {
      const before = counts.nrWritten;
      for (const as of [...counts.dirtySpaces]) {
        const next = writeback.writeRange(as, as.writebackIndex, XA_MAX_INDEX, TURN_PAGES, false);
        as.writebackIndex = next >= XA_MAX_INDEX ? 0 : next;
      }
      if (writeback.nrActive > 0) await writeback.next();
      fruitless = counts.nrWritten === before ? fruitless + 1 : 0;
    }
  }

  /** Waits while too much is dirty and the flusher gets on with it. */
  async wait(): Promise<void> {
    const { vmstat } = this.host;
    const { writeback, counts } = this.host.pageCache;
    if (!this.isOverLimit) return;
    vmstat.dirtyThrottled++;
    while (this.isOverLimit && !this.stopped) {
      const before = counts.nrWritten;
      if (this.flusher === undefined) this.wakeFlusher();
      await Promise.race([this.flusher, writeback.next()]);
      if (counts.nrWritten === before) return;
    }
  }

  /** As `wait`, blocking: who makes pages dirty writes some of that file himself. */
  waitSync(as: AddressSpace): void {
    this.host.vmstat.dirtyThrottled++;
    this.host.pageCache.writeback.syncSome(as, TURN_PAGES);
  }

  /** Resolves when nothing is written in the background. */
  async idle(): Promise<void> {
    await this.flusher;
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.idle();
  }
}

function checkPercent(name: string, value: number): void {
  if (value > 0 && value <= 100) return;
  throw new KernelError('EINVAL', 'Host', `${name} ${value} must be a percentage above 0, at most 100`);
}
