import { KernelError } from '../base/index.js';
import { PAGE_SIZE, VA_SIZE } from '../mm/index.js';
import type { Memslot } from './memslot.js';
import { KVM_USER_MEM_SLOTS, type Memslots } from './memslots.js';

/**
 * What may be asked of KVM_SET_USER_MEMORY_REGION, and what it refuses (Linux: kvm_set_memory_region).
 */

/** Writes of the guest are noted, for `getDirtyLog`. */
export const KVM_MEM_LOG_DIRTY_PAGES = 1;
/** The guest reads and fetches; its stores come out as KVM_EXIT_MMIO. */
export const KVM_MEM_READONLY = 2;

export interface UserMemoryRegion {
  /** Number of the slot, 0 to 31. */
  slot: number;
  /** KVM_MEM_...; default 0. */
  flags?: number;
  /** First guest-physical byte, a multiple of 4 KiB. */
  guestPhysAddr: number;
  /** Bytes, a multiple of 4 KiB; 0 deletes the slot. */
  memorySize: number;
  /** First host virtual byte, a multiple of 4 KiB. */
  userspaceAddr: number;
}

/** Linux: enum kvm_mr_change, and nothing to change. */
export type RegionChange = 'create' | 'delete' | 'move' | 'flags' | 'none';

const MAX_GPA = 2 ** 44;
const VALID_FLAGS = KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY;

/**
 * What becomes of the slot. Throws KernelError: EINVAL for bad numbers, for the deletion of what is not there, and where address, size or READONLY of
 * a slot would change in place; EEXIST for an overlap; EFAULT beyond 2^44.
 */
export function checkRegion(slots: Memslots, region: UserMemoryRegion): RegionChange {
  checkNumbers(region);
  const old = slots.bySlot(region.slot);
  if (region.memorySize === 0) {
    if (old === undefined) refuse('EINVAL', `slot ${region.slot} is to be deleted and does not exist`);
    return 'delete';
  }
  const change = old === undefined ? 'create' : changeOf(old, region);
  if (change === 'create' || change === 'move') checkOverlap(slots, region);
  return change;
}

function checkNumbers({ slot, flags = 0, ...numbers }: UserMemoryRegion): void {
  if ((flags & ~VALID_FLAGS) !== 0 || !Number.isInteger(flags)) {
    refuse('EINVAL', `flags ${flags} may be KVM_MEM_LOG_DIRTY_PAGES (1) and KVM_MEM_READONLY (2)`);
  }
  if (!Number.isInteger(slot) || slot < 0 || slot >= KVM_USER_MEM_SLOTS) {
    refuse('EINVAL', `slot ${slot} must be from 0 to ${KVM_USER_MEM_SLOTS - 1}`);
  }
  const { guestPhysAddr, memorySize, userspaceAddr } = numbers;
  for (const [name, value] of Object.entries({ guestPhysAddr, memorySize, userspaceAddr })) {
    if (!Number.isInteger(value) || value < 0 || value % PAGE_SIZE !== 0) {
      refuse('EINVAL', `${name} ${value} must be a multiple of ${PAGE_SIZE}`);
    }
  }
  if (userspaceAddr + memorySize > VA_SIZE) refuse('EINVAL', `userspaceAddr + memorySize must not exceed 2^39`);
  if (guestPhysAddr + memorySize > MAX_GPA) refuse('EFAULT', `guestPhysAddr + memorySize must not exceed 2^44`);
}

/** What a slot may become while it exists: another place, other flags than READONLY (Linux: kvm_set_memory_region, the same). */
function changeOf(old: Memslot, region: UserMemoryRegion): RegionChange {
  const { slot, flags = 0, guestPhysAddr, memorySize, userspaceAddr } = region;
  const fixed = (what: string, is: number | string) =>
    refuse('EINVAL', `slot ${slot} keeps its ${what} ${is}; delete it and make it anew`);
  if (userspaceAddr !== old.baseVpn * PAGE_SIZE) fixed('userspaceAddr', `0x${(old.baseVpn * PAGE_SIZE).toString(16)}`);
  if (memorySize !== old.nrPages * PAGE_SIZE) fixed('memorySize', old.nrPages * PAGE_SIZE);
  if (((flags ^ old.flags) & KVM_MEM_READONLY) !== 0) fixed('KVM_MEM_READONLY', old.flags & KVM_MEM_READONLY);
  if (guestPhysAddr !== old.baseGfn * PAGE_SIZE) return 'move';
  return flags === old.flags ? 'none' : 'flags';
}

function checkOverlap(slots: Memslots, { slot, guestPhysAddr, memorySize }: UserMemoryRegion): void {
  const first = guestPhysAddr / PAGE_SIZE;
  const end = first + memorySize / PAGE_SIZE;
  const clash = slots.all().find((s) => s.slot !== slot && s.baseGfn < end && first < s.baseGfn + s.nrPages);
  if (clash !== undefined) {
    refuse('EEXIST', `guestPhysAddr 0x${guestPhysAddr.toString(16)} overlaps slot ${clash.slot}`);
  }
}

function refuse(code: 'EINVAL' | 'EEXIST' | 'EFAULT', message: string): never {
  throw new KernelError(code, 'setUserMemoryRegion', message);
}
