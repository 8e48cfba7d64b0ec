import { KernelError } from '../base/index.js';
import {
  SBI_HSM_STATE_STARTED,
  SBI_HSM_STATE_STOPPED,
  SBI_SRST_TYPE_SHUTDOWN,
  SBI_SUCCESS,
  Sbi,
  type SbiHost,
  type SbiResult,
} from '../machine/index.js';
import { IRQ_S_SOFT, MMU_WAIT } from '../riscv/index.js';
import {
  KVM_EXIT_MEMORY_FAULT,
  KVM_EXIT_SYSTEM_EVENT,
  KVM_SYSTEM_EVENT_RESET,
  KVM_SYSTEM_EVENT_SHUTDOWN,
  type VcpuExit,
} from './exits.js';
import { VmMemory } from './guestmemory.js';
import { answerSbi, sbiCallOf } from './sbiregisters.js';
import { fenceRange } from './threadsbi.js';
import type { Vcpu } from './vcpu.js';
import type { Vm } from './vm.js';

/**
 * The SBI of a VM: what machine's `Sbi` asks for, done with this VM's vCPUs and memory. kvm answers the calls itself, as
 * Linux's does; only a reset comes out, as KVM_EXIT_SYSTEM_EVENT.
 */
export class VmSbi implements SbiHost {
  private readonly vm: Vm;
  private readonly console: { write(bytes: Uint8Array): void; read(): number } | undefined;
  private readonly sbi: Sbi;
  private readonly memory: VmMemory;
  private pendingReset: VcpuExit | undefined;

  constructor(vm: Vm, console: { write(bytes: Uint8Array): void; read(): number } | undefined) {
    this.vm = vm;
    this.console = console;
    this.memory = new VmMemory(vm);
    this.sbi = new Sbi(this, vm.nrVcpus);
  }

  /** Carries out the call that the vCPU's hart left with; the vCPU is outside the guest, so this may wait for memory. */
  async ecall({ id, hart }: Vcpu): Promise<VcpuExit | undefined> {
    const call = sbiCallOf(hart);
    let result: SbiResult;
    try {
      result = await this.sbi.call(id, call);
    } catch (error) {
      if (error instanceof KernelError) return { reason: KVM_EXIT_MEMORY_FAULT, gpa: Number(call.args[1]), error };
      throw error;
    }
    answerSbi(hart, result);
    const reset = this.pendingReset;
    this.pendingReset = undefined;
    return reset;
  }

  private vcpu(hartId: number): Vcpu {
    return this.vm.vcpus.find((v) => v.id === hartId)!;
  }

  setTimer(hartId: number, ticks: number): void {
    this.vcpu(hartId).core.timer.set(ticks);
  }

  sendIpi(hartIds: readonly number[]): void {
    for (const id of hartIds) this.vcpu(id).setInterrupt(IRQ_S_SOFT, true);
  }

  clearIpi(hartId: number): void {
    this.vcpu(hartId).setInterrupt(IRQ_S_SOFT, false);
  }

  remoteFenceI(hartIds: readonly number[]): void {
    for (const id of hartIds) this.vcpu(id).requestFenceI();
    for (const id of hartIds) this.vcpu(id).awaitFlush();
  }

  remoteSfenceVma(hartIds: readonly number[], start: bigint, lenBytes: bigint | undefined, asid?: bigint): void {
    if (hartIds.length === 0) return;
    fenceRange(this.vcpu(hartIds[0]!).core, start, lenBytes, asid);
    for (const id of hartIds) this.vcpu(id).requestFlush();
    for (const id of hartIds) this.vcpu(id).awaitFlush();
  }

  hartStatus(hartId: number): number | undefined {
    const vcpu = this.vm.vcpus.find((v) => v.id === hartId);
    if (vcpu === undefined) return undefined;
    return vcpu.isStarted ? SBI_HSM_STATE_STARTED : SBI_HSM_STATE_STOPPED;
  }

  hartStart(hartId: number, address: bigint, opaque: bigint): number {
    this.vcpu(hartId).start(address, opaque);
    return SBI_SUCCESS;
  }

  /** When none is left that could start another, the guest has come to its end. */
  hartStop(hartId: number): void {
    this.vcpu(hartId).stop();
    if (!this.vm.vcpus.some((vcpu) => vcpu.isStarted)) this.systemReset(SBI_SRST_TYPE_SHUTDOWN, 0);
  }

  /** The call returns at once: resuming early is allowed. */
  hartSuspend(): void {}

  systemReset(type: number, reason: number): void {
    const event = type === SBI_SRST_TYPE_SHUTDOWN ? KVM_SYSTEM_EVENT_SHUTDOWN : KVM_SYSTEM_EVENT_RESET;
    this.pendingReset = { reason: KVM_EXIT_SYSTEM_EVENT, type: event, flags: reason };
  }

  consoleWrite(bytes: Uint8Array): void {
    this.console?.write(bytes);
  }

  consoleRead(): number {
    return this.console?.read() ?? -1;
  }

  async readGuest(gpa: bigint, lenBytes: number): Promise<Uint8Array | undefined> {
    if (!this.memory.covers(Number(gpa), lenBytes)) return undefined;
    const out = new Uint8Array(lenBytes);
    await this.vm.waitForMemory(() => this.memory.read(Number(gpa), out));
    return out;
  }

  async writeGuest(gpa: bigint, bytes: Uint8Array): Promise<boolean> {
    if (!this.memory.covers(Number(gpa), bytes.length)) return false;
    await this.vm.waitForMemory(() => this.memory.write(Number(gpa), bytes));
    return true;
  }

  async readGuestVirtual(hartId: number, va: bigint): Promise<bigint | undefined> {
    const { mmu } = this.vcpu(hartId).core;
    for (;;) {
      const gpa = mmu.walkForRead(Number(BigInt.asIntN(64, va)));
      if (gpa >= 0) {
        const bytes = await this.readGuest(BigInt(gpa), 8);
        return bytes && new DataView(bytes.buffer).getBigUint64(0, true);
      }
      if (gpa !== -MMU_WAIT) return undefined;
      await this.vm.waitForMemory(() => this.vm.mm.faultIn(mmu.waitHva, mmu.waitFlags));
    }
  }
}
