import { KernelError } from '../../src/base/index.js';
import { type BackingStore, MemoryStore, type StorePages } from '../../src/mm/index.js';
import { HeldTransfers } from './heldtransfers.js';

/**
 * A memory file whose transfers end when the test says so, and fail when it says so. A write takes effect when it ends, reading what the frames
 * hold then: the worst that a store may do.
 */
export class FaultyStore extends HeldTransfers implements BackingStore {
  readonly name = 'faulty';
  readonly inner: MemoryStore;
  /** Transfers and calls that fail from now on, and those that stop half way. */
  failReads = 0;
  failWrites = 0;
  shortReads = 0;
  shortWrites = 0;
  failTruncates = 0;
  failPunches = 0;
  failSyncs = 0;
  /** What failing writes say. */
  code: 'EIO' | 'ENOSPC' = 'EIO';
  nrReads = 0;
  nrWrites = 0;
  nrSyncs = 0;
  /** Writes that failed, or stopped half way. */
  nrFailedWrites = 0;
  pages: StorePages | undefined;

  constructor(contents: Uint8Array | number) {
    super();
    this.inner = new MemoryStore(typeof contents === 'number' ? { sizeBytes: contents } : { contents });
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  attach(pages: StorePages): void {
    this.pages = pages;
  }

  async read(offset: number, frames: readonly Uint8Array[]): Promise<number> {
    this.nrReads++;
    await this.turn();
    return this.readSync(offset, frames);
  }

  async write(offset: number, frames: readonly Uint8Array[]): Promise<number> {
    this.nrWrites++;
    await this.turn();
    return this.writeSync(offset, frames);
  }

  readSync(offset: number, frames: readonly Uint8Array[]): number {
    if (this.failReads > 0) {
      this.failReads--;
      throw new Error('injected read error');
    }
    if (this.shortReads > 0) {
      this.shortReads--;
      frames = frames.slice(0, frames.length >> 1);
    }
    return this.inner.readSync(offset, frames);
  }

  writeSync(offset: number, frames: readonly Uint8Array[]): number {
    if (this.failWrites > 0) {
      this.failWrites--;
      this.nrFailedWrites++;
      throw new KernelError(this.code, 'write', 'injected write error');
    }
    if (this.shortWrites > 0) {
      this.shortWrites--;
      this.nrFailedWrites++;
      frames = frames.slice(0, frames.length >> 1);
    }
    return this.inner.writeSync(offset, frames);
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.turn();
    this.fail('failTruncates');
    await this.inner.truncate(sizeBytes);
  }

  async punchHole(offset: number, lenBytes: number): Promise<void> {
    await this.turn();
    this.fail('failPunches');
    await this.inner.punchHole(offset, lenBytes);
  }

  async sync(): Promise<void> {
    this.nrSyncs++;
    this.fail('failSyncs');
  }

  private fail(what: 'failTruncates' | 'failPunches' | 'failSyncs'): void {
    if (this[what] === 0) return;
    this[what]--;
    throw new Error(`injected: ${what}`);
  }
}
