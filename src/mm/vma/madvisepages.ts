import type { AddressSpace } from '../file/addressspace.js';
import { valueToSlot } from '../file/shmem.js';
import type { Host } from '../host.js';
import { PAGE_SIZE } from '../layout.js';
import { mmuNotifierInvalidatePagesStart, mmuNotifierInvalidateRangeEnd } from '../notifier/hooks.js';
import { MMU_NOTIFY_CLEAR } from '../notifier/range.js';
import { PG_ACTIVE, PG_DIRTY, PG_LRU, PG_SWAPBACKED, PG_SWAPCACHE, PG_WRITEBACK, PG_YOUNG } from '../page/frames.js';
import { tryDropSwapCache } from '../page/page.js';
import {
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_WRITE,
  pteIsPresent,
  pteIsSame,
  pteIsSwap,
  ptePfn,
  pteSwapSlot,
} from '../pgtable/pte.js';
import { zapPages } from './unmap.js';
import type { Vma } from './vma.js';

/**
 * The advice that is about the pages of a VMA, one by one (Linux: madvise.c): MADV_FREE, COLD, PAGEOUT, WILLNEED. Each walks
 * [from, to) of the VMA leaf table by leaf table. A page that others map too, or that somebody holds, is left alone.
 */

/** Calls `fn` for each pte of the range that is not 0, with its index. */
function eachPte(vma: Vma, from: number, to: number, fn: (i: number, pte: number, vpn: number) => void): void {
  const { pageTable } = vma.mm;
  for (let vpn = from; (vpn = pageTable.skipEmpty(vpn, to)) < to; vpn++) {
    const i = pageTable.find(vpn);
    const pte = pageTable.words.readOnce(i);
    if (pte !== 0) fn(i, pte, vpn);
  }
}

/** Whether the frame is mapped by one pte, and nobody holds it but that and a cache. */
function isMine(host: Host, pfn: number): boolean {
  const { flags, mapcount, mapping, refcount, zeroPfn } = host.frames;
  if (pfn === zeroPfn || mapcount[pfn] !== 1) return false;
  return refcount[pfn] === 1 + ((flags[pfn]! & PG_SWAPCACHE) !== 0 ? 1 : 0) + (mapping[pfn]! < 0 ? 1 : 0);
}

/**
 * MADV_FREE: what is swapped out goes at once. What is there becomes clean without a copy anywhere (lazyfree): reclaim drops it, and the next
 * access sees zeros; a write before that makes it an ordinary page again, and for that external MMUs must lose the right to write.
 */
export function lazyfreeRange(vma: Vma, from: number, to: number): void {
  const { mm } = vma;
  mmuNotifierInvalidatePagesStart(mm, MMU_NOTIFY_CLEAR, from, to);
  eachPte(vma, from, to, (i, pte, vpn) => {
    if (pteIsPresent(pte)) lazyfreePte(vma, i, pte);
    else if (pteIsSwap(pte) || pteIsSame(pte)) zapPages(vma, vpn, vpn + 1);
  });
  mmuNotifierInvalidateRangeEnd(mm);
  mm.host.gather.free();
}

function lazyfreePte(vma: Vma, i: number, pte: number): void {
  const { host, pageTable } = vma.mm;
  const pfn = ptePfn(pte);
  if (!isMine(host, pfn) || !leaveSwapCache(host, pfn)) return;
  pageTable.words.writeOnce(i, pte & ~(PTE_WRITE | PTE_DIRTY | PTE_ACCESSED));
  clearFlags(host, pfn, PG_DIRTY | PG_SWAPBACKED | PG_ACTIVE);
  host.vmstat.pglazyfree++;
}

/** What is dirty has no use for its slot: the frame leaves the swap cache, unless it is being written. */
function leaveSwapCache(host: Host, pfn: number): boolean {
  const { flags } = host.frames;
  const before = flags[pfn]!;
  if ((before & PG_SWAPCACHE) === 0) return true;
  flags[pfn] = before | PG_DIRTY;
  tryDropSwapCache(host, pfn);
  if ((flags[pfn]! & PG_SWAPCACHE) === 0) return true;
  flags[pfn] = before;
  return false;
}

/** Clears flags that say which list the frame is on. */
function clearFlags(host: Host, pfn: number, mask: number): void {
  if ((host.frames.flags[pfn]! & PG_LRU) !== 0) host.lru.move(pfn, 0, mask);
  else host.frames.flags[pfn] = host.frames.flags[pfn]! & ~mask;
}

/** MADV_COLD: the pages go to the inactive list, as if they had not been used for long. */
export function coldRange(vma: Vma, from: number, to: number): void {
  const { host, pageTable } = vma.mm;
  eachPte(vma, from, to, (i, pte) => {
    if (!pteIsPresent(pte) || host.frames.mapcount[ptePfn(pte)] !== 1) return;
    pageTable.words.writeOnce(i, pte & ~PTE_ACCESSED);
    const { flags } = host.frames;
    flags[ptePfn(pte)] = flags[ptePfn(pte)]! & ~PG_YOUNG;
    if ((flags[ptePfn(pte)]! & PG_ACTIVE) === 0) return;
    host.vmstat.pgdeactivate++;
    clearFlags(host, ptePfn(pte), PG_ACTIVE);
  });
}

/** MADV_PAGEOUT: reclaim takes the pages now, used or not. Dirty ones are written; nobody waits for that. */
export function pageoutRange(vma: Vma, from: number, to: number): void {
  const { host } = vma.mm;
  const pfns: number[] = [];
  eachPte(vma, from, to, (_i, pte) => {
    if (!pteIsPresent(pte) || !isMine(host, ptePfn(pte))) return;
    if ((host.frames.flags[ptePfn(pte)]! & (PG_LRU | PG_WRITEBACK)) === PG_LRU) pfns.push(ptePfn(pte));
  });
  host.reclaim.reclaimPages(pfns);
}

/** MADV_WILLNEED: starts to read what is in swap, or in the file, all at once, as far as frames are free. */
export function willneedRange(vma: Vma, from: number, to: number): void {
  const { host } = vma.mm;
  const mapping = vma.file?.mapping;
  if (mapping?.isShmem === true) host.swapIn.startRuns(slotsOfShmem(mapping, vma.pgoffOf(from), vma.pgoffOf(to)));
  else if (mapping !== undefined)
    host.pageCache.willneed(mapping, vma.pgoffOf(from) * PAGE_SIZE, (to - from) * PAGE_SIZE);
  else host.swapIn.startRuns(slotsOfPtes(vma, from, to));
}

function slotsOfPtes(vma: Vma, from: number, to: number): number[] {
  const slots: number[] = [];
  eachPte(vma, from, to, (_i, pte) => {
    if (pteIsSwap(pte)) slots.push(pteSwapSlot(pte));
  });
  return slots;
}

function slotsOfShmem(as: AddressSpace, start: number, end: number): number[] {
  const slots: number[] = [];
  for (let index = start; (index = as.pages.next(index, end)) >= 0; index++) {
    const value = as.pages.get(index);
    if (value < 0) slots.push(valueToSlot(value));
  }
  return slots;
}
