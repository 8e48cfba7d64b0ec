import { KernelError } from '../base/index.js';
import { FAULT_FLAG_WRITE, FAULT_RETRY, MADV_WILLNEED, type Mm, PAGE_SIZE } from '../mm/index.js';
import type { Mr } from './mr.js';
import { FAILED_FAULT, FAILED_MEMORY } from './nic/access.js';
import { CHILD_PAGES } from './nic/regiontable.js';
import type { OdpTable } from './odptable.js';

/**
 * The network's page faults on the mm thread: what the NIC could not resolve from shared tables (nicmemory.ts). As hva_to_pfn for a vCPU: seq, the page with whatever waiting that
 * takes, and under the region's lock an entry, unless a bracket came between.
 *
 * A region that is deregistered meanwhile is no error here (M41): the answer is 0, the NIC looks again, and what it finds then is true.
 */

export interface FaultCounts {
  minorFaults: number;
  majorFaults: number;
  retries: number;
}

/**
 * Where page `page` of the region is kept, and which page of that it is; undefined: the region is gone, or another by now (reregMr), with fewer pages. May throw as
 * `ImplicitRegion.childOf`.
 */
interface Place {
  readonly table: OdpTable;
  readonly page: number;
}

function placeOf(mr: Mr, page: number): Place | undefined {
  if (!mr.isLive || page >= mr.nrPages) return undefined;
  if (mr.implicit === undefined) return { table: mr.table!, page };
  return { table: mr.implicit.childOf(page), page: page & (CHILD_PAGES - 1) };
}

/** As `placeOf`; undefined too where nothing is to be installed. Throws KernelError EFAULT (exited), EIO (poisoned), and as `placeOf`. */
function livePlaceOf(mr: Mr, page: number): Place | undefined {
  if (mr.isLive && mr.mm.exited) throw new KernelError('EFAULT', 'fault', `${mr.mm.name} has exited`);
  const place = placeOf(mr, page);
  if (place === undefined || mr.pinned !== undefined) return undefined;
  const { poisoned } = place.table.sub;
  if (poisoned !== undefined) throw new KernelError('EIO', 'fault', poisoned);
  return place;
}

/** A page that a NIC is about to copy, with a reference. */
export interface HeldPage {
  readonly mm: Mm;
  readonly pfn: number;
}

/** Pages that come without that anybody waits for them: [page, end), of which `page` is the first that is not there yet. */
export interface Window {
  readonly mr: Mr;
  page: number;
  readonly end: number;
  readonly write: boolean;
}

/** Why a page cannot be had: a FAILED_ code for the NIC, and the mm's own error for people. */
export interface Failure {
  readonly code: number;
  readonly error: KernelError;
}

/**
 * Waits until page `page` is in the region's table, with the right; or tells why it cannot be had. Pages behind it, `nrPages` in all, as far as they can be had without waiting; their
 * I/O is under way then. `hold`: takes over a reference of the page (N26).
 */
export async function serveFault(
  mr: Mr,
  page: number,
  nrPages: number,
  write: boolean,
  counts: FaultCounts,
  turn: () => Promise<void>,
  hold?: (held: HeldPage) => void,
): Promise<Failure | undefined> {
  let major = false;
  for (;;) {
    let result: number;
    try {
      result = tryInstall(mr, page, write, hold);
      if (result === DONE) break;
      if (result !== STALE) {
        major ||= result === FAULT_RETRY;
        if (result === FAULT_RETRY && !mr.mm.isSwappingIn(mr.vaOf(page))) startReadAhead(mr, page, nrPages);
        // Waits for the page, or says what is wrong with it.
        await mr.mm.faultIn(mr.vaOf(page), write ? FAULT_FLAG_WRITE : 0);
        continue;
      }
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (error.code !== 'EBUSY') return mr.isLive ? failureOf(error) : undefined;
    }
    counts.retries++;
    await turn();
  }
  if (major) counts.majorFaults++;
  else counts.minorFaults++;
  installBehind(mr, page + 1, nrPages - 1, write);
  return undefined;
}

/** Brings a window in, in order, as its pages come from the device. Ends at a page that cannot be had, or not without driving others out: its fault will tell. */
export async function readAhead(window: Window): Promise<void> {
  const { mr, end, write } = window;
  startReadAhead(mr, window.page, end - window.page);
  try {
    while (mr.isLive && window.page < end) {
      if (isThere(mr, window.page, write)) window.page++;
      else {
        let got = tryInstallRun(mr, window.page, end - window.page, write);
        if (got === FAULT_RETRY && (await mayCome(mr, window.page, write)))
          got = tryInstallRun(mr, window.page, end - window.page, write);
        if (got < 0) return;
        window.page += got;
      }
    }
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
  }
}

/** Waits for the page, if no other has to go for it. */
async function mayCome(mr: Mr, page: number, write: boolean): Promise<boolean> {
  const { mm } = mr;
  const { frames, reclaim } = mm.host;
  if (!mm.isSwappingIn(mr.vaOf(page)) && frames.nrFree <= reclaim.low) return false;
  await mm.faultIn(mr.vaOf(page), write ? FAULT_FLAG_WRITE : 0);
  return true;
}

/** A bracket came between. */
const STALE = -100;
/** Installed, or the region is gone. */
const DONE = 0;

/** One attempt that waits for nothing: DONE, STALE, or a FAULT_ code below 0. Throws as `placeOf`. */
function tryInstall(mr: Mr, page: number, write: boolean, hold?: (held: HeldPage) => void): number {
  const { mm } = mr;
  const place = livePlaceOf(mr, page);
  if (place === undefined) return DONE;
  const va = mr.vaOf(page);
  const seq = place.table.region.seq.readBegin();
  const pfn = mm.tryGetPage(va, write ? FAULT_FLAG_WRITE : 0);
  if (pfn < 0) return pfn;
  const result = install(place, seq, va, pfn, write);
  if (result === DONE && hold !== undefined) hold({ mm, pfn });
  else mm.putPage(pfn);
  return result;
}

function install({ table, page }: Place, seq: number, va: number, pfn: number, write: boolean): number {
  const { region } = table;
  region.lock();
  const stale = region.seq.readRetry(seq, va);
  if (!stale) region.installLocked(page, pfn, write);
  region.unlock();
  return stale ? STALE : DONE;
}

/** Pages of one attempt, at most. */
const RUN_PAGES = 256;
/** By the mm thread alone, which waits for nothing while it uses it. */
const runPfns = new Int32Array(RUN_PAGES);

/**
 * One attempt for pages [page, page + nrPages), as far as they are there from the first on, under one lock: how many are installed (or need not be, for the region is gone); or STALE, or a
 * FAULT_ code of the first. Throws as `placeOf`.
 */
function tryInstallRun(mr: Mr, page: number, nrPages: number, write: boolean): number {
  const place = livePlaceOf(mr, page);
  if (place === undefined) return nrPages;
  const { region } = place.table;
  const wanted = Math.min(nrPages, RUN_PAGES, region.nrPages() - place.page);
  const seq = region.seq.readBegin();
  const nr = mr.mm.tryGetPages(mr.vaOf(page), wanted, write ? FAULT_FLAG_WRITE : 0, runPfns);
  if (nr < 0) return nr;
  region.lock();
  const stale = region.seq.readRetry(seq);
  if (!stale) region.installRunLocked(place.page, runPfns, nr, write);
  region.unlock();
  for (let k = 0; k < nr; k++) mr.mm.putPage(runPfns[k]!);
  return stale ? STALE : nr;
}

/** What lies behind the page and is wanted soon: its I/O begins now, and nobody waits for it here. */
function startReadAhead(mr: Mr, page: number, nrPages: number): void {
  const nr = windowOf(mr, page, nrPages);
  if (nr <= 1) return;
  try {
    mr.mm.madvise(mr.vaOf(page), nr * PAGE_SIZE, MADV_WILLNEED);
  } catch {
    // A hole in it, or a killed mm: the fault itself will tell.
  }
}

/** Not beyond the region, nor so many that they would drive each other out. */
export function windowOf(mr: Mr, page: number, nrPages: number): number {
  return Math.min(nrPages, mr.nrPages - page, mr.mm.host.frames.nrFrames >>> 4);
}

/** Pages [page, page + nrPages) that are there by now, up to the first that is not. Returns how many. */
export function installBehind(mr: Mr, page: number, nrPages: number, write: boolean): number {
  const nr = Math.max(windowOf(mr, page, nrPages), 0);
  for (let k = 0; k < nr; ) {
    try {
      const got = isThere(mr, page + k, write) ? 1 : tryInstallRun(mr, page + k, nr - k, write);
      if (got < 0) return k;
      k += got;
    } catch {
      return k;
    }
  }
  return nr;
}

/** Whether the region's table has the page, with the right. */
export function isThere(mr: Mr, page: number, write: boolean): boolean {
  if (!mr.isLive || mr.pinned !== undefined || page >= mr.nrPages) return true;
  if (mr.implicit === undefined) return mr.table!.region.hasEntry(page, write);
  return mr.implicit.knownChild(page)?.region.hasEntry(page & (CHILD_PAGES - 1), write) ?? false;
}

/** Page `page` if it can be had without a fault: it is mapped with the right (IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT). */
export function installPresent(mr: Mr, page: number): boolean {
  if (!isPresent(mr.mm, mr.vaOf(page) / PAGE_SIZE)) return false;
  try {
    return tryInstall(mr, page, false) === DONE;
  } catch {
    return false;
  }
}

function isPresent(mm: Mm, vpn: number): boolean {
  let present = false;
  mm.forEachPresent(vpn, vpn + 1, () => (present = true));
  return present;
}

function failureOf(error: KernelError): Failure {
  return { code: error.code === 'EFAULT' ? FAILED_FAULT : FAILED_MEMORY, error };
}
