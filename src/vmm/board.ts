import { KernelError } from '../base/index.js';
import type { Vcpu } from '../kvm/index.js';
import {
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

/** What is in RAM at power on, and where the kernel begins. */
interface PowerOn {
  readonly pieces: readonly { address: number; bytes: Uint8Array }[];
  readonly entry: number;
  readonly dtbStart: number;
}

export class Board {
  readonly bus = new MmioBus();
  readonly uart: Uart;
  private readonly plic: Plic;
  private powerOn: PowerOn;
  private vcpu: Vcpu | undefined;

  /** Throws KernelError ENOEXEC for a kernel that is none, ENOMEM for RAM too small. */
  constructor(options: BoardOptions) {
    this.plic = new Plic({
      nrHarts: 1,
      nrSources: PLIC_NR_SOURCES,
      setExternalInterrupt: (_hartId, on) => this.vcpu?.setInterrupt(IRQ_S_EXT, on),
    });
    this.uart = new Uart({ sink: options.console, setIrq: (on) => this.plic.setLevel(UART_IRQ, on) });
    this.bus.add(PLIC_BASE, PLIC_SIZE, this.plic);
    this.bus.add(UART_BASE, UART_SIZE, this.uart);
    this.powerOn = planPowerOn(options);
  }

  /** Writes kernel, initrd and device tree, once, and lets go of them; RAM is zero otherwise. */
  async load(write: (gpa: number, bytes: Uint8Array) => Promise<void>): Promise<void> {
    const { pieces } = this.powerOn;
    this.powerOn = { ...this.powerOn, pieces: [] };
    for (const { address, bytes } of pieces) await write(address, bytes);
  }

  connect(vcpu: Vcpu): void {
    this.vcpu = vcpu;
  }

  /** Registers at the kernel's entry: a0 is the hart's id, a1 the device tree's address. */
  start(): void {
    if (this.vcpu === undefined) throw new KernelError('EINVAL', 'start', 'a vCPU must be connected first');
    const { hart } = this.vcpu;
    hart.pc = BigInt(this.powerOn.entry);
    hart.setX(10, BigInt(this.vcpu.id));
    hart.setX(11, BigInt(this.powerOn.dtbStart));
  }
}

function planPowerOn({ ramBytes, bootargs, initrd, rngSeed, ...options }: BoardOptions): PowerOn {
  const kernel = loadKernel(options.kernel, options.gunzip);
  const initrdBytes = initrd?.length ?? 0;
  const place = (dtbBytes: number) => planBoot({ ramBase: RAM_BASE, ramBytes, kernel, initrdBytes, dtbBytes });
  const start = place(0).initrdStart;
  const range = initrd === undefined ? undefined : { start, end: start + initrdBytes };
  const dtb = boardDeviceTree({ ramBytes, bootargs, ...(range && { initrd: range }), ...(rngSeed && { rngSeed }) });
  const { segments, entry, initrdStart, dtbStart } = place(dtb.length);
  const pieces = [...segments, { address: dtbStart, bytes: dtb }];
  if (initrd !== undefined) pieces.push({ address: initrdStart, bytes: initrd });
  return { pieces, entry, dtbStart };
}
