import { HeldPages } from '../mm/index.js';
import {
  CSR,
  HART_EXIT_BUDGET,
  HART_EXIT_ECALL,
  HART_EXIT_MMIO,
  HART_EXIT_REQUEST,
  HART_EXIT_WAIT,
  HART_EXIT_WFI,
  type Hart,
  type HartExit,
} from '../riscv/index.js';
import { KVM_EXIT_INTR, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, type VcpuExit } from './exits.js';
import { type PreFaultMemory, preFaultMemory } from './prefault.js';
import { VcpuCore } from './vcpucore.js';
import { REQ_EXIT, REQ_FENCE_I, REQ_TLB_FLUSH, type VcpuState } from './vcpustate.js';
import { VcpuThread } from './vcputhread.js';
import type { Vm } from './vm.js';

/**
 * A virtual CPU (Linux: struct kvm_vcpu), as its owner on the mm thread sees it: the loop that runs it, and what is done for it when it
 * comes out of the guest.
 *
 * On the mm thread it runs in slices: between two, other guests and I/O have their turn. In a thread of its own it runs until it needs
 * the mm thread (vcputhread.ts). While it waits for a page nobody waits for it. Whenever its own fault path or another
 * guest's reclaim takes a page away, its TLB is flushed: at once where it is of this thread, which is outside the guest then, else by
 * request (N1, N24).
 */

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
  /** What runs it here; with a thread of its own: the view of it from here, which never enters the guest. */
  readonly core: VcpuCore;
  readonly state: VcpuState;
  private readonly thread: VcpuThread | undefined;
  private readonly held: HeldPages;
  /** Called for each wait for memory: guest-physical address, begin and end by the environment's clock. */
  onWait: ((gpa: number, startMs: number, endMs: number) => void) | undefined;
  /** False: stopped, in the sense of the SBI's HSM; `start` makes it run. */
  private started: boolean;
  private turnEndsMs = 0;
  private exitRequested = false;
  private destroyed = false;
  private wake: (() => void) | undefined;
  /** instret when the current instruction began to wait for pages. */
  private waitingAt = -1;

  /** vCPU 0 is started, all others are stopped until the guest starts them. */
  constructor(vm: Vm, id: number) {
    this.vm = vm;
    this.id = id;
    const { tables, engine, env, clock, frameCheck } = vm;
    const place = { tables, engine, pages: vm.mm, nowMs: () => env.nowMs(), clock };
    this.core = new VcpuCore(id, { ...place, ...(frameCheck && { frameCheck }) });
    this.state = this.core.state;
    this.hart.csr.write(CSR.scounteren, SCOUNTEREN_RESET, 0);
    this.thread = vm.threads ? new VcpuThread(vm, this.core) : undefined;
    this.held = new HeldPages(vm.mm);
    this.started = id === 0;
  }

  get hart(): Hart {
    return this.core.hart;
  }

  /** Runs the guest until something needs its owner. Waits for pages, timers and interrupts, and while it is stopped, by itself. */
  async run(): Promise<VcpuExit> {
    if (this.thread !== undefined) await this.vm.beginThreads();
    this.vm.state.nrRunning++;
    this.vm.clock.enter();
    try {
      return await this.runLoop();
    } finally {
      this.vm.clock.leave();
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
      if (!this.started) {
        await this.sleep(Number.POSITIVE_INFINITY);
        continue;
      }
      const exit = this.thread === undefined ? this.enter() : await this.thread.enter();
      if (exit !== HART_EXIT_BUDGET && exit !== HART_EXIT_REQUEST) {
        const out = await this.handle(exit);
        if (out !== undefined) return out;
      }
      if (this.thread === undefined && this.turnIsOver()) await this.giveWay();
    }
  }

  private dead(message: string): VcpuExit {
    this.held.releaseAll();
    return { reason: KVM_EXIT_SHUTDOWN, message };
  }

  private enter(): HartExit {
    const exit = this.core.enter();
    if (this.held.length > 0 && this.hart.instret !== this.waitingAt) this.held.releaseAll();
    return exit;
  }

  private async handle(exit: HartExit): Promise<VcpuExit | undefined> {
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
    const { waitHva, waitFlags, waitGpa } = this.thread ?? this.core.mmu;
    // For a thread of its own, much that needs the mm needs no waiting.
    if (this.thread !== undefined && this.hold(waitHva, waitFlags)) return undefined;
    this.vm.nrMajorFaults++;
    const startMs = this.vm.env.nowMs();
    try {
      await this.faultIn(waitHva, waitFlags);
    } catch (error) {
      if (this.destroyed) return undefined;
      // The slot has gone or moved meanwhile, and what it showed may be gone too: the access begins again.
      if (this.vm.slots.hva(waitGpa) !== waitHva) return undefined;
      return { reason: KVM_EXIT_MEMORY_FAULT, gpa: waitGpa, error: error as Error };
    }
    this.onWait?.(waitGpa, startMs, this.vm.env.nowMs());
    if (this.destroyed) return undefined;
    this.hold(waitHva, waitFlags);
    return undefined;
  }

  /** Whether the page is there now: then it is held. */
  private hold(hva: number, flags: number): boolean {
    const pfn = this.vm.mm.tryGetPage(hva, flags);
    if (pfn <= 0) return false;
    this.held.hold(pfn);
    this.thread?.releaseWhenRetired(this.held);
    return true;
  }

  private faultIn(hva: number, flags: number): Promise<void> {
    const { mm } = this.vm;
    const block = this.mayBlock();
    return this.vm.waitForMemory(() => (block ? mm.faultInSync(hva, flags) : mm.faultIn(hva, flags)));
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

  /** After KVM_EXIT_MMIO for reading: what the device says, of which the access takes its low bytes; before the next `run`. */
  completeMmioRead(value: bigint): void {
    if (this.thread === undefined) this.hart.completeMmioRead(value);
    else this.thread.answerMmio(value);
  }

  /** WFI: sleeps until an interrupt is pending, the timer is due, or `kick`. */
  private async halt(): Promise<void> {
    const sleepMs = this.core.timer.msUntilDue();
    if (sleepMs <= 0 || this.hart.interruptPending()) return;
    await this.sleep(sleepMs);
    this.turnEndsMs = this.vm.env.nowMs() + TURN_MS;
  }

  /** Idle, by the guest's clock. */
  private async sleep(ms: number): Promise<void> {
    this.vm.clock.leave();
    await new Promise<void>((resolve) => {
      const cancel = Number.isFinite(ms) ? this.vm.env.setTimer(() => this.kick(), ms) : undefined;
      this.wake = () => {
        cancel?.();
        resolve();
      };
    });
    this.vm.clock.enter();
  }

  /** Maps guest memory before the guest asks for it (prefault.ts). May wait. */
  preFaultMemory(range: PreFaultMemory): Promise<void> {
    return preFaultMemory(this.vm, range);
  }

  /** Makes a sleeping or running vCPU look at its requests and interrupts (Linux: kvm_vcpu_kick). */
  kick(): void {
    if (!this.destroyed) {
      if (this.thread === undefined) this.hart.request();
      else this.state.kick();
    }
    const wake = this.wake;
    this.wake = undefined;
    wake?.();
  }

  /** Makes `run` return KVM_EXIT_INTR soon. */
  immediateExit(): void {
    this.exitRequested = true;
    if (!this.destroyed && this.thread !== undefined) this.state.request(REQ_EXIT);
    this.kick();
  }

  setInterrupt(cause: number, on: boolean): void {
    if (this.destroyed) return;
    this.hart.setInterruptPending(cause, on);
    if (on) this.kick();
  }

  // HSM.

  get isStarted(): boolean {
    return this.started;
  }

  /** From the guest's HSM call of another hart: at `address`, a0 the hart's id, a1 `opaque`, without paging. */
  start(address: bigint, opaque: bigint): void {
    const { hart } = this;
    hart.resetForStart(address, BigInt(this.id), opaque);
    this.state.request(REQ_TLB_FLUSH);
    this.started = true;
    this.kick();
  }

  stop(): void {
    this.started = false;
    this.held.releaseAll();
  }

  private turnIsOver(): boolean {
    const shorter = this.vm.state.nrWaiting > 0 ? TURN_MS - SHORT_TURN_MS : 0;
    return this.vm.env.nowMs() > this.turnEndsMs - shorter;
  }

  private async giveWay(): Promise<void> {
    await new Promise<void>((resolve) => this.vm.env.defer(resolve));
    this.turnEndsMs = this.vm.env.nowMs() + TURN_MS;
  }

  // Its TLB. With mmuLock held, but for the waiting.

  /** A virtual page (27 bits of its number) of some root. */
  flushPage(vpn: number): void {
    if (this.thread !== undefined) this.requestFlush();
    else this.core.mmu.flushVpn(vpn);
  }

  /** Flushes what a hart without paging may hold of a guest frame. */
  flushBarePage(gfn: number): void {
    if (this.thread === undefined) this.core.mmu.flushBarePage(gfn);
    else this.requestFlush();
  }

  /** Code decoded from a frame goes, which others have written. A thread of its own sees that as any hart does, after `fence.i`. */
  dropCode(pfn: number): void {
    if (this.thread === undefined) this.hart.dropCode(pfn);
  }

  /** It flushes its TLB before it enters the guest, or at once; where it is in the guest, `awaitFlush` waits for that. */
  requestFlush(): void {
    this.ask(REQ_TLB_FLUSH);
  }

  /** `fence.i` by another hart. */
  requestFenceI(): void {
    this.ask(REQ_FENCE_I);
  }

  private ask(bits: number): void {
    if (this.destroyed) return;
    if (this.thread === undefined) this.core.serve(bits);
    else if (!this.state.pending(bits)) this.state.request(bits);
  }

  /** Throws KernelError ETIMEDOUT where its thread has died in the guest. */
  awaitFlush(): void {
    if (this.thread !== undefined && !this.destroyed) this.state.awaitServed(REQ_TLB_FLUSH | REQ_FENCE_I);
  }

  // What it has counted.

  get nrMinor(): number {
    return this.thread?.nrMinor ?? this.core.mmu.nrMinor;
  }

  get nrRetries(): number {
    return this.thread?.nrRetries ?? this.core.mmu.nrRetries;
  }

  get instret(): number {
    return this.hart.instret;
  }

  /** When the guest first ran in user mode, by the environment's clock. */
  get firstUserMs(): number | undefined {
    return this.thread === undefined ? this.core.mmu.firstUserMs : this.thread.firstUserMs;
  }

  /** Starts its thread, if it is to have one; resolves when that is ready. */
  async beginThread(): Promise<void> {
    await this.thread?.begin();
  }

  /** Ends its thread, if it has one: asks first, kills then. It has stopped when the promise resolves (N25). */
  async endThread(): Promise<void> {
    this.immediateExit();
    await this.thread?.end();
  }

  /** Its VM is lost: a thread that does not come out of the guest soon, where it was asked to, is killed. */
  endLostThread(): void {
    this.thread?.endLost();
  }

  /** Kills its thread at whatever it is doing: its guest is lost, the host and all others go on. */
  async killThread(): Promise<void> {
    await this.thread?.kill();
  }

  /** Its hart is gone; `run`, if it waits, comes back soon and touches it no more. */
  destroy(): void {
    this.held.releaseAll();
    this.core.timer.stop();
    this.kick();
    this.destroyed = true;
    this.hart.destroy();
  }
}
