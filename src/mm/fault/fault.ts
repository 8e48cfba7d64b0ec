import { filemapFault, filemapMkwrite } from '../file/filemap.js';
import { pfnToPa } from '../layout.js';
import type { Mm } from '../mm.js';
import { PG_DIRTY, PG_LOCKED, PG_READAHEAD, PG_SWAPBACKED } from '../page/frames.js';
import { putPage, tryDropSwapCache } from '../page/page.js';
import {
  mkPoisonPte,
  mkPte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_NONE,
  PTE_READ,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  pteIsMigration,
  pteIsPresent,
  pteIsSame,
  pteIsSwap,
  ptePfn,
  pteSameNumber,
  pteSwapSlot,
} from '../pgtable/pte.js';
import { remotesArm, setAbsentPte } from '../remote/hooks.js';
import { demandZeroPte } from '../remote/undrained.js';
import { addNewAnonRmap, addSharedAnonRmap } from '../rmap/rmap.js';
import type { Vma } from '../vma/vma.js';
import { breakCow, markDirty } from './cow.js';
import { FAULT_HWPOISON, FAULT_OOM, FAULT_RETRY, FAULT_SIGSEGV } from './faultcode.js';

/**
 * Page faults, as far as they need no waiting (Linux: memory.c). `handleMmFault` makes the pte of a page present with the
 * right that is asked for, or says what is in the way. From absent to present and to more rights is no event, so no
 * notifier is called (N21); only the copy of a shared page is one (cow.ts).
 *
 * The asynchronous half is faultin.ts; it comes here again after every wait.
 */

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
  if (pte === PTE_NONE) {
    return vma.file === undefined
      ? anonFault(mm, vma, vpn, i, write, reserve)
      : filemapFault(mm, vma, vpn, i, write, reserve);
  }
  if (pteIsPresent(pte)) return presentFault(mm, vma, vpn, i, pte, write, reserve);
  if (pteIsSwap(pte)) return swapFault(mm, vma, vpn, i, pte, write, reserve);
  if (pteIsSame(pte)) return sameFault(mm, vma, vpn, i, pte, write, reserve);
  return pteIsMigration(pte) ? FAULT_RETRY : FAULT_HWPOISON;
}

/** First touch: by a read the zero page, by a write a frame of zeros. */
function anonFault(mm: Mm, vma: Vma, vpn: number, i: number, write: boolean, reserve: number): number {
  const { host } = mm;
  const pfn = write ? host.reclaim.allocFrame(reserve) : host.frames.zeroPfn;
  if (pfn === 0) return FAULT_RETRY;
  if (write) host.pageOps.zero(pfnToPa(pfn));
  const pte = write ? demandZeroPte(pfn) : mkPte(pfn, PTE_READ | PTE_ACCESSED);
  if (!setAbsentPte(mm, i, pte)) return lostRace(mm, vma, vpn, i, write, pfn);
  host.vmstat.pgfault++;
  if (!write) return pfn;
  host.frames.flags[pfn] = PG_DIRTY | PG_SWAPBACKED;
  addNewAnonRmap(host, vma, vpn, pfn);
  host.lru.add(pfn);
  remotesArm(vma, vpn, i);
  return pfn;
}

/** Another thread has mapped the page meanwhile, for writing. */
function lostRace(mm: Mm, vma: Vma, vpn: number, i: number, write: boolean, pfn: number): number {
  if (write) putPage(mm.host, pfn);
  return presentFault(mm, vma, vpn, i, mm.pageTable.words.readOnce(i), write, 0);
}

/** Present already, perhaps without the right to write. */
function presentFault(mm: Mm, vma: Vma, vpn: number, i: number, pte: number, write: boolean, reserve: number): number {
  if (!write || (pte & PTE_WRITE) !== 0) {
    mm.pageTable.set(i, pte | PTE_ACCESSED);
    return ptePfn(pte);
  }
  if (vma.shared) return filemapMkwrite(mm, vma, i, pte);
  const pfn = breakCow(mm, vma, vpn, i, pte, reserve);
  if (pfn === 0) return FAULT_RETRY;
  mm.host.vmstat.pgfault++;
  return pfn;
}

/** Swapped out: maps the frame from the swap cache, once it is there. */
function swapFault(mm: Mm, vma: Vma, vpn: number, i: number, pte: number, write: boolean, reserve: number): number {
  const { host } = mm;
  const { frames, swap } = host;
  const slot = pteSwapSlot(pte);
  const pfn = swap.cache[slot]!;
  if (pfn === 0) return swap.isBad(slot) ? poisonPte(mm, i, slot) : FAULT_RETRY;
  if ((frames.flags[pfn]! & PG_LOCKED) !== 0) return FAULT_RETRY;
  if ((frames.flags[pfn]! & PG_READAHEAD) !== 0) host.swapIn.countHit(pfn);
  mapSwapped(mm, vma, vpn, i, pfn, slot);
  if (write) return presentFault(mm, vma, vpn, i, mm.pageTable.words.readOnce(i), write, reserve);
  host.vmstat.pgfault++;
  return pfn;
}

/** One value repeated: zeros that are only read come back as the zero page, all else in a frame. */
function sameFault(mm: Mm, vma: Vma, vpn: number, i: number, pte: number, write: boolean, reserve: number): number {
  const { host } = mm;
  const number = pteSameNumber(pte);
  const asZeroPage = number === 0 && !write && vma.file === undefined;
  const pfn = asZeroPage ? host.frames.zeroPfn : host.reclaim.allocFrame(reserve);
  if (pfn === 0) return FAULT_RETRY;
  host.vmstat.pgfault++;
  host.vmstat.swpinSame++;
  const softDirty = write ? PTE_SOFT_DIRTY : pte & PTE_SOFT_DIRTY;
  if (asZeroPage) mm.pageTable.set(i, mkPte(pfn, PTE_READ | PTE_ACCESSED | softDirty));
  else mapSameFilled(mm, vma, vpn, i, pfn, number, (write ? PTE_WRITE : 0) | softDirty);
  host.sameFilled.put(number);
  return pfn;
}

/** Dirty: no slot has it. */
function mapSameFilled(mm: Mm, vma: Vma, vpn: number, i: number, pfn: number, number: number, flags: number): void {
  const { host } = mm;
  host.sameFilled.fill(pfn, number);
  host.frames.flags[pfn] = PG_DIRTY | PG_SWAPBACKED;
  addNewAnonRmap(host, vma, vpn, pfn);
  mm.pageTable.set(i, mkPte(pfn, flags | PTE_READ | PTE_ACCESSED | PTE_DIRTY | PTE_EXCLUSIVE));
  host.lru.add(pfn);
}

/** For reading, whatever was asked for: a write goes on as one to a page that is present. */
function mapSwapped(mm: Mm, vma: Vma, vpn: number, i: number, pfn: number, slot: number): void {
  const { host } = mm;
  const { frames, swap } = host;
  // Who holds it besides the swap cache may be the other side of a fork, which must not see what is written here (M25).
  const exclusive = frames.mapcount[pfn] === 0 && swap.count[slot] === 1 && frames.refcount[pfn] === 1;
  frames.refcount[pfn] = frames.refcount[pfn]! + 1;
  if (exclusive) addNewAnonRmap(host, vma, vpn, pfn);
  else addSharedAnonRmap(host, vma, vpn, pfn);
  const softDirty = mm.pageTable.words.readOnce(i) & PTE_SOFT_DIRTY;
  mm.pageTable.set(i, mkPte(pfn, PTE_READ | PTE_ACCESSED | softDirty | (exclusive ? PTE_EXCLUSIVE : 0)));
  swap.put(slot);
  if (swap.isNearlyFull) markDirty(host, pfn);
  else if ((frames.flags[pfn]! & PG_DIRTY) !== 0) tryDropSwapCache(host, pfn);
}

/** The slot's contents are lost. Its owner, and nobody else, is told by each access until it unmaps the page. */
function poisonPte(mm: Mm, i: number, slot: number): number {
  mm.pageTable.set(i, mkPoisonPte());
  mm.host.swap.put(slot);
  return FAULT_HWPOISON;
}
