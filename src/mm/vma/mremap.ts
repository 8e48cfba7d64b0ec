import { checkPageAligned, hex, refuse, unsignedLong } from '../args.js';
import { bytesToPages, NR_VPNS, PAGE_SIZE, VA_SIZE, vaToVpn, vpnToVa } from '../layout.js';
import type { Mm } from '../mm.js';
import {
  mmuNotifierInvalidatePagesStart,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierMoveAreas,
} from '../notifier/hooks.js';
import { MMU_NOTIFY_UNMAP } from '../notifier/range.js';
import { PTE_NONE } from '../pgtable/pte.js';
import { checkMlockLimits } from './mlocklimit.js';
import {
  fixedPlace,
  MAP_FIXED,
  MAX_MAP_COUNT,
  mergeAround,
  mergeGrown,
  placeFor,
  splitAt,
  unmapLocked,
} from './mmap.js';
import { checkExpandVm } from './rlimit.js';
import { VM_ACCOUNT, VM_LOCKED, VM_LOCKED_MASK, VM_SHARED, Vma } from './vma.js';
import { vmaClearFile, vmaRelinkFile, vmaSetFile } from './vmafile.js';

/**
 * mremap (Linux: mremap.c): a mapping shrinks, grows, or goes elsewhere with its pages, which are not copied: their ptes move, and where both
 * addresses have the same place in 2 MiB, whole tables.
 *
 * A move is one UNMAP bracket over the old range: external entries of the old addresses are gone before the first pte moves, so that no page is
 * reachable through an old address when it may already be freed through the new one (M21). Growth in place is no event (N21).
 */

export const MREMAP_MAYMOVE = 1;
export const MREMAP_FIXED = 2;
export const MREMAP_DONTUNMAP = 4;

/** A call that was checked, in pages. */
interface Request {
  readonly oldVpn: number;
  oldNr: number;
  readonly newNr: number;
  readonly flags: number;
  /** Where it must or may go, for FIXED and DONTUNMAP; else unused. */
  readonly newVpn: number;
}

export function mremap(mm: Mm, addr: number, oldLen: number, newLen: number, flags: number, newAddr: number): number {
  const r = checkRequest(mm, addr, oldLen, newLen, flags, newAddr);
  if ((flags & MREMAP_FIXED) !== 0 && r.oldNr === r.newNr) return vpnToVa(moveAll(mm, r));
  return vpnToVa((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0 ? moveTo(mm, r) : resize(mm, r));
}

function checkRequest(mm: Mm, addr: number, oldLen: number, newLen: number, flags: number, newAddr: number): Request {
  const known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
  if ((flags & ~known) !== 0 || !Number.isInteger(flags))
    refuse('EINVAL', 'mremap', `flags 0x${flags.toString(16)} must be made of MREMAP_MAYMOVE, _FIXED, _DONTUNMAP`);
  const start = unsignedLong('mremap', 'addr', addr);
  checkPageAligned('mremap', addr);
  if (!(Number.isInteger(newLen) && newLen > 0 && newLen <= VA_SIZE))
    refuse('EINVAL', 'mremap', `new length ${newLen} must be from 1 to 2^39`);
  const r = {
    oldVpn: vaToVpn(start),
    oldNr: bytesToPages(unsignedLong('mremap', 'old length', oldLen)),
    newNr: bytesToPages(newLen),
    flags,
    newVpn: Math.floor(newAddr / PAGE_SIZE),
  };
  if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0) checkTarget(mm, r, newAddr, oldLen);
  return r;
}

function checkTarget(mm: Mm, r: Request, newAddr: number, oldLen: number): void {
  if (!(Number.isInteger(newAddr) && newAddr >= 0 && newAddr % PAGE_SIZE === 0))
    refuse('EINVAL', 'mremap', `new address ${newAddr} must be a multiple of ${PAGE_SIZE} below 2^39`);
  if (r.newVpn + r.newNr > NR_VPNS)
    refuse('EINVAL', 'mremap', `new address 0x${newAddr.toString(16)} with ${r.newNr} pages must end below 2^39`);
  if ((r.flags & MREMAP_MAYMOVE) === 0)
    refuse('EINVAL', 'mremap', `flags 0x${r.flags.toString(16)} must contain MREMAP_MAYMOVE`);
  if ((r.flags & MREMAP_DONTUNMAP) !== 0 && r.oldNr !== r.newNr)
    refuse('EINVAL', 'mremap', `lengths ${r.oldNr} and ${r.newNr} pages must be equal for MREMAP_DONTUNMAP`);
  // A negative length wraps around, as in C.
  if (r.newVpn < r.oldVpn + bytesToPages(oldLen) && r.oldVpn < r.newVpn + r.newNr)
    refuse('EINVAL', 'mremap', `new address 0x${newAddr.toString(16)} must not overlap the old range`);
  if (mm.vmas.length + 2 >= MAX_MAP_COUNT - 3)
    refuse('ENOMEM', 'mremap', `an mm has at most ${MAX_MAP_COUNT} mappings`);
}

/** The VMA that is to be moved or grown. A range that is only to shrink may reach over its end. */
function checkVma(mm: Mm, r: Request): Vma {
  const vma = mm.vmas.find(r.oldVpn);
  const where = `0x${vpnToVa(r.oldVpn).toString(16)}`;
  if (vma === undefined) refuse('EFAULT', 'mremap', `address ${where} of ${mm.name} must be mapped`);
  const moves = (r.flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0;
  if (!moves && r.newNr <= r.oldNr) return vma;
  if (r.oldNr === 0 && (vma.flags & VM_SHARED) === 0)
    refuse('EINVAL', 'mremap', `old length 0 doubles a mapping: the one at ${where} must be shared`);
  const nrUsed = Math.min(r.oldNr, r.newNr);
  if (r.oldVpn + nrUsed > vma.endVpn)
    refuse(
      'EFAULT',
      'mremap',
      `${nrUsed} pages from ${where} must lie in one mapping, which ends after ${vma.endVpn - r.oldVpn}`,
    );
  if (r.newNr > r.oldNr) checkGrowth(mm, vma, r.newNr - r.oldNr);
  return vma;
}

function checkGrowth(mm: Mm, vma: Vma, nrPages: number): void {
  if ((vma.flags & VM_LOCKED) !== 0) checkMlockLimits(mm, 'mremap', nrPages, 'EAGAIN');
  checkRoom(mm, vma, nrPages);
}

function checkRoom(mm: Mm, vma: Vma, nrPages: number): void {
  checkExpandVm(mm, 'mremap', vma.prot, vma.flags, nrPages);
  if ((vma.flags & VM_ACCOUNT) !== 0) mm.host.overcommit.check('mremap', nrPages);
}

/** MREMAP_FIXED at the same size: every mapping of the range moves, and the holes between them with them (Linux 6.17: remap_move). */
function moveAll(mm: Mm, r: Request): number {
  const endVpn = r.oldVpn + r.oldNr;
  checkVma(mm, { ...r, oldNr: Math.min(r.oldNr, 1), newNr: Math.min(r.newNr, 1) });
  let next = r.oldVpn;
  for (let vma = mm.vmas.find(next); vma !== undefined && vma.startVpn < endVpn; vma = mm.vmas.firstEndingAfter(next)) {
    // What MREMAP_DONTUNMAP left behind may have been merged with what comes now.
    const from = Math.max(vma.startVpn, next);
    if (from >= endVpn) break;
    const nr = Math.min(vma.endVpn, endVpn) - from;
    moveTo(mm, { ...r, oldVpn: from, oldNr: nr, newNr: nr, newVpn: r.newVpn + (from - r.oldVpn) });
    next = from + nr;
  }
  return r.newVpn;
}

/** MREMAP_FIXED, MREMAP_DONTUNMAP. */
function moveTo(mm: Mm, r: Request): number {
  checkVma(mm, r);
  let { newVpn } = r;
  if ((r.flags & MREMAP_FIXED) !== 0) {
    fixedPlace(mm, vpnToVa(newVpn), r.newNr, MAP_FIXED);
    unmapLocked(mm, newVpn, newVpn + r.newNr);
  } else newVpn = placeFor(mm, vpnToVa(newVpn), r.newNr, 0);
  if (r.newNr < r.oldNr) {
    cutTail(mm, r);
    r.oldNr = r.newNr;
  }
  // What stays and what goes are two; a refusal comes after the target was unmapped, as in Linux.
  if ((r.flags & MREMAP_DONTUNMAP) !== 0) checkRoom(mm, mm.vmas.find(r.oldVpn)!, r.oldNr);
  return moveVma(mm, r, newVpn);
}

/** In place where that goes, else elsewhere with MREMAP_MAYMOVE. */
function resize(mm: Mm, r: Request): number {
  const vma = checkVma(mm, r);
  if (r.newNr <= r.oldNr) {
    if (r.newNr < r.oldNr) cutTail(mm, r);
    return r.oldVpn;
  }
  if (r.oldVpn + r.oldNr === vma.endVpn && canGrow(mm, vma, r.newNr - r.oldNr)) {
    grow(mm, vma, r.newNr - r.oldNr);
    return r.oldVpn;
  }
  if ((r.flags & MREMAP_MAYMOVE) === 0)
    refuse(
      'ENOMEM',
      'mremap',
      `${r.newNr - r.oldNr} pages after 0x${vpnToVa(vma.endVpn).toString(16)} must be free, or MREMAP_MAYMOVE given`,
    );
  return moveVma(mm, r, placeFor(mm, 0, r.newNr, 0));
}

function cutTail(mm: Mm, r: Request): void {
  if (r.oldVpn + r.oldNr > NR_VPNS)
    refuse('EINVAL', 'mremap', `old length of ${r.oldNr} pages from ${hex(vpnToVa(r.oldVpn))} must end below 2^39`);
  unmapLocked(mm, r.oldVpn + r.newNr, r.oldVpn + r.oldNr);
}

function canGrow(mm: Mm, vma: Vma, nrPages: number): boolean {
  const end = vma.endVpn + nrPages;
  return end <= NR_VPNS && !mm.vmas.intersects(vma.endVpn, end);
}

function grow(mm: Mm, vma: Vma, nrPages: number): void {
  mm.vmas.resize(vma, vma.startVpn, vma.endVpn + nrPages);
  mm.host.anonVmas.relink(vma);
  vmaRelinkFile(vma);
  mergeGrown(mm, vma);
}

/** Moves `r.oldNr` pages to [newVpn, newVpn + r.newNr), which is free. */
function moveVma(mm: Mm, r: Request, newVpn: number): number {
  const oldEnd = r.oldVpn + r.oldNr;
  const stays = (r.flags & MREMAP_DONTUNMAP) !== 0;
  if (r.oldNr > 0 && !(stays && !mm.vmas.find(r.oldVpn)!.locked)) {
    splitAt(mm, r.oldVpn);
    splitAt(mm, oldEnd);
  }
  const old = mm.vmas.find(r.oldVpn)!;
  // Untouched anonymous memory takes the index of its new place, and may be merged there.
  const pgoff = old.anonVma === undefined && old.file === undefined ? newVpn : old.pgoffOf(r.oldVpn);
  const vma = new Vma(mm, newVpn, newVpn + r.newNr, old.prot, old.flags, pgoff);
  vmaSetFile(vma, old.file);
  mm.vmas.insert(vma);
  mm.host.anonVmas.clone(vma, old);
  const moved = r.oldNr === 0 || moveBracket(mm, r, old, vma);
  if (!moved) undoMove(mm, r, vma);
  else if (stays) leaveBehind(mm, r, old);
  mergeAround(mm, newVpn);
  if (moved) return newVpn;
  const { nrTables } = mm.host.tables;
  return refuse('ENOMEM', 'mremap', `no page table left of ${nrTables}; raise HostOptions.pageTables`);
}

/** What MREMAP_DONTUNMAP keeps: nothing is in it, so it is locked no more, and starts anew where all of it has gone. */
function leaveBehind(mm: Mm, r: Request, old: Vma): void {
  mm.vmas.setFlags(old, old.prot, old.flags & ~VM_LOCKED_MASK);
  if (old.startVpn === r.oldVpn && old.endVpn === r.oldVpn + r.oldNr) mm.host.anonVmas.unlink(old);
}

function undoMove(mm: Mm, r: Request, vma: Vma): void {
  dropVma(mm, vma);
  mergeAround(mm, r.oldVpn);
}

function dropVma(mm: Mm, vma: Vma): void {
  mm.vmas.remove(vma);
  mm.host.anonVmas.unlink(vma);
  vmaClearFile(vma)?.put();
}

/** Pairs start and end around the move. False when page tables were short: then everything is where it was. */
function moveBracket(mm: Mm, r: Request, old: Vma, vma: Vma): boolean {
  const oldEnd = r.oldVpn + r.oldNr;
  mmuNotifierInvalidatePagesStart(mm, MMU_NOTIFY_UNMAP, r.oldVpn, oldEnd);
  const nrMoved = movePageTables(mm, r.oldVpn, vma.startVpn, r.oldNr);
  const moved = nrMoved === r.oldNr;
  if (!moved) movePageTables(mm, vma.startVpn, r.oldVpn, nrMoved);
  mm.pageTable.prune(moved ? r.oldVpn : vma.startVpn, moved ? oldEnd : vma.endVpn);
  const left = (r.flags & MREMAP_DONTUNMAP) !== 0;
  if (moved && !left) dropVma(mm, old);
  mmuNotifierInvalidateRangeEnd(mm);
  if (moved) mmuNotifierMoveAreas(mm, vpnToVa(r.oldVpn), vpnToVa(oldEnd), vpnToVa(vma.startVpn), left);
  return moved;
}

/** Returns how many pages' ptes it moved before page tables were short. */
function movePageTables(mm: Mm, from: number, to: number, nrPages: number): number {
  const { pageTable } = mm;
  for (let k = 0; k < nrPages; ) {
    k = pageTable.skipEmpty(from + k, from + nrPages) - from;
    if (k === nrPages) break;
    const nr = Math.min(nrPages - k, 512 - ((from + k) & 511), 512 - ((to + k) & 511));
    if (nr === 512) {
      if (!pageTable.moveLeaf(from + k, to + k)) return k;
    } else if (!movePtes(mm, from + k, to + k, nr)) return k;
    k += nr;
  }
  return nrPages;
}

/** `nr` ptes of one leaf to another. */
function movePtes(mm: Mm, from: number, to: number, nr: number): boolean {
  const { pageTable } = mm;
  const { words } = pageTable;
  const i = pageTable.find(from);
  const j = pageTable.ensure(to);
  if (j === 0) return false;
  let nrMoved = 0;
  for (let k = 0; k < nr; k++) {
    const pte = words.readOnce(i + k);
    if (pte === PTE_NONE) continue;
    words.writeOnce(i + k, PTE_NONE);
    words.writeOnce(j + k, pte);
    nrMoved++;
  }
  pageTable.addUsed(i, -nrMoved);
  pageTable.addUsed(j, nrMoved);
  return true;
}
