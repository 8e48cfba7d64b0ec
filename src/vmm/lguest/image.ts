import { buildDeviceTree, cells64, loadKernel, planBoot, TIMEBASE_FREQUENCY } from '../../machine/index.js';

/**
 * What is in an lguest guest's memory when it begins: its kernel, at 2 MiB as any RISC-V Image, and what Linux's launcher says in struct boot_params, here
 * as a device tree: memory, which begins at 0, clock, and command line.
 */

export interface GuestImage {
  readonly ramBytes: number;
  readonly kernel: Uint8Array;
  readonly bootargs: string;
  readonly gunzip: (bytes: Uint8Array) => Uint8Array;
}

export interface GuestPlan {
  /** By guest-physical address. */
  readonly pieces: readonly { readonly address: number; readonly bytes: Uint8Array }[];
  readonly entry: number;
  readonly dtbStart: number;
}

/** Throws KernelError ENOEXEC for a kernel that is none, ENOMEM for RAM too small. */
export function planGuest({ ramBytes, kernel, bootargs, gunzip }: GuestImage): GuestPlan {
  const dtb = deviceTree(ramBytes, bootargs);
  const loaded = loadKernel(kernel, gunzip);
  const plan = planBoot({ ramBase: 0, ramBytes, kernel: loaded, initrdBytes: 0, dtbBytes: dtb.length });
  const { segments, entry, dtbStart } = plan;
  return { pieces: [...segments, { address: dtbStart, bytes: dtb }], entry, dtbStart };
}

function deviceTree(ramBytes: number, bootargs: string): Uint8Array {
  return buildDeviceTree({
    properties: { '#address-cells': 2, '#size-cells': 2, compatible: 'unpin,lguest', model: 'unpin,lguest' },
    children: {
      chosen: { properties: { bootargs } },
      'memory@0': { properties: { device_type: 'memory', reg: [...cells64(0), ...cells64(ramBytes)] } },
      cpus: {
        properties: { '#address-cells': 1, '#size-cells': 0, 'timebase-frequency': TIMEBASE_FREQUENCY },
      },
    },
  });
}
