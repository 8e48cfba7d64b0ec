import type { ErrnoName } from '../../base/index.js';
import { checkPageAligned, hex, refuse, unsignedLong } from '../args.js';
import { createShmemFile, type File } from '../file/file.js';
import { bytesToPages, MMAP_MIN_ADDR, NR_VPNS, PAGE_SIZE, VA_SIZE, vaToVpn, vpnToVa } from '../layout.js';
import type { Mm } from '../mm.js';
import {
  mmuNotifierCloseAreas,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
  mmuNotifierRangeAdd,
  mmuNotifierRangeInit,
} from '../notifier/hooks.js';
import { MMU_NOTIFY_UNMAP } from '../notifier/range.js';
import { checkCanMlock, checkMlockLimits } from './mlocklimit.js';
import { checkExpandVm } from './rlimit.js';
import { zapPages } from './unmap.js';
import {
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
  VM_ACCOUNT,
  VM_LOCKED,
  VM_MAYSHARE,
  VM_NORESERVE,
  VM_SHARED,
  Vma,
} from './vma.js';
import { checkFileRange, checkFileRights, checkOffset, vmaClearFile, vmaRelinkFile, vmaSetFile } from './vmafile.js';
import { isDataMapping } from './vmcounters.js';

/**
 * The VMAs of an mm come and go (Linux: mmap.c): map, unmap, split, merge. All of it runs with mmapLock held for write.
 * Splitting and merging change no pte and call no notifier (N21).
 */

export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_FIXED_NOREPLACE = 0x100000;

/** Its pages are in memory, or on their way, when mmap returns. */
export const MAP_LOCKED = 0x2000;
export const MAP_NORESERVE = 0x4000;
/** Its pages are there when mmap returns, as far as that needs no waiting; `mm.populate` waits. */
export const MAP_POPULATE = 0x8000;
/** With MAP_POPULATE: nothing is populated. */
export const MAP_NONBLOCK = 0x1_0000;
/** As MAP_SHARED, and flags that are not known are refused. */
export const MAP_SHARED_VALIDATE = 0x03;
const MAP_TYPE = 0x0f;
const MAP_GROWSDOWN = 0x100;
const MAP_HUGETLB = 0x4_0000;
const MAP_EXECUTABLE = 0x1000;
const MAP_DENYWRITE = 0x800;
const MAP_STACK = 0x2_0000;
const LEGACY_MAP_MASK =
  MAP_SHARED_VALIDATE |
  MAP_FIXED |
  MAP_ANONYMOUS |
  MAP_DENYWRITE |
  MAP_EXECUTABLE |
  MAP_GROWSDOWN |
  MAP_LOCKED |
  MAP_NORESERVE |
  MAP_POPULATE |
  MAP_NONBLOCK |
  MAP_STACK |
  MAP_HUGETLB;

/** Where the search for a free range starts. */
const MMAP_BASE_VPN = vaToVpn(0x1000_0000);
/** Linux: vm.max_map_count. */
export const MAX_MAP_COUNT = 65530;

const PROT_MASK = PROT_READ | PROT_WRITE | PROT_EXEC;

/** Returns the address. Arguments are looked at in Linux's order; bits of `prot` and `flags` that mean nothing are ignored as there. */
export function mmap(
  mm: Mm,
  addr: number,
  length: number,
  prot: number,
  flags: number,
  file: File | undefined,
  offset: number,
): number {
  if ((flags & MAP_ANONYMOUS) !== 0) file = undefined;
  const nrPages = checkMmap(mm, addr, length, prot, flags, file, offset);
  const startVpn = placeFor(mm, addr, nrPages, flags);
  const vmFlags = vmFlagsOf(mm, prot, flags, file);
  checkLockable(mm, nrPages, flags, vmFlags);
  checkType(flags, prot, file);
  const endVpn = startVpn + nrPages;
  checkSplit(mm, 'mmap', startVpn, endVpn);
  // As in Linux, what is to be mapped over stays split if there is no room.
  splitAt(mm, startVpn);
  splitAt(mm, endVpn);
  checkRoom(mm, startVpn, endVpn, prot, vmFlags);
  unmapLocked(mm, startVpn, endVpn);
  const vma = new Vma(mm, startVpn, endVpn, prot & PROT_MASK, vmFlags, startVpn);
  mapFile(vma, file, offset);
  mm.vmas.insert(vma);
  mergeAround(mm, startVpn);
  return vpnToVa(startVpn);
}

function checkMmap(
  mm: Mm,
  addr: number,
  length: number,
  prot: number,
  flags: number,
  file: File | undefined,
  offset: number,
): number {
  for (const [name, value] of [
    ['addr', addr],
    ['prot', prot],
    ['flags', flags],
  ] as const)
    unsignedLong('mmap', name, value);
  const len = unsignedLong('mmap', 'length', length);
  checkOffset(offset);
  if ((flags & MAP_ANONYMOUS) === 0) checkOpen(file, flags);
  if ((flags & MAP_HUGETLB) !== 0) refuse('ENOMEM', 'mmap', 'MAP_HUGETLB must not be set: there are no huge pages');
  if (len === 0) refuse('EINVAL', 'mmap', 'length 0 must be at least 1');
  if (len > VA_SIZE) refuse('ENOMEM', 'mmap', `length ${length} must be at most 2^39`);
  if (file !== undefined) checkFileRange(file, offset, bytesToPages(len));
  if (mm.vmas.length > MAX_MAP_COUNT) refuse('ENOMEM', 'mmap', `an mm has at most ${MAX_MAP_COUNT} mappings`);
  return bytesToPages(len);
}

function checkOpen(file: File | undefined, flags: number): void {
  if (file === undefined)
    refuse('EBADF', 'mmap', `flags ${hex(flags)} must have MAP_ANONYMOUS, or a file must be given`);
  if (file.closed) refuse('EBADF', 'mmap', `${file.name} must be open`);
  if ((flags & MAP_HUGETLB) !== 0) refuse('EINVAL', 'mmap', 'MAP_HUGETLB must not be set: there are no huge pages');
}

/** The VMA is not in its mm's set yet. */
function mapFile(vma: Vma, file: File | undefined, offset: number): void {
  if (file === undefined && !vma.shared) return;
  const backing = file ?? createShmemFile(vma.mm.host, 'shared memory', vma.end - vma.start);
  vma.pgoff = file === undefined ? 0 : offset / PAGE_SIZE;
  vmaSetFile(vma, backing);
  if (file === undefined) backing.close();
}

export function placeFor(mm: Mm, addr: number, nrPages: number, flags: number): number {
  if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0) return fixedPlace(mm, addr, nrPages, flags);
  const hint = addr < 0 ? NR_VPNS : Math.max(vaToVpn(addr), MMAP_MIN_ADDR / PAGE_SIZE);
  if (vaToVpn(addr) !== 0 && hint + nrPages <= NR_VPNS && !mm.vmas.intersects(hint, hint + nrPages)) return hint;
  let vpn = mm.vmas.findHole(nrPages, MMAP_BASE_VPN, NR_VPNS);
  if (vpn < 0) vpn = mm.vmas.findHole(nrPages, MMAP_MIN_ADDR / PAGE_SIZE, NR_VPNS);
  if (vpn < 0) refuse('ENOMEM', 'mmap', `no ${nrPages} free pages in a row in the address space of ${mm.name}`);
  return vpn;
}

export function fixedPlace(mm: Mm, addr: number, nrPages: number, flags: number): number {
  if (addr < 0 || addr > VA_SIZE - nrPages * PAGE_SIZE)
    refuse('ENOMEM', 'mmap', `addr ${hex(addr)} with ${nrPages} pages must end below 2^39`);
  checkPageAligned('mmap', addr);
  if (addr < MMAP_MIN_ADDR) refuse('EPERM', 'mmap', `addr ${hex(addr)} must be at least ${hex(MMAP_MIN_ADDR)}`);
  const vpn = vaToVpn(addr);
  if ((flags & MAP_FIXED_NOREPLACE) !== 0 && mm.vmas.intersects(vpn, vpn + nrPages)) {
    refuse('EEXIST', 'mmap', `something is mapped in [${hex(addr)}, +${nrPages} pages) already`);
  }
  return vpn;
}

function vmFlagsOf(mm: Mm, prot: number, flags: number, file: File | undefined): number {
  let vmFlags = mm.defFlags | sharedFlags(flags, file);
  if ((flags & MAP_LOCKED) !== 0) vmFlags |= VM_LOCKED;
  const { policy } = mm.host.overcommit;
  if ((flags & MAP_NORESERVE) !== 0 && policy !== 'never') vmFlags |= VM_NORESERVE;
  if ((vmFlags & VM_NORESERVE) === 0 && isDataMapping(prot, vmFlags)) vmFlags |= VM_ACCOUNT;
  return vmFlags;
}

/** Unlike mlock, mmap says EAGAIN where RLIMIT_MEMLOCK is in the way. */
function checkLockable(mm: Mm, nrPages: number, flags: number, vmFlags: number): void {
  if ((flags & MAP_LOCKED) !== 0) checkCanMlock(mm, 'mmap');
  if ((vmFlags & VM_LOCKED) !== 0) checkMlockLimits(mm, 'mmap', nrPages, 'EAGAIN');
}

/** As Linux: what nobody may ever write through a mapping is handled as a private one. */
function sharedFlags(flags: number, file: File | undefined): number {
  if ((flags & MAP_SHARED) === 0) return 0;
  return file === undefined || file.writable ? VM_SHARED | VM_MAYSHARE : VM_MAYSHARE;
}

function checkType(flags: number, prot: number, file: File | undefined): void {
  const type = flags & MAP_TYPE;
  if (type !== MAP_PRIVATE && type !== MAP_SHARED && !(type === MAP_SHARED_VALIDATE && file !== undefined))
    refuse('EINVAL', 'mmap', `flags ${hex(flags)} must have MAP_PRIVATE or MAP_SHARED`);
  if ((flags & MAP_GROWSDOWN) !== 0)
    refuse('EOPNOTSUPP', 'mmap', `flags ${hex(flags)} must not have MAP_GROWSDOWN: that is not built`);
  if (type === MAP_SHARED_VALIDATE && (flags & ~LEGACY_MAP_MASK) !== 0)
    refuse('EOPNOTSUPP', 'mmap', `flags ${hex(flags)} must all be known, with MAP_SHARED_VALIDATE`);
  if (file !== undefined) checkFileRights(file, prot, type !== MAP_PRIVATE);
}

/** RLIMIT_AS, RLIMIT_DATA and the commit limit: what is mapped over counts less. */
function checkRoom(mm: Mm, startVpn: number, endVpn: number, prot: number, vmFlags: number): void {
  let nrOld = 0;
  let nrOldCharged = 0;
  eachVma(mm, startVpn, endVpn, (vma, from, to) => {
    nrOld += to - from;
    if ((vma.flags & VM_ACCOUNT) !== 0) nrOldCharged += to - from;
  });
  checkExpandVm(mm, 'mmap', prot, vmFlags, endVpn - startVpn - nrOld);
  if ((vmFlags & VM_ACCOUNT) !== 0) mm.host.overcommit.check('mmap', endVpn - startVpn - nrOldCharged);
}

/** Unmaps every page in [addr, addr + length). */
export function munmap(mm: Mm, addr: number, length: number): void {
  const start = unsignedLong('munmap', 'addr', addr);
  const len = unsignedLong('munmap', 'length', length);
  checkPageAligned('munmap', addr);
  if (len === 0) refuse('EINVAL', 'munmap', 'length 0 must be at least 1');
  if (start > VA_SIZE || len > VA_SIZE - start)
    refuse('EINVAL', 'munmap', `length ${length} at ${hex(addr)} must end below 2^39`);
  const startVpn = vaToVpn(start);
  const endVpn = startVpn + bytesToPages(len);
  checkSplit(mm, 'munmap', startVpn, endVpn);
  unmapLocked(mm, startVpn, endVpn);
}

/** Changing a part of `vma` splits it, which makes one more, or two. */
export function checkMapCount(syscall: string, vma: Vma, startVpn: number, endVpn: number, code: ErrnoName): void {
  const splits = vma.startVpn < startVpn || vma.endVpn > endVpn;
  if (splits && vma.mm.vmas.length >= MAX_MAP_COUNT)
    refuse(code, syscall, `an mm has at most ${MAX_MAP_COUNT} mappings`);
}

/** A hole in the middle of a VMA makes one more. */
function checkSplit(mm: Mm, syscall: string, startVpn: number, endVpn: number): void {
  const vma = mm.vmas.find(startVpn);
  if (vma === undefined || vma.startVpn === startVpn || vma.endVpn <= endVpn) return;
  if (mm.vmas.length >= MAX_MAP_COUNT) refuse('ENOMEM', syscall, `an mm has at most ${MAX_MAP_COUNT} mappings`);
}

/**
 * Unmaps [startVpn, endVpn): VMAs that reach over its edges are split. One bracket over all of it; areas of which
 * nothing is left are closed inside it, and frames are freed after it.
 */
export function unmapLocked(mm: Mm, startVpn: number, endVpn: number): void {
  if (!mm.vmas.intersects(startVpn, endVpn)) return;
  splitAt(mm, startVpn);
  splitAt(mm, endVpn);
  startUnmap(mm, startVpn, endVpn);
  const files: File[] = [];
  for (let vma = mm.vmas.firstEndingAfter(startVpn); vma !== undefined && vma.startVpn < endVpn; ) {
    const { next } = vma;
    mm.vmas.remove(vma);
    zapPages(vma, vma.startVpn, vma.endVpn);
    mm.pageTable.prune(vma.startVpn, vma.endVpn);
    mm.host.anonVmas.unlink(vma);
    const file = vmaClearFile(vma);
    if (file !== undefined) files.push(file);
    vma = next;
  }
  mmuNotifierCloseAreas(mm, vpnToVa(startVpn), vpnToVa(endVpn));
  mmuNotifierInvalidateRangeEnd(mm);
  for (const file of files) file.put();
}

function startUnmap(mm: Mm, startVpn: number, endVpn: number): void {
  mmuNotifierRangeInit(mm, MMU_NOTIFY_UNMAP);
  let vma = mm.vmas.firstEndingAfter(startVpn);
  for (; vma !== undefined && vma.startVpn < endVpn; vma = vma.next) mmuNotifierRangeAdd(mm, vma.startVpn, vma.endVpn);
  mmuNotifierInvalidateRangeStart(mm);
}

/** Calls `fn` for each VMA in the range, with the part of it inside. */
export function eachVma(
  mm: Mm,
  startVpn: number,
  endVpn: number,
  fn: (vma: Vma, from: number, to: number) => void,
): void {
  let vma = mm.vmas.firstEndingAfter(startVpn);
  for (; vma !== undefined && vma.startVpn < endVpn; vma = vma.next) {
    fn(vma, Math.max(vma.startVpn, startVpn), Math.min(vma.endVpn, endVpn));
  }
}

/** Splits the VMA that `vpn` lies inside of, so that one ends and one starts there. */
export function splitAt(mm: Mm, vpn: number): void {
  const vma = mm.vmas.find(vpn);
  if (vma === undefined || vma.startVpn === vpn) return;
  const right = new Vma(mm, vpn, vma.endVpn, vma.prot, vma.flags, vma.pgoffOf(vpn));
  right.softDirty = vma.softDirty;
  mm.vmas.resize(vma, vma.startVpn, vpn);
  mm.vmas.insert(right);
  mm.host.anonVmas.relink(vma);
  mm.host.anonVmas.clone(right, vma);
  vmaRelinkFile(vma);
  vmaSetFile(right, vma.file);
}

/** Joins the VMA at `vpn`, which is new or has changed, to the one before and the one after it, as far as they differ in nothing. */
export function mergeAround(mm: Mm, vpn: number): void {
  let vma = mm.vmas.find(vpn);
  if (vma?.prev !== undefined && canMerge(vma.prev, vma)) {
    const { prev } = vma;
    mergeNext(mm, prev, vma);
    vma = prev;
  }
  if (vma?.next !== undefined && canMerge(vma, vma.next)) mergeNext(mm, vma, vma.next);
}

/**
 * Joins `vma`, which has grown in place, to the one that it now reaches (Linux: vma_merge_extend). A forked one takes in what has no page yet; its
 * other neighbour is not looked at, for on that side nothing has changed.
 */
export function mergeGrown(mm: Mm, vma: Vma): void {
  const { next } = vma;
  if (next === undefined || !continues(vma, next)) return;
  if (next.anonVma === undefined || canMerge(vma, next)) mergeNext(mm, vma, next);
}

/** Whether `b` is the continuation of `a`, but for their anonVmas. */
function continues(a: Vma, b: Vma): boolean {
  if (a.endVpn !== b.startVpn || a.prot !== b.prot || a.flags !== b.flags || a.file !== b.file) return false;
  return a.pgoffOf(a.endVpn) === b.pgoff;
}

function canMerge(a: Vma, b: Vma): boolean {
  if (!continues(a, b)) return false;
  if (a.anonVma === b.anonVma) return true;
  // A forked VMA keeps to itself: what joined it would be looked for in the whole family (Linux: is_mergeable_anon_vma).
  return (a.anonVma ?? b.anonVma) !== undefined && a.anonVmaChain.length + b.anonVmaChain.length === 1;
}

function mergeNext(mm: Mm, a: Vma, b: Vma): void {
  const { endVpn } = b;
  a.softDirty ||= b.softDirty;
  mm.vmas.remove(b);
  mm.vmas.resize(a, a.startVpn, endVpn);
  if (a.anonVma === undefined) mm.host.anonVmas.clone(a, b);
  else mm.host.anonVmas.relink(a);
  mm.host.anonVmas.unlink(b);
  vmaRelinkFile(a);
  vmaClearFile(b)?.put();
}
