import { CONFIG_LOCKDEP, lockdepWait } from '../../base/index.js';
import type { Host } from '../host.js';
import { MIN_FRAMES } from '../page/frames.js';
import { LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE } from '../page/lru.js';
import { remotesTakeBack } from '../remote/hooks.js';
import type { OomAsker } from './oom.js';
import { ShrinkPass } from './shrinkpass.js';

/**
 * Reclaim (Linux: vmscan.c). Below the low watermark kswapd is woken and works until the high one is reached; who finds no frame
 * at all reclaims directly and waits. Both go by passes over the lists (shrinkpass.ts).
 *
 * kswapd's brackets do not block, so a driver may refuse them; a direct pass's may (N12).
 */

/** Fruitless passes after which kswapd goes to sleep: waiters will reclaim for themselves. */
const KSWAPD_MAX_FAILURES = 4;

export class Reclaim {
  /** Free frames that `tryGetPage` leaves for those who wait. */
  readonly min: number;
  /** Below it kswapd is woken. */
  readonly low: number;
  /** It works until this many are free. */
  readonly high: number;
  private readonly host: Host;
  private readonly pass: ShrinkPass;
  private kswapdRunning: Promise<void> | undefined;
  /** Runs of direct reclaim under way, by their reserve. */
  private readonly direct = new Map<number, Promise<boolean>>();
  private stopped = false;

  constructor(host: Host) {
    this.host = host;
    const { nrFrames } = host.frames;
    this.min = Math.max(4, Math.min(nrFrames >> 8, 512));
    this.low = this.min * 2;
    this.high = this.min * 3;
    this.pass = new ShrinkPass(host);
  }

  /** The most pages of a pass. */
  get batchSize(): number {
    return this.pass.batchSize;
  }

  /** Frames that mlock must leave: some room above the high watermark to go on in (N26). */
  get reserve(): number {
    return this.high + MIN_FRAMES / 2;
  }

  /** A frame with refcount 1, if more than `reserve` are free; else 0. Wakes kswapd in time. */
  allocFrame(reserve: number): number {
    const { frames, workingset } = this.host;
    if (frames.nrFree <= this.low) this.wakeKswapd();
    const pfn = frames.alloc(reserve);
    if (pfn !== 0) workingset.enter(pfn);
    return pfn;
  }

  /** One pass: `ShrinkPass.shrink`. */
  shrink(blockable: boolean, sync: boolean, desperate: boolean): number {
    return this.pass.shrink(blockable, sync, desperate);
  }

  /** `ShrinkPass.reclaimPages`. */
  reclaimPages(pfns: readonly number[]): void {
    this.pass.reclaimPages(pfns);
  }

  /** Passes without a frame gained after which there is none to be had: each page was looked at twice. */
  private maxFruitless(): number {
    const { nr } = this.host.lru;
    const nrPages = nr[LRU_ACTIVE_ANON]! + nr[LRU_INACTIVE_ANON]! + nr[LRU_ACTIVE_FILE]! + nr[LRU_INACTIVE_FILE]!;
    return 8 + Math.ceil((2 * nrPages) / this.batchSize);
  }

  /**
   * Waits until more than `reserve` frames are free; false when reclaim makes no progress and nobody can be killed. Callers at the same time share one run;
   * those that joined it look again in any case: of many that find no memory only one is refused, and what it gives up serves the rest.
   */
  directReclaim(reserve: number, asker?: OomAsker): Promise<boolean> {
    const running = this.direct.get(reserve);
    if (running !== undefined) return running.then(() => true);
    const run = this.reclaimUntilFree(reserve, asker).finally(() => this.direct.delete(reserve));
    this.direct.set(reserve, run);
    return run;
  }

  /** Somebody waits for a free frame. How many passes may find nothing before it is out of memory. */
  private stalls(): number {
    if (CONFIG_LOCKDEP) lockdepWait('a free frame');
    this.host.vmstat.allocstall++;
    remotesTakeBack(this.host);
    return this.maxFruitless();
  }

  private async reclaimUntilFree(reserve: number, asker: OomAsker | undefined): Promise<boolean> {
    const { frames, oom, vmstat } = this.host;
    const limit = this.stalls();
    for (let fruitless = 0; frames.nrFree <= reserve; ) {
      const before = vmstat.pgsteal;
      const nr = this.shrink(true, false, fruitless > 1);
      if (frames.nrFree > reserve) break;
      if (this.isWriting) await this.nextWritten();
      if (frames.nrFree > reserve) break;
      if (vmstat.pgsteal === before && ++fruitless > limit) {
        if (!oom.outOfMemory(asker)) return false;
        fruitless = 0;
      }
      if (nr === 0 && !this.isWriting) await this.yield();
    }
    return true;
  }

  /** As `directReclaim`, blocking; needs a device that can. */
  directReclaimSync(reserve: number, asker?: OomAsker): boolean {
    const { frames, oom, vmstat } = this.host;
    const limit = this.stalls();
    for (let fruitless = 0; frames.nrFree <= reserve; ) {
      const before = vmstat.pgsteal;
      this.shrink(true, true, fruitless > 1);
      if (vmstat.pgsteal !== before || ++fruitless <= limit || frames.nrFree > reserve) continue;
      if (!oom.outOfMemory(asker)) return false;
      fruitless = 0;
    }
    return true;
  }

  wakeKswapd(): void {
    if (this.kswapdRunning !== undefined || this.stopped) return;
    this.host.vmstat.kswapdWakeups++;
    this.kswapdRunning = this.kswapd().finally(() => {
      this.kswapdRunning = undefined;
    });
  }

  private async kswapd(): Promise<void> {
    const { frames, vmstat, writeback, pageCache } = this.host;
    await this.yield();
    for (let failures = 0; !this.stopped && frames.nrFree < this.high && failures < KSWAPD_MAX_FAILURES; ) {
      const before = vmstat.pgsteal;
      const nrWriting = writeback.nrPages + pageCache.counts.nrWriteback;
      const nr = nrWriting >= this.batchSize * 2 ? 0 : this.shrink(false, false, false);
      if (nr === 0 && this.isWriting) await this.nextWritten();
      else await this.yield();
      if (vmstat.pgsteal !== before) failures = 0;
      else if (nr === 0) failures++;
    }
  }

  /** Transfers are under way whose end frees frames, or tells that they are of no use. */
  private get isWriting(): boolean {
    return this.host.writeback.nrPages > 0 || this.host.pageCache.writeback.nrActive > 0;
  }

  private nextWritten(): Promise<void> {
    return Promise.race([this.host.writeback.next(), this.host.pageCache.writeback.next()]);
  }

  private yield(): Promise<void> {
    return new Promise((resolve) => this.host.defer(resolve));
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.kswapdRunning;
  }
}
