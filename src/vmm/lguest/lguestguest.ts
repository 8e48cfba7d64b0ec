import { KernelError } from '../../base/index.js';
import {
  LGUEST_RLIMIT_MEMLOCK,
  LGUEST_TRAP_ENTRY,
  type Lguest,
  LguestDeath,
  type LguestDevice,
  type LguestPending,
} from '../../lguest/index.js';
import { VirtioConsole, type VirtioDevice } from '../../machine/index.js';
import {
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  type Mm,
  PAGE_SIZE,
  PROT_READ,
  PROT_WRITE,
} from '../../mm/index.js';
import { Gate } from '../gate.js';
import { type Guest, modeName, type VcpuState } from '../guest.js';
import type { GuestExit, GuestReport } from '../report.js';
import { LguestBus } from './bus.js';
import { type GuestImage, planGuest } from './image.js';

/**
 * The launcher of an lguest guest (Linux: tools/lguest/lguest.c): an mm of its own with a limit on what it may lock, the guest's memory in it, a kernel,
 * devices, and the loop that runs the guest and does what it asks for.
 *
 *   LHCALL_NOTIFY of a ring or a descriptor  the bus (bus.ts)
 *   LHCALL_NOTIFY of an address in RAM       the early console: the text there, up to a 0
 *   LHCALL_NOTIFY of anything else           ends the guest
 *   LHCALL_SHUTDOWN without a word           a power off; with one, a failure that the guest reports
 *
 * Use: `await LguestGuest.create(options)`, then as any Guest.
 */

/** Most of an early line. */
const EARLY_BYTES = 256;
const REG_A1 = 11;

export interface LguestGuestOptions extends GuestImage {
  readonly name: string;
  readonly lguest: LguestDevice;
  /** RLIMIT_MEMLOCK of the launcher's mm, bytes; default Linux's, 64 KiB. */
  readonly rlimitMemlock?: number;
  /** Lock all guest memory first, as lguest of 2007 did; refused with EPERM or ENOMEM unless the limit allows it. */
  readonly pin?: boolean;
  readonly console: (bytes: Uint8Array) => void;
  /** Beside the console. They are the guest's own; what is behind them is closed by whoever made it, after `run`. */
  readonly devices?: readonly VirtioDevice[];
}

export class LguestGuest implements Guest {
  readonly name: string;
  readonly mm: Mm;
  readonly ramBytes: number;
  /** The open device: for who looks closer. */
  readonly lg: Lguest;
  private readonly bus: LguestBus;
  private readonly hvc: VirtioConsole;
  private readonly console: (bytes: Uint8Array) => void;
  private readonly gate = new Gate();
  private ended: { exit: GuestExit; reason: string } | undefined;

  private constructor(options: LguestGuestOptions, lg: Lguest, hvc: VirtioConsole, bus: LguestBus) {
    this.name = options.name;
    this.mm = lg.mm;
    this.ramBytes = options.ramBytes;
    this.console = options.console;
    this.lg = lg;
    this.hvc = hvc;
    this.bus = bus;
  }

  /**
   * Throws KernelError: ENOEXEC or ENOMEM for the kernel and its RAM, ENOSPC for too many devices; with `pin` EPERM where the limit is 0, ENOMEM where it is less
   * than the guest's memory or that does not fit. May wait.
   */
  static async create(options: LguestGuestOptions): Promise<LguestGuest> {
    const { name, lguest, ramBytes, rlimitMemlock = LGUEST_RLIMIT_MEMLOCK } = options;
    const hvc = new VirtioConsole({ sink: options.console });
    const devices = [hvc, ...(options.devices ?? [])];
    const { pieces, entry, dtbStart } = planGuest(options);
    const mm = lguest.host.createMm({ name, rlimitMemlock });
    const lg = lguest.open(mm);
    try {
      const lenBytes = ramBytes + LguestBus.lenBytes(devices);
      const base = mm.mmap(0, lenBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
      for (const { address, bytes } of pieces) await mm.write(base + address, bytes);
      await lg.initialize({ base, pfnLimit: lenBytes / PAGE_SIZE, start: entry, pin: options.pin ?? false });
      lg.setreg(REG_A1, BigInt(dtbStart));
      const bus = createBus(options, lg, devices);
      await bus.load();
      return new LguestGuest(options, lg, hvc, bus);
    } catch (error) {
      lg.close();
      mm.exit();
      throw error;
    }
  }

  async run(): Promise<GuestReport> {
    const startMs = this.lg.device.env.nowMs();
    while (this.ended === undefined) {
      await this.gate.pass();
      await this.runOnce();
    }
    this.gate.open();
    await this.bus.shutdown();
    const report = this.report(this.ended, startMs);
    this.lg.close();
    this.mm.exit();
    return report;
  }

  private async runOnce(): Promise<void> {
    try {
      await this.serve(await this.lg.run());
    } catch (error) {
      if (error instanceof LguestDeath) this.ended ??= endOf(error);
      else if (!(error instanceof KernelError)) throw error;
      // A page of the guest's that cannot be had; EINTR is only a look at the gate.
      else if (error.code !== 'EINTR') this.lg.kill(error.message);
    }
  }

  private async serve({ trap, addr, insn }: LguestPending): Promise<void> {
    const gpa = Number(addr);
    if (trap !== LGUEST_TRAP_ENTRY)
      this.lg.kill(`trap ${trap} at guest-physical 0x${addr.toString(16)} by 0x${insn.toString(16)}`);
    else if (gpa < this.ramBytes) this.console(await this.earlyText(gpa));
    else if (!(await this.bus.notify(gpa))) this.lg.kill(`notified 0x${addr.toString(16)}, where nothing is`);
  }

  private async earlyText(gpa: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(Math.min(EARLY_BYTES, this.ramBytes - gpa));
    await this.lg.memory.read(gpa, bytes);
    const end = bytes.indexOf(0);
    return end < 0 ? bytes : bytes.subarray(0, end);
  }

  kill(exit: 'killed' | 'timeout', reason: string): void {
    this.ended ??= { exit, reason };
    this.lg.kill(reason);
    this.gate.open();
  }

  async pause(): Promise<void> {
    if (this.ended !== undefined) return;
    this.gate.close();
    this.lg.signal();
    await this.gate.reached(1);
  }

  resume(): void {
    this.gate.open();
  }

  get state(): 'running' | 'paused' | GuestExit {
    return this.ended?.exit ?? (this.gate.isClosed ? 'paused' : 'running');
  }

  vcpuStates(): VcpuState[] {
    if (this.ended !== undefined) return [];
    const { hart, directories } = this.lg.cpu;
    const root = `0x${directories.root.toString(16)}`;
    return [{ id: 0, mode: modeName(hart.mode), pc: hart.pc, root, instructions: hart.instret }];
  }

  get faults(): Readonly<GuestReport['faults']> {
    return this.lg.stats.faults;
  }

  /** It has none. */
  async balloonState(): Promise<undefined> {}

  askBalloon(): boolean {
    return false;
  }

  input(bytes: Uint8Array): void {
    this.hvc.receive(bytes);
  }

  resize(columns: number, rows: number): void {
    this.hvc.resize(columns, rows);
  }

  private report(ended: { exit: GuestExit; reason: string }, startMs: number): GuestReport {
    const { instructions, faults, firstUserMs, ...counted } = this.lg.stats;
    return {
      name: this.name,
      ...ended,
      wallMs: Math.round(this.lg.device.env.nowMs() - startMs),
      bootMs: firstUserMs === undefined ? null : Math.round(firstUserMs - startMs),
      instructions,
      faults: { ...faults },
      ramBytes: this.ramBytes,
      residentPeakBytes: this.mm.residentPeakPages * PAGE_SIZE,
      smaps_rollup: this.mm.smapsRollup(),
      lguest: counted,
    };
  }
}

function createBus({ ramBytes }: LguestGuestOptions, lg: Lguest, devices: readonly VirtioDevice[]): LguestBus {
  return new LguestBus({
    devices,
    base: ramBytes,
    memory: lg.memory,
    irq: (irq) => lg.irq(irq),
    defer: (fn) => lg.device.env.defer(fn),
    onBroken: (device, reason) => lg.kill(`${device}: ${reason}`),
  });
}

/** The guest's last words are what it has to complain of. */
function endOf({ how, message }: LguestDeath): { exit: GuestExit; reason: string } {
  if (how === 'killed') return { exit: 'killed', reason: message };
  if (how === 'restart') return { exit: 'reset', reason: 'the guest asked for a restart' };
  return message === '' ? { exit: 'poweroff', reason: '' } : { exit: 'reset', reason: message };
}
