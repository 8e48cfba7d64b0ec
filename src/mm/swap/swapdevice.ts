import { KernelError } from '../../base/index.js';
import { PAGE_SIZE } from '../layout.js';

/**
 * Where swapped pages are kept. Slots are pages, numbered from 0. `read` and `write` move a batch, `frames[i]` from or to
 * `slots[i]`; frames are page-aligned views of the host's shared memory. Slots of a batch ascend, and where they are
 * consecutive the device may move them in one transfer. A promise that resolves means that all of it was moved; one that
 * rejects, that nothing is known of any slot of the batch.
 *
 * While a transfer is under way its frames belong to it. Two transfers never touch one slot at once.
 */
export interface SwapDevice {
  readonly name: string;
  readonly nrSlots: number;
  read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void>;
  write(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void>;
  /** As `read`, blocking; only where the place can. */
  readSync?(slots: readonly number[], frames: readonly Uint8Array[]): void;
  writeSync?(slots: readonly number[], frames: readonly Uint8Array[]): void;
  close(): Promise<void>;
}

/** Swap in the memory of the process. */
export class MemorySwap implements SwapDevice {
  readonly name = 'memory';
  readonly nrSlots: number;
  private pages: (Uint8Array | undefined)[] = [];

  constructor(options: { sizeBytes: number }) {
    this.nrSlots = Math.floor(options.sizeBytes / PAGE_SIZE);
    if (!(this.nrSlots >= 1)) {
      throw new KernelError('EINVAL', 'MemorySwap', `sizeBytes ${options.sizeBytes} must be at least ${PAGE_SIZE}`);
    }
  }

  readSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
    for (let i = 0; i < slots.length; i++) {
      const page = this.pages[slots[i]!];
      if (page === undefined) throw new KernelError('EIO', 'read', `swap slot ${slots[i]} was never written`);
      frames[i]!.set(page);
    }
  }

  writeSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
    for (let i = 0; i < slots.length; i++) {
      const slot = slots[i]!;
      const page = (this.pages[slot] ??= new Uint8Array(PAGE_SIZE));
      page.set(frames[i]!);
    }
  }

  async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    this.readSync(slots, frames);
  }

  async write(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    this.writeSync(slots, frames);
  }

  async close(): Promise<void> {
    this.pages = [];
  }
}
