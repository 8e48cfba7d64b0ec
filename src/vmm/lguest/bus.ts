import { KernelError } from '../../base/index.js';
import { type Defer, type GuestMemory, type VirtioDevice, VirtioState } from '../../machine/index.js';

/**
 * lguest's bus: where the guest's RAM ends is a page in which the devices are described, and behind it lie their rings, in pages that are set aside here. The
 * guest tells of what it has put into a ring, and of what it has written to a device's status byte, by LHCALL_NOTIFY; it is told by interrupts. The
 * devices are virtio's (unpin/machine), which know rings and guest memory and nothing of this bus. guests/lguest/bus.h is the other side.
 *
 * A ring that makes no sense, of whatever kind, ends the guest: `onBroken` is told the reason, once a device.
 *
 *   page of descriptors: for each device    type, num_vq, feature_len, config_len, status, a byte each
 *                                           num_vq times: u16 descriptors, u16 interrupt, u32 page of the ring
 *                                           feature_len bytes that the device offers, as many that the driver takes
 *                                           config_len bytes
 *                        then a type of 0
 *
 * Source: Linux's linux/lguest_launcher.h; for the rings and the meaning of the status VIRTIO 1.2, 2.1, 2.7, 3.1.
 * Use: `new LguestBus(options)`, `load` once the memory is there, `notify` for each LHCALL_NOTIFY, `shutdown` before the memory goes.
 */

const PAGE_BYTES = 4096;
const HEADER_BYTES = 5;
const STATUS_AT = 4;
const VQCONFIG_BYTES = 8;
const FEATURE_BYTES = 8;
const DESC_BYTES = 16;
const USED_ELEM_BYTES = 8;
/** flags, idx, and the event index behind the entries. */
const RING_EXTRA_BYTES = 6;
/** Interrupt 0 is the guest's clock. */
const FIRST_IRQ = 1;

export interface LguestBusOptions {
  readonly devices: readonly VirtioDevice[];
  /** Guest-physical address of the page of descriptors, where RAM ends. */
  readonly base: number;
  /** The guest's memory, once it is there. */
  readonly memory: GuestMemory;
  readonly irq: (irq: number) => void;
  readonly defer: Defer;
  readonly onBroken: (device: string, reason: string) => void;
}

interface Ring {
  readonly index: number;
  readonly size: number;
  readonly gpa: number;
}

interface Plugged {
  readonly state: VirtioState;
  readonly irq: number;
  readonly rings: readonly Ring[];
  /** Guest-physical address of its descriptor. */
  readonly gpa: number;
  readonly configBytes: number;
}

export class LguestBus {
  private readonly options: LguestBusOptions;
  private readonly plugged: Plugged[] = [];
  private endGpa: number;

  /** Throws KernelError ENOSPC for more devices than interrupts, or than a page describes. */
  constructor(options: LguestBusOptions) {
    this.options = options;
    this.endGpa = options.base + PAGE_BYTES;
    let descriptor = options.base;
    for (const device of options.devices) {
      this.plugged.push(this.plug(device, descriptor));
      descriptor += descriptorBytes(device);
    }
    if (descriptor >= options.base + PAGE_BYTES || this.plugged.length >= 32 - FIRST_IRQ)
      throw new KernelError(
        'ENOSPC',
        'lguest',
        `${options.devices.length} devices must fit in one page of descriptors`,
      );
  }

  /** Bytes of guest memory behind RAM: descriptors and rings. */
  static lenBytes(devices: readonly VirtioDevice[]): number {
    const sizes = devices.flatMap(({ queueSizes }) => queueSizes);
    return PAGE_BYTES + sizes.reduce((sum, size) => sum + ringBytes(size), 0);
  }

  private plug(device: VirtioDevice, gpa: number): Plugged {
    const irq = FIRST_IRQ + this.plugged.length;
    const { memory, defer } = this.options;
    const setIrq = (on: boolean) => {
      if (on) this.options.irq(irq);
    };
    const onBroken = (reason: string) => this.options.onBroken(device.name, reason);
    const state = new VirtioState({ device, memory, defer, setIrq, onBroken });
    const rings = device.queueSizes.map((size, index) => ({ index, size, gpa: this.setAside(ringBytes(size)) }));
    return { state, irq, rings, gpa, configBytes: device.config.length };
  }

  private setAside(lenBytes: number): number {
    const gpa = this.endGpa;
    this.endGpa += lenBytes;
    return gpa;
  }

  /** Writes the page of descriptors; the rings are zero. */
  async load(): Promise<void> {
    const page = new Uint8Array(PAGE_BYTES);
    for (const plugged of this.plugged) page.set(describe(plugged), plugged.gpa - this.options.base);
    await this.options.memory.write(this.options.base, page);
  }

  /** What LHCALL_NOTIFY named; false where it is nothing of this bus. Returns when the guest may go on; a queue may be served longer. */
  async notify(gpa: number): Promise<boolean> {
    for (const plugged of this.plugged) {
      if (gpa === plugged.gpa) {
        await this.statusChanged(plugged);
        return true;
      }
      const ring = plugged.rings.find((candidate) => candidate.gpa === gpa);
      if (ring === undefined) continue;
      plugged.state.notify(ring.index);
      return true;
    }
    return false;
  }

  /** The driver has written the status byte; what the device makes of it is written back. */
  private async statusChanged({ state, gpa, rings }: Plugged): Promise<void> {
    const { memory } = this.options;
    const status = new Uint8Array(1);
    const taken = new Uint8Array(FEATURE_BYTES);
    await memory.read(gpa + STATUS_AT, status);
    await memory.read(gpa + HEADER_BYTES + rings.length * VQCONFIG_BYTES + FEATURE_BYTES, taken);
    state.driverFeatures = new DataView(taken.buffer).getBigUint64(0, true);
    for (const { index, size, gpa: desc } of rings)
      state.setQueue(index, { ...ringAddresses(size, desc), size, enabled: true });
    state.setStatus(status[0]!);
    await memory.write(gpa + STATUS_AT, Uint8Array.of(state.status));
  }

  /** Resolves when no device accesses guest memory any more. */
  async shutdown(): Promise<void> {
    await Promise.all(this.plugged.map(({ state }) => state.shutdown()));
  }
}

function descriptorBytes({ queueSizes, config }: VirtioDevice): number {
  return HEADER_BYTES + queueSizes.length * VQCONFIG_BYTES + 2 * FEATURE_BYTES + config.length;
}

function describe({ state, irq, rings, configBytes }: Plugged): Uint8Array {
  const { device, deviceFeatures } = state;
  const bytes = new Uint8Array(descriptorBytes(device));
  const view = new DataView(bytes.buffer);
  bytes.set([device.deviceId, rings.length, FEATURE_BYTES, configBytes, 0]);
  rings.forEach(({ size, gpa }, i) => {
    const at = HEADER_BYTES + i * VQCONFIG_BYTES;
    view.setUint16(at, size, true);
    view.setUint16(at + 2, irq, true);
    view.setUint32(at + 4, gpa / PAGE_BYTES, true);
  });
  const featuresAt = HEADER_BYTES + rings.length * VQCONFIG_BYTES;
  view.setBigUint64(featuresAt, deviceFeatures, true);
  bytes.set(device.config, featuresAt + 2 * FEATURE_BYTES);
  return bytes;
}

/** Descriptors, available ring, and from the next page on the used ring, as vring_init of Linux's virtio_ring.h places them. */
function ringAddresses(size: number, desc: number): { desc: number; avail: number; used: number } {
  const avail = desc + size * DESC_BYTES;
  return { desc, avail, used: alignPage(avail + RING_EXTRA_BYTES + 2 * size) };
}

function ringBytes(size: number): number {
  return alignPage(ringAddresses(size, 0).used + RING_EXTRA_BYTES + USED_ELEM_BYTES * size);
}

function alignPage(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
