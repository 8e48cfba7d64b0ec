import { KernelError } from '../base/index.js';
import type { Device } from './mmio.js';

/**
 * One PCI function: its configuration space (a type 0 header and a list of capabilities), its memory BARs, and its interrupt pin.
 *
 * Of each byte a mask says which bits the guest may write; whatever it writes, nothing else changes, and a read gives what is there. A BAR
 * answers while memory space is enabled, at the address that the guest gave it; sizing (write ones, read the mask back) comes of the mask.
 *
 * Source: PCI Local Bus Specification 3.0, chapter 6. Use: construct, `addCapability` each, then plug it into a `PciHost`.
 */

export const PCI_COMMAND = 0x04;
export const PCI_COMMAND_MEMORY = 0x0002;
export const PCI_COMMAND_MASTER = 0x0004;
export const PCI_COMMAND_INTX_DISABLE = 0x0400;
export const PCI_STATUS = 0x06;
export const PCI_STATUS_INTERRUPT = 0x0008;
export const PCI_STATUS_CAP_LIST = 0x0010;
export const PCI_BASE_ADDRESS_0 = 0x10;
export const PCI_CAPABILITY_LIST = 0x34;
const PCI_INTERRUPT_LINE = 0x3c;
const PCI_INTERRUPT_PIN = 0x3d;
const CONFIG_BYTES = 256;
const HEADER_BYTES = 64;
const NR_BARS = 6;

/** A 32-bit memory BAR; `lenBytes` is a power of two of at least 16. */
export interface PciBar {
  readonly lenBytes: number;
  readonly device: Device;
}

export interface PciFunctionOptions {
  readonly name: string;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  /** Class, subclass, programming interface: 24 bits. */
  readonly pciClass: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  /** BAR 0 and so on. */
  readonly bars: readonly PciBar[];
}

/** A part of the configuration space that is computed: the window of VIRTIO_PCI_CAP_PCI_CFG. */
export interface ConfigWindow {
  read(lenBytes: number): number;
  write(lenBytes: number, value: number): void;
}

export class PciFunction {
  readonly name: string;
  readonly bars: readonly PciBar[];
  private readonly config = new Uint8Array(CONFIG_BYTES);
  private readonly writable = new Uint8Array(CONFIG_BYTES);
  private readonly windows = new Map<number, ConfigWindow>();
  private capEnd = HEADER_BYTES;
  private lastCapLink = PCI_CAPABILITY_LIST;
  private irq = false;
  private onIrq: (on: boolean) => void = () => {};

  /** Throws KernelError EINVAL for more than 6 BARs, or one whose size is no power of two. */
  constructor(options: PciFunctionOptions) {
    this.name = options.name;
    this.bars = options.bars;
    this.set(0x00, 2, options.vendorId);
    this.set(0x02, 2, options.deviceId);
    this.set(PCI_COMMAND, 2, 0, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    this.set(PCI_STATUS, 2, PCI_STATUS_CAP_LIST);
    this.set(0x08, 4, options.revision | (options.pciClass << 8));
    this.set(0x2c, 2, options.subsystemVendorId);
    this.set(0x2e, 2, options.subsystemId);
    this.set(PCI_INTERRUPT_LINE, 1, 0, 0xff);
    this.set(PCI_INTERRUPT_PIN, 1, 1);
    options.bars.forEach(({ lenBytes }, index) => {
      if (index >= NR_BARS || lenBytes < 16 || (lenBytes & (lenBytes - 1)) !== 0)
        throw new KernelError(
          'EINVAL',
          'pci',
          `${this.name}: BAR ${index} of ${lenBytes} bytes must be a power of two`,
        );
      this.set(PCI_BASE_ADDRESS_0 + 4 * index, 4, 0, -lenBytes);
    });
  }

  /** Appends a capability: `body` is what follows its link byte. Returns its offset. Throws KernelError ENOSPC. */
  addCapability(id: number, body: Uint8Array): number {
    const at = this.capEnd;
    this.capEnd = (at + 2 + body.length + 3) & ~3;
    if (this.capEnd > CONFIG_BYTES)
      throw new KernelError('ENOSPC', 'pci', `${this.name}: capabilities must fit 192 bytes`);
    this.config[at] = id;
    this.config.set(body, at + 2);
    this.config[this.lastCapLink] = at;
    this.lastCapLink = at + 1;
    return at;
  }

  /** Lets the guest write some bits of a capability. */
  allowWrites(offset: number, lenBytes: number, mask: number): void {
    for (let i = 0; i < lenBytes; i++) this.writable[offset + i] = (mask >>> (8 * i)) & 0xff;
  }

  /** Accesses that begin at `offset` go to `window`. */
  addWindow(offset: number, window: ConfigWindow): void {
    this.windows.set(offset, window);
  }

  private set(offset: number, lenBytes: number, value: number, writable = 0): void {
    for (let i = 0; i < lenBytes; i++) this.config[offset + i] = (value >>> (8 * i)) & 0xff;
    this.allowWrites(offset, lenBytes, writable);
  }

  /** Configuration space, as uint32; 0 beyond its 256 bytes. */
  readConfig(offset: number, lenBytes: number): number {
    const window = this.windows.get(offset);
    return window === undefined ? this.word(offset, lenBytes) : window.read(lenBytes) >>> 0;
  }

  /** What is stored there, as uint32. */
  word(offset: number, lenBytes: number): number {
    let value = 0;
    for (let i = Math.min(lenBytes, 4) - 1; i >= 0; i--) value = (value << 8) | (this.config[offset + i] ?? 0);
    return value >>> 0;
  }

  writeConfig(offset: number, lenBytes: number, value: number): void {
    const window = this.windows.get(offset);
    if (window !== undefined) {
      window.write(lenBytes, value);
      return;
    }
    for (let i = 0; i < Math.min(lenBytes, 4) && offset + i < CONFIG_BYTES; i++) {
      const mask = this.writable[offset + i]!;
      this.config[offset + i] = (this.config[offset + i]! & ~mask) | ((value >>> (8 * i)) & mask);
    }
    this.updateIrq();
  }

  /** The BAR that answers at a guest-physical address, and where in it; undefined where none does. */
  decode(gpa: number): { bar: PciBar; offset: number } | undefined {
    if ((this.word(PCI_COMMAND, 2) & PCI_COMMAND_MEMORY) === 0) return undefined;
    for (let index = 0; index < this.bars.length; index++) {
      const bar = this.bars[index]!;
      const offset = gpa - this.word(PCI_BASE_ADDRESS_0 + 4 * index, 4);
      if (offset >= 0 && offset < bar.lenBytes) return { bar, offset };
    }
    return undefined;
  }

  /** The level of its interrupt pin; it goes out while INTx is not disabled. */
  setIrq(on: boolean): void {
    this.irq = on;
    this.updateIrq();
  }

  /** Where the pin leads; called with every level that it takes. */
  connectIrq(onIrq: (on: boolean) => void): void {
    this.onIrq = onIrq;
  }

  private updateIrq(): void {
    const status = this.word(PCI_STATUS, 2) & ~PCI_STATUS_INTERRUPT;
    this.set(PCI_STATUS, 2, status | (this.irq ? PCI_STATUS_INTERRUPT : 0));
    this.onIrq(this.irq && (this.word(PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE) === 0);
  }
}
