import { MemorySwap, type SwapDevice } from '../../src/mm/index.js';

/**
 * Memory swap whose transfers end when the test says so, and fail or damage pages when it says so. A write takes effect page by
 * page when it ends, reading what the frames hold then: the worst that a device may do.
 */
export class FaultySwap implements SwapDevice {
  readonly name = 'faulty';
  readonly nrSlots: number;
  /** Transfers that fail from now on. */
  failReads = 0;
  failWrites = 0;
  /** Pages damaged by the next reads. */
  damage = 0;
  /** While true, transfers wait for `pump`. */
  held = false;
  nrReads = 0;
  nrWrites = 0;
  private readonly inner: MemorySwap;
  private readonly queue: (() => void)[] = [];

  constructor(nrSlots: number) {
    this.nrSlots = nrSlots;
    this.inner = new MemorySwap({ sizeBytes: nrSlots * 4096 });
  }

  get nrHeld(): number {
    return this.queue.length;
  }

  /** Lets the held transfers end, the last one first. */
  pump(): void {
    for (let run = this.queue.pop(); run !== undefined; run = this.queue.pop()) run();
  }

  private async turn(): Promise<void> {
    if (this.held) await new Promise<void>((resolve) => this.queue.push(resolve));
    else await new Promise((resolve) => setImmediate(resolve));
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
