import { RP2040 } from 'rp2040js';
import type { GuestRam } from 'unpin';

/** Of the RP2040's address map. */
export const FLASH_START_ADDRESS = 0x1000_0000;
export const RAM_START_ADDRESS = 0x2000_0000;

/**
 * rp2040js (an emulator of the Raspberry Pi Pico, from npm) with RAM that is a GuestRam: six methods of its bus, and nothing else
 * of it, are replaced. The chip has 264 KiB; here it has as much as fits below its peripherals, 512 MiB, and all of it need not be
 * in memory.
 */
export class BigPico extends RP2040 {
  /** Set once the emulator's own constructor has run. */
  private readonly ram: GuestRam | undefined;

  constructor(ram: GuestRam) {
    super();
    this.ram = ram;
  }

  override readUint8(address: number): number {
    const at = (address - RAM_START_ADDRESS) >>> 0;
    const { ram } = this;
    return ram !== undefined && at < ram.lenBytes ? ram.readUint8(at) : super.readUint8(address);
  }

  override readUint16(address: number): number {
    const at = (address - RAM_START_ADDRESS) >>> 0;
    const { ram } = this;
    return ram !== undefined && at < ram.lenBytes ? ram.readUint16(at) : super.readUint16(address);
  }

  override readUint32(address: number): number {
    const at = (address - RAM_START_ADDRESS) >>> 0;
    const { ram } = this;
    return ram !== undefined && at < ram.lenBytes ? ram.readUint32(at) : super.readUint32(address);
  }

  override writeUint8(address: number, value: number): void {
    const at = (address - RAM_START_ADDRESS) >>> 0;
    const { ram } = this;
    if (ram !== undefined && at < ram.lenBytes) ram.writeUint8(at, value);
    else super.writeUint8(address, value);
  }

  override writeUint16(address: number, value: number): void {
    const at = (address - RAM_START_ADDRESS) >>> 0;
    const { ram } = this;
    if (ram !== undefined && at < ram.lenBytes) ram.writeUint16(at, value);
    else super.writeUint16(address, value);
  }

  override writeUint32(address: number, value: number): void {
    const at = (address - RAM_START_ADDRESS) >>> 0;
    const { ram } = this;
    if (ram !== undefined && at < ram.lenBytes) ram.writeUint32(at, value);
    else super.writeUint32(address, value);
  }
}
