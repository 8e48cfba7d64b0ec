import { FAULT_RETRY, FAULT_SIGBUS } from '../fault/faultcode.js';
import type { Host } from '../host.js';
import { pfnToPa } from '../layout.js';
import type { Mm } from '../mm.js';
import { PG_DIRTY, PG_LOCKED, PG_SWAPBACKED } from '../page/frames.js';
import { getPage } from '../page/page.js';
import {
  mkPte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_NONE,
  PTE_READ,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  ptePfn,
} from '../pgtable/pte.js';
import { addNewAnonRmap, addRmap } from '../rmap/rmap.js';
import { VM_RAND_READ, VM_SEQ_READ, type Vma } from '../vma/vma.js';
import type { AddressSpace } from './addressspace.js';
import type { File } from './file.js';
import {
  bringFilePage,
  bringFilePageSync,
  PATTERN_AROUND,
  PATTERN_RANDOM,
  PATTERN_SEQUENTIAL,
  PageWant,
  touchReadahead,
  tryFilePage,
} from './filepage.js';

/**
 * Faults on mapped files and shared memory (Linux: filemap_fault, do_cow_fault, do_shared_fault). Ptes become present or gain rights, so no
 * notifier is called (N21).
 *
 * A page of the page cache is mapped for reading alone until somebody writes to it through a shared mapping: then it is dirty, and will be written
 * back. A write through a private mapping gets a copy.
 *
 * Use: `filemapFault` for an absent pte, `filemapMkwrite` for a present one that lacks the right to write; where they say FAULT_RETRY,
 * `filemapWait`, and again.
 */

/** Returns the pfn that is mapped then, FAULT_RETRY, FAULT_SIGBUS beyond the end of the file, or FAULT_HWPOISON. */
export function filemapFault(mm: Mm, vma: Vma, vpn: number, i: number, write: boolean, reserve: number): number {
  const { host } = mm;
  const { mapping: as, ra } = vma.file!;
  const index = vma.pgoffOf(vpn);
  // As in Linux, before anything is in the way: a write that ends in SIGBUS leaves the anonVma behind, and what merges depends on it.
  if (write && !vma.shared) host.anonVmas.prepare(vma);
  if (index >= as.endIndex) return FAULT_SIGBUS;
  const pfn = tryFilePage(host, as, index, reserve);
  if (pfn < 0) return pfn;
  if (write && !vma.shared) return copyFault(mm, vma, vpn, i, pfn, reserve);
  if (write && !makeDirty(host, as, pfn)) return FAULT_RETRY;
  touchReadahead(host, as, index, pfn, ra);
  ra.prevIndex = index;
  ra.hit();
  host.vmstat.pgfault++;
  getPage(host, pfn);
  addRmap(host, vma, pfn);
  mm.pageTable.set(i, mkPte(pfn, PTE_READ | PTE_ACCESSED | (write ? PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY : 0)));
  return pfn;
}

/** The first touch of a private page is a write: the copy is mapped, the page is not. */
function copyFault(mm: Mm, vma: Vma, vpn: number, i: number, pfn: number, reserve: number): number {
  const { host } = mm;
  const copy = host.reclaim.allocFrame(reserve);
  if (copy === 0) return FAULT_RETRY;
  host.pageOps.copy(pfnToPa(copy), pfnToPa(pfn));
  host.frames.flags[copy] = PG_DIRTY | PG_SWAPBACKED;
  host.vmstat.pgfault++;
  addNewAnonRmap(host, vma, vpn, copy);
  mm.pageTable.set(i, mkPte(copy, PTE_READ | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_EXCLUSIVE | PTE_SOFT_DIRTY));
  host.lru.add(copy);
  return copy;
}

/** A write through a shared mapping to a page that is present and may only be read (Linux: do_page_mkwrite). */
export function filemapMkwrite(mm: Mm, vma: Vma, i: number, pte: number): number {
  const pfn = ptePfn(pte);
  if (!makeDirty(mm.host, vma.file!.mapping, pfn)) return FAULT_RETRY;
  mm.host.vmstat.pgfault++;
  mm.pageTable.set(i, pte | PTE_READ | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_SOFT_DIRTY);
  return pfn;
}

/** False when too much is dirty already. */
function makeDirty(host: Host, as: AddressSpace, pfn: number): boolean {
  if ((host.frames.flags[pfn]! & PG_DIRTY) !== 0) return true;
  const { throttle } = host.pageCache;
  if (!as.isShmem && throttle.isOverLimit && !throttle.pass) return false;
  as.setDirty(pfn);
  if (!as.isShmem) throttle.poke();
  return true;
}

/** The state of one fault that waits, as long as it is on the same file. */
export class FileFault {
  readonly file: File;
  readonly want: PageWant;
  /** It has waited for dirty pages to be written, and may make one more now. */
  throttled = false;

  constructor(file: File) {
    this.file = file;
    this.want = new PageWant(file.ra);
  }
}

/**
 * Waits for what is in the way of a fault that said FAULT_RETRY, where that is a read or too many dirty pages; undefined when it is a frame that is
 * missing. Rejects with KernelError EIO and what else the store said, ENOMEM.
 */
export function filemapWait(vma: Vma, vpn: number, write: boolean, fault: FileFault): Promise<void> | undefined {
  const { host } = vma.mm;
  const as = fault.file.mapping;
  const index = vma.pgoffOf(vpn);
  if (vma.mm.pageTable.get(vpn) === PTE_NONE && !isReady(host, as, index)) {
    fault.want.pattern = patternOf(vma);
    return bringFilePage(host, as, index, fault.want);
  }
  if (!write || !vma.shared || as.isShmem) return undefined;
  fault.throttled = true;
  return host.pageCache.throttle.wait();
}

/** As `filemapWait`, blocking; false when it is a frame that is missing. */
export function filemapWaitSync(vma: Vma, vpn: number, write: boolean, fault: FileFault): boolean {
  const { host } = vma.mm;
  const as = fault.file.mapping;
  const index = vma.pgoffOf(vpn);
  if (vma.mm.pageTable.get(vpn) === PTE_NONE && !isReady(host, as, index)) {
    fault.want.pattern = patternOf(vma);
    bringFilePageSync(host, as, index, fault.want);
    return true;
  }
  if (!write || !vma.shared || as.isShmem) return false;
  fault.throttled = true;
  host.pageCache.throttle.waitSync(as);
  return true;
}

function patternOf(vma: Vma): number {
  if ((vma.flags & VM_RAND_READ) !== 0) return PATTERN_RANDOM;
  return (vma.flags & VM_SEQ_READ) !== 0 ? PATTERN_SEQUENTIAL : PATTERN_AROUND;
}

function isReady(host: Host, as: AddressSpace, index: number): boolean {
  const pfn = as.pages.get(index);
  return pfn > 0 && (host.frames.flags[pfn]! & PG_LOCKED) === 0;
}

/** Whether the page behind a file mapping is in memory, mapped or not (Linux: mincore). */
export function filemapIsResident(vma: Vma, vpn: number): boolean {
  return isReady(vma.mm.host, vma.file!.mapping, vma.pgoffOf(vpn));
}

/** Begins to read what lies behind [startVpn, endVpn) of the VMA, as far as there are frames (Linux: MADV_WILLNEED). */
export function filemapWillneed(vma: Vma, startVpn: number, endVpn: number): void {
  const as = vma.file!.mapping;
  const { host } = vma.mm;
  const end = Math.min(vma.pgoffOf(endVpn), as.endIndex);
  if (!as.isShmem) host.pageCache.reads.start(as, vma.pgoffOf(startVpn), end, -1, 0, -1, false);
}
