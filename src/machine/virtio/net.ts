import { ETH_FRAME_BYTES, ETH_HEADER_BYTES, type EthernetPort } from '../net/index.js';
import type { DescriptorChain } from './chain.js';
import { Delivery, give } from './delivery.js';
import { QueueServer, VIRTIO_ID_NET, type VirtioDevice } from './device.js';
import type { Virtqueue } from './queue.js';
import { runSteps, type Steps, wait } from './steps.js';

/**
 * A network card: frames of the guest go to an EthernetPort, and those of the port to the guest, in order both ways.
 *
 * A frame for which the guest has no buffer yet waits, up to BACKLOG_FRAMES of them; more are lost, as on any wire. No offloads, so a
 * frame is what stands on the wire: at most 1514 bytes; longer and shorter ones of the guest are dropped.
 *
 * Source: VIRTIO 1.2, 5.1. Use: `new VirtioNet({ mac, port })` into a slot of the board.
 */

const RECEIVEQ = 0;
const TRANSMITQ = 1;
const QUEUE_SIZE = 256;
export const VIRTIO_NET_F_MAC = 5n;
export const VIRTIO_NET_F_STATUS = 16n;
export const VIRTIO_NET_S_LINK_UP = 1;
/** struct virtio_net_hdr_v1, all zero but num_buffers. */
const HEADER_BYTES = 12;
const HEADER_NUM_BUFFERS = 10;
const CONFIG_STATUS = 6;
/** With a window of 64 KiB some 45 frames are under way for one TCP connection. */
export const BACKLOG_FRAMES = 256;

export interface VirtioNetOptions {
  /** Six bytes. */
  readonly mac: Uint8Array;
  readonly port: EthernetPort;
}

export class VirtioNet implements VirtioDevice {
  readonly name = 'virtio-net';
  readonly deviceId = VIRTIO_ID_NET;
  readonly pciClass = 0x020000;
  readonly features = (1n << VIRTIO_NET_F_MAC) | (1n << VIRTIO_NET_F_STATUS);
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly config = new Uint8Array(8);
  /** Frames for the guest that were lost, and frames of the guest that no Ethernet carries. */
  rxDropped = 0;
  txDropped = 0;
  private readonly port: EthernetPort;
  private readonly txFrame = new Uint8Array(ETH_FRAME_BYTES);
  private readonly backlog = new Backlog();
  private receiveq: Virtqueue | undefined;
  private transmit: QueueServer | undefined;
  private readonly delivery = new Delivery(
    () => (this.backlog.length > 0 ? this.receiveq : undefined),
    (queue, chain) => this.fill(queue, chain),
  );

  constructor({ mac, port }: VirtioNetOptions) {
    this.config.set(mac);
    this.config[CONFIG_STATUS] = VIRTIO_NET_S_LINK_UP;
    this.port = port;
    port.attach((frame) => this.receive(frame));
  }

  attach(): void {}

  start(queues: readonly (Virtqueue | undefined)[]): void {
    this.receiveq = queues[RECEIVEQ];
    const transmitq = queues[TRANSMITQ];
    if (transmitq !== undefined) this.transmit = new QueueServer(transmitq, (chain) => runSteps(this.send(chain)), 1);
  }

  notify(index: number): void {
    if (index === TRANSMITQ) this.transmit?.notify();
    else this.delivery.kick();
  }

  reset(): void {
    this.receiveq = undefined;
    this.transmit = undefined;
    this.backlog.clear();
  }

  /** One at a time, so that frames keep their order. */
  private *send(chain: DescriptorChain): Steps<number> {
    const lenBytes = chain.readableBytes - HEADER_BYTES;
    if (lenBytes < ETH_HEADER_BYTES || lenBytes > ETH_FRAME_BYTES) {
      this.txDropped++;
      return 0;
    }
    const frame = this.txFrame.subarray(0, lenBytes);
    yield* wait(chain.read(HEADER_BYTES, frame));
    this.port.transmit(frame);
    return 0;
  }

  /** A frame for the guest. */
  private receive(frame: Uint8Array): void {
    if (this.receiveq === undefined || !this.backlog.push(frame)) this.rxDropped++;
    else this.delivery.kick();
  }

  /** The first frame of the backlog into a buffer. The driver's buffers must hold any frame (5.1.6.3.1). */
  private *fill(queue: Virtqueue, chain: DescriptorChain): Steps<void> {
    const buffer = this.backlog.first();
    if (buffer === undefined) return; // reset meanwhile: the chain is of no use any more
    if (chain.writableBytes < buffer.length)
      return queue.fail(`a receive buffer of ${chain.writableBytes} bytes must hold ${buffer.length}`);
    yield* give(queue, chain, buffer, () => this.backlog.shift(buffer));
  }
}

/** Frames behind their headers, in buffers that are used again and again. */
class Backlog {
  length = 0;
  private readonly buffers: Uint8Array[] = [];
  private readonly views: (Uint8Array | undefined)[] = [];
  private head = 0;

  /** False: full. */
  push(frame: Uint8Array): boolean {
    if (this.length === BACKLOG_FRAMES) return false;
    const at = (this.head + this.length) % BACKLOG_FRAMES;
    const buffer = (this.buffers[at] ??= emptyBuffer());
    buffer.set(frame, HEADER_BYTES);
    this.views[at] = buffer.subarray(0, HEADER_BYTES + frame.length);
    this.length++;
    return true;
  }

  first(): Uint8Array | undefined {
    return this.length === 0 ? undefined : this.views[this.head];
  }

  /** Gives up the first one, if it is still `buffer`. */
  shift(buffer: Uint8Array): void {
    if (this.first() !== buffer) return;
    this.head = (this.head + 1) % BACKLOG_FRAMES;
    this.length--;
  }

  clear(): void {
    this.length = 0;
    this.head = 0;
  }
}

function emptyBuffer(): Uint8Array {
  const buffer = new Uint8Array(HEADER_BYTES + ETH_FRAME_BYTES);
  buffer[HEADER_NUM_BUFFERS] = 1;
  return buffer;
}
