import type { Host } from '../host.js';
import { PG_ACTIVE, PG_SWAPBACKED } from '../page/frames.js';
import { LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, NR_LRU_LISTS } from '../page/lru.js';

/**
 * Which pages belong to the working set (Linux: workingset.c; the test is that of LIRS and CLOCK-Pro).
 *
 * A clock counts the pages that come in. Each frame remembers when it was last seen used (`stamp`), and what is evicted leaves that
 * behind as its shadow: in its swap slot, or in the page cache. A page that comes back is compared with the page that is idle for longest
 * on the active list. If it was away for less time than that one has been idle, it is the hotter of the two: they change places, the one is
 * active at once, the other goes to the inactive list. Else it has to prove itself on the inactive list like any other.
 *
 * So a scan, whose pages do not come back or come back late, does not displace what is in use; and of a loop that is larger than the
 * memory a part stays that fits, where least recently used would miss all of it.
 *
 * How long the inactive list should be is learned too. A page that comes back hot should not have left: it should be longer. One that comes
 * back cold would not have been helped by it. Where nothing is learned it is half of all pages.
 *
 * Use: `enter` when a frame is taken for a page, `touch` when it is seen used, `shadowOf` when it is evicted, `refault` when it comes back.
 */

/** Pages in use on the active list that a refault may pass on its search for an idle one. */
const MAX_LOOKS = 16;
/** Of all pages, the inactive list is to have between an eighth and a half. */
const LEAST_SHARE = 8;
const MOST_SHARE = 2;
/** Pages by which it gets longer for each page that comes back hot, and shorter for each that comes back cold. */
const HOT_STEP = 2;
const COLD_STEP = 1 / 8;

const NEGATIVE = 1 << 31;

export class Workingset {
  private readonly host: Host;
  private clock = 0;
  /** Pages that the inactive list of an active list should have, by active list. */
  private readonly targets = new Float64Array(NR_LRU_LISTS).fill(Number.MAX_SAFE_INTEGER);

  constructor(host: Host) {
    this.host = host;
  }

  /** The frame is taken for a page that comes in. */
  enter(pfn: number): void {
    this.clock = (this.clock + 1) | 0;
    this.host.frames.stamp[pfn] = this.clock;
  }

  /** The page was seen used. */
  touch(pfn: number): void {
    this.host.frames.stamp[pfn] = this.clock;
  }

  /** What is to be kept of a page that is evicted: an int32. */
  shadowOf(pfn: number): number {
    return this.host.frames.stamp[pfn]!;
  }

  /** As `shadowOf`, and below 0, for a page cache, where other numbers mean something else. */
  negativeShadowOf(pfn: number): number {
    return this.host.frames.stamp[pfn]! | NEGATIVE;
  }

  /** The shadow that became `negative`: its topmost bit is told by the clock. */
  shadowOfNegative(negative: number): number {
    return (this.clock - ((this.clock - negative) & ~NEGATIVE)) | 0;
  }

  /** The page came back, and left `shadow` when it was evicted: marks it active if it belongs there. It is on no list yet. */
  refault(pfn: number, shadow: number): void {
    const { frames, vmstat } = this.host;
    vmstat.workingsetRefault++;
    const active = (frames.flags[pfn]! & PG_SWAPBACKED) !== 0 ? LRU_ACTIVE_ANON : LRU_ACTIVE_FILE;
    if (!this.hasRoom(active) && !this.displaceColder(active, this.ageOf(shadow))) return;
    vmstat.workingsetActivate++;
    frames.flags[pfn] = frames.flags[pfn]! | PG_ACTIVE;
  }

  /** Pages that should be inactive beside this active list, so that they have time to be used again. */
  inactiveTarget(active: number): number {
    const nrPages = this.nrPages(active);
    const target = Math.min(Math.max(this.targets[active]!, nrPages / LEAST_SHARE), nrPages / MOST_SHARE);
    return Math.max(this.host.reclaim.batchSize, Math.trunc(target));
  }

  private nrPages(active: number): number {
    const { nr } = this.host.lru;
    return nr[active]! + nr[active - 1]!;
  }

  /** How many pages came in since the stamp; the clock may have wrapped. */
  private ageOf(stamp: number): number {
    return (this.clock - stamp) | 0;
  }

  private hasRoom(active: number): boolean {
    return this.host.lru.nr[active - 1]! > this.inactiveTarget(active);
  }

  /** Makes the longest idle page of the active list inactive if it was idle for more than `age`, and learns from it. */
  private displaceColder(active: number, age: number): boolean {
    const colder = this.findColder(active, age);
    this.learn(active, colder !== 0);
    if (colder === 0) return false;
    this.host.vmstat.pgdeactivate++;
    this.host.lru.move(colder, 0, PG_ACTIVE);
    return true;
  }

  private learn(active: number, hot: boolean): void {
    const nrPages = this.nrPages(active);
    const target = Math.min(this.targets[active]!, nrPages / MOST_SHARE) + (hot ? HOT_STEP : -COLD_STEP);
    this.targets[active] = Math.max(target, nrPages / LEAST_SHARE);
  }

  /** The list is in the order of stamps; those that turn out to be in use go to its head. */
  private findColder(active: number, age: number): number {
    const { lru, frames, young } = this.host;
    for (let looks = 0; looks < MAX_LOOKS; looks++) {
      const pfn = lru.tail(active);
      if (pfn === 0 || this.ageOf(frames.stamp[pfn]!) <= age) return 0;
      if (!young.testAndClear(pfn)) return pfn;
      this.touch(pfn);
      lru.move(pfn, 0, 0);
    }
    return 0;
  }
}
