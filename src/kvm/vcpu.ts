import type { Hart } from '../riscv/index.js';
import {
  CSR,
  HART_EXIT_BUDGET,
  HART_EXIT_ECALL,
  HART_EXIT_MMIO,
  HART_EXIT_REQUEST,
  HART_EXIT_WAIT,
  HART_EXIT_WFI,
} from '../riscv/index.js';
import { KVM_EXIT_INTR, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, type VcpuExit } from './exits.js';
import { HeldPages } from './held.js';
import { KvmMmu } from './mmu.js';
import { type PreFaultMemory, preFaultMemory } from './prefault.js';
import { ANY_VPN } from './shadow.js';
import { VcpuTimer } from './timer.js';
import type { Vm } from './vm.js';

/**
 * A virtual CPU (Linux: struct kvm_vcpu): a hart, its view of guest memory, and the loop that runs it.
 *
 * A vCPU runs on the mm's own thread, in slices: between two slices other guests and I/O have their turn. While it
 * waits for a page nobody waits for it. Whenever its own fault path or another guest's reclaim takes a page away, the
 * vCPU is outside guest mode, and its TLB is flushed at once, by this same thread (N1).
 */

/** Instructions of a slice: about a millisecond. */
const SLICE_INSTRUCTIONS = 200_000;
/** CY, TM and IR: user mode may read cycle, time and instret from the start (Linux: kvm_riscv_reset_vcpu). */
const SCOUNTEREN_RESET = 7;
/**
 * A vCPU gives way to others after so much time; sooner while one of them waits for a page.
 * WHY: a page that had come in was noticed up to 4 ms later, and a guest that swapped got nowhere beside one that did not.
 */
const TURN_MS = 4;
const SHORT_TURN_MS = 0.5;

export class Vcpu {
  readonly id: number;
  readonly vm: Vm;
  readonly hart: Hart;
  readonly mmu: KvmMmu;
  readonly timer: VcpuTimer;
  private readonly held: HeldPages;
  /** Called for each wait for memory: guest-physical address, begin and end by the environment's clock. */
  onWait: ((gpa: number, startMs: number, endMs: number) => void) | undefined;
  private turnEndsMs = 0;
  private exitRequested = false;
  private destroyed = false;
  private wake: (() => void) | undefined;
  /** instret when the current instruction began to wait for pages. */
  private waitingAt = -1;

  constructor(vm: Vm, id: number) {
    this.vm = vm;
    this.id = id;
    this.mmu = new KvmMmu(vm);
    this.hart = vm.engine.createHart({ hartId: id, mmu: this.mmu, now: () => this.timer.now() });
    this.mmu.hart = this.hart;
    this.hart.csr.write(CSR.scounteren, SCOUNTEREN_RESET, 0);
    this.timer = new VcpuTimer(this);
    this.held = new HeldPages(vm.mm);
  }

  /** Runs the guest until something needs its owner. Waits for pages, timers and interrupts by itself. */
  async run(): Promise<VcpuExit> {
    this.vm.state.nrRunning++;
    try {
      return await this.runLoop();
    } finally {
      this.vm.state.nrRunning--;
    }
  }

  private async runLoop(): Promise<VcpuExit> {
    for (;;) {
      if (this.exitRequested) {
        this.exitRequested = false;
        return { reason: KVM_EXIT_INTR };
      }
      if (this.vm.ended !== undefined) return this.dead(this.vm.ended);
      this.timer.update();
      const exit = this.enter();
      if (exit !== HART_EXIT_BUDGET && exit !== HART_EXIT_REQUEST) {
        const out = await this.handle(exit);
        if (out !== undefined) return out;
      }
      if (this.turnIsOver()) await this.giveWay();
    }
  }

  private dead(message: string): VcpuExit {
    this.held.releaseAll();
    return { reason: KVM_EXIT_SHUTDOWN, message };
  }

  private enter(): number {
    const exit = this.hart.run(SLICE_INSTRUCTIONS);
    if (this.held.length > 0 && this.hart.instret !== this.waitingAt) this.held.releaseAll();
    return exit;
  }

  private async handle(exit: number): Promise<VcpuExit | undefined> {
    switch (exit) {
      case HART_EXIT_WAIT:
        return this.waitForPage();
      case HART_EXIT_ECALL:
        return this.vm.sbi.ecall(this);
      case HART_EXIT_MMIO:
        return this.mmio();
      case HART_EXIT_WFI:
        await this.halt();
        return undefined;
      default:
        return { reason: KVM_EXIT_SHUTDOWN, message: this.hart.describeExit(exit) };
    }
  }

  /** Waits for the page that the last instruction lacked, and keeps it until that instruction has retired (N26). */
  private async waitForPage(): Promise<VcpuExit | undefined> {
    this.waitingAt = this.hart.instret;
    this.vm.faults.major++;
    const { waitHva, waitFlags, waitGpa } = this.mmu;
    const startMs = this.vm.env.nowMs();
    try {
      if (this.mayBlock()) this.vm.mm.faultInSync(waitHva, waitFlags);
      else await this.faultInAside(waitHva, waitFlags);
    } catch (error) {
      // The slot has gone or moved meanwhile, and what it showed may be gone too: the access begins again.
      if (this.vm.slots.hva(waitGpa) !== waitHva) return undefined;
      return { reason: KVM_EXIT_MEMORY_FAULT, gpa: waitGpa, error: error as Error };
    }
    this.onWait?.(waitGpa, startMs, this.vm.env.nowMs());
    const pfn = this.vm.mm.tryGetPage(waitHva, waitFlags);
    if (pfn > 0) this.held.hold(pfn);
    return undefined;
  }

  private async faultInAside(hva: number, flags: number): Promise<void> {
    const { state, mm } = this.vm;
    state.nrWaiting++;
    try {
      await mm.faultIn(hva, flags);
    } finally {
      state.nrWaiting--;
    }
  }

  private mayBlock(): boolean {
    const { state, host } = this.vm;
    return state.blockWhenAlone && state.nrRunning === 1 && host.canBlock;
  }

  private mmio(): VcpuExit | undefined {
    const { mmioGpa: physAddr, mmioLen: lenBytes, mmioIsWrite: isWrite, mmioValue } = this.hart;
    if (this.vm.bus?.covers(physAddr)) {
      if (isWrite) this.vm.bus.write(physAddr, lenBytes, Number(mmioValue & 0xffffffffn));
      else this.completeMmioRead(BigInt(this.vm.bus.read(physAddr, lenBytes) >>> 0));
      return undefined;
    }
    return { reason: KVM_EXIT_MMIO, physAddr, lenBytes, isWrite, data: mmioValue };
  }

  completeMmioRead(value: bigint): void {
    this.hart.completeMmioRead(value);
  }

  /** WFI: sleeps until an interrupt is pending, the timer is due, or `kick`. */
  private async halt(): Promise<void> {
    const sleepMs = this.timer.msUntilDue();
    if (sleepMs <= 0 || this.hart.interruptPending()) return;
    await new Promise<void>((resolve) => {
      const cancel = Number.isFinite(sleepMs) ? this.vm.env.setTimer(() => this.kick(), sleepMs) : undefined;
      this.wake = () => {
        cancel?.();
        resolve();
      };
    });
    this.turnEndsMs = this.vm.env.nowMs() + TURN_MS;
  }

  /** Maps guest memory before the guest asks for it (prefault.ts). May wait. */
  preFaultMemory(range: PreFaultMemory): Promise<void> {
    return preFaultMemory(this.vm, range);
  }

  /** Makes a sleeping or running vCPU look at its requests and interrupts (Linux: kvm_vcpu_kick). */
  kick(): void {
    if (!this.destroyed) this.hart.request();
    const wake = this.wake;
    this.wake = undefined;
    wake?.();
  }

  /** Makes `run` return KVM_EXIT_INTR soon. */
  immediateExit(): void {
    this.exitRequested = true;
    this.kick();
  }

  setInterrupt(cause: number, on: boolean): void {
    if (this.destroyed) return;
    this.hart.setInterruptPending(cause, on);
    if (on) this.kick();
  }

  private turnIsOver(): boolean {
    const shorter = this.vm.state.nrWaiting > 0 ? TURN_MS - SHORT_TURN_MS : 0;
    return this.vm.env.nowMs() > this.turnEndsMs - shorter;
  }

  private async giveWay(): Promise<void> {
    await new Promise<void>((resolve) => this.vm.env.defer(resolve));
    this.turnEndsMs = this.vm.env.nowMs() + TURN_MS;
  }

  flushPage(vpn: number): void {
    if (vpn === ANY_VPN) this.mmu.flushTlb();
    else this.hart.tlbFlushPage(vpnToVa(vpn));
  }

  /** Flushes what a hart without paging may hold of a guest frame. */
  flushBarePage(gfn: number): void {
    this.hart.tlbFlushPage(gfn * 4096);
  }

  /** A host frame leaves the guest: translations and code decoded from it go. */
  dropFrame(gfn: number, pfn: number): void {
    this.flushBarePage(gfn);
    this.hart.dropCode(pfn);
  }

  /** Its hart is gone; `run`, if it waits, comes back soon and touches it no more. */
  destroy(): void {
    this.destroyed = true;
    this.held.releaseAll();
    this.timer.stop();
    this.hart.destroy();
    this.kick();
  }
}

/** First byte of a virtual page of Sv39, sign-extended from bit 38. */
function vpnToVa(vpn: number): number {
  return ((vpn << 5) >> 5) * 4096;
}
