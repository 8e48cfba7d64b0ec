/** The kvm driver: VMs whose memory is the host's, followed through notifiers. */

export { checkVm } from './check.js';
export {
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  KVM_DIRTY_LOG_INITIALLY_SET,
  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
} from './dirtylog.js';
export type { Environment } from './environment.js';
export * from './exits.js';
export { VmMemory } from './guestmemory.js';
export { MAX_HELD_PAGES } from './held.js';
export {
  KVM_CAP_NR_MEMSLOTS,
  KVM_CAP_NR_VCPUS,
  KVM_CAP_READONLY_MEM,
  KVM_CAP_SYNC_MMU,
  KVM_CAP_USER_MEMORY,
  Kvm,
  type KvmOptions,
} from './kvm.js';
export { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, type UserMemoryRegion } from './memregion.js';
export { TIMEBASE_HZ } from './timer.js';
export type { Vcpu } from './vcpu.js';
export type { Vm, VmOptions } from './vm.js';
