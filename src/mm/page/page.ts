import type { Host } from '../host.js';
import {
  PG_DIRTY,
  PG_LOCKED,
  PG_LRU,
  PG_MLOCKED,
  PG_PINNED,
  PG_RESERVED,
  PG_SWAPCACHE,
  PG_WRITEBACK,
} from './frames.js';

/** References to frames, and what happens when the last one goes (Linux: get_page, put_page, swap_free). */

export function getPage(host: Host, pfn: number): void {
  host.frames.refcount[pfn] = host.frames.refcount[pfn]! + 1;
}

/** Drops a reference; frees the frame with the last one. */
export function putPage(host: Host, pfn: number): void {
  if (dropRef(host, pfn)) host.frames.free(pfn);
}

/** Drops a reference. True when it was the last one: the frame is then on no list, and the caller frees it. */
export function dropRef(host: Host, pfn: number): boolean {
  const { frames } = host;
  const refcount = frames.refcount[pfn]! - 1;
  frames.refcount[pfn] = refcount;
  if (refcount !== 0) return false;
  if ((frames.flags[pfn]! & PG_LRU) !== 0) host.lru.remove(pfn);
  return true;
}

/** Drops the reference of a pte that was cleared, its mapcount with it. True when the caller has to free the frame. */
export function dropMappedRef(host: Host, pfn: number): boolean {
  return dropRef(host, pfn) || (host.frames.mapcount[pfn] === 0 && tryDropSwapCache(host, pfn));
}

/** Somebody beside ptes and caches has a reference: between `tryGetPage` and `putPage` a page stays. */
export function isHeld(host: Host, pfn: number): boolean {
  const { flags, refcount, mapcount, mapping } = host.frames;
  const nrCaches = ((flags[pfn]! & PG_SWAPCACHE) !== 0 ? 1 : 0) + (mapping[pfn]! < 0 ? 1 : 0);
  return refcount[pfn]! > mapcount[pfn]! + nrCaches;
}

/**
 * Lets the frame leave the swap cache when no pte names its slot any more, and it is dirty (the slot is stale) or unmapped (it is
 * unwanted). A clean mapped page stays in: it can be given up without a write. Not while I/O is under way; its
 * completion comes here again. True when the frame has to be freed.
 */
export function tryDropSwapCache(host: Host, pfn: number): boolean {
  const { frames } = host;
  const flags = frames.flags[pfn]!;
  if ((flags & (PG_SWAPCACHE | PG_LOCKED | PG_WRITEBACK)) !== PG_SWAPCACHE) return false;
  if (host.swap.count[frames.private[pfn]!] !== 0) return false;
  if ((flags & PG_DIRTY) === 0 && frames.mapcount[pfn] !== 0) return false;
  host.swap.removeFromCache(pfn);
  return dropRef(host, pfn);
}

/** One more pte in a locked VMA maps the page: reclaim leaves it alone. */
export function mlockPage(host: Host, pfn: number): void {
  const { mlockcount } = host.frames;
  mlockcount[pfn] = mlockcount[pfn]! + 1;
  if (mlockcount[pfn] !== 1) return;
  host.nrMlocked++;
  setFlag(host, pfn, PG_MLOCKED);
}

export function munlockPage(host: Host, pfn: number): void {
  const { mlockcount } = host.frames;
  mlockcount[pfn] = mlockcount[pfn]! - 1;
  if (mlockcount[pfn] !== 0) return;
  host.nrMlocked--;
  clearFlag(host, pfn, PG_MLOCKED);
}

/**
 * The frame stays where it is and what it is: one reference for each poisoned subscription that may map it (N19), and for each who has pinned it for
 * good (Linux: FOLL_LONGTERM). False for the zero page, which is never another's.
 */
export function pinPage(host: Host, pfn: number): boolean {
  if ((host.frames.flags[pfn]! & PG_RESERVED) !== 0) return false;
  const count = host.pins.get(pfn) ?? 0;
  host.pins.set(pfn, count + 1);
  getPage(host, pfn);
  if (count === 0) setFlag(host, pfn, PG_PINNED);
  return true;
}

/** One of those who had it pinned is gone. */
export function unpinPage(host: Host, pfn: number): void {
  const count = host.pins.get(pfn)!;
  if (count > 1) host.pins.set(pfn, count - 1);
  else {
    host.pins.delete(pfn);
    clearFlag(host, pfn, PG_PINNED);
  }
  putPage(host, pfn);
}

/** Sets a flag that has to do with the list that the frame is on. */
export function setFlag(host: Host, pfn: number, flag: number): void {
  if ((host.frames.flags[pfn]! & PG_LRU) !== 0) host.lru.move(pfn, flag, 0);
  else host.frames.flags[pfn] = host.frames.flags[pfn]! | flag;
}

function clearFlag(host: Host, pfn: number, flag: number): void {
  if ((host.frames.flags[pfn]! & PG_LRU) !== 0) host.lru.move(pfn, 0, flag);
  else host.frames.flags[pfn] = host.frames.flags[pfn]! & ~flag;
}
