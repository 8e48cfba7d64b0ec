/** The kvm driver: VMs whose memory is the host's, followed through notifiers. */

export * from './capabilities.js';
export { checkVm } from './check.js';
export { TICKS_PER_MS, TIMEBASE_HZ, VmClock } from './clock.js';
export type { Environment, VcpuThreadHandle, VcpuThreadInit } from './environment.js';
export * from './exits.js';
export { VmMemory } from './guestmemory.js';
export { Kvm, type KvmOptions } from './kvm.js';
export { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, type UserMemoryRegion } from './memregion.js';
export { PfnCache } from './pfncache.js';
export type { PreFaultMemory } from './prefault.js';
export type { Vcpu } from './vcpu.js';
export { runVcpuThread } from './vcpuworker.js';
export { KVM_MAX_VCPUS, type Vm, type VmOptions } from './vm.js';
