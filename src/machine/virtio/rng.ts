import type { DescriptorChain } from './chain.js';
import { QueueServer, VIRTIO_ID_ENTROPY, type VirtioDevice } from './device.js';
import type { Virtqueue } from './queue.js';
import { runSteps, type Steps, wait } from './steps.js';

/**
 * virtio-rng: fills what the driver hands out with random bytes of the host.
 *
 * Source: VIRTIO 1.2, 5.4. Use: `new VirtioRng(fill)`.
 */

const PCI_CLASS_OTHERS = 0xff0000;
/** At most so much for one request: the driver asks again. */
const MAX_FILL_BYTES = 4096;

export class VirtioRng implements VirtioDevice {
  readonly name = 'virtio-rng';
  readonly deviceId = VIRTIO_ID_ENTROPY;
  readonly pciClass = PCI_CLASS_OTHERS;
  readonly features = 0n;
  readonly queueSizes = [64];
  readonly config = new Uint8Array(0);
  private readonly fill: (bytes: Uint8Array) => void;
  private server: QueueServer | undefined;

  /** `fill` puts a random value into each byte. */
  constructor(fill: (bytes: Uint8Array) => void) {
    this.fill = fill;
  }

  attach(): void {}

  start([requests]: readonly (Virtqueue | undefined)[]): void {
    this.server = requests && new QueueServer(requests, (chain) => runSteps(this.serve(chain)));
  }

  notify(): void {
    this.server?.notify();
  }

  reset(): void {
    this.server = undefined;
  }

  private *serve(chain: DescriptorChain): Steps<number> {
    const bytes = new Uint8Array(Math.min(chain.writableBytes, MAX_FILL_BYTES));
    this.fill(bytes);
    yield* wait(chain.write(0, bytes));
    return bytes.length;
  }
}
