import { KVM_USER_MEM_SLOTS } from './memslots.js';

/**
 * What can be asked of `checkExtension` and `enableCap`, under the names and numbers of `linux/kvm.h`: what exists here, and no other.
 */

/** Memslots, by KVM_SET_USER_MEMORY_REGION. */
export const KVM_CAP_USER_MEMORY = 3;
/** The number of vCPUs that is good for a VM, and the most that it may have. */
export const KVM_CAP_NR_VCPUS = 9;
export const KVM_CAP_MAX_VCPUS = 66;
export const KVM_CAP_NR_MEMSLOTS = 10;
/** The VM follows its host's page tables: guest memory may be swapped, moved, shared. */
export const KVM_CAP_SYNC_MMU = 16;
/** A memslot may be deleted, and a place be given to another, at any time. */
export const KVM_CAP_DESTROY_MEMORY_REGION_WORKS = 21;
export const KVM_CAP_JOIN_MEMORY_REGIONS_WORKS = 30;
/** KVM_MEM_READONLY. */
export const KVM_CAP_READONLY_MEM = 81;
/** `vcpu.immediateExit`. */
export const KVM_CAP_IMMEDIATE_EXIT = 136;
/** Its value is the flags that `enableCap` takes (dirtylog.ts). */
export const KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168;
/** KVM_EXIT_MEMORY_FAULT says for which address. */
export const KVM_CAP_MEMORY_FAULT_INFO = 232;
/** `vcpu.preFaultMemory`. */
export const KVM_CAP_PRE_FAULT_MEMORY = 236;

/** Flags of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: `getDirtyLog` clears nothing; all pages count as dirty when logging begins. */
export const KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1;
export const KVM_DIRTY_LOG_INITIALLY_SET = 2;
export const KVM_DIRTY_LOG_MANUAL_CAPS = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;

/** By capability, what `checkExtension` says; the numbers of vCPUs are the VM's to say. */
export const CAPABILITIES: ReadonlyMap<number, number> = new Map([
  [KVM_CAP_USER_MEMORY, 1],
  [KVM_CAP_NR_MEMSLOTS, KVM_USER_MEM_SLOTS],
  [KVM_CAP_SYNC_MMU, 1],
  [KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1],
  [KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1],
  [KVM_CAP_READONLY_MEM, 1],
  [KVM_CAP_IMMEDIATE_EXIT, 1],
  [KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_CAPS],
  [KVM_CAP_MEMORY_FAULT_INFO, 1],
  [KVM_CAP_PRE_FAULT_MEMORY, 1],
]);
