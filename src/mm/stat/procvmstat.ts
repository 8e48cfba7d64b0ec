import type { Host } from '../host.js';
import {
  LRU_ACTIVE_ANON,
  LRU_ACTIVE_FILE,
  LRU_INACTIVE_ANON,
  LRU_INACTIVE_FILE,
  LRU_UNEVICTABLE,
} from '../page/lru.js';

/**
 * The counters of a host under the names of /proc/vmstat, pages and events, with the kernel's meanings where the thing is here. The first
 * are what is now, the others only grow.
 *
 * pgsteal_direct are frames that a pass on behalf of a waiter freed at once; those whose write ended later are pgsteal_kswapd's.
 */
export interface ProcVmstat {
  readonly nr_free_pages: number;
  readonly nr_inactive_anon: number;
  readonly nr_active_anon: number;
  readonly nr_inactive_file: number;
  readonly nr_active_file: number;
  readonly nr_unevictable: number;
  readonly nr_mlock: number;
  /** Cached pages of files and of shared memory. */
  readonly nr_file_pages: number;
  readonly nr_shmem: number;
  readonly nr_dirty: number;
  readonly nr_writeback: number;
  readonly nr_page_table_pages: number;
  readonly nr_dirtied: number;
  readonly nr_written: number;
  readonly pswpin: number;
  readonly pswpout: number;
  /** Pages of one value repeated: Linux has a slot for each, and takes zeros alone. */
  readonly swpin_zero: number;
  readonly swpout_zero: number;
  readonly pgactivate: number;
  readonly pgdeactivate: number;
  readonly pglazyfree: number;
  readonly pgfault: number;
  readonly pgmajfault: number;
  readonly workingset_refault: number;
  readonly workingset_activate: number;
  readonly pgscan_kswapd: number;
  readonly pgscan_direct: number;
  readonly pgsteal_kswapd: number;
  readonly pgsteal_direct: number;
  readonly allocstall: number;
  readonly oom_kill: number;
  readonly pgmigrate_success: number;
  readonly pgmigrate_fail: number;
  readonly swap_ra: number;
  readonly swap_ra_hit: number;
}

export function procVmstat(host: Host): ProcVmstat {
  const { frames, lru, pageCache, tables, vmstat } = host;
  const { counts } = pageCache;
  return {
    nr_free_pages: frames.nrFree,
    nr_inactive_anon: lru.nr[LRU_INACTIVE_ANON]!,
    nr_active_anon: lru.nr[LRU_ACTIVE_ANON]!,
    nr_inactive_file: lru.nr[LRU_INACTIVE_FILE]!,
    nr_active_file: lru.nr[LRU_ACTIVE_FILE]!,
    nr_unevictable: lru.nr[LRU_UNEVICTABLE]!,
    nr_mlock: host.nrMlocked,
    nr_file_pages: counts.nrFilePages + counts.nrShmem,
    nr_shmem: counts.nrShmem,
    nr_dirty: counts.nrDirty,
    nr_writeback: counts.nrWriteback,
    nr_page_table_pages: tables.nrTables - 1 - tables.nrFree,
    nr_dirtied: counts.nrDirtied,
    nr_written: counts.nrWritten,
    pswpin: vmstat.pswpin,
    pswpout: vmstat.pswpout,
    swpin_zero: vmstat.swpinSame,
    swpout_zero: vmstat.swpoutSame,
    pgactivate: vmstat.pgactivate,
    pgdeactivate: vmstat.pgdeactivate,
    pglazyfree: vmstat.pglazyfree,
    pgfault: vmstat.pgfault,
    pgmajfault: vmstat.pgmajfault,
    workingset_refault: vmstat.workingsetRefault,
    workingset_activate: vmstat.workingsetActivate,
    pgscan_kswapd: vmstat.pgscan - vmstat.pgscanDirect,
    pgscan_direct: vmstat.pgscanDirect,
    pgsteal_kswapd: vmstat.pgsteal - vmstat.pgstealDirect,
    pgsteal_direct: vmstat.pgstealDirect,
    allocstall: vmstat.allocstall,
    oom_kill: vmstat.oomKill,
    pgmigrate_success: vmstat.pgmigrate_success,
    pgmigrate_fail: vmstat.pgmigrate_fail,
    swap_ra: vmstat.swapRa,
    swap_ra_hit: vmstat.swapRaHit,
  };
}
