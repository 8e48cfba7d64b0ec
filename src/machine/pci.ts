import { KernelError } from '../base/index.js';
import type { Device } from './mmio.js';
import type { PciFunction } from './pcifunction.js';

/**
 * A PCI host bridge with one bus of 32 devices, function 0 of each (pci-host-ecam-generic): the whole configuration space is memory
 * (ECAM), BARs lie in one 32-bit memory window, and interrupt pin A of each device is a line of its own.
 *
 * Where nothing is plugged in, configuration space reads as ones. Where BARs overlap, the device with the lower number answers; that harms
 * the guest alone.
 *
 * Source: PCI Express Base Specification, 7.2.2 (ECAM). Use: `plug` each function, then put `ecam` and `window` on the bus.
 */

export const PCI_NR_DEVICES = 32;
/** Of ECAM: 4 KiB a function, 8 functions a device, 32 devices. */
export const PCI_ECAM_BYTES = 0x10_0000;

export interface PciHostOptions {
  /** Guest-physical address of the memory window. */
  readonly windowBase: number;
  /** The level of a device's interrupt line. */
  readonly setIrq: (device: number, on: boolean) => void;
}

export class PciHost {
  readonly ecam: Device;
  readonly window: Device;
  private readonly options: PciHostOptions;
  private readonly functions: (PciFunction | undefined)[] = new Array(PCI_NR_DEVICES).fill(undefined);

  constructor(options: PciHostOptions) {
    this.options = options;
    this.ecam = {
      name: 'pci-ecam',
      read: (offset, lenBytes) => this.at(offset)?.readConfig(offset & 0xfff, lenBytes) ?? 0xffffffff,
      write: (offset, lenBytes, value) => this.at(offset)?.writeConfig(offset & 0xfff, lenBytes, value),
    };
    this.window = {
      name: 'pci-window',
      read: (offset, lenBytes) => this.readBar(offset + options.windowBase, lenBytes),
      write: (offset, lenBytes, value) => this.writeBar(offset + options.windowBase, lenBytes, value),
    };
  }

  /** Puts a function into the lowest free device number from 1 on, which it returns. Throws KernelError ENOSPC. */
  plug(fn: PciFunction): number {
    const device = this.functions.indexOf(undefined, 1);
    if (device < 0)
      throw new KernelError('ENOSPC', 'pci.plug', `${fn.name}: the bus has ${PCI_NR_DEVICES - 1} devices already`);
    this.functions[device] = fn;
    fn.connectIrq((on) => this.options.setIrq(device, on));
    return device;
  }

  /** The function at an ECAM offset. Device 0 is the bridge's own number, which needs no registers. */
  private at(offset: number): PciFunction | undefined {
    return ((offset >>> 12) & 7) === 0 ? this.functions[offset >>> 15] : undefined;
  }

  private readBar(gpa: number, lenBytes: number): number {
    for (const fn of this.functions) {
      const hit = fn?.decode(gpa);
      if (hit !== undefined) return hit.bar.device.read(hit.offset, lenBytes);
    }
    return 0xffffffff;
  }

  private writeBar(gpa: number, lenBytes: number, value: number): void {
    for (const fn of this.functions) {
      const hit = fn?.decode(gpa);
      if (hit === undefined) continue;
      hit.bar.device.write(hit.offset, lenBytes, value);
      return;
    }
  }
}
