/**
 * Why `vcpu.run()` came back, under the names and numbers of `linux/kvm.h`.
 */

export const KVM_EXIT_MMIO = 6;
export const KVM_EXIT_SHUTDOWN = 8;
export const KVM_EXIT_INTR = 10;
export const KVM_EXIT_SYSTEM_EVENT = 24;
export const KVM_EXIT_MEMORY_FAULT = 39;

const NAMES: Readonly<Record<number, string>> = {
  [KVM_EXIT_MMIO]: 'KVM_EXIT_MMIO',
  [KVM_EXIT_SHUTDOWN]: 'KVM_EXIT_SHUTDOWN',
  [KVM_EXIT_INTR]: 'KVM_EXIT_INTR',
  [KVM_EXIT_SYSTEM_EVENT]: 'KVM_EXIT_SYSTEM_EVENT',
  [KVM_EXIT_MEMORY_FAULT]: 'KVM_EXIT_MEMORY_FAULT',
};

/** For messages: 'KVM_EXIT_MMIO'. */
export function kvmExitName({ reason }: { readonly reason: VcpuExit['reason'] }): string {
  return NAMES[reason]!;
}

export const KVM_SYSTEM_EVENT_SHUTDOWN = 1;
export const KVM_SYSTEM_EVENT_RESET = 2;
export const KVM_SYSTEM_EVENT_CRASH = 3;

export type VcpuExit =
  /** The guest touched no memslot and no in-kernel device. After a read, `vcpu.completeMmioRead(value)`, then run again. */
  | {
      readonly reason: typeof KVM_EXIT_MMIO;
      readonly physAddr: number;
      readonly lenBytes: number;
      readonly isWrite: boolean;
      readonly data: bigint;
    }
  /** The hart cannot go on: `message` says why. */
  | { readonly reason: typeof KVM_EXIT_SHUTDOWN; readonly message: string }
  /** `vcpu.immediateExit()` was called. */
  | { readonly reason: typeof KVM_EXIT_INTR }
  /** The guest asked for power off or reset (SBI SRST); `flags` is its reason (0: none, 1: system failure). */
  | { readonly reason: typeof KVM_EXIT_SYSTEM_EVENT; readonly type: number; readonly flags: number }
  /** Guest memory is not to be had: the page was damaged in swap (EHWPOISON), or no frame can be found (ENOMEM). */
  | { readonly reason: typeof KVM_EXIT_MEMORY_FAULT; readonly gpa: number; readonly error: Error };
