import { KernelError } from '../base/index.js';
import type { Kernel, Segment } from './kernel.js';

/**
 * Where kernel, initrd and device tree go in a guest's RAM. None overlap; the initrd begins beyond all that the kernel
 * takes (an Image's image_size includes its bss), the device tree beyond the initrd, 2 MiB-aligned, as Linux asks.
 *
 * Use: `planBoot(...)` with the sizes, then the device tree with the initrd's place, then write what `segments`,
 * `initrdStart` and `dtbStart` say. `dtbBytes` may be more than the blob will have.
 */

export interface BootOptions {
  ramBase: number;
  ramBytes: number;
  kernel: Kernel;
  /** 0: no initrd. */
  initrdBytes: number;
  dtbBytes: number;
}

export interface BootPlan {
  /** With guest-physical addresses. */
  readonly segments: readonly Segment[];
  readonly entry: number;
  readonly initrdStart: number;
  readonly dtbStart: number;
}

const PMD_SIZE = 2 << 20;
const MIB = 1 << 20;

/** Throws KernelError ENOMEM for RAM too small, ENOEXEC for an ELF kernel that is linked outside RAM. */
export function planBoot({ ramBase, ramBytes, kernel, initrdBytes, dtbBytes }: BootOptions): BootPlan {
  const offset = kernel.format === 'image' ? alignUp(ramBase, PMD_SIZE) + kernel.textOffset : 0;
  const segments = kernel.segments.map((segment) => ({ ...segment, address: segment.address + offset }));
  const low = segments.find((segment) => segment.address < ramBase);
  if (low !== undefined) {
    const where = `0x${low.address.toString(16)}`;
    throw new KernelError(
      'ENOEXEC',
      'planBoot',
      `the kernel loads at ${where}; RAM begins at 0x${ramBase.toString(16)}`,
    );
  }
  const kernelEnd = Math.max(...segments.map((segment) => segment.address + segment.memBytes));
  const initrdStart = alignUp(kernelEnd, PMD_SIZE);
  const dtbStart = alignUp(initrdStart + initrdBytes, PMD_SIZE);
  const needBytes = dtbStart + dtbBytes - ramBase;
  if (needBytes > ramBytes) {
    const need = `kernel, initrd and device tree need ${Math.ceil(needBytes / MIB)} MiB`;
    throw new KernelError('ENOMEM', 'planBoot', `RAM of ${Math.floor(ramBytes / MIB)} MiB is too small: ${need}`);
  }
  return { segments, entry: kernel.entry + offset, initrdStart, dtbStart };
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
