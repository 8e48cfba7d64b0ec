import type { QueueSetup, VirtioState } from './transport.js';

/**
 * The registers of struct virtio_pci_common_cfg over a `VirtioState`. Fields are accessed at their own width, 64-bit ones as two halves;
 * other offsets read 0 and ignore writes.
 *
 * Source: VIRTIO 1.2, 4.1.4.3.
 */

const DEVICE_FEATURE_SELECT = 0x00;
const DEVICE_FEATURE = 0x04;
const DRIVER_FEATURE_SELECT = 0x08;
const DRIVER_FEATURE = 0x0c;
const CONFIG_MSIX_VECTOR = 0x10;
const NUM_QUEUES = 0x12;
const DEVICE_STATUS = 0x14;
const CONFIG_GENERATION = 0x15;
const QUEUE_SELECT = 0x16;
const QUEUE_SIZE = 0x18;
const QUEUE_MSIX_VECTOR = 0x1a;
const QUEUE_ENABLE = 0x1c;
const QUEUE_NOTIFY_OFF = 0x1e;
const QUEUE_DESC = 0x20;
const QUEUE_DRIVER = 0x28;
const QUEUE_DEVICE = 0x30;
const VIRTIO_MSI_NO_VECTOR = 0xffff;

const ADDRESSES: Readonly<Record<number, 'desc' | 'avail' | 'used'>> = {
  [QUEUE_DESC]: 'desc',
  [QUEUE_DRIVER]: 'avail',
  [QUEUE_DEVICE]: 'used',
};

export class VirtioCommonConfig {
  private readonly state: VirtioState;
  private deviceFeatureSelect = 0;
  private driverFeatureSelect = 0;
  private queueSelect = 0;

  constructor(state: VirtioState) {
    this.state = state;
  }

  read(offset: number): number {
    const { state } = this;
    switch (offset) {
      case DEVICE_FEATURE_SELECT:
        return this.deviceFeatureSelect;
      case DEVICE_FEATURE:
        return half(state.deviceFeatures, this.deviceFeatureSelect);
      case DRIVER_FEATURE_SELECT:
        return this.driverFeatureSelect;
      case DRIVER_FEATURE:
        return half(state.driverFeatures, this.driverFeatureSelect);
      case CONFIG_MSIX_VECTOR:
      case QUEUE_MSIX_VECTOR:
        return VIRTIO_MSI_NO_VECTOR;
      case NUM_QUEUES:
        return state.device.queueSizes.length;
      case DEVICE_STATUS:
        return state.status;
      case CONFIG_GENERATION:
        return state.configGeneration;
      case QUEUE_SELECT:
        return this.queueSelect;
      default:
        return this.readQueue(offset, state.queue(this.queueSelect));
    }
  }

  /** A queue that does not exist has size 0. */
  private readQueue(offset: number, queue: Readonly<QueueSetup> | undefined): number {
    if (queue === undefined) return 0;
    switch (offset) {
      case QUEUE_SIZE:
        return queue.size;
      case QUEUE_ENABLE:
        return queue.enabled ? 1 : 0;
      case QUEUE_NOTIFY_OFF:
        return this.queueSelect;
      default: {
        const name = ADDRESSES[offset & ~4];
        if (name === undefined) return 0;
        return (offset & 4) === 0 ? queue[name] >>> 0 : Math.floor(queue[name] / 2 ** 32);
      }
    }
  }

  write(offset: number, _lenBytes: number, value: number): void {
    const { state } = this;
    switch (offset) {
      case DEVICE_FEATURE_SELECT:
        this.deviceFeatureSelect = value;
        return;
      case DRIVER_FEATURE_SELECT:
        this.driverFeatureSelect = value;
        return;
      case DRIVER_FEATURE:
        state.driverFeatures = withHalf(state.driverFeatures, this.driverFeatureSelect, value);
        return;
      case DEVICE_STATUS:
        state.setStatus(value & 0xff);
        return;
      case QUEUE_SELECT:
        this.queueSelect = value & 0xffff;
        return;
      case QUEUE_SIZE:
        state.setQueue(this.queueSelect, { size: value & 0xffff });
        return;
      case QUEUE_ENABLE:
        if ((value & 0xffff) === 1) state.setQueue(this.queueSelect, { enabled: true });
        return;
      default:
        this.writeAddress(offset, value);
    }
  }

  private writeAddress(offset: number, value: number): void {
    const name = ADDRESSES[offset & ~4];
    const queue = this.state.queue(this.queueSelect);
    if (name === undefined || queue === undefined) return;
    const old = queue[name];
    const [low, high] = (offset & 4) === 0 ? [value >>> 0, Math.floor(old / 2 ** 32)] : [old >>> 0, value >>> 0];
    this.state.setQueue(this.queueSelect, { [name]: low + high * 2 ** 32 });
  }
}

/** 32 feature bits: the low ones for 0, the high ones for 1, none beyond. */
function half(features: bigint, select: number): number {
  return select > 1 ? 0 : Number((features >> BigInt(32 * select)) & 0xffff_ffffn);
}

function withHalf(features: bigint, select: number, value: number): bigint {
  if (select > 1) return features;
  const shift = BigInt(32 * select);
  return (features & ~(0xffff_ffffn << shift)) | (BigInt(value >>> 0) << shift);
}
