import { KernelError } from '../base/index.js';
import { bytesToPages, MMAP_MIN_ADDR, NR_VPNS, PAGE_SIZE, VA_SIZE, vaToVpn, vpnToVa } from './layout.js';
import type { Mm } from './mm.js';
import { MMU_NOTIFY_UNMAP } from './range.js';
import { zapPages } from './unmap.js';
import { PROT_EXEC, PROT_READ, PROT_WRITE, Vma } from './vma.js';

/**
 * The VMAs of an mm come and go (Linux: mmap.c): map, unmap, split, merge. All of it runs with mmapLock held for write.
 * Splitting and merging change no pte and call no notifier (N21).
 */

export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_FIXED_NOREPLACE = 0x100000;

/** Where the search for a free range starts. */
const MMAP_BASE_VPN = vaToVpn(0x1000_0000);
/** Linux: vm.max_map_count. */
const MAX_MAP_COUNT = 65530;

export function mmap(mm: Mm, addr: number, length: number, prot: number, flags: number): number {
  checkMmap(addr, length, prot, flags);
  const nrPages = bytesToPages(length);
  const startVpn = placeFor(mm, addr, nrPages, flags);
  if (mm.vmas.length >= MAX_MAP_COUNT) refuse('ENOMEM', 'mmap', `an mm has at most ${MAX_MAP_COUNT} mappings`);
  if ((flags & MAP_FIXED) !== 0) unmapLocked(mm, startVpn, startVpn + nrPages);
  const vma = new Vma(mm, startVpn, startVpn + nrPages, prot, 0, startVpn);
  mm.vmas.insert(vma);
  mergeAround(mm, startVpn, startVpn + nrPages);
  return vpnToVa(startVpn);
}

function checkMmap(addr: number, length: number, prot: number, flags: number): void {
  if (!(Number.isInteger(length) && length > 0))
    refuse('EINVAL', 'mmap', `length ${length} must be a positive integer`);
  if ((prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) !== 0) {
    refuse('EINVAL', 'mmap', `prot 0x${prot.toString(16)} must be made of PROT_READ, PROT_WRITE, PROT_EXEC`);
  }
  const kind = flags & (MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS);
  if (kind !== (MAP_PRIVATE | MAP_ANONYMOUS)) {
    refuse(
      'EINVAL',
      'mmap',
      `flags 0x${flags.toString(16)} must contain MAP_PRIVATE and MAP_ANONYMOUS, the only kind there is`,
    );
  }
  if (!(Number.isInteger(addr) && addr >= 0)) refuse('EINVAL', 'mmap', `addr ${addr} must be an integer from 0 up`);
  if (length > VA_SIZE || addr + length > VA_SIZE) {
    refuse('ENOMEM', 'mmap', `addr 0x${addr.toString(16)} with length ${length} must end below 2^39`);
  }
}

function placeFor(mm: Mm, addr: number, nrPages: number, flags: number): number {
  const fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0;
  if (fixed) return fixedPlace(mm, addr, nrPages, flags);
  const hint = Math.max(bytesToPages(addr), MMAP_MIN_ADDR / PAGE_SIZE);
  if (addr !== 0 && hint + nrPages <= NR_VPNS && !mm.vmas.intersects(hint, hint + nrPages)) return hint;
  const vpn = mm.vmas.findHole(nrPages, MMAP_BASE_VPN, NR_VPNS);
  if (vpn < 0) refuse('ENOMEM', 'mmap', `no ${nrPages} free pages in a row in the address space of ${mm.name}`);
  return vpn;
}

function fixedPlace(mm: Mm, addr: number, nrPages: number, flags: number): number {
  if (addr % PAGE_SIZE !== 0)
    refuse('EINVAL', 'mmap', `addr 0x${addr.toString(16)} must be a multiple of ${PAGE_SIZE}`);
  if (addr < MMAP_MIN_ADDR)
    refuse('EPERM', 'mmap', `addr 0x${addr.toString(16)} must be at least 0x${MMAP_MIN_ADDR.toString(16)}`);
  const vpn = vaToVpn(addr);
  if ((flags & MAP_FIXED_NOREPLACE) !== 0 && mm.vmas.intersects(vpn, vpn + nrPages)) {
    refuse('EEXIST', 'mmap', `something is mapped in [0x${addr.toString(16)}, +${nrPages} pages) already`);
  }
  return vpn;
}

/** The pages [start, end) that `addr` and `length` name, checked as munmap, madvise and mlock check them. */
export function pageRange(syscall: string, addr: number, length: number): [startVpn: number, endVpn: number] {
  if (!(Number.isInteger(addr) && addr >= 0 && addr % PAGE_SIZE === 0)) {
    refuse('EINVAL', syscall, `addr ${addr} must be a multiple of ${PAGE_SIZE}`);
  }
  if (!(Number.isInteger(length) && length >= 0 && addr + length <= VA_SIZE)) {
    refuse('EINVAL', syscall, `length ${length} at 0x${addr.toString(16)} must end below 2^39`);
  }
  const startVpn = vaToVpn(addr);
  return [startVpn, startVpn + bytesToPages(length)];
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
  for (let vma = mm.vmas.firstEndingAfter(startVpn); vma !== undefined && vma.startVpn < endVpn; ) {
    const { next } = vma;
    mm.vmas.remove(vma);
    zapPages(vma, vma.startVpn, vma.endVpn);
    mm.pageTable.prune(vma.startVpn, vma.endVpn);
    if (vma.locked) mm.lockedPages -= vma.nrPages;
    mm.host.anonVmas.unlink(vma);
    vma = next;
  }
  mm.notifiers.closeAreas(vpnToVa(startVpn), vpnToVa(endVpn), mm.vmas);
  mm.notifiers.invalidateRangeEnd(mm.range);
}

function startUnmap(mm: Mm, startVpn: number, endVpn: number): void {
  mm.range.reset(MMU_NOTIFY_UNMAP, true);
  let vma = mm.vmas.firstEndingAfter(startVpn);
  for (; vma !== undefined && vma.startVpn < endVpn; vma = vma.next) mm.range.add(vma.startVpn, vma.endVpn);
  mm.notifiers.invalidateRangeStart(mm.range.seal());
}

/** Splits the VMA that `vpn` lies inside of, so that one ends and one starts there. */
export function splitAt(mm: Mm, vpn: number): void {
  const vma = mm.vmas.find(vpn);
  if (vma === undefined || vma.startVpn === vpn) return;
  const right = new Vma(mm, vpn, vma.endVpn, vma.prot, vma.flags, vma.pgoffOf(vpn));
  mm.vmas.resize(vma, vma.startVpn, vpn);
  mm.vmas.insert(right);
  mm.host.anonVmas.relink(vma);
  mm.host.anonVmas.clone(right, vma);
}

/** Joins VMAs inside and at the edges of [startVpn, endVpn) that differ in nothing. */
export function mergeAround(mm: Mm, startVpn: number, endVpn: number): void {
  let vma = mm.vmas.firstEndingAfter(startVpn);
  vma = vma?.prev ?? vma;
  while (vma?.next !== undefined && vma.startVpn < endVpn) {
    if (canMerge(vma, vma.next)) mergeNext(mm, vma, vma.next);
    else vma = vma.next;
  }
}

function canMerge(a: Vma, b: Vma): boolean {
  if (a.endVpn !== b.startVpn || a.prot !== b.prot || a.flags !== b.flags) return false;
  if (a.pgoffOf(a.endVpn) !== b.pgoff) return false;
  if (a.anonVma === b.anonVma) return true;
  // A forked VMA keeps to itself: what joined it would be looked for in the whole family (Linux: is_mergeable_anon_vma).
  return (a.anonVma ?? b.anonVma) !== undefined && a.anonVmaChain.length + b.anonVmaChain.length === 1;
}

function mergeNext(mm: Mm, a: Vma, b: Vma): void {
  const { endVpn } = b;
  mm.vmas.remove(b);
  mm.vmas.resize(a, a.startVpn, endVpn);
  if (a.anonVma === undefined) mm.host.anonVmas.clone(a, b);
  else mm.host.anonVmas.relink(a);
  mm.host.anonVmas.unlink(b);
}

export function refuse(code: 'EINVAL' | 'ENOMEM' | 'EPERM' | 'EEXIST', syscall: string, message: string): never {
  throw new KernelError(code, syscall, message);
}
