import { KernelError } from '../base/index.js';
import type { GuestMemory } from '../machine/index.js';
import {
  type Mm,
  type MmuSubscription,
  mmuNotifierRegister,
  mmuNotifierUnpin,
  mmuNotifierUnregister,
  PAGE_SIZE,
} from '../mm/index.js';
import type { Hart } from '../riscv/index.js';
import { LGUEST_IRQ_VECTOR, LGUEST_IRQS, LGUEST_REG_PC } from './abi.js';
import { LgCpu, STEP_HALT, STEP_PENDING, STEP_WAIT } from './cpu.js';
import type { LguestDevice } from './device.js';
import { checkInit, type LguestInit } from './init.js';
import { LauncherMemory } from './launchermemory.js';
import { lguestNotifierOps } from './notify.js';
import { pinMemory, unpinMemory } from './pin.js';

/**
 * One guest, as its launcher has it: the requests that Linux's lguest takes by `write` to the device are methods, and `read` is `run`.
 *
 *   const lg = device.open(mm);
 *   const base = mm.mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
 *   await mm.write(base + ..., kernel);
 *   await lg.initialize({ base, pfnLimit: bytes / PAGE_SIZE, start });
 *   try { for (;;) serve(await lg.run()); } catch (death) { ... } finally { lg.close(); }
 */

/** What the launcher must act on (Linux: struct lguest_pending). */
export interface LguestPending {
  /** LGUEST_TRAP_ENTRY: LHCALL_NOTIFY. Else the code of scause: 5 a load, 7 a store or AMO, of device memory; pc is at the instruction, which has done nothing. */
  readonly trap: number;
  /** What LHCALL_NOTIFY named; or the guest-physical address of the access. */
  readonly addr: bigint;
  /** The instruction's bits, 0 for LHCALL_NOTIFY: for the launcher to do in the guest's place, and to set pc behind. */
  readonly insn: number;
}

/** Counted since `initialize`. */
export interface LguestStats {
  readonly instructions: number;
  readonly hypercalls: number;
  /** Shadow entries made by demand_page without waiting, and pages that were waited for. */
  readonly faults: { readonly minor: number; readonly major: number };
  /** Traps, page faults among them, and interrupts that were handed to the guest. */
  readonly traps: number;
  readonly interrupts: number;
  /** LHCALL_NEW_PGTABLE, and those of them that took a page directory from another root. */
  readonly switches: number;
  readonly victims: number;
  /** Shadow entries that notifiers took away. */
  readonly zapped: number;
  /** When the kernel first returned to a process, by the environment's clock. */
  readonly firstUserMs: number | undefined;
}

/** A guest gives way to others after so much time; sooner while one of them waits for a page. */
const TURN_MS = 4;
const SHORT_TURN_MS = 0.5;

export class Lguest {
  readonly device: LguestDevice;
  readonly mm: Mm;
  private lgcpu: LgCpu | undefined;
  private subscription: MmuSubscription | undefined;
  private launcherMemory: LauncherMemory | undefined;
  private initialized = false;
  /** What `pin` has locked: host virtual addresses. */
  private pinned: { readonly start: number; readonly end: number } | undefined;
  private running = false;
  private signalled = false;
  private closed = false;
  private nrMajor = 0;
  /** A turn goes on from one `run` to the next: a guest that notifies without end has to give way too. */
  private turnEndsMs = 0;
  private wake: (() => void) | undefined;

  constructor(device: LguestDevice, mm: Mm) {
    this.device = device;
    this.mm = mm;
  }

  /** For the checker. */
  get cpu(): LgCpu {
    if (this.lgcpu === undefined) throw new KernelError('ENOENT', 'lguest', 'the guest must be initialized first');
    return this.lgcpu;
  }

  /** Whether there is a guest, alive or dead. */
  get isInitialized(): boolean {
    return this.lgcpu !== undefined;
  }

  /** Whether its memory is locked: `pin`. */
  get isPinned(): boolean {
    return this.pinned !== undefined;
  }

  /**
   * LHREQ_INITIALIZE: makes the guest. Once. Rejects with KernelError EINVAL (what is not whole pages), EEXIST (a second time), EBADF (closed, be it meanwhile),
   * EFAULT (the mm has exited), ENOMEM (no room in the arena), and, with `pin`, EPERM or ENOMEM as mlock.
   */
  async initialize(init: LguestInit): Promise<void> {
    this.checkOpen('initialize');
    if (this.initialized) throw new KernelError('EEXIST', 'initialize', 'the guest is initialized already');
    checkInit(init);
    if (this.mm.exited) throw new KernelError('EFAULT', 'initialize', `${this.mm.name} has exited`);
    this.initialized = true;
    try {
      if (init.pin === true) await this.pin(init);
      this.make(init);
    } catch (error) {
      this.unpin();
      this.initialized = false;
      throw error;
    }
  }

  private checkOpen(what: string): void {
    if (this.closed) throw new KernelError('EBADF', what, 'the device is closed');
  }

  private async pin({ base, pfnLimit }: LguestInit): Promise<void> {
    const end = base + pfnLimit * PAGE_SIZE;
    await pinMemory(this.mm, base, end);
    this.pinned = { start: base, end };
    this.checkOpen('initialize');
  }

  private unpin(): void {
    if (this.pinned !== undefined) unpinMemory(this.mm, this.pinned.start, this.pinned.end);
    this.pinned = undefined;
  }

  private make(init: LguestInit): void {
    const cpu = new LgCpu(this.device, this.mm, init);
    const end = init.base + init.pfnLimit * PAGE_SIZE;
    const onPoisoned = (_sub: MmuSubscription, reason: string) =>
      this.kill(`the host tells it nothing more: ${reason}`);
    try {
      this.subscription = mmuNotifierRegister(this.mm, init.base, end, lguestNotifierOps(cpu), { onPoisoned });
    } catch (error) {
      cpu.free();
      throw error;
    }
    this.lgcpu = cpu;
  }

  /** LHREQ_IRQ: interrupt `irq`, 0 to 31, is pending; wakes a guest that halts. Throws KernelError EINVAL. */
  irq(irq: number): void {
    checkRange('irq', irq, LGUEST_IRQS);
    this.cpu.interrupts.raise(irq);
    this.nudge();
  }

  /** LHREQ_GETREG: LGUEST_REG_PC, or x1 to x31. Throws KernelError EINVAL. */
  getreg(reg: number): bigint {
    const hart = this.hart('getreg', reg);
    return reg === LGUEST_REG_PC ? hart.pc : hart.getX(reg);
  }

  /** LHREQ_SETREG. Bit 0 of the pc is 0, whatever `value` has. Throws KernelError EINVAL. */
  setreg(reg: number, value: bigint): void {
    const hart = this.hart('setreg', reg);
    if (reg === LGUEST_REG_PC) hart.pc = value & ~1n;
    else hart.setX(reg, value);
  }

  private hart(what: string, reg: number): Hart {
    checkRange(what, reg, NR_REGS);
    this.checkOpen(what);
    return this.cpu.hart;
  }

  /** LHREQ_TRAP: the guest takes exception `cause` before it goes on, with `tval`. Throws KernelError EINVAL. */
  trap(cause: number, tval = 0n): void {
    checkRange('trap', cause, LGUEST_IRQ_VECTOR);
    const [low, high] = [BigInt.asIntN(32, tval), BigInt.asIntN(32, tval >> 32n)];
    this.cpu.exceptions.inject(cause, Number(low), Number(high));
    this.nudge();
  }

  /**
   * The device's read: runs the guest until the launcher must act. Rejects with LguestDeath when the guest is dead, with KernelError EINTR after `signal`, EBUSY
   * when it runs already, ENOENT before `initialize`. Waits for pages, timers and interrupts by itself, and gives way to others every 4 ms.
   */
  async run(): Promise<LguestPending> {
    const { cpu, device } = this;
    if (this.running) throw new KernelError('EBUSY', 'run', 'the guest runs already');
    this.running = true;
    device.nrRunning++;
    try {
      return await this.runUntilPending(cpu);
    } finally {
      device.nrRunning--;
      this.running = false;
      if (!this.closed) cpu.held.releaseAll();
    }
  }

  private async runUntilPending(cpu: LgCpu): Promise<LguestPending> {
    for (;;) {
      if (this.turnIsOver()) await this.giveWay();
      if (cpu.fate.death !== undefined) throw cpu.fate.death;
      if (this.signalled) {
        this.signalled = false;
        throw new KernelError('EINTR', 'run', 'a signal came');
      }
      switch (cpu.step(this.turnEndsMs)) {
        case STEP_PENDING:
          return cpu.takePending();
        case STEP_WAIT:
          await this.waitForPage(cpu);
          break;
        case STEP_HALT:
          await this.sleep(cpu.interrupts.msUntilDue());
          break;
      }
    }
  }

  private turnIsOver(): boolean {
    return this.device.env.nowMs() > this.turnEndsMs;
  }

  private async giveWay(): Promise<void> {
    await new Promise<void>((resolve) => this.device.env.defer(resolve));
    this.beginTurn();
  }

  private beginTurn(): void {
    this.turnEndsMs = this.device.env.nowMs() + (this.device.nrWaiting > 0 ? SHORT_TURN_MS : TURN_MS);
  }

  /** Waits for the page that lacked, and keeps it until what lacked it is done (N26). */
  private async waitForPage(cpu: LgCpu): Promise<void> {
    const { waitHva, waitFlags } = cpu.access;
    this.nrMajor++;
    try {
      await this.faultIn(cpu, waitHva, waitFlags);
    } catch (error) {
      cpu.fate.kill(this.mm.oomKilled ?? memoryLost(waitHva - cpu.access.base, error as Error));
      return;
    }
    if (this.closed) return;
    const pfn = this.mm.tryGetPage(waitHva, waitFlags);
    if (pfn > 0) cpu.held.hold(pfn);
  }

  private async faultIn(cpu: LgCpu, hva: number, flags: number): Promise<void> {
    const { device, mm } = this;
    const block = device.mayBlock;
    device.nrWaiting++;
    cpu.clock.waitBegins();
    try {
      if (block) mm.faultInSync(hva, flags);
      else await mm.faultIn(hva, flags);
    } finally {
      cpu.clock.waitEnds();
      device.nrWaiting--;
    }
  }

  /** LHCALL_HALT: until an interrupt, the timer, or somebody who wants something. */
  private async sleep(ms: number): Promise<void> {
    if (ms <= 0) return;
    await new Promise<void>((resolve) => {
      const cancel = Number.isFinite(ms) ? this.device.env.setTimer(() => this.nudge(), ms) : undefined;
      this.wake = () => {
        cancel?.();
        resolve();
      };
    });
    this.beginTurn();
  }

  /** Makes the guest come out, or wake up, and look. */
  private nudge(): void {
    if (this.lgcpu !== undefined && !this.closed) this.lgcpu.hart.request();
    const { wake } = this;
    this.wake = undefined;
    wake?.();
  }

  /** Makes `run` reject with EINTR soon, as a signal does to a read; it may be called again then. */
  signal(): void {
    this.signalled = true;
    this.nudge();
  }

  /** Ends the guest from outside: `run` rejects with LguestDeath 'killed' and this reason. The first reason stays. */
  kill(reason: string): void {
    this.cpu.fate.kill(reason);
    this.nudge();
  }

  /** The guest's memory as the launcher's devices reach it. */
  get memory(): GuestMemory {
    this.launcherMemory ??= new LauncherMemory(this.cpu);
    return this.launcherMemory;
  }

  get stats(): LguestStats {
    const { hart, hypercalls, mmu, traps, interrupts, directories } = this.cpu;
    return {
      instructions: hart.instret,
      hypercalls: hypercalls.nrCalls,
      faults: { minor: mmu.nrMinor, major: this.nrMajor },
      traps: traps.nrDelivered,
      interrupts: interrupts.nrDelivered,
      switches: directories.nrSwitches,
      victims: directories.nrVictims,
      zapped: directories.nrZapped,
      firstUserMs: traps.firstUserMs,
    };
  }

  /**
   * Closes the device: the guest is gone, and everything that the driver had for it; a `run` under way rejects with LguestDeath. The launcher's memory stays. Twice is no
   * error. Throws KernelError EDEADLK in a callback of the mm, EBUSY inside a bracket; it is open still then.
   */
  close(): void {
    if (this.closed) return;
    const { lgcpu: cpu, subscription } = this;
    // First of all: where it is refused, nothing has been taken from under the callbacks.
    if (subscription !== undefined) mmuNotifierUnregister(subscription);
    this.closed = true;
    if (cpu === undefined) return;
    cpu.fate.kill('the device was closed');
    cpu.free();
    mmuNotifierUnpin(subscription!);
    this.unpin();
    this.nudge();
  }
}

const NR_REGS = 32;

function checkRange(what: string, value: number, end: number): void {
  if (Number.isInteger(value) && value >= 0 && value < end) return;
  throw new KernelError('EINVAL', what, `${what} ${value} must be an integer from 0 to ${end - 1}`);
}

function memoryLost(gpa: number, error: Error): string {
  const where = `guest-physical page 0x${gpa.toString(16)}`;
  if (error instanceof KernelError && error.code === 'EHWPOISON') return `machine check at ${where}: ${error.message}`;
  return `no memory for ${where}: ${error.message}`;
}
