import { PciFunction } from '../pcifunction.js';
import { VirtioCommonConfig } from './commonconfig.js';
import { type VirtioOptions, VirtioState } from './transport.js';

/**
 * A virtio device as a PCI function: BAR 0 has the common configuration, the ISR byte, the device's configuration and the notification
 * addresses, a page each, and vendor capabilities say where. Interrupts go by INTx. No legacy interface, no MSI-X.
 *
 * Source: VIRTIO 1.2, 4.1. Use: `const { fn } = new VirtioPci({...})`, then plug `fn` into a `PciHost`.
 */

const VENDOR_ID = 0x1af4;
/** Plus the virtio device id. */
const DEVICE_ID_BASE = 0x1040;
/** Any from 0x40 on tells a driver that this is no transitional device. */
const SUBSYSTEM_ID = 0x1100;
const PCI_CAP_ID_VNDR = 0x09;
const VIRTIO_PCI_CAP_COMMON_CFG = 1;
const VIRTIO_PCI_CAP_NOTIFY_CFG = 2;
const VIRTIO_PCI_CAP_ISR_CFG = 3;
const VIRTIO_PCI_CAP_DEVICE_CFG = 4;
const VIRTIO_PCI_CAP_PCI_CFG = 5;
const COMMON_AT = 0x0000;
const ISR_AT = 0x1000;
const DEVICE_AT = 0x2000;
const NOTIFY_AT = 0x3000;
const BAR_BYTES = 0x4000;
const COMMON_BYTES = 0x38;
/** Queue n is notified at NOTIFY_AT + 4 * n. */
const NOTIFY_OFF_MULTIPLIER = 4;
/** Fields of struct virtio_pci_cap, from the capability's start. */
const CAP_BAR = 4;
const CAP_OFFSET = 8;
const CAP_LENGTH = 12;
const CAP_PCI_CFG_DATA = 16;

export class VirtioPci {
  readonly fn: PciFunction;
  readonly state: VirtioState;
  private readonly common: VirtioCommonConfig;

  constructor(options: Omit<VirtioOptions, 'setIrq'>) {
    const { device } = options;
    this.state = new VirtioState({ ...options, setIrq: (on) => this.fn.setIrq(on) });
    this.common = new VirtioCommonConfig(this.state);
    this.fn = new PciFunction({
      name: device.name,
      vendorId: VENDOR_ID,
      deviceId: DEVICE_ID_BASE + device.deviceId,
      revision: 1,
      pciClass: device.pciClass,
      subsystemVendorId: VENDOR_ID,
      subsystemId: SUBSYSTEM_ID,
      bars: [{ lenBytes: BAR_BYTES, device: this.bar() }],
    });
    this.addCapabilities();
  }

  private addCapabilities(): void {
    const { queueSizes, config } = this.state.device;
    const add = (type: number, offset: number, lenBytes: number, extra: readonly number[] = []) =>
      this.fn.addCapability(PCI_CAP_ID_VNDR, capability(type, offset, lenBytes, extra));
    add(VIRTIO_PCI_CAP_COMMON_CFG, COMMON_AT, COMMON_BYTES);
    add(VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_AT, NOTIFY_OFF_MULTIPLIER * queueSizes.length, [NOTIFY_OFF_MULTIPLIER]);
    add(VIRTIO_PCI_CAP_ISR_CFG, ISR_AT, 1);
    if (config.length > 0) add(VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_AT, config.length);
    this.addPciCfg(add(VIRTIO_PCI_CAP_PCI_CFG, 0, 0, [0]));
  }

  /** The driver writes bar, offset and length (1, 2 or 4), then accesses the data: for who cannot map a BAR. */
  private addPciCfg(at: number): void {
    this.fn.allowWrites(at + CAP_BAR, 1, 0xff);
    this.fn.allowWrites(at + CAP_OFFSET, 4, 0xffff_ffff);
    this.fn.allowWrites(at + CAP_LENGTH, 4, 0xffff_ffff);
    const target = () => {
      const [bar, offset, lenBytes] = [
        this.fn.word(at + CAP_BAR, 1),
        this.fn.word(at + CAP_OFFSET, 4),
        this.fn.word(at + CAP_LENGTH, 4),
      ];
      const valid = bar === 0 && [1, 2, 4].includes(lenBytes) && offset % lenBytes === 0 && offset < BAR_BYTES;
      return valid ? { offset, lenBytes } : undefined;
    };
    this.fn.addWindow(at + CAP_PCI_CFG_DATA, {
      read: () => {
        const to = target();
        return to === undefined ? 0 : this.fn.bars[0]!.device.read(to.offset, to.lenBytes);
      },
      write: (_lenBytes, value) => {
        const to = target();
        if (to !== undefined) this.fn.bars[0]!.device.write(to.offset, to.lenBytes, value);
      },
    });
  }

  private bar() {
    return {
      name: this.state.device.name,
      read: (offset: number, lenBytes: number) => this.read(offset, lenBytes),
      write: (offset: number, lenBytes: number, value: number) => this.write(offset, lenBytes, value),
    };
  }

  private read(offset: number, lenBytes: number): number {
    if (offset < ISR_AT) return this.common.read(offset - COMMON_AT);
    if (offset < DEVICE_AT) return offset === ISR_AT ? this.state.readIsr() : 0;
    if (offset < NOTIFY_AT) return this.readDeviceConfig(offset - DEVICE_AT, lenBytes);
    return 0;
  }

  private write(offset: number, lenBytes: number, value: number): void {
    if (offset < ISR_AT) this.common.write(offset - COMMON_AT, lenBytes, value);
    else if (offset >= NOTIFY_AT) this.state.notify(Math.floor((offset - NOTIFY_AT) / NOTIFY_OFF_MULTIPLIER));
    else if (offset >= DEVICE_AT) this.writeDeviceConfig(offset - DEVICE_AT, lenBytes, value);
  }

  private readDeviceConfig(offset: number, lenBytes: number): number {
    const { config } = this.state.device;
    let value = 0;
    for (let i = Math.min(lenBytes, 4) - 1; i >= 0; i--) value = (value << 8) | (config[offset + i] ?? 0);
    return value >>> 0;
  }

  private writeDeviceConfig(offset: number, lenBytes: number, value: number): void {
    const { device } = this.state;
    if (offset + lenBytes <= device.config.length) device.writeConfig?.(offset, lenBytes, value);
  }
}

/** struct virtio_pci_cap from cap_len on, with more 32-bit words behind it. */
function capability(type: number, offset: number, lenBytes: number, extra: readonly number[]): Uint8Array {
  const body = new Uint8Array(14 + 4 * extra.length);
  const view = new DataView(body.buffer);
  body[0] = body.length + 2;
  body[1] = type;
  view.setUint32(CAP_OFFSET - 2, offset, true);
  view.setUint32(CAP_LENGTH - 2, lenBytes, true);
  for (let i = 0; i < extra.length; i++) view.setUint32(14 + 4 * i, extra[i]!, true);
  return body;
}
