import type { DescriptorChain } from './chain.js';
import { Delivery, give } from './delivery.js';
import { QueueServer, VIRTIO_ID_CONSOLE, type VirtioDevice, type VirtioTransport } from './device.js';
import type { Virtqueue } from './queue.js';
import { runSteps, type Steps, wait } from './steps.js';

/**
 * virtio-console with its one port: hvc0 in Linux. What the guest writes goes to the sink; what is typed waits until the driver has a buffer
 * for it. The size of the terminal is told, and told anew when it changes. A byte written to the config space (emergency write) comes out too.
 *
 * Source: VIRTIO 1.2, 5.3. Use: `new VirtioConsole({ sink })`, `receive(bytes)`, `resize(columns, rows)`.
 */

const PCI_CLASS_COMMUNICATION_OTHER = 0x078000;
export const VIRTIO_CONSOLE_F_SIZE = 0n;
export const VIRTIO_CONSOLE_F_EMERG_WRITE = 2n;
const RECEIVEQ = 0;
const TRANSMITQ = 1;
const QUEUE_SIZE = 64;
const CONFIG_BYTES = 12;
const CONFIG_EMERG_WR = 8;
/** Most bytes that the sink gets at once. */
const PIECE_BYTES = 4096;

export interface VirtioConsoleOptions {
  /** Bytes the guest writes; the array is the sink's to keep. */
  readonly sink: (bytes: Uint8Array) => void;
  readonly columns?: number;
  readonly rows?: number;
}

export class VirtioConsole implements VirtioDevice {
  readonly name = 'virtio-console';
  readonly deviceId = VIRTIO_ID_CONSOLE;
  readonly pciClass = PCI_CLASS_COMMUNICATION_OTHER;
  readonly features = (1n << VIRTIO_CONSOLE_F_SIZE) | (1n << VIRTIO_CONSOLE_F_EMERG_WRITE);
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly config = new Uint8Array(CONFIG_BYTES);
  private readonly sink: (bytes: Uint8Array) => void;
  private transport: VirtioTransport | undefined;
  private receiveq: Virtqueue | undefined;
  private transmit: QueueServer | undefined;
  private typed: number[] = [];
  private readonly delivery = new Delivery(
    () => (this.typed.length > 0 ? this.receiveq : undefined),
    (queue, chain) => this.fill(queue, chain),
  );

  constructor({ sink, columns = 80, rows = 24 }: VirtioConsoleOptions) {
    this.sink = sink;
    this.setSize(columns, rows);
    new DataView(this.config.buffer).setUint32(4, 1, true); // max_nr_ports
  }

  attach(transport: VirtioTransport): void {
    this.transport = transport;
  }

  /** A driver uses it. */
  get ready(): boolean {
    return this.receiveq !== undefined;
  }

  start(queues: readonly (Virtqueue | undefined)[]): void {
    const transmitq = queues[TRANSMITQ];
    this.receiveq = queues[RECEIVEQ];
    this.transmit = transmitq && new QueueServer(transmitq, (chain) => runSteps(this.write(chain)), 1);
  }

  notify(index: number): void {
    if (index === TRANSMITQ) this.transmit?.notify();
    else this.delivery.kick();
  }

  reset(): void {
    this.receiveq = undefined;
    this.transmit = undefined;
  }

  writeConfig(offset: number, _lenBytes: number, value: number): void {
    if (offset === CONFIG_EMERG_WR) this.sink(Uint8Array.of(value & 0xff));
  }

  /** Bytes typed. */
  receive(bytes: Uint8Array): void {
    for (const byte of bytes) this.typed.push(byte);
    this.delivery.kick();
  }

  /** The terminal has another size, in characters. */
  resize(columns: number, rows: number): void {
    this.setSize(columns, rows);
    this.transport?.configChanged();
  }

  private setSize(columns: number, rows: number): void {
    const view = new DataView(this.config.buffer);
    view.setUint16(0, columns, true);
    view.setUint16(2, rows, true);
  }

  private *write(chain: DescriptorChain): Steps<number> {
    for (let at = 0; at < chain.readableBytes; at += PIECE_BYTES) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, chain.readableBytes - at));
      yield* wait(chain.read(at, piece));
      this.sink(piece);
    }
    return 0;
  }

  private fill(queue: Virtqueue, chain: DescriptorChain): Steps<void> {
    const bytes = Uint8Array.from(this.typed.slice(0, chain.writableBytes));
    return give(queue, chain, bytes, () => this.typed.splice(0, bytes.length));
  }
}
