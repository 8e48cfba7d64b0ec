import { KernelError } from '../base/index.js';
import type { Vcpu } from '../kvm/index.js';
import {
  boardDeviceTree,
  type Defer,
  GoldfishRtc,
  type GoldfishRtcOptions,
  type GuestMemory,
  loadKernel,
  MmioBus,
  PCI_ECAM_BASE,
  PCI_ECAM_BYTES,
  PCI_IRQ_BASE,
  PCI_WINDOW_BASE,
  PCI_WINDOW_BYTES,
  PciHost,
  PLIC_BASE,
  PLIC_NR_SOURCES,
  PLIC_SIZE,
  Plic,
  planBoot,
  RAM_BASE,
  RNIC_BASE,
  RNIC_SIZE,
  RnicDoorbell,
  type RnicPort,
  RTC_BASE,
  RTC_IRQ,
  RTC_SIZE,
  UART_BASE,
  UART_IRQ,
  UART_SIZE,
  Uart,
  type VirtioDevice,
  VirtioPci,
} from '../machine/index.js';
import { IRQ_S_EXT } from '../riscv/index.js';

/**
 * The board around a guest's vCPUs: interrupt controller, UART, virtio devices on PCI, and what is in RAM at power on.
 *
 * Use: construct (which plans where all goes, and refuses what does not fit), `load` into guest RAM, `connect` the vCPUs, `plug` the
 * devices, `start` the first vCPU; the guest starts the others; at the end `shutdown`, before the memory goes.
 */

export interface BoardOptions {
  readonly ramBytes: number;
  readonly nrVcpus: number;
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly bootargs: string;
  /** Random bytes for the guest's random number generator; without them Linux spins for its entropy while it boots. */
  readonly rngSeed?: Uint8Array;
  readonly gunzip: (bytes: Uint8Array) => Uint8Array;
  readonly console: (bytes: Uint8Array) => void;
  /** The date, and timers for its alarm; without them the board has no clock that tells it. */
  readonly rtc?: Omit<GoldfishRtcOptions, 'setIrq'>;
  /** On PCI, from device number 1 on. Without any there is no PCI. */
  readonly devices?: readonly VirtioDevice[];
}

/** What the devices need of the VM. */
export interface DeviceConnection {
  readonly memory: GuestMemory;
  readonly defer: Defer;
  /** A device cannot go on, for what the guest did; once a device. */
  readonly onBroken: (device: string, reason: string) => void;
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
  private readonly rtc: GoldfishRtc | undefined;
  private powerOn: PowerOn;
  private vcpus: readonly Vcpu[] = [];
  private readonly devices: readonly VirtioDevice[];
  private readonly pci: PciHost;
  private plugged: readonly VirtioPci[] = [];
  private doorbell: RnicDoorbell | undefined;

  /** Throws KernelError ENOEXEC for a kernel that is none, ENOMEM for RAM too small. */
  constructor(options: BoardOptions) {
    this.plic = new Plic({
      nrHarts: options.nrVcpus,
      nrSources: PLIC_NR_SOURCES,
      setExternalInterrupt: (hartId, on) => this.vcpus[hartId]?.setInterrupt(IRQ_S_EXT, on),
    });
    this.uart = new Uart({ sink: options.console, setIrq: (on) => this.plic.setLevel(UART_IRQ, on) });
    this.bus.add(PLIC_BASE, PLIC_SIZE, this.plic);
    this.bus.add(UART_BASE, UART_SIZE, this.uart);
    if (options.rtc !== undefined) {
      this.rtc = new GoldfishRtc({ ...options.rtc, setIrq: (on) => this.plic.setLevel(RTC_IRQ, on) });
      this.bus.add(RTC_BASE, RTC_SIZE, this.rtc);
    }
    this.devices = options.devices ?? [];
    const setIrq = (device: number, on: boolean) => this.plic.setLevel(PCI_IRQ_BASE + device, on);
    this.pci = new PciHost({ windowBase: PCI_WINDOW_BASE, setIrq });
    if (this.devices.length > 0) {
      this.bus.add(PCI_ECAM_BASE, PCI_ECAM_BYTES, this.pci.ecam);
      this.bus.add(PCI_WINDOW_BASE, PCI_WINDOW_BYTES, this.pci.window);
    }
    this.powerOn = planPowerOn(options);
  }

  /** Writes kernel, initrd and device tree, once, and lets go of them; RAM is zero otherwise. */
  async load(write: (gpa: number, bytes: Uint8Array) => Promise<void>): Promise<void> {
    const { pieces } = this.powerOn;
    this.powerOn = { ...this.powerOn, pieces: [] };
    for (const { address, bytes } of pieces) await write(address, bytes);
  }

  /** By the ids of their harts. */
  connect(vcpus: readonly Vcpu[]): void {
    this.vcpus = vcpus;
  }

  /** Throws KernelError ENOSPC for more than 31 devices. */
  plug({ memory, defer, onBroken }: DeviceConnection): void {
    this.plugged = this.devices.map(
      (device) => new VirtioPci({ device, memory, defer, onBroken: (reason) => onBroken(device.name, reason) }),
    );
    for (const { fn } of this.plugged) this.pci.plug(fn);
  }

  /** A NIC's doorbell, behind which is `port`. */
  plugRnic(port: RnicPort, { memory, onBroken }: DeviceConnection): void {
    this.doorbell = new RnicDoorbell({ port, memory, onBroken: (reason) => onBroken('rnic', reason) });
    this.bus.add(RNIC_BASE, RNIC_SIZE, this.doorbell);
  }

  /** Resolves when no device accesses guest memory any more. */
  async shutdown(): Promise<void> {
    this.rtc?.stop();
    await this.doorbell?.shutdown();
    await Promise.all(this.plugged.map(({ state }) => state.shutdown()));
  }

  /** Registers at the kernel's entry: a0 is the hart's id, a1 the device tree's address. */
  start(): void {
    const [first] = this.vcpus;
    if (first === undefined) throw new KernelError('EINVAL', 'start', 'a vCPU must be connected first');
    const { hart } = first;
    hart.pc = BigInt(this.powerOn.entry);
    hart.setX(10, BigInt(first.id));
    hart.setX(11, BigInt(this.powerOn.dtbStart));
  }
}

function planPowerOn(power: BoardOptions): PowerOn {
  const { ramBytes, nrVcpus: nrHarts, bootargs, initrd, rngSeed, devices = [], ...options } = power;
  const kernel = loadKernel(options.kernel, options.gunzip);
  const initrdBytes = initrd?.length ?? 0;
  const place = (dtbBytes: number) => planBoot({ ramBase: RAM_BASE, ramBytes, kernel, initrdBytes, dtbBytes });
  const start = place(0).initrdStart;
  const range = initrd === undefined ? undefined : { start, end: start + initrdBytes };
  const pci = devices.length > 0;
  const dtb = boardDeviceTree({
    ramBytes,
    nrHarts,
    bootargs,
    pci,
    rtc: options.rtc !== undefined,
    ...(range && { initrd: range }),
    ...(rngSeed && { rngSeed }),
  });
  const { segments, entry, initrdStart, dtbStart } = place(dtb.length);
  const pieces = [...segments, { address: dtbStart, bytes: dtb }];
  if (initrd !== undefined) pieces.push({ address: initrdStart, bytes: initrd });
  return { pieces, entry, dtbStart };
}
