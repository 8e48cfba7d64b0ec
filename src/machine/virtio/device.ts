import type { DescriptorChain } from './chain.js';
import { Pump } from './pump.js';
import type { Virtqueue } from './queue.js';
import { runSteps, type Steps, wait } from './steps.js';

/**
 * What a virtio device is to its transport, and the transport to the device. A device is one file that knows neither PCI nor the mm: it
 * takes descriptor chains off its queues, moves bytes by them, and gives them back, in any order and as late as it likes.
 *
 *     transport                                device
 *     attach(transport)            ->          keeps it
 *     (DRIVER_OK) start(queues)    ->          may take chains from now on
 *     notify(0)                    ->          the driver has made chains available on queue 0
 *                                  <-          transport.configChanged(), transport.needsReset('...')
 *     reset()                      ->          forgets its queues and all that it was about to do
 *
 * Between `reset` and the next `start` the device has no queues. A chain from before moves nothing any more: its `read` and `write` are refused,
 * its `push` is ignored, so what is still under way may end as it likes. Nothing that a device does may throw out of these methods.
 *
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, chapters 2 and 3.
 */

export const VIRTIO_ID_NET = 1;
export const VIRTIO_ID_BLOCK = 2;
export const VIRTIO_ID_CONSOLE = 3;
export const VIRTIO_ID_ENTROPY = 4;
export const VIRTIO_ID_BALLOON = 5;
export const VIRTIO_ID_9P = 9;

export interface VirtioDevice {
  /** For messages: 'virtio-blk'. */
  readonly name: string;
  /** VIRTIO_ID_. */
  readonly deviceId: number;
  /** PCI class, subclass, programming interface: 0x018000. */
  readonly pciClass: number;
  /** Feature bits of the device's own, 0 to 23 and from 50 on; the transport adds those of rings and transport. */
  readonly features: bigint;
  /** The most descriptors of each queue, a power of two of at most 1024; the driver may choose fewer. */
  readonly queueSizes: readonly number[];
  /** The device's part of the configuration space, little-endian, as the driver reads it. After a change of its own the device calls `configChanged`. */
  readonly config: Uint8Array;
  /** The driver wrote `config` fields, as far as there are any that it may: [offset, offset + lenBytes) lies in `config`. */
  writeConfig?(offset: number, lenBytes: number, value: number): void;
  /** Once, when the device is plugged in. */
  attach(transport: VirtioTransport): void;
  /** DRIVER_OK: `queues` has the index of `queueSizes`; a queue that the driver did not enable is undefined. `features` is what both agreed on. */
  start(queues: readonly (Virtqueue | undefined)[], features: bigint): void;
  /** After `start` only, and only for a queue that is enabled. */
  notify(index: number): void;
  reset(): void;
}

export interface VirtioTransport {
  /** The contents of `config` are new: the driver gets an interrupt. */
  configChanged(): void;
  /** The device cannot go on, for what the driver did: DEVICE_NEEDS_RESET, until the driver resets it. `reason` is told once a device. */
  needsReset(reason: string): void;
}

/**
 * Serves a queue whose chains are requests: takes chains while there are any, at most `maxInFlight` at once, and gives each back with as
 * many bytes written as `handle` says. A `handle` that throws or rejects breaks the queue (`Virtqueue.fail`), unless it is closed already.
 *
 * Use: in `start`, `new QueueServer(queue, handle, 16)`, then `server.notify()` at each notification.
 */
export class QueueServer {
  private readonly queue: Virtqueue;
  private readonly handle: (chain: DescriptorChain) => Promise<number> | number;
  private readonly maxInFlight: number;
  private readonly pump = new Pump(() => runSteps(this.takeAll()));
  private inFlight = 0;

  constructor(
    queue: Virtqueue,
    handle: (chain: DescriptorChain) => Promise<number> | number,
    maxInFlight: number = queue.size,
  ) {
    this.queue = queue;
    this.handle = handle;
    this.maxInFlight = maxInFlight;
  }

  notify(): void {
    this.pump.kick();
  }

  private *takeAll(): Steps<void> {
    while (this.inFlight < this.maxInFlight) {
      const chain = yield* wait(this.queue.pop());
      if (chain === undefined) return;
      this.inFlight++;
      void runSteps(this.serve(chain));
    }
  }

  private *serve(chain: DescriptorChain): Steps<void> {
    try {
      yield* wait(this.queue.push(chain, yield* wait(this.handle(chain))));
    } catch (error) {
      this.queue.fail(error instanceof Error ? error.message : String(error));
    }
    // Where it was the limit that ended the taking, there may be more.
    if (this.inFlight-- === this.maxInFlight) this.pump.kick();
  }
}
