import {
  type DescriptorChain,
  QueueServer,
  type VirtioDevice,
  type VirtioTransport,
  type Virtqueue,
} from '../../../src/machine/index.js';

/** A device that writes what it reads. With `hold`, it keeps chains until they are let go, in any order. */
export class EchoDevice implements VirtioDevice {
  readonly name = 'echo';
  readonly deviceId = 42;
  readonly pciClass = 0xff0000;
  readonly features = 1n << 5n;
  readonly queueSizes = [8, 8];
  readonly config = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  transport!: VirtioTransport;
  queues: readonly (Virtqueue | undefined)[] = [];
  agreed = -1n;
  resets = 0;
  hold = false;
  readonly held: DescriptorChain[] = [];
  private servers: (QueueServer | undefined)[] = [];

  attach(transport: VirtioTransport): void {
    this.transport = transport;
  }

  start(queues: readonly (Virtqueue | undefined)[], features: bigint): void {
    this.queues = queues;
    this.agreed = features;
    this.servers = queues.map((queue) => queue && new QueueServer(queue, (chain) => this.echo(chain)));
  }

  notify(index: number): void {
    if (this.hold) void this.takeAll(this.queues[index]!);
    else this.servers[index]!.notify();
  }

  private async takeAll(queue: Virtqueue): Promise<void> {
    for (let chain = await queue.pop(); chain !== undefined; chain = await queue.pop()) this.held.push(chain);
  }

  reset(): void {
    this.resets++;
    this.queues = [];
    this.servers = [];
  }

  writeConfig(offset: number, lenBytes: number, value: number): void {
    for (let i = 0; i < lenBytes; i++) this.config[offset + i] = value >>> (8 * i);
  }

  async echo(chain: DescriptorChain): Promise<number> {
    const lenBytes = Math.min(chain.readableBytes, chain.writableBytes, 64 * 1024);
    const bytes = new Uint8Array(lenBytes);
    await chain.read(0, bytes);
    await chain.write(0, bytes);
    return lenBytes;
  }
}
