import type { DescriptorChain } from './chain.js';
import { Pump } from './pump.js';
import type { Virtqueue } from './queue.js';
import { runSteps, type Steps, wait } from './steps.js';

/**
 * Moves what comes by itself, keys or frames, into buffers that the driver has handed out, as long as there are both.
 *
 * Use: `kick()` whenever there is more of either; `fill` ends by `give`.
 */
export class Delivery {
  private readonly next: () => Virtqueue | undefined;
  private readonly fill: (queue: Virtqueue, chain: DescriptorChain) => Steps<void>;
  private readonly pump = new Pump(() => runSteps(this.deliver()));

  /** `next`: the queue of buffers, while there is something for them. `fill` puts the first of that into the buffer `chain`. */
  constructor(next: () => Virtqueue | undefined, fill: (queue: Virtqueue, chain: DescriptorChain) => Steps<void>) {
    this.next = next;
    this.fill = fill;
  }

  kick(): void {
    this.pump.kick();
  }

  private *deliver(): Steps<void> {
    for (let queue = this.next(); queue !== undefined; queue = this.next()) {
      const chain = yield* wait(queue.pop());
      if (chain === undefined) return;
      yield* this.fill(queue, chain);
    }
  }
}

/** Gives the buffer back with `bytes` in it; `written` is called when they are. One that cannot be written breaks the queue. */
export function* give(queue: Virtqueue, chain: DescriptorChain, bytes: Uint8Array, written: () => void): Steps<void> {
  try {
    yield* wait(chain.write(0, bytes));
  } catch (error) {
    return queue.fail(error instanceof Error ? error.message : String(error));
  }
  written();
  yield* wait(queue.push(chain, bytes.length));
}
