import type { GuestMemory } from '../guestmemory.js';
import type { VirtioDevice, VirtioTransport } from './device.js';
import { type Defer, Dma } from './dma.js';
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC, Virtqueue } from './queue.js';

/**
 * The life of a virtio device as the driver sees it, without the registers: status, features, queues, interrupts, reset.
 *
 * The driver may do all of it in any order and with any value. What makes no sense has no effect where the standard lets the driver see
 * that (a feature that was not offered: FEATURES_OK stays clear), and needs a reset where it does not (a queue that cannot be). The reset
 * itself is told to be complete, by status 0, when no access to guest memory is under way any more.
 *
 * Source: VIRTIO 1.2, 2.1, 2.2, 3.1. Use: `VirtioPci` (pci.ts) maps the registers to it.
 */

export const VIRTIO_CONFIG_S_ACKNOWLEDGE = 1;
export const VIRTIO_CONFIG_S_DRIVER = 2;
export const VIRTIO_CONFIG_S_DRIVER_OK = 4;
export const VIRTIO_CONFIG_S_FEATURES_OK = 8;
export const VIRTIO_CONFIG_S_NEEDS_RESET = 0x40;
export const VIRTIO_CONFIG_S_FAILED = 0x80;
export const VIRTIO_F_VERSION_1 = 32n;
export const VIRTIO_ISR_QUEUE = 1;
export const VIRTIO_ISR_CONFIG = 2;

const RING_FEATURES = (1n << VIRTIO_F_INDIRECT_DESC) | (1n << VIRTIO_F_EVENT_IDX);

export interface VirtioOptions {
  readonly device: VirtioDevice;
  readonly memory: GuestMemory;
  readonly defer: Defer;
  /** The level of the interrupt line. */
  readonly setIrq: (on: boolean) => void;
  /** Why the device needs a reset, once. */
  readonly onBroken: (reason: string) => void;
}

/** What the driver says of a queue before DRIVER_OK. */
export interface QueueSetup {
  size: number;
  enabled: boolean;
  /** Guest-physical addresses. */
  desc: number;
  avail: number;
  used: number;
}

export class VirtioState implements VirtioTransport {
  readonly device: VirtioDevice;
  readonly deviceFeatures: bigint;
  /** What the driver asks for; frozen by FEATURES_OK. */
  private wanted = 0n;
  private readonly options: VirtioOptions;
  private readonly setups: QueueSetup[];
  private dma: Dma | undefined;
  private queues: (Virtqueue | undefined)[] = [];
  private bits = 0;
  private isr = 0;
  private resetting = false;
  private told = false;
  configGeneration = 0;

  constructor(options: VirtioOptions) {
    const { device } = options;
    this.options = options;
    this.device = device;
    this.deviceFeatures = device.features | RING_FEATURES | (1n << VIRTIO_F_VERSION_1);
    this.setups = device.queueSizes.map(freshSetup);
    device.attach(this);
  }

  /** VIRTIO_CONFIG_S_ bits. */
  get status(): number {
    return this.bits;
  }

  /** Bits are added; 0 resets. */
  setStatus(value: number): void {
    if (this.resetting) return;
    if ((value & 0xff) === 0) {
      this.reset();
      return;
    }
    const added = value & ~this.bits & 0xff & ~VIRTIO_CONFIG_S_NEEDS_RESET;
    this.bits |= added & ~(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
    if ((added & VIRTIO_CONFIG_S_FEATURES_OK) !== 0 && this.acceptable()) this.bits |= VIRTIO_CONFIG_S_FEATURES_OK;
    if ((added & VIRTIO_CONFIG_S_DRIVER_OK) !== 0 && (this.bits & VIRTIO_CONFIG_S_FEATURES_OK) !== 0) this.start();
  }

  private acceptable(): boolean {
    return (this.wanted & ~this.deviceFeatures) === 0n && ((this.wanted >> VIRTIO_F_VERSION_1) & 1n) === 1n;
  }

  get driverFeatures(): bigint {
    return this.wanted;
  }

  /** Ignored once FEATURES_OK is set. */
  set driverFeatures(features: bigint) {
    if ((this.bits & VIRTIO_CONFIG_S_FEATURES_OK) === 0) this.wanted = features;
  }

  /** A queue for the driver to look at; undefined where there is none. */
  queue(index: number): Readonly<QueueSetup> | undefined {
    return this.setups[index];
  }

  /** Ignored for a queue that does not exist, that is enabled, or while the device runs. */
  setQueue(index: number, change: Partial<QueueSetup>): void {
    const setup = this.setups[index];
    if (setup === undefined || setup.enabled || this.resetting || (this.bits & VIRTIO_CONFIG_S_DRIVER_OK) !== 0) return;
    Object.assign(setup, change);
  }

  private start(): void {
    this.bits |= VIRTIO_CONFIG_S_DRIVER_OK;
    const wrong = this.setups.map((setup, i) => complaint(setup, i, this.device.queueSizes[i]!)).find(Boolean);
    if (wrong !== undefined) {
      this.needsReset(wrong);
      return;
    }
    const dma = new Dma(this.options.memory, this.options.defer);
    this.dma = dma;
    this.queues = this.setups.map((setup, i) => (setup.enabled ? this.createQueue(dma, setup, i) : undefined));
    this.device.start(this.queues, this.wanted);
  }

  private createQueue(dma: Dma, { size, desc, avail, used }: QueueSetup, index: number): Virtqueue {
    return new Virtqueue({
      dma,
      size,
      desc,
      avail,
      used,
      indirect: ((this.wanted >> VIRTIO_F_INDIRECT_DESC) & 1n) === 1n,
      eventIdx: ((this.wanted >> VIRTIO_F_EVENT_IDX) & 1n) === 1n,
      interrupt: () => {
        if (!dma.closed) this.interrupt(VIRTIO_ISR_QUEUE);
      },
      onBroken: (reason) => this.needsReset(`queue ${index}: ${reason}`),
    });
  }

  /** The driver notifies; ignored for a queue that is not there, and while the device does not run. */
  notify(index: number): void {
    if (this.queues[index] !== undefined) this.device.notify(index);
  }

  /** Reading takes the bits, and the line goes down. */
  readIsr(): number {
    const { isr } = this;
    this.isr = 0;
    this.options.setIrq(false);
    return isr;
  }

  private interrupt(bit: number): void {
    this.isr |= bit;
    this.options.setIrq(true);
  }

  configChanged(): void {
    this.configGeneration = (this.configGeneration + 1) & 0xff;
    if ((this.bits & VIRTIO_CONFIG_S_DRIVER_OK) !== 0) this.interrupt(VIRTIO_ISR_CONFIG);
  }

  needsReset(reason: string): void {
    const running =
      (this.bits & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) === VIRTIO_CONFIG_S_DRIVER_OK;
    if (!running || this.resetting) return;
    this.stopQueues();
    this.bits |= VIRTIO_CONFIG_S_NEEDS_RESET;
    this.interrupt(VIRTIO_ISR_CONFIG);
    if (this.told) return;
    this.told = true;
    this.options.onBroken(reason);
  }

  /** Nothing that was begun before touches guest memory afterwards, but for accesses under way. */
  private stopQueues(): void {
    this.queues = [];
    this.dma?.close();
  }

  private reset(): void {
    this.stopQueues();
    this.device.reset();
    const idle = this.dma?.idle();
    if (idle === undefined) {
      this.clear();
      return;
    }
    this.resetting = true;
    void idle.then(() => this.clear());
  }

  private clear(): void {
    this.dma = undefined;
    this.resetting = false;
    this.bits = 0;
    this.wanted = 0n;
    for (let i = 0; i < this.setups.length; i++) this.setups[i] = freshSetup(this.device.queueSizes[i]!);
    this.readIsr();
  }

  /** The guest ends: as a reset, and resolves when no access to its memory is under way. */
  async shutdown(): Promise<void> {
    this.stopQueues();
    this.device.reset();
    await this.dma?.idle();
  }
}

function freshSetup(size: number): QueueSetup {
  return { size, enabled: false, desc: 0, avail: 0, used: 0 };
}

/** What is wrong with an enabled queue. Whether its rings are in RAM is seen when they are used. */
function complaint(
  { size, enabled, desc, avail, used }: QueueSetup,
  index: number,
  maxSize: number,
): string | undefined {
  if (!enabled) return undefined;
  if (size < 1 || size > maxSize || (size & (size - 1)) !== 0)
    return `queue ${index}: size ${size} must be a power of two of at most ${maxSize}`;
  if (desc % 16 !== 0 || avail % 2 !== 0 || used % 4 !== 0)
    return `queue ${index}: its rings must be aligned to 16, 2 and 4 bytes`;
  if (![desc, avail, used].every((address) => Number.isSafeInteger(address + 0x1_0000)))
    return `queue ${index}: its rings must be in RAM`;
  return undefined;
}
