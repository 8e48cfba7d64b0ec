import { CONFIG_PTE_NOTIFIERS } from '../../base/index.js';
import type { ProcVmstat } from './procvmstat.js';

/**
 * Counters. Names are those of /proc/vmstat where it has them; they only grow. Drivers add to `shootdowns` and `retries`,
 * everything else is mm's.
 */

export interface NotifierCalls {
  invalidateRangeStart: number;
  invalidateRangeEnd: number;
  clearFlushYoung: number;
  clearYoung: number;
  testYoung: number;
  release: number;
  areaClosed: number;
  mmapLock: number;
  mmapUnlock: number;
}

export class VmStat {
  pgfault = 0;
  /** Those of them that other threads served by themselves. */
  remoteFaults = 0;
  /** Faults that waited for a read. */
  pgmajfault = 0;
  /** Pages that reclaim looked at, those on behalf of a waiter among them. */
  pgscan = 0;
  pgscanDirect = 0;
  /** Frames that reclaim freed, and those that a pass on behalf of a waiter freed at once. */
  pgsteal = 0;
  pgstealDirect = 0;
  /** Pages given up by MADV_FREE. */
  pglazyfree = 0;
  pgactivate = 0;
  pgdeactivate = 0;
  /** Pages that came back after they were evicted, and those of them that were active at once. */
  workingsetRefault = 0;
  workingsetActivate = 0;
  /** Passes of reclaim on behalf of a waiter. */
  allocstall = 0;
  kswapdWakeups = 0;
  /** Mms that were killed because memory ran out. */
  oomKill = 0;
  /** Pages that went to another frame, and those that could not. */
  pgmigrate_success = 0;
  pgmigrate_fail = 0;
  pswpin = 0;
  pswpout = 0;
  /** Pages of one value repeated that left memory and came back, without the swap device. */
  swpoutSame = 0;
  swpinSame = 0;
  swapReadErrors = 0;
  swapWriteErrors = 0;
  /** Read-ahead pages, and those of them that were used. */
  swapRa = 0;
  swapRaHit = 0;
  /** Pages read from stores, and transfers with stores that failed. */
  filePagesRead = 0;
  fileReadErrors = 0;
  fileWriteErrors = 0;
  /** Writers of file pages that had to wait because too much was dirty. */
  dirtyThrottled = 0;
  /** TLB shootdowns, as drivers count them. */
  shootdowns = 0;
  /** External faults that had to look again, as drivers count them. */
  retries = 0;
  /** These four are there with CONFIG_PTE_NOTIFIERS alone: brackets that reached at least one subscription. */
  declare brackets: number;
  /** Brackets refused with -EAGAIN. */
  declare refusals: number;
  /** Subscriptions that broke their contract. */
  declare poisoned: number;
  declare notifierCalls: NotifierCalls;

  constructor() {
    if (CONFIG_PTE_NOTIFIERS) initNotifierStats(this);
  }
}

function initNotifierStats(vmstat: VmStat): void {
  vmstat.brackets = 0;
  vmstat.refusals = 0;
  vmstat.poisoned = 0;
  vmstat.notifierCalls = {
    invalidateRangeStart: 0,
    invalidateRangeEnd: 0,
    clearFlushYoung: 0,
    clearYoung: 0,
    testYoung: 0,
    release: 0,
    areaClosed: 0,
    mmapLock: 0,
    mmapUnlock: 0,
  };
}

type NotifierStats = Pick<HostStats, 'notifierCalls' | 'refusals' | 'poisoned'>;

/** What `host.stats()` says of notifiers: nothing where they are compiled out. */
export function notifierStats(vmstat: VmStat): NotifierStats {
  if (!CONFIG_PTE_NOTIFIERS) return {} as NotifierStats;
  return { notifierCalls: { ...vmstat.notifierCalls }, refusals: vmstat.refusals, poisoned: vmstat.poisoned };
}

/** `host.stats()`: the fields of `--json` (pages unless named otherwise), then the rest. */
export interface HostStats {
  frames: number;
  framesPeak: number;
  framesFree: number;
  /** Frames that cannot be reclaimed: mlocked, and those that a poisoned subscription may still map. */
  pinnedFrames: number;
  /** Frames that other threads have to map pages with; and the faults that they served so. */
  remoteFrames: number;
  remoteFaults: number;
  swapOutPages: number;
  swapInPages: number;
  /** Pages that are out of memory without a slot, because they are one value repeated. */
  sameFilledPages: number;
  notifierCalls: NotifierCalls;
  shootdowns: number;
  retries: number;
  refusals: number;
  poisoned: number;
  tableBytes: number;
  swapSlots: number;
  swapSlotsUsed: number;
  swapMetadataBytes: number;
  nrActive: number;
  nrInactive: number;
  nrUnevictable: number;
  /** Pages of files and of shared memory that are cached. */
  nrFilePages: number;
  nrShmem: number;
  /** Pages of files that wait to be written, and those under way; those that became dirty, and were written, since the start. */
  nrDirty: number;
  nrWriteback: number;
  nrDirtied: number;
  nrWritten: number;
  /** Under the names of /proc/vmstat. */
  vmstat: ProcVmstat;
}
