import { PG_DIRTY, PG_LOCKED, PG_READAHEAD } from './frames.js';
import { pfnToPa } from './layout.js';
import type { Mm } from './mm.js';
import { mlockPage, tryDropSwapCache } from './page.js';
import {
  mkPoisonPte,
  mkPte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_NONE,
  PTE_WRITE,
  pteIsPresent,
  pteIsSwap,
  ptePfn,
  pteSwapSlot,
} from './pte.js';
import { addAnonRmap } from './rmap.js';
import type { Vma } from './vma.js';

/**
 * Page faults, as far as they need no waiting (Linux: memory.c). `handleMmFault` makes the pte of a page present with the
 * right that is asked for, or says what is in the way. It changes ptes from absent to present and adds rights only, so no
 * notifier is called (N21).
 *
 * The asynchronous half is faultin.ts; it comes here again after every wait.
 */

/** Asked for in order to write: the page becomes dirty. */
export const FAULT_FLAG_WRITE = 1;

/** It needs I/O or a free frame: `faultIn`, then try again. */
export const FAULT_RETRY = -1;
/** No VMA there, or not with that right. */
export const FAULT_SIGSEGV = -2;
/** The page's contents are lost: a machine check for its owner. */
export const FAULT_HWPOISON = -3;
/** No page table can be had. */
export const FAULT_OOM = -4;

/**
 * Returns the pfn that is mapped then, without a reference, or a FAULT_ number. Frames are taken as long as more than
 * `reserve` are free. Runs with mmapLock held for read.
 */
export function handleMmFault(mm: Mm, vpn: number, write: boolean, reserve: number): number {
  const vma = mm.vmas.find(vpn);
  if (vma === undefined || !vma.allows(write)) return FAULT_SIGSEGV;
  const i = mm.pageTable.ensure(vpn);
  if (i === 0) return FAULT_OOM;
  const pte = mm.pageTable.words.readOnce(i);
  if (pte === PTE_NONE) return anonFault(mm, vma, vpn, i, write, reserve);
  if (pteIsPresent(pte)) return presentFault(mm, i, pte, write);
  return pteIsSwap(pte) ? swapFault(mm, vma, vpn, i, pteSwapSlot(pte), write) : FAULT_HWPOISON;
}

/** First touch: a frame of zeros. A page that was only read stays clean, and is dropped again without a write. */
function anonFault(mm: Mm, vma: Vma, vpn: number, i: number, write: boolean, reserve: number): number {
  const { host } = mm;
  const pfn = host.reclaim.allocFrame(reserve);
  if (pfn === 0) return FAULT_RETRY;
  host.pageOps.zero(pfnToPa(pfn));
  host.vmstat.pgfault++;
  if (write) host.frames.flags[pfn] = PG_DIRTY;
  mapPage(mm, vma, vpn, i, pfn, write);
  host.lru.add(pfn);
  if (vma.locked) mlockPage(host, pfn);
  return pfn;
}

/** The pte takes over one reference of the caller's. */
function mapPage(mm: Mm, vma: Vma, vpn: number, i: number, pfn: number, write: boolean): void {
  addAnonRmap(mm.host, vma, vpn, pfn);
  mm.pageTable.set(i, mkPte(pfn, PTE_ACCESSED | PTE_EXCLUSIVE | (write ? PTE_WRITE | PTE_DIRTY : 0)));
}

/** Present already, perhaps without the right to write, which every clean page lacks. */
function presentFault(mm: Mm, i: number, pte: number, write: boolean): number {
  const pfn = ptePfn(pte);
  if (!write) {
    mm.pageTable.set(i, pte | PTE_ACCESSED);
    return pfn;
  }
  mm.host.vmstat.pgfault++;
  mm.pageTable.set(i, pte | PTE_ACCESSED | PTE_WRITE | PTE_DIRTY);
  markDirty(mm, pfn);
  return pfn;
}

/** Swapped out: maps the frame from the swap cache, once it is there. */
function swapFault(mm: Mm, vma: Vma, vpn: number, i: number, slot: number, write: boolean): number {
  const { host } = mm;
  const { frames, swap } = host;
  const pfn = swap.cache[slot]!;
  if (pfn === 0) return swap.isBad(slot) ? poisonPte(mm, i, slot) : FAULT_RETRY;
  if ((frames.flags[pfn]! & PG_LOCKED) !== 0) return FAULT_RETRY;
  host.vmstat.pgfault++;
  if ((frames.flags[pfn]! & PG_READAHEAD) !== 0) host.swapIn.countHit(pfn);
  frames.refcount[pfn] = frames.refcount[pfn]! + 1;
  mapPage(mm, vma, vpn, i, pfn, write);
  swap.put(slot);
  if (write || swap.isNearlyFull) markDirty(mm, pfn);
  else if ((frames.flags[pfn]! & PG_DIRTY) !== 0) tryDropSwapCache(host, pfn);
  if (vma.locked) mlockPage(host, pfn);
  return pfn;
}

/** Dirty from now on: what its swap slot holds is stale. While it is being written out, the completion sees the flag (N27). */
function markDirty(mm: Mm, pfn: number): void {
  const { flags } = mm.host.frames;
  flags[pfn] = flags[pfn]! | PG_DIRTY;
  tryDropSwapCache(mm.host, pfn);
}

/** The slot's contents are lost. Its owner, and nobody else, is told by each access until it unmaps the page. */
function poisonPte(mm: Mm, i: number, slot: number): number {
  mm.pageTable.set(i, mkPoisonPte());
  mm.host.swap.put(slot);
  return FAULT_HWPOISON;
}
