import { KernelError } from '../../base/index.js';
import { FAULT_HWPOISON } from '../fault/faultcode.js';
import type { Host } from '../host.js';
import { PAGE_SIZE, pfnToPa } from '../layout.js';
import { type AddressSpace, MAX_FILE_BYTES } from './addressspace.js';
import type { File } from './file.js';
import {
  bringFilePage,
  damaged,
  newFilePage,
  noFrame,
  PageWant,
  RESERVE,
  touchReadahead,
  tryFilePage,
} from './filepage.js';
import { extendTo } from './truncate.js';

/**
 * Reading and writing a file by call (Linux: generic_file_read_iter, generic_perform_write): page by page through the page cache. What has been moved
 * before an error stands, and is what the call returns; an error at once is the call's.
 */

/** As `File.read`. */
export async function readFile(file: File, dst: Uint8Array, position: number): Promise<number> {
  const as = file.mapping;
  const want = new PageWant(file.ra);
  let at = 0;
  while (at < dst.length && position + at < as.sizeBytes) {
    want.nrPages = Math.ceil((position + dst.length) / PAGE_SIZE) - Math.floor((position + at) / PAGE_SIZE);
    const moved = readPage(file, dst, at, position + at);
    at += Math.max(moved, 0);
    if (moved > 0) want.alone = false;
    if (moved > 0) continue;
    try {
      if (moved === FAULT_HWPOISON) throw damaged('read', as, Math.floor((position + at) / PAGE_SIZE));
      await bringFilePage(file.host, as, Math.floor((position + at) / PAGE_SIZE), want);
    } catch (error) {
      if (at === 0) throw error;
      return at;
    }
  }
  return at;
}

/** Moves what lies in the page of `position`; or FAULT_RETRY, FAULT_HWPOISON. */
function readPage(file: File, dst: Uint8Array, at: number, position: number): number {
  const { host, mapping: as, ra } = file;
  const index = Math.floor(position / PAGE_SIZE);
  const pfn = tryFilePage(host, as, index, RESERVE);
  if (pfn < 0) return pfn;
  touchReadahead(host, as, index, pfn, ra);
  host.pageCache.markAccessed(pfn);
  ra.prevIndex = index;
  const offset = position % PAGE_SIZE;
  const lenBytes = Math.min(dst.length - at, PAGE_SIZE - offset, as.sizeBytes - position);
  const pa = pfnToPa(pfn) + offset;
  dst.set(host.u8.subarray(pa, pa + lenBytes), at);
  return lenBytes;
}

/** As `File.write`; the inode's lock is held. */
export async function writeFile(file: File, src: Uint8Array, position: number): Promise<number> {
  const { host, mapping: as } = file;
  if (src.length > 0 && position >= MAX_FILE_BYTES)
    throw new KernelError('EFBIG', 'write', `position ${position} must be below ${MAX_FILE_BYTES}`);
  const length = Math.min(src.length, MAX_FILE_BYTES - position);
  const want = new PageWant(undefined);
  let at = 0;
  while (at < length) {
    const moved = writePage(host, as, src, at, length, position + at);
    if (moved > 0) want.alone = false;
    at += Math.max(moved, 0);
    try {
      if (moved < 0) await bringForWrite(host, as, moved, position + at, length - at, want);
      else if (!as.isShmem && host.pageCache.throttle.isOverLimit) await host.pageCache.throttle.wait();
    } catch (error) {
      if (at === 0) throw error;
      return at;
    }
  }
  return at;
}

/** Moves what goes to the page of `position`, which is dirty then, out of `src` from `at` to `end`; or FAULT_RETRY, FAULT_HWPOISON. */
function writePage(host: Host, as: AddressSpace, src: Uint8Array, at: number, end: number, position: number): number {
  const index = Math.floor(position / PAGE_SIZE);
  const offset = position % PAGE_SIZE;
  const lenBytes = Math.min(end - at, PAGE_SIZE - offset);
  const pfn = isOverwrite(as, index, position, end - at)
    ? newFilePage(host, as, index, RESERVE)
    : tryFilePage(host, as, index, RESERVE);
  if (pfn < 0) return pfn;
  if (position + lenBytes > as.sizeBytes) extendTo(host, as, position + lenBytes);
  host.u8.set(src.subarray(at, at + lenBytes), pfnToPa(pfn) + offset);
  as.setDirty(pfn);
  host.pageCache.markAccessed(pfn);
  if (!as.isShmem) host.pageCache.throttle.poke();
  return lenBytes;
}

/** The page is absent and need not be read: all that it has is written, or it lies beyond the end. */
function isOverwrite(as: AddressSpace, index: number, position: number, lenBytes: number): boolean {
  if (as.pages.get(index) > 0 || as.isShmem || as.isPunching(index)) return false;
  const covers = lenBytes >= PAGE_SIZE || position + lenBytes >= as.sizeBytes;
  return index >= as.endIndex || (position % PAGE_SIZE === 0 && covers);
}

async function bringForWrite(
  host: Host,
  as: AddressSpace,
  result: number,
  position: number,
  lenBytes: number,
  want: PageWant,
): Promise<void> {
  const index = Math.floor(position / PAGE_SIZE);
  if (result === FAULT_HWPOISON) throw damaged('write', as, index);
  if (!isOverwrite(as, index, position, lenBytes)) await bringFilePage(host, as, index, want);
  else if (!(await host.reclaim.directReclaim(RESERVE))) throw noFrame('write', as, index);
}
