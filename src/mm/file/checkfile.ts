import { bug } from '../../base/index.js';
import type { Host } from '../host.js';
import { PG_DIRTY, PG_LOCKED, PG_PRIVATE, PG_SWAPBACKED, PG_SWAPCACHE, PG_WRITEBACK } from '../page/frames.js';
import { PTE_WRITE, ptePfn } from '../pgtable/pte.js';
import { isAnon } from '../rmap/rmap.js';
import type { Vma } from '../vma/vma.js';
import type { AddressSpace } from './addressspace.js';
import { valueToSlot } from './shmem.js';
import { XA_MARK_DIRTY, XA_MARK_WRITEBACK } from './xarray.js';

/**
 * The part of the whole-state checker that is the page cache's. N29: every cached page is where its frame says, marks and flags agree, and so
 * do the counts; a swap slot that shared memory names is counted. N23: nothing of the cache is mapped beyond the end of its file. N15: a page of a file
 * that a private mapping shows cannot be written.
 */
export function checkPageCache(host: Host, slotCount: Int32Array): void {
  const { counts } = host.pageCache;
  const found = { nrFilePages: 0, nrShmem: 0, nrDirty: 0, nrWriteback: 0 };
  for (const as of host.pageCache.all()) {
    const nrPages = checkSpace(host, as, slotCount);
    if (as.isShmem) found.nrShmem += nrPages;
    else found.nrFilePages += nrPages;
    found.nrDirty += as.nrDirty;
    found.nrWriteback += as.pages.nrMarked(XA_MARK_WRITEBACK);
    if (counts.dirtySpaces.has(as) !== as.nrDirty > 0)
      bug('N29', `${as.name}: ${as.nrDirty} dirty pages, not listed so`);
  }
  for (const field of ['nrFilePages', 'nrShmem', 'nrDirty', 'nrWriteback'] as const) {
    if (found[field] !== counts[field]) bug('N29', `${field}: ${found[field]} found, ${counts[field]} counted`);
  }
  checkNoStrangers(host);
}

function checkSpace(host: Host, as: AddressSpace, slotCount: Int32Array): number {
  let nrPages = 0;
  const marked = [0, 0];
  for (let index = 0; (index = as.pages.next(index)) >= 0; index++) {
    const value = as.pages.get(index);
    if (value > 0) {
      nrPages++;
      checkCached(host, as, index, value);
      if (as.pages.isMarked(index, XA_MARK_DIRTY)) marked[XA_MARK_DIRTY]!++;
      if (as.pages.isMarked(index, XA_MARK_WRITEBACK)) marked[XA_MARK_WRITEBACK]!++;
    } else if (as.isShmem) slotCount[valueToSlot(value)]!++;
  }
  if (nrPages !== as.nrPages) bug('N29', `${as.name}: ${nrPages} pages cached, ${as.nrPages} counted`);
  for (const mark of [XA_MARK_DIRTY, XA_MARK_WRITEBACK] as const) {
    if (as.pages.nrMarked(mark) !== marked[mark])
      bug('N29', `${as.name}: ${marked[mark]} pages with mark ${mark}, ${as.pages.nrMarked(mark)} counted`);
  }
  return nrPages;
}

function checkCached(host: Host, as: AddressSpace, index: number, pfn: number): void {
  const { frames } = host;
  const flags = frames.flags[pfn]!;
  const where = `${as.name}: page ${index}, frame ${pfn}`;
  if (frames.mapping[pfn] !== -as.id || frames.index[pfn] !== index)
    bug('N29', `${where}: the frame says ${frames.mapping[pfn]}, ${frames.index[pfn]}`);
  if (index >= as.endIndex) bug('N23', `${where} is beyond the end`);
  if (((flags & PG_SWAPBACKED) !== 0) !== as.isShmem) bug('N29', `${where} is swapped and has a store, or neither`);
  if ((flags & PG_SWAPCACHE) !== 0 && (!as.isShmem || (flags & PG_PRIVATE) !== 0))
    bug('N22', `${where}: private is claimed by swap cache and store`);
  if (as.isShmem) return;
  if (((flags & PG_DIRTY) !== 0) !== as.pages.isMarked(index, XA_MARK_DIRTY))
    bug('N29', `${where}: dirty, marked not so`);
  if (((flags & PG_WRITEBACK) !== 0) !== as.pages.isMarked(index, XA_MARK_WRITEBACK))
    bug('N29', `${where}: under write-back, marked not so`);
  if ((flags & PG_LOCKED) !== 0 && (flags & PG_DIRTY) !== 0) bug('N29', `${where} is dirty while it is read`);
}

/** Frames that say that they are cached are. */
function checkNoStrangers(host: Host): void {
  const { frames, pageCache } = host;
  for (let pfn = frames.firstPfn; pfn < frames.endPfn; pfn++) {
    if (frames.mapping[pfn]! < 0 && pageCache.ofFrame(pfn).pages.get(frames.index[pfn]!) !== pfn)
      bug('N29', `frame ${pfn} says that it is cached, and is not`);
  }
}

/** A present pte of a VMA with a file: the page of the file at its place, or in a private mapping a copy. */
export function checkFilePte(vma: Vma, vpn: number, pte: number): void {
  const { host, name } = vma.mm;
  const as = vma.file!.mapping;
  const pfn = ptePfn(pte);
  const where = `${name}: page 0x${vpn.toString(16)}, frame ${pfn}`;
  if (vma.pgoffOf(vpn) >= as.endIndex) bug('N23', `${where} is mapped beyond the end of ${as.name}`);
  if (isAnon(host, pfn)) {
    if (vma.shared) bug('N29', `${where} is a copy in a shared mapping`);
    return;
  }
  if (as.pages.get(vma.pgoffOf(vpn)) !== pfn) bug('N29', `${where} is not page ${vma.pgoffOf(vpn)} of ${as.name}`);
  if (!vma.shared && (pte & PTE_WRITE) !== 0) bug('N15', `${where} of ${as.name} may be written by a private mapping`);
}

/** A VMA is found by the pages of its file that it maps, and by no others. */
export function checkFileVma(vma: Vma): void {
  const as = vma.file!.mapping;
  const end = vma.pgoff + vma.nrPages;
  for (const index of [vma.pgoff - 1, vma.pgoff, end - 1, end]) {
    const maps = index >= vma.pgoff && index < end;
    if (as.visit(index, (other) => other === vma) !== maps)
      bug('N29', `${vma.mm.name}: a VMA is among the mappings of page ${index} of ${as.name}, or is not, wrongly`);
  }
}
