import { KernelError } from '../base/index.js';
import {
  KVM_EXIT_INTR,
  KVM_EXIT_MEMORY_FAULT,
  KVM_EXIT_MMIO,
  KVM_EXIT_SYSTEM_EVENT,
  KVM_SYSTEM_EVENT_SHUTDOWN,
  type Kvm,
  type Vcpu,
  type VcpuExit,
  type Vm,
  VmMemory,
} from '../kvm/index.js';
import { RAM_BASE, type RnicPort, VirtioBalloon, type VirtioConsole, type VirtioDevice } from '../machine/index.js';
import type { Host, Mm } from '../mm/index.js';
import { MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, PAGE_SIZE, PROT_READ, PROT_WRITE } from '../mm/index.js';
import { type BalloonState, balloonReport, balloonState } from './balloonstate.js';
import { Board } from './board.js';
import { Gate } from './gate.js';
import { type Guest, modeName, type VcpuState } from './guest.js';
import type { GuestExit, GuestReport } from './report.js';

/**
 * One guest of `unpin boot`: an mm of its own that holds the guest's RAM, a VM with one vCPU, and a board.
 *
 * Use: `BoardGuest.create(options)`, `run()` once, which resolves with the report when the guest is done, however it
 * ended; then everything it had is given back. `kill` ends it from outside; `pause` and `resume` stop it and let it go on.
 */

export interface BoardGuestOptions {
  name: string;
  kvm: Kvm;
  host: Host;
  ramBytes: number;
  /** Default 1. */
  nrVcpus?: number;
  /** Each vCPU in a thread of its own; default: on the mm thread. */
  threads?: boolean;
  kernel: Uint8Array;
  initrd?: Uint8Array;
  bootargs: string;
  rngSeed?: Uint8Array;
  /** Lock all guest RAM first, as before notifiers; ENOMEM where it does not fit. */
  pin: boolean;
  gunzip: (bytes: Uint8Array) => Uint8Array;
  console: (bytes: Uint8Array) => void;
  /** On the guest's PCI bus. They are the guest's own; what is behind them is closed by whoever made it, after `run`. */
  devices?: readonly VirtioDevice[];
  /** A virtio-console besides the UART: what is typed goes to it once the guest's driver uses it. */
  hvc?: VirtioConsole;
  /** A virtio-balloon, with reporting of free pages; this much is asked of the guest. */
  balloon?: { readonly targetBytes: number };
  /** A NIC that moves the guest's memory by itself, when its doorbell is rung; made when the guest's RAM is there, at `hva` of `mm`. */
  rnic?: (ram: { mm: Mm; hva: number; ramBytes: number }) => Promise<RnicPort>;
  /** The host's date, in milliseconds since 1970; without it the guest has no clock that tells the date. */
  unixMs?: () => number;
  /** A device stopped for what the guest did: one line, once a device. */
  onDeviceBroken?: (message: string) => void;
}

export class BoardGuest implements Guest {
  readonly name: string;
  private readonly kvm: Kvm;
  readonly ramBytes: number;
  readonly mm: Mm;
  private readonly vm: Vm;
  private readonly allVcpus: readonly Vcpu[];
  private readonly board: Board;
  private readonly gate = new Gate();
  /** By `pause`. */
  private clockStands = false;
  private readonly hvc: VirtioConsole | undefined;
  private readonly balloon: VirtioBalloon | undefined;
  private ended: { exit: GuestExit; reason: string } | undefined;

  private constructor(
    options: BoardGuestOptions,
    mm: Mm,
    vm: Vm,
    board: Board,
    balloon: VirtioBalloon | undefined,
    rnic: RnicPort | undefined,
  ) {
    this.name = options.name;
    // Not the options as a whole: they have the kernel's bytes.
    this.kvm = options.kvm;
    this.ramBytes = options.ramBytes;
    this.mm = mm;
    this.vm = vm;
    this.board = board;
    this.hvc = options.hvc;
    this.balloon = balloon;
    this.allVcpus = Array.from({ length: vm.nrVcpus }, (_, id) => vm.createVcpu(id));
    board.connect(this.allVcpus);
    const connection = {
      memory: new VmMemory(vm),
      defer: (fn: () => void) => options.kvm.env.defer(fn),
      onBroken: (device: string, reason: string) => options.onDeviceBroken?.(`${options.name}: ${device}: ${reason}`),
    };
    board.plug(connection);
    if (rnic !== undefined) board.plugRnic(rnic, connection);
  }

  /** Throws KernelError: ENOEXEC or ENOMEM for the kernel and its RAM, ENOMEM where `pin` does not fit. May wait. */
  static async create(options: BoardGuestOptions): Promise<BoardGuest> {
    const { host, ramBytes } = options;
    const nrVcpus = options.nrVcpus ?? 1;
    let memory: VmMemory | undefined;
    let rnic: RnicPort | undefined;
    const balloon = options.balloon && new VirtioBalloon({ memory: { discard: (runs) => memory?.discard(runs) } });
    const devices = [...(options.hvc ? [options.hvc] : []), ...(options.devices ?? []), ...(balloon ? [balloon] : [])];
    const { unixMs, kvm } = options;
    const setTimer = (fn: () => void, ms: number) => kvm.env.setTimer(fn, ms);
    const board = new Board({ ...options, nrVcpus, devices, ...(unixMs && { rtc: { unixMs, setTimer } }) });
    const mm = host.createMm({ name: options.name, rlimitMemlock: options.pin ? ramBytes : 0 });
    try {
      const hva = mm.mmap(0, ramBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
      if (options.pin) await mm.mlock(hva, ramBytes);
      await board.load((gpa, bytes) => mm.write(hva + gpa - RAM_BASE, bytes));
      const console = { write: options.console, read: () => board.uart.takeReceived() };
      const vm = options.kvm.createVm(mm, {
        bus: board.bus,
        console,
        nrVcpus,
        threads: options.threads ?? false,
      });
      vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM_BASE, memorySize: ramBytes, userspaceAddr: hva });
      memory = new VmMemory(vm);
      if (balloon !== undefined) balloon.targetPages = Math.floor(options.balloon!.targetBytes / PAGE_SIZE);
      rnic = await options.rnic?.({ mm, hva, ramBytes });
      return new BoardGuest(options, mm, vm, board, balloon, rnic);
    } catch (error) {
      await rnic?.close();
      mm.exit();
      throw error;
    }
  }

  /** Called for each wait for memory, with guest-physical address, begin and end in the environment's milliseconds. */
  set onWait(fn: (gpa: number, startMs: number, endMs: number) => void) {
    for (const vcpu of this.allVcpus) vcpu.onWait = fn;
  }

  /** Runs to the guest's end. Never rejects for what the guest or its memory did: the report tells it. */
  async run(): Promise<GuestReport> {
    const { env } = this.kvm;
    const startMs = env.nowMs();
    this.board.start();
    await Promise.all(this.allVcpus.map((vcpu) => this.runVcpu(vcpu)));
    this.gate.open();
    const report = this.report(this.ended!, env.nowMs() - startMs, startMs);
    await this.board.shutdown();
    await this.destroy();
    return report;
  }

  /** Until the guest ends, by this vCPU or another. */
  private async runVcpu(vcpu: Vcpu): Promise<void> {
    while (this.ended === undefined) {
      await this.gate.pass();
      const ended = this.handle(vcpu, await vcpu.run());
      if (ended !== undefined) this.end(ended);
    }
  }

  private end(ended: { exit: GuestExit; reason: string }): void {
    this.ended ??= ended;
    for (const vcpu of this.allVcpus) vcpu.immediateExit();
    this.gate.open();
  }

  /** Ends the guest from outside, at the vCPU's next look at its requests. */
  kill(exit: 'killed' | 'timeout', reason: string): void {
    if (this.ended === undefined) this.end({ exit, reason });
  }

  /** Stops its vCPUs, and its clock: when it resolves they are out of the guest until `resume`. Nothing to a guest that has ended. */
  async pause(): Promise<void> {
    if (this.ended !== undefined) return;
    this.gate.close();
    for (const vcpu of this.allVcpus) vcpu.immediateExit();
    await this.gate.reached(this.allVcpus.length);
    if (!this.gate.isClosed || this.clockStands) return;
    // The clock stands as for one vCPU that is not idle and waits.
    this.clockStands = true;
    this.vm.clock.enter();
    this.vm.clock.waitBegins();
  }

  resume(): void {
    if (this.clockStands) {
      this.vm.clock.waitEnds();
      this.vm.clock.leave();
    }
    this.clockStands = false;
    this.gate.open();
  }

  /** How it stands: for those who watch. */
  get state(): 'running' | 'paused' | GuestExit {
    return this.ended?.exit ?? (this.gate.isClosed ? 'paused' : 'running');
  }

  /** Its vCPUs; none once it has ended, when their harts are gone. */
  get vcpus(): readonly Vcpu[] {
    return this.ended === undefined ? this.allVcpus : [];
  }

  vcpuStates(): VcpuState[] {
    return this.vcpus.map(({ id, hart }) => ({
      id,
      mode: modeName(hart.mode),
      pc: hart.pc,
      root: hart.paging ? `0x${hart.satp.toString(16)}` : 'off',
      instructions: hart.instret,
    }));
  }

  /** External faults so far. */
  get faults(): Readonly<GuestReport['faults']> {
    return this.vm.faults;
  }

  async balloonState(): Promise<BalloonState | undefined> {
    return this.balloon && balloonState(this.balloon, this.state === 'running', this.kvm.env);
  }

  askBalloon(targetBytes: number): boolean {
    if (this.balloon === undefined) return false;
    this.balloon.targetPages = Math.floor(targetBytes / PAGE_SIZE);
    return true;
  }

  /** Bytes typed on the guest's console. */
  input(bytes: Uint8Array): void {
    if (this.hvc?.ready) this.hvc.receive(bytes);
    else this.board.uart.receive(bytes);
  }

  /** The terminal's size, in characters, for a console that can be told: virtio's. */
  resize(columns: number, rows: number): void {
    this.hvc?.resize(columns, rows);
  }

  private handle(vcpu: Vcpu, exit: VcpuExit): { exit: GuestExit; reason: string } | undefined {
    switch (exit.reason) {
      case KVM_EXIT_INTR:
        return this.ended;
      case KVM_EXIT_MMIO:
        return this.absentDevice(vcpu, exit.isWrite);
      case KVM_EXIT_SYSTEM_EVENT:
        if (exit.flags !== 0) return { exit: 'reset', reason: 'the guest reported a system failure' };
        return exit.type === KVM_SYSTEM_EVENT_SHUTDOWN
          ? { exit: 'poweroff', reason: '' }
          : { exit: 'reset', reason: 'the guest asked for a reset' };
      case KVM_EXIT_MEMORY_FAULT:
        return { exit: 'killed', reason: this.mm.oomKilled ?? memoryFaultReason(exit.gpa, exit.error) };
      default:
        return { exit: 'killed', reason: exit.message };
    }
  }

  /** No device answers: reads are all ones, writes go nowhere, as on a bus without a target. */
  private absentDevice(vcpu: Vcpu, isWrite: boolean): undefined {
    if (!isWrite) vcpu.completeMmioRead(0xffffffffffffffffn);
  }

  private report(ended: { exit: GuestExit; reason: string }, wallMs: number, startMs: number): GuestReport {
    const first = this.allVcpus.map((vcpu) => vcpu.firstUserMs ?? Number.POSITIVE_INFINITY);
    const firstUserMs = Math.min(...first);
    return {
      name: this.name,
      ...ended,
      wallMs: Math.round(wallMs),
      bootMs: Number.isFinite(firstUserMs) ? Math.round(firstUserMs - startMs) : null,
      instructions: this.allVcpus.reduce((sum, vcpu) => sum + vcpu.instret, 0),
      faults: { minor: this.vm.faults.minor, major: this.vm.faults.major },
      ramBytes: this.ramBytes,
      residentPeakBytes: this.mm.residentPeakPages * 4096,
      smaps_rollup: this.mm.smapsRollup(),
      ...(this.balloon && { balloon: balloonReport(this.balloon) }),
    };
  }

  /** The VM first, so that no external entry is left when the mm gives its frames back. */
  private async destroy(): Promise<void> {
    await this.vm.destroy();
    this.mm.exit();
  }
}

function memoryFaultReason(gpa: number, error: Error): string {
  const where = `guest-physical page 0x${gpa.toString(16)}`;
  if (error instanceof KernelError && error.code === 'EHWPOISON') return `machine check at ${where}: ${error.message}`;
  return `no memory for ${where}: ${error.message}`;
}
