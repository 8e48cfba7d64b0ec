import { KernelError } from '../base/index.js';
import { PAGE_SIZE } from '../mm/index.js';
import { KVM_USER_MEM_SLOTS, type Memslots } from './memslots.js';

/**
 * What may be asked of KVM_SET_USER_MEMORY_REGION, and what it refuses (Linux: kvm_set_memory_region).
 */

export interface UserMemoryRegion {
  /** Number of the slot, 0 to 31. */
  slot: number;
  /** First guest-physical byte, a multiple of 4 KiB. */
  guestPhysAddr: number;
  /** Bytes, a multiple of 4 KiB; 0 deletes the slot. */
  memorySize: number;
  /** First host virtual byte, a multiple of 4 KiB. */
  userspaceAddr: number;
}

const MAX_GPA = 2 ** 44;

/** Refuses what KVM_SET_USER_MEMORY_REGION refuses: EINVAL for bad numbers, EEXIST for an overlap. */
export function checkRegion(slots: Memslots, region: UserMemoryRegion): void {
  const { slot, guestPhysAddr, memorySize, userspaceAddr } = region;
  if (!Number.isInteger(slot) || slot < 0 || slot >= KVM_USER_MEM_SLOTS) {
    refuse('EINVAL', `slot ${slot} must be from 0 to ${KVM_USER_MEM_SLOTS - 1}`);
  }
  for (const [name, value] of Object.entries({ guestPhysAddr, memorySize, userspaceAddr })) {
    if (!Number.isInteger(value) || value < 0 || value % PAGE_SIZE !== 0) {
      refuse('EINVAL', `${name} ${value} must be a multiple of ${PAGE_SIZE}`);
    }
  }
  if (guestPhysAddr + memorySize > MAX_GPA) refuse('EINVAL', `guestPhysAddr + memorySize must not exceed 2^44`);
  const first = guestPhysAddr / PAGE_SIZE;
  const end = first + memorySize / PAGE_SIZE;
  const clash = slots.all().find((s) => s.slot !== slot && s.baseGfn < end && first < s.baseGfn + s.nrPages);
  if (clash !== undefined) {
    refuse('EEXIST', `guestPhysAddr 0x${guestPhysAddr.toString(16)} overlaps slot ${clash.slot}`);
  }
}

function refuse(code: 'EINVAL' | 'EEXIST', message: string): never {
  throw new KernelError(code, 'setUserMemoryRegion', message);
}
