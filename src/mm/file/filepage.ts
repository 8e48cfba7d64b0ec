import { KernelError } from '../../base/index.js';
import { FAULT_RETRY } from '../fault/faultcode.js';
import type { Host } from '../host.js';
import { PAGE_SIZE, pfnToPa } from '../layout.js';
import { PG_LOCKED, PG_READAHEAD } from '../page/frames.js';
import { putPage } from '../page/page.js';
import type { AddressSpace } from './addressspace.js';
import { READ_TRY_ALONE } from './filereads.js';
import type { FileRa } from './readahead.js';
import { shmemPage, valueToSlot } from './shmem.js';

/**
 * Getting a page of an address space, for faults and for reads and writes by call alike: `tryFilePage` as far as it needs no waiting; where
 * that says FAULT_RETRY, `bringFilePage` waits once, and everything is looked up again.
 */

/** Frames that only swap-ins may take. */
export const RESERVE = 2;

/** How a reader goes through the file: in sequence, as far as his window says; or by faults, with or without what is around the page. */
export const PATTERN_SEQUENTIAL = 0;
export const PATTERN_AROUND = 1;
export const PATTERN_RANDOM = 2;

/** What one who wants a page knows from one turn to the next. */
export class PageWant {
  /** The window of the opener; none reads the page alone. */
  readonly ra: FileRa | undefined;
  /** Pages that are wanted from here on. */
  nrPages = 1;
  pattern = PATTERN_SEQUENTIAL;
  /** A read together with others failed: the next one is of this page alone. */
  alone = false;
  /** It came to a read. */
  major = false;

  constructor(ra: FileRa | undefined) {
    this.ra = ra;
  }
}

/** The cached page, valid, without a reference; or FAULT_RETRY, FAULT_HWPOISON. The index is within the file. */
export function tryFilePage(host: Host, as: AddressSpace, index: number, reserve: number): number {
  const value = as.pages.get(index);
  if (value > 0) return (host.frames.flags[value]! & PG_LOCKED) !== 0 ? FAULT_RETRY : value;
  if (as.isShmem) return shmemPage(host, as, index, value, reserve);
  if (index * PAGE_SIZE < as.storeBytes || as.isPunching(index)) return FAULT_RETRY;
  return newFilePage(host, as, index, reserve);
}

/** A page of zeros, clean: the store has nothing there, or what it has is not wanted. */
export function newFilePage(host: Host, as: AddressSpace, index: number, reserve: number): number {
  const pfn = host.reclaim.allocFrame(reserve);
  if (pfn === 0) return FAULT_RETRY;
  host.pageOps.zero(pfnToPa(pfn));
  host.pageCache.add(as, index, pfn, true);
  putPage(host, pfn);
  host.lru.add(pfn);
  return pfn;
}

/** Rejects with KernelError EIO and what else the store said, ENOMEM. */
export async function bringFilePage(host: Host, as: AddressSpace, index: number, want: PageWant): Promise<void> {
  const value = as.pages.get(index);
  if (value > 0 && (host.frames.flags[value]! & PG_LOCKED) !== 0) {
    want.major = true;
    want.alone = (await host.pageCache.reads.wait(as, value)) === READ_TRY_ALONE;
    return;
  }
  if (value > 0) return;
  if (as.isPunching(index)) return as.punching!.done.promise;
  if (value < 0 && as.isShmem) {
    const reading = host.swapIn.start(valueToSlot(value));
    if (reading !== undefined) return reading;
  } else if (isInStore(as, index) && startRead(host, as, index, want)) return;
  if (!(await host.reclaim.directReclaim(reserveFor(as, value)))) throw noFrame('read', as, index);
}

/** As `bringFilePage`, blocking. */
export function bringFilePageSync(host: Host, as: AddressSpace, index: number, want: PageWant): void {
  const value = as.pages.get(index);
  if (as.isPunching(index)) throw new KernelError('EAGAIN', 'read', `a hole is being punched into ${as.name}`);
  if (value < 0 && as.isShmem) {
    if (host.swapIn.readSync(valueToSlot(value))) return;
  } else if (isInStore(as, index)) {
    if (as.store!.readSync === undefined)
      throw new KernelError('EOPNOTSUPP', 'read', `store ${as.name} cannot block; use the calls that wait`);
    want.major = true;
    if (want.ra !== undefined) want.ra.blocking = true;
    window(as, index, want);
    const { start, end, marker } = want.ra ?? { start: index, end: index + 1, marker: -1 };
    if (host.pageCache.reads.startSync(as, start, Math.min(end, as.endIndex), index, RESERVE, marker)) return;
  }
  if (!host.reclaim.directReclaimSync(reserveFor(as, value))) throw noFrame('read', as, index);
}

/** Below 0 is, in shared memory, a swap slot. */
function reserveFor(as: AddressSpace, value: number): number {
  return as.isShmem && value < 0 ? 0 : RESERVE;
}

function isInStore(as: AddressSpace, index: number): boolean {
  return !as.isShmem && index * PAGE_SIZE < as.storeBytes;
}

function startRead(host: Host, as: AddressSpace, index: number, want: PageWant): boolean {
  want.major = true;
  window(as, index, want);
  const { start, end, marker } = want.ra ?? { start: index, end: index + 1, marker: -1 };
  return host.pageCache.reads.start(as, start, Math.min(end, as.endIndex), index, RESERVE, marker, false);
}

function window(as: AddressSpace, index: number, want: PageWant): void {
  const { ra, pattern } = want;
  if (ra === undefined) return;
  if (want.alone || pattern === PATTERN_RANDOM || ra.raPages === 0) ra.exactly(index, 1);
  else if (pattern === PATTERN_SEQUENTIAL) ra.onMiss(as, index, want.nrPages);
  else if (ra.missed()) ra.exactly(index, 1);
  else ra.around(index);
}

/** The page was used: the mark on it says that the next window is due. */
export function touchReadahead(host: Host, as: AddressSpace, index: number, pfn: number, ra: FileRa): void {
  const { flags } = host.frames;
  if ((flags[pfn]! & PG_READAHEAD) === 0 || ra.blocking) return;
  flags[pfn] = flags[pfn]! & ~PG_READAHEAD;
  if (ra.random || ra.raPages === 0) return;
  ra.onMark(as, index);
  host.pageCache.reads.start(as, ra.start, Math.min(ra.end, as.endIndex), -1, RESERVE, ra.marker, false);
}

export function noFrame(syscall: string, as: AddressSpace, index: number): KernelError {
  return new KernelError('ENOMEM', syscall, `no frame for page ${index} of ${as.name}, and nothing can be reclaimed`);
}

/** A page of shared memory whose swap slot does not hold what was written to it. */
export function damaged(syscall: string, as: AddressSpace, index: number): KernelError {
  return new KernelError(
    'EHWPOISON',
    syscall,
    `page ${index} of ${as.name} was damaged in swap; its contents are lost`,
  );
}
