import { Deferred } from '../deferred.js';
import { FAULT_HWPOISON } from '../fault/faultcode.js';
import type { Host } from '../host.js';
import { PAGE_SIZE, pfnToPa } from '../layout.js';
import { mmuNotifierInvalidatePagesStart, mmuNotifierInvalidateRangeEnd } from '../notifier/hooks.js';
import { MMU_NOTIFY_CLEAR } from '../notifier/range.js';
import { PG_LOCKED } from '../page/frames.js';
import { getPage, putPage } from '../page/page.js';
import { zapFilePages, zapPages } from '../vma/unmap.js';
import type { Vma } from '../vma/vma.js';
import type { AddressSpace } from './addressspace.js';
import { bringFilePage, damaged, PageWant, RESERVE, tryFilePage } from './filepage.js';
import { shmemFreeSwap } from './shmem.js';
import { callStore } from './storeio.js';
import { XA_MAX_INDEX } from './xarray.js';

/**
 * Taking pages away from a file under live mappings: truncation and holes (Linux: truncate.c, unmap_mapping_range). What is under write-back is
 * waited for; then, in one step that nothing can come between, the pages are unmapped, with a bracket for each mapping VMA, and leave the cache
 * (N23). Then the store is told.
 *
 * Truncation takes the private copies of pages beyond the end as well: an access there is SIGBUS. A hole leaves them. Bytes of a page that is
 * only partly cut are zeroed; bytes beyond the end of the file that somebody wrote through a mapping are zeroed when the file grows over them.
 *
 * Callers hold the inode's lock.
 */

/** Sets the length. Rejects with KernelError: what the store said; EIO when it does not answer. */
export async function truncateFile(host: Host, as: AddressSpace, sizeBytes: number): Promise<void> {
  if (sizeBytes < as.sizeBytes) await shrink(host, as, sizeBytes);
  else if (sizeBytes > as.sizeBytes) await grow(host, as, sizeBytes);
}

async function shrink(host: Host, as: AddressSpace, sizeBytes: number): Promise<void> {
  const partial = Math.floor(sizeBytes / PAGE_SIZE);
  while (!isQuiet(host, as, partial, sizeBytes % PAGE_SIZE)) await quieten(host, as, partial, XA_MAX_INDEX);
  as.sizeBytes = sizeBytes;
  as.storeBytes = Math.min(as.storeBytes, sizeBytes);
  unmapMappingRange(host, as, as.endIndex, XA_MAX_INDEX, true);
  zeroCached(host, as, sizeBytes, as.endIndex * PAGE_SIZE);
  dropPages(host, as, as.endIndex, XA_MAX_INDEX);
  if (as.store === undefined) return;
  as.owedTruncate = sizeBytes;
  await host.pageCache.writeback.payTruncate(as);
}

/** Whether no page from `first` on is under write-back, and the one that will be cut is there or nowhere. */
function isQuiet(host: Host, as: AddressSpace, first: number, cut: number): boolean {
  if (host.pageCache.writeback.isBusy(as, first, XA_MAX_INDEX)) return false;
  const value = cut === 0 ? 0 : as.pages.get(first);
  return value === 0 || (value > 0 && (host.frames.flags[value]! & PG_LOCKED) === 0) || isLost(host, as, value);
}

/** A swapped page that was damaged can be cut without being read. */
function isLost(host: Host, as: AddressSpace, value: number): boolean {
  return !as.isShmem || (value < 0 && host.swap.isBad(-1 - value));
}

async function quieten(host: Host, as: AddressSpace, first: number, end: number): Promise<void> {
  await host.pageCache.writeback.waitRange(as, first, end);
  const value = as.pages.get(first);
  if (value > 0 && (host.frames.flags[value]! & PG_LOCKED) !== 0)
    await host.pageCache.reads.wait(as, value).catch(() => {});
  else if (value < 0 && as.isShmem) putPage(host, await bring(host, as, first));
}

async function grow(host: Host, as: AddressSpace, sizeBytes: number): Promise<void> {
  const { store } = as;
  if (store !== undefined) {
    await host.pageCache.writeback.payTruncate(as);
    await callStore(store, 'truncate', () => store.truncate(sizeBytes));
  }
  if (store !== undefined) as.storeBytes = sizeBytes;
  extendTo(host, as, sizeBytes);
}

/** The file grows: what somebody wrote beyond its old end, in its last page, is not of it. */
export function extendTo(host: Host, as: AddressSpace, sizeBytes: number): void {
  if (sizeBytes <= as.sizeBytes) return;
  zeroCached(host, as, as.sizeBytes, Math.min(sizeBytes, as.endIndex * PAGE_SIZE));
  as.sizeBytes = sizeBytes;
}

/** Zeroes bytes of one page, if it is cached. */
function zeroCached(host: Host, as: AddressSpace, start: number, end: number): void {
  const pfn = as.pages.get(Math.floor(start / PAGE_SIZE));
  if (pfn > 0 && start < end) host.pageOps.clear(pfnToPa(pfn) + (start % PAGE_SIZE), end - start);
}

/** Takes pages [start, end) of the file out of every page table; `evenCows`: private copies too. */
export function unmapMappingRange(host: Host, as: AddressSpace, start: number, end: number, evenCows: boolean): void {
  as.visitRange(start, end, (vma) => {
    unmapFrom(vma, Math.max(start, vma.pgoff), Math.min(end, vma.pgoff + vma.nrPages), evenCows);
  });
  host.gather.free();
}

function unmapFrom(vma: Vma, start: number, end: number, evenCows: boolean): void {
  const { mm } = vma;
  const [startVpn, endVpn] = [vma.vpnOf(start), vma.vpnOf(end)];
  mmuNotifierInvalidatePagesStart(mm, MMU_NOTIFY_CLEAR, startVpn, endVpn);
  if (evenCows) zapPages(vma, startVpn, endVpn);
  else zapFilePages(vma, startVpn, endVpn);
  mmuNotifierInvalidateRangeEnd(mm);
}

/** Pages [start, end), unmapped and not under write-back, leave the cache. */
export function dropPages(host: Host, as: AddressSpace, start: number, end: number): void {
  for (let index = start; (index = as.pages.next(index, end)) >= 0; index++) {
    const value = as.pages.get(index);
    if (value > 0) {
      as.remove(value, 0);
      putPage(host, value);
    } else if (as.isShmem) shmemFreeSwap(host, as, index);
    else as.pages.set(index, 0);
  }
}

/** Zeroes the bytes [start, end) and gives their memory back where they are whole pages. Rejects as `truncateFile` does, and EOPNOTSUPP. */
export async function punchHole(host: Host, as: AddressSpace, start: number, end: number): Promise<void> {
  const [first, last] = [Math.ceil(start / PAGE_SIZE), Math.floor(end / PAGE_SIZE)];
  if (first > last) return zeroPart(host, as, start, end);
  await zeroPart(host, as, start, first * PAGE_SIZE);
  await zeroPart(host, as, last * PAGE_SIZE, end);
  if (first === last) return;
  await host.pageCache.writeback.waitRange(as, first, last);
  while (host.pageCache.writeback.isBusy(as, first, last)) await host.pageCache.writeback.waitRange(as, first, last);
  unmapMappingRange(host, as, first, last, false);
  dropPages(host, as, first, last);
  if (as.store !== undefined) await punchStore(as, first, last);
}

/** Nobody reads the range from the store, or writes it, until it is zeros there. */
async function punchStore(as: AddressSpace, first: number, last: number): Promise<void> {
  const store = as.store!;
  const lenBytes = Math.min(last * PAGE_SIZE, as.storeBytes) - first * PAGE_SIZE;
  if (lenBytes <= 0) return;
  const done = new Deferred();
  as.punching = { start: first, end: last, done };
  try {
    await callStore(store, 'fallocate', () => store.punchHole!(first * PAGE_SIZE, lenBytes));
  } finally {
    as.punching = undefined;
    done.resolve();
  }
}

/** Zeroes a part of one page. */
async function zeroPart(host: Host, as: AddressSpace, start: number, end: number): Promise<void> {
  const index = Math.floor(start / PAGE_SIZE);
  if (start >= Math.min(end, as.sizeBytes)) return;
  const pfn = await bring(host, as, index);
  host.pageOps.clear(pfnToPa(pfn) + (start % PAGE_SIZE), end - start);
  as.setDirty(pfn);
  putPage(host, pfn);
}

/** The page, cached and valid, with a reference: whoever awaits this may find that others have run in between. */
async function bring(host: Host, as: AddressSpace, index: number): Promise<number> {
  const want = new PageWant(undefined);
  for (;;) {
    const pfn = tryFilePage(host, as, index, RESERVE);
    if (pfn > 0) {
      getPage(host, pfn);
      return pfn;
    }
    if (pfn === FAULT_HWPOISON) throw damaged('fallocate', as, index);
    await bringFilePage(host, as, index, want);
  }
}
