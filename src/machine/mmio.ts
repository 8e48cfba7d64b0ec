import { KernelError } from '../base/index.js';

/**
 * The bus of memory-mapped devices. A device answers at offsets into its own region; the bus finds it by address.
 * Regions never overlap. Accesses are of 1, 2, 4 or 8 bytes; values are uint32 (no device of ours has a wider register).
 *
 * Use: `add` every device, then `covers(gpa)` and `read` or `write`.
 */

export interface Device {
  readonly name: string;
  /** The register at `offset`, as uint32. A register that does not exist reads 0. */
  read(offset: number, lenBytes: number): number;
  /** Writes to registers that do not exist are ignored. */
  write(offset: number, lenBytes: number, value: number): void;
}

interface Region {
  readonly base: number;
  readonly end: number;
  readonly device: Device;
}

export class MmioBus {
  private readonly regions: Region[] = [];

  /** Throws KernelError EINVAL for an empty region, EBUSY for one that overlaps another. */
  add(base: number, lenBytes: number, device: Device): void {
    const end = base + lenBytes;
    if (!(base >= 0 && lenBytes > 0 && Number.isSafeInteger(end))) {
      throw new KernelError(
        'EINVAL',
        'mmioBus.add',
        `${device.name}: region ${hex(base)}+${lenBytes} must not be empty`,
      );
    }
    const other = this.regions.find((region) => base < region.end && region.base < end);
    if (other !== undefined) {
      throw new KernelError('EBUSY', 'mmioBus.add', `${device.name} at ${hex(base)} overlaps ${other.device.name}`);
    }
    this.regions.push({ base, end, device });
  }

  covers(gpa: number): boolean {
    return this.find(gpa) !== undefined;
  }

  /** All ones where no device answers, as on a bus without a target. */
  read(gpa: number, lenBytes: number): number {
    const region = this.find(gpa);
    return region === undefined ? 0xffffffff : region.device.read(gpa - region.base, lenBytes) >>> 0;
  }

  write(gpa: number, lenBytes: number, value: number): void {
    const region = this.find(gpa);
    region?.device.write(gpa - region.base, lenBytes, value >>> 0);
  }

  private find(gpa: number): Region | undefined {
    for (const region of this.regions) if (gpa >= region.base && gpa < region.end) return region;
    return undefined;
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
