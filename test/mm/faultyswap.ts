import { MemorySwap, type SwapDevice } from '../../src/mm/index.js';
import { HeldTransfers } from './heldtransfers.js';

/**
 * Memory swap whose transfers end when the test says so, and fail or damage pages when it says so. A write takes effect page by
 * page when it ends, reading what the frames hold then: the worst that a device may do.
 */
export class FaultySwap extends HeldTransfers implements SwapDevice {
  readonly name = 'faulty';
  readonly nrSlots: number;
  /** Transfers that fail from now on. */
  failReads = 0;
  failWrites = 0;
  /** Pages damaged by the next reads. */
  damage = 0;
  nrReads = 0;
  nrWrites = 0;
  private readonly inner: MemorySwap;

  constructor(nrSlots: number) {
    super();
    this.nrSlots = nrSlots;
    this.inner = new MemorySwap({ sizeBytes: nrSlots * 4096 });
  }

  async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    await this.turn();
    this.readSync(slots, frames);
  }

  async write(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    await this.turn();
    this.writeSync(slots, frames);
  }

  readSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
    this.nrReads++;
    if (this.failReads > 0) {
      this.failReads--;
      throw new Error('injected read error');
    }
    this.inner.readSync(slots, frames);
    for (let i = 0; i < frames.length && this.damage > 0; i++, this.damage--) frames[i]![100]! ^= 1;
  }

  writeSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
    this.nrWrites++;
    if (this.failWrites > 0) {
      this.failWrites--;
      throw new Error('injected write error');
    }
    this.inner.writeSync(slots, frames);
  }

  async close(): Promise<void> {
    await this.inner.close();
  }
}
