import { FAULT_HWPOISON, FAULT_RETRY } from '../fault/faultcode.js';
import type { Host } from '../host.js';
import { pfnToPa } from '../layout.js';
import { PG_DIRTY, PG_LOCKED, PG_READAHEAD, PG_SWAPBACKED } from '../page/frames.js';
import { dropRef, getPage, putPage, tryDropSwapCache } from '../page/page.js';
import type { AddressSpace } from './addressspace.js';

/**
 * Shared memory without a store (Linux: shmem.c): MAP_SHARED|MAP_ANONYMOUS, and files of `host.memfdCreate`. An absent page is zeros. Reclaim
 * moves a page to the swap cache, and the address space names its slot from then on, as a pte would; the next one who wants it moves it back.
 *
 *   in the address space        in frames
 *   0                           nothing: zeros
 *   pfn                         a page of the page cache
 *   -1 - slot                   nothing, or a page of the swap cache
 *
 * A page that is moved back while it is still being written to swap is in both caches until that ends.
 */

export function slotToValue(slot: number): number {
  return -1 - slot;
}

export function valueToSlot(value: number): number {
  return -1 - value;
}

/** The page `index`, whose value in the address space is `value` and no pfn; or FAULT_RETRY, FAULT_HWPOISON. */
export function shmemPage(host: Host, as: AddressSpace, index: number, value: number, reserve: number): number {
  return value === 0 ? newPage(host, as, index, reserve) : swappedPage(host, as, index, valueToSlot(value));
}

/** Clean: it is zeros, and may be dropped as long as nobody writes to it. */
function newPage(host: Host, as: AddressSpace, index: number, reserve: number): number {
  const pfn = host.reclaim.allocFrame(reserve);
  if (pfn === 0) return FAULT_RETRY;
  host.pageOps.zero(pfnToPa(pfn));
  host.frames.flags[pfn] = PG_SWAPBACKED;
  as.add(index, pfn);
  putPage(host, pfn);
  host.lru.add(pfn);
  return pfn;
}

function swappedPage(host: Host, as: AddressSpace, index: number, slot: number): number {
  const { frames, swap } = host;
  const pfn = swap.cache[slot]!;
  if (pfn === 0) return swap.isBad(slot) ? FAULT_HWPOISON : FAULT_RETRY;
  const flags = frames.flags[pfn]!;
  if ((flags & PG_LOCKED) !== 0) return FAULT_RETRY;
  if ((flags & PG_READAHEAD) !== 0) host.swapIn.countHit(pfn);
  as.add(index, pfn);
  swap.put(slot);
  // Its slot is given up: from here on nobody else has its contents.
  frames.flags[pfn] = frames.flags[pfn]! | PG_DIRTY | PG_SWAPBACKED;
  tryDropSwapCache(host, pfn);
  return pfn;
}

/**
 * A page that nobody maps or holds moves to the swap cache, to be written: true. False when there is no slot for it. The frame is on no list; its
 * one reference becomes the swap cache's.
 */
export function shmemSwapOut(host: Host, as: AddressSpace, pfn: number): boolean {
  const { swap } = host;
  const slot = swap.alloc();
  if (slot < 0) return false;
  swap.addToCache(slot, pfn);
  swap.get(slot);
  as.remove(pfn, slotToValue(slot));
  dropRef(host, pfn);
  return true;
}

/** The address space does not want the swapped page any more (Linux: shmem_free_swap). */
export function shmemFreeSwap(host: Host, as: AddressSpace, index: number): void {
  const slot = valueToSlot(as.pages.set(index, 0));
  if (host.swap.put(slot)) return;
  const pfn = host.swap.cache[slot]!;
  if (pfn === 0) return;
  getPage(host, pfn);
  tryDropSwapCache(host, pfn);
  putPage(host, pfn);
}
