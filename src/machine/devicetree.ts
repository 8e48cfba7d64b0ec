import { buildDeviceTree, cells64, type FdtNode } from './fdt.js';
import { PCI_ECAM_BYTES, PCI_NR_DEVICES } from './pci.js';

/**
 * The board as its device tree says it: QEMU virt's physical map, with only what works here.
 */

export const PLIC_BASE = 0x0c00_0000;
export const UART_BASE = 0x1000_0000;
export const UART_SIZE = 0x100;
export const UART_IRQ = 10;
export const RTC_BASE = 0x0010_1000;
export const RTC_SIZE = 0x1000;
export const RTC_IRQ = 11;
export const RAM_BASE = 0x8000_0000;
export const TIMEBASE_FREQUENCY = 10_000_000;
export const PCI_ECAM_BASE = 0x3000_0000;
export const PCI_WINDOW_BASE = 0x4000_0000;
export const PCI_WINDOW_BYTES = 0x4000_0000;
/** The interrupt of PCI device n is source PCI_IRQ_BASE + n. */
export const PCI_IRQ_BASE = 32;
/** Sources 1 to 95, as QEMU virt has. */
export const PLIC_NR_SOURCES = 95;

const PLIC_BYTES = 0x0400_0000;
const UART_CLOCK_HZ = 3_686_400;
const IRQ_S_EXT = 9;
const PHANDLE_PLIC = 1;
const PHANDLE_CPU_INTC = 2;

export interface BoardDeviceTreeOptions {
  ramBytes: number;
  bootargs: string;
  nrHarts?: number;
  /** Half-open, guest-physical. */
  initrd?: { start: number; end: number };
  rngSeed?: Uint8Array;
  /** There is a PCI host bridge. */
  pci?: boolean;
  /** There is a clock that tells the date. */
  rtc?: boolean;
}

export function boardDeviceTree(options: BoardDeviceTreeOptions): Uint8Array {
  const nrHarts = options.nrHarts ?? 1;
  return buildDeviceTree({
    properties: { '#address-cells': 2, '#size-cells': 2, compatible: 'unpin,board', model: 'unpin,board' },
    children: {
      chosen: chosen(options),
      [`memory@${RAM_BASE.toString(16)}`]: {
        properties: { device_type: 'memory', reg: [...cells64(RAM_BASE), ...cells64(options.ramBytes)] },
      },
      cpus: cpus(nrHarts),
      soc: soc(nrHarts, options.pci ?? false, options.rtc ?? false),
    },
  });
}

function chosen({ bootargs, initrd, rngSeed }: BoardDeviceTreeOptions): FdtNode {
  return {
    properties: {
      bootargs,
      'stdout-path': `/soc/serial@${UART_BASE.toString(16)}`,
      ...(initrd && { 'linux,initrd-start': cells64(initrd.start), 'linux,initrd-end': cells64(initrd.end) }),
      ...(rngSeed && { 'rng-seed': rngSeed }),
    },
  };
}

function cpus(nrHarts: number): FdtNode {
  const harts = Array.from({ length: nrHarts }, (_, hartId) => [`cpu@${hartId.toString(16)}`, cpu(hartId)] as const);
  return {
    properties: { '#address-cells': 1, '#size-cells': 0, 'timebase-frequency': TIMEBASE_FREQUENCY },
    children: Object.fromEntries(harts),
  };
}

/** The ISA in both forms: the string of old, in canonical order, and the properties that replace it. */
function cpu(hartId: number): FdtNode {
  return {
    properties: {
      device_type: 'cpu',
      reg: hartId,
      status: 'okay',
      compatible: 'riscv',
      'mmu-type': 'riscv,sv39',
      'riscv,isa': 'rv64imafdc_zicsr_zifencei',
      'riscv,isa-base': 'rv64i',
      'riscv,isa-extensions': ['i', 'm', 'a', 'f', 'd', 'c', 'zicsr', 'zifencei'],
    },
    children: {
      'interrupt-controller': {
        properties: {
          '#interrupt-cells': 1,
          '#address-cells': 0,
          'interrupt-controller': true,
          compatible: 'riscv,cpu-intc',
          phandle: PHANDLE_CPU_INTC + hartId,
        },
      },
    },
  };
}

function soc(nrHarts: number, hasPci: boolean, hasRtc: boolean): FdtNode {
  const contexts = Array.from({ length: nrHarts }, (_, hartId) => [PHANDLE_CPU_INTC + hartId, IRQ_S_EXT]).flat();
  return {
    properties: { '#address-cells': 2, '#size-cells': 2, compatible: 'simple-bus', ranges: true },
    children: {
      [`interrupt-controller@${PLIC_BASE.toString(16)}`]: {
        properties: {
          compatible: ['sifive,plic-1.0.0', 'riscv,plic0'],
          reg: [...cells64(PLIC_BASE), ...cells64(PLIC_BYTES)],
          '#interrupt-cells': 1,
          '#address-cells': 0,
          'interrupt-controller': true,
          'interrupts-extended': contexts,
          'riscv,ndev': PLIC_NR_SOURCES,
          phandle: PHANDLE_PLIC,
        },
      },
      [`serial@${UART_BASE.toString(16)}`]: {
        properties: {
          compatible: 'ns16550a',
          reg: [...cells64(UART_BASE), ...cells64(UART_SIZE)],
          'clock-frequency': UART_CLOCK_HZ,
          'interrupt-parent': PHANDLE_PLIC,
          interrupts: UART_IRQ,
        },
      },
      ...(hasRtc && {
        [`rtc@${RTC_BASE.toString(16)}`]: {
          properties: {
            compatible: 'google,goldfish-rtc',
            reg: [...cells64(RTC_BASE), ...cells64(RTC_SIZE)],
            'interrupt-parent': PHANDLE_PLIC,
            interrupts: RTC_IRQ,
          },
        },
      }),
      ...(hasPci && { [`pci@${PCI_ECAM_BASE.toString(16)}`]: pci() }),
    },
  };
}

/** Bus 0 alone, memory space alone: PCI addresses in the window are guest-physical ones. Pin A of each device has a source of its own. */
function pci(): FdtNode {
  const nonPrefetchable32 = 0x0200_0000;
  const device = (n: number) => [(n << 11) >>> 0, 0, 0];
  const pinA = 1;
  const lines = Array.from({ length: PCI_NR_DEVICES }, (_, n) => [...device(n), pinA, PHANDLE_PLIC, PCI_IRQ_BASE + n]);
  return {
    properties: {
      device_type: 'pci',
      compatible: 'pci-host-ecam-generic',
      reg: [...cells64(PCI_ECAM_BASE), ...cells64(PCI_ECAM_BYTES)],
      'bus-range': [0, 0],
      'linux,pci-domain': 0,
      '#address-cells': 3,
      '#size-cells': 2,
      ranges: [
        nonPrefetchable32,
        ...cells64(PCI_WINDOW_BASE),
        ...cells64(PCI_WINDOW_BASE),
        ...cells64(PCI_WINDOW_BYTES),
      ],
      'dma-coherent': true,
      '#interrupt-cells': 1,
      'interrupt-map-mask': [0xf800, 0, 0, 7],
      'interrupt-map': lines.flat(),
    },
  };
}
