import { KernelError } from '../base/index.js';
import type { Vcpu } from '../kvm/index.js';
import {
  type BootPlan,
  boardDeviceTree,
  loadKernel,
  MmioBus,
  PLIC_BASE,
  PLIC_NR_SOURCES,
  PLIC_SIZE,
  Plic,
  planBoot,
  RAM_BASE,
  UART_BASE,
  UART_IRQ,
  UART_SIZE,
  Uart,
} from '../machine/index.js';
import { IRQ_S_EXT } from '../riscv/index.js';

/**
 * The board around a guest's vCPU: interrupt controller, UART, and what is in RAM at power on.
 *
 * Use: construct (which plans where all goes, and refuses what does not fit), `load` into guest RAM, `connect` the vCPU,
 * `start` it.
 */

export interface BoardOptions {
  readonly ramBytes: number;
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly bootargs: string;
  /** Random bytes for the guest's random number generator; without them Linux spins for its entropy while it boots. */
  readonly rngSeed?: Uint8Array;
  readonly gunzip: (bytes: Uint8Array) => Uint8Array;
  readonly console: (bytes: Uint8Array) => void;
}

export class Board {
  readonly bus = new MmioBus();
  readonly uart: Uart;
  private readonly plic: Plic;
  private readonly options: BoardOptions;
  private readonly plan: BootPlan;
  private readonly dtb: Uint8Array;
  private vcpu: Vcpu | undefined;

  /** Throws KernelError ENOEXEC for a kernel that is none, ENOMEM for RAM too small. */
  constructor(options: BoardOptions) {
    this.options = options;
    this.plic = new Plic({
      nrHarts: 1,
      nrSources: PLIC_NR_SOURCES,
      setExternalInterrupt: (_hartId, on) => this.vcpu?.setInterrupt(IRQ_S_EXT, on),
    });
    this.uart = new Uart({ sink: options.console, setIrq: (on) => this.plic.setLevel(UART_IRQ, on) });
    this.bus.add(PLIC_BASE, PLIC_SIZE, this.plic);
    this.bus.add(UART_BASE, UART_SIZE, this.uart);
    const { ramBytes, initrd, bootargs, rngSeed } = options;
    const kernel = loadKernel(options.kernel, options.gunzip);
    const initrdBytes = initrd?.length ?? 0;
    const place = (dtbBytes: number) => planBoot({ ramBase: RAM_BASE, ramBytes, kernel, initrdBytes, dtbBytes });
    const start = place(0).initrdStart;
    const range = initrd === undefined ? undefined : { start, end: start + initrdBytes };
    this.dtb = boardDeviceTree({ ramBytes, bootargs, ...(range && { initrd: range }), ...(rngSeed && { rngSeed }) });
    this.plan = place(this.dtb.length);
  }

  /** Writes kernel, initrd and device tree; RAM is zero otherwise. */
  async load(write: (gpa: number, bytes: Uint8Array) => Promise<void>): Promise<void> {
    for (const { address, bytes } of this.plan.segments) await write(address, bytes);
    if (this.options.initrd !== undefined) await write(this.plan.initrdStart, this.options.initrd);
    await write(this.plan.dtbStart, this.dtb);
  }

  connect(vcpu: Vcpu): void {
    this.vcpu = vcpu;
  }

  /** Registers at the kernel's entry: a0 is the hart's id, a1 the device tree's address. */
  start(): void {
    if (this.vcpu === undefined) throw new KernelError('EINVAL', 'start', 'a vCPU must be connected first');
    const { hart } = this.vcpu;
    hart.pc = BigInt(this.plan.entry);
    hart.setX(10, BigInt(this.vcpu.id));
    hart.setX(11, BigInt(this.plan.dtbStart));
  }
}
