import { KernelError } from '../base/index.js';
import { PAGE_SIZE } from '../mm/index.js';
import {
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  KVM_DIRTY_LOG_INITIALLY_SET,
  KVM_DIRTY_LOG_MANUAL_CAPS,
  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
} from './capabilities.js';
import { KVM_MEM_LOG_DIRTY_PAGES } from './memregion.js';
import { DIRECT_W, type Memslot } from './memslot.js';
import { KVM_USER_MEM_SLOTS } from './memslots.js';
import type { Vm } from './vm.js';

/**
 * The dirty log of a memslot: a bit for each guest frame that was written since it was last asked (Linux: KVM_GET_DIRTY_LOG,
 * KVM_CLEAR_DIRTY_LOG, by write protection).
 *
 * While a slot is logged, who may write a guest frame without a fault has its bit set: a fault for writing sets it in the
 * same hold of mmuLock that installs the right, and taking a bit takes the right away in the hold that clears it (N15).
 * The guest's page walker and what the host writes for devices count like stores.
 *
 *   mm thread                                vCPU
 *   lock; bit taken, entry loses W; unlock   stores by its TLB, still
 *   every vCPU flushes
 *   the log is handed out                    faults: lock; is the slot the same? W, bit; unlock; stores
 *
 * Required outcome: a store is in memory before the log that has its bit is handed out, or its bit is in the next one; and a
 * bit is never set for a place that the slot has left meanwhile (M34).
 *
 * Use: KVM_MEM_LOG_DIRTY_PAGES in a slot's flags; `vm.getDirtyLog(slot)`, then read the pages. With
 * `enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, ...)`: `getDirtyLog`, and before each part is read `clearDirtyLog`.
 */

/** First and number of pages for `clearDirtyLog` are multiples of it (Linux: bits of a long). */
const PAGES_PER_LONG = 64;
const PAGES_PER_WORD = 32;

/** The flags, if they can be had. Throws KernelError EINVAL (Linux: kvm_vm_ioctl_enable_cap_generic). */
export function checkManualDirtyLog(cap: number, flags: number): number {
  const refuse = (message: string): never => {
    throw new KernelError('EINVAL', 'enableCap', message);
  };
  if (cap !== KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
    refuse(`capability ${cap} must be ${KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2}`);
  const allowed = (flags & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) !== 0 ? KVM_DIRTY_LOG_MANUAL_CAPS : 0;
  if ((flags & ~allowed) !== 0 || !Number.isInteger(flags))
    refuse(`flags ${flags} may be 1, and with it 2 (KVM_DIRTY_LOG_INITIALLY_SET)`);
  return flags;
}

/** Notes a write of page `i` of the slot. With mmuLock held. */
export function markDirty(slot: Memslot, i: number): void {
  if ((slot.flags & KVM_MEM_LOG_DIRTY_PAGES) === 0) return;
  const word = i >>> 5;
  slot.dirty.writeOnce(word, slot.dirty.readOnce(word) | (1 << (i & 31)));
}

/** Notes that the host wrote the page at `hva`, after it did: in every slot that shows it. On the mm thread. */
export function markDirtyAt(vm: Vm, hva: number): void {
  const vpn = Math.floor(hva / PAGE_SIZE);
  for (const slot of vm.slots.all()) {
    const i = vpn - slot.baseVpn;
    if ((slot.flags & KVM_MEM_LOG_DIRTY_PAGES) === 0 || i < 0 || i >= slot.nrPages) continue;
    vm.lockMmu();
    markDirty(slot, i);
    vm.unlockMmu();
  }
}

/** Logging begins. With mmuLock held; TLBs are flushed before it is relied on. */
export function startDirtyLog(vm: Vm, slot: Memslot): void {
  const allSet = (vm.manualDirtyLog & KVM_DIRTY_LOG_INITIALLY_SET) !== 0;
  for (let word = 0; word < slot.dirty.length; word++) slot.dirty.writeOnce(word, allSet ? bitsOf(slot, word) : 0);
  if (allSet) return;
  for (let i = 0; i < slot.nrPages; i++) protect(vm, slot, i);
}

/** Takes the right to write from what shows page `i`. Who calls it flushes TLBs. */
function protect(vm: Vm, slot: Memslot, i: number): void {
  const direct = slot.direct.readOnce(i);
  if ((direct & DIRECT_W) === 0) return;
  slot.direct.writeOnce(i, direct & ~DIRECT_W);
  vm.shadow.protectChain(slot.rmap.readOnce(i));
}

/**
 * A bit for each page of the slot, bit `i % 8` of byte `i / 8`, in whole longs as KVM has it. Throws KernelError EINVAL for a bad
 * number, ENOENT where nothing is logged.
 */
export function getDirtyLog(vm: Vm, slotNr: number): Uint8Array {
  const slot = loggedSlot(vm, 'getDirtyLog', slotNr);
  const manual = (vm.manualDirtyLog & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) !== 0;
  const bitmap = new Uint8Array(bitmapBytes(slot.nrPages));
  const view = new DataView(bitmap.buffer);
  let any = 0;
  for (let word = 0; word < slot.dirty.length; word++) {
    const bits = manual ? slot.dirty.load(word) : take(vm, slot, word, -1);
    view.setInt32(word * 4, bits, true);
    any |= bits;
  }
  if (any !== 0 && !manual) vm.flushAllTlbs();
  return bitmap;
}

/**
 * Clears the bits of the pages [first, first + nrPages) that are set in `bitmap`, whose first bit is that of page `first`, and makes their next writes show.
 * `first` is a multiple of 64, and so is `nrPages` but at the slot's end. Throws KernelError EINVAL, ENOENT.
 */
export function clearDirtyLog(vm: Vm, slotNr: number, first: number, nrPages: number, bitmap: Uint8Array): void {
  const slot = loggedSlot(vm, 'clearDirtyLog', slotNr);
  checkClear(slot, first, nrPages, bitmap);
  const end = first + nrPages;
  let any = 0;
  for (let page = first; page < end; page += PAGES_PER_WORD) {
    const asked = wordAt(bitmap, (page - first) / 8) & firstBits(end - page);
    if (asked !== 0) any |= take(vm, slot, page / PAGES_PER_WORD, asked);
  }
  if (any !== 0) vm.flushAllTlbs();
}

/** Takes those bits of a word of the log that are set and asked for, with the right to write their pages. WHY a word at a time: a vCPU that faults waits no longer for the lock. */
function take(vm: Vm, slot: Memslot, word: number, asked: number): number {
  vm.lockMmu();
  const set = slot.dirty.readOnce(word);
  const taken = set & asked;
  if (taken !== 0) slot.dirty.writeOnce(word, set & ~taken);
  for (let rest = taken; rest !== 0; rest &= rest - 1) protect(vm, slot, word * PAGES_PER_WORD + lowestBit(rest));
  vm.unlockMmu();
  return taken;
}

function loggedSlot(vm: Vm, call: string, slotNr: number): Memslot {
  if (!Number.isInteger(slotNr) || slotNr < 0 || slotNr >= KVM_USER_MEM_SLOTS) {
    throw new KernelError('EINVAL', call, `slot ${slotNr} must be from 0 to ${KVM_USER_MEM_SLOTS - 1}`);
  }
  const slot = vm.slots.bySlot(slotNr);
  if (slot === undefined || (slot.flags & KVM_MEM_LOG_DIRTY_PAGES) === 0) {
    throw new KernelError('ENOENT', call, `slot ${slotNr} must exist, with KVM_MEM_LOG_DIRTY_PAGES`);
  }
  return slot;
}

function checkClear(slot: Memslot, first: number, nrPages: number, bitmap: Uint8Array): void {
  const refuse = (message: string): never => {
    throw new KernelError('EINVAL', 'clearDirtyLog', message);
  };
  if (!Number.isInteger(first) || first < 0 || first > slot.nrPages || first % PAGES_PER_LONG !== 0)
    refuse(`first ${first} must be a multiple of ${PAGES_PER_LONG} in the slot's ${slot.nrPages} pages`);
  const rest = slot.nrPages - first;
  if (!Number.isInteger(nrPages) || nrPages < 0 || nrPages > rest)
    refuse(`nrPages ${nrPages} must be at most the ${rest} from page ${first} on`);
  if (nrPages < rest && nrPages % PAGES_PER_LONG !== 0)
    refuse(`nrPages ${nrPages} must be a multiple of ${PAGES_PER_LONG}, or reach the slot's end`);
  if (bitmap.length * 8 < nrPages)
    refuse(`bitmap of ${bitmap.length} bytes must have a bit for each of ${nrPages} pages`);
}

function bitmapBytes(nrPages: number): number {
  return Math.ceil(nrPages / PAGES_PER_LONG) * (PAGES_PER_LONG / 8);
}

/** The bits of `word` that stand for pages. */
function bitsOf(slot: Memslot, word: number): number {
  return firstBits(slot.nrPages - word * PAGES_PER_WORD);
}

function firstBits(nr: number): number {
  return nr >= PAGES_PER_WORD ? -1 : (1 << nr) - 1;
}

/** Four bytes of `bitmap`, which may end before. */
function wordAt(bitmap: Uint8Array, at: number): number {
  return (
    (bitmap[at] ?? 0) | ((bitmap[at + 1] ?? 0) << 8) | ((bitmap[at + 2] ?? 0) << 16) | ((bitmap[at + 3] ?? 0) << 24)
  );
}

function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}
