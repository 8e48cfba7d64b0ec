import { KernelError } from '../../base/index.js';
import { PAGE_SIZE } from '../layout.js';

/**
 * What the pages of a file are read from and written to. The page cache stands between it and everybody: `host.openFile(store)`.
 *
 * `read` and `write` move the bytes from `offsetBytes`, a multiple of PAGE_SIZE, on: `frames` are views of the host's shared memory, whole
 * pages but for the last, which is cut at the end of the file. Both resolve to the number of bytes moved; fewer than all is an error for the pages
 * that were not moved as a whole, and so is a promise that rejects or a call that throws. Bytes that were never written, between the old end
 * and a write behind it too, read as zeros.
 *
 * While a transfer is under way its frames belong to it. No byte is under two transfers at once. A store that never answers costs the
 * pages of that transfer; those who wait for them are told EIO after `HostOptions.ioTimeoutMs`.
 */
export interface BackingStore {
  readonly name: string;
  /** Bytes of the file; asked when the store is opened for the first time. */
  readonly sizeBytes: number;
  /** It cannot be written: opening it for writing is EROFS. */
  readonly readOnly?: boolean;
  read(offsetBytes: number, frames: readonly Uint8Array[]): Promise<number>;
  write(offsetBytes: number, frames: readonly Uint8Array[]): Promise<number>;
  /** As `read`, blocking; only where the place can. */
  readSync?(offsetBytes: number, frames: readonly Uint8Array[]): number;
  writeSync?(offsetBytes: number, frames: readonly Uint8Array[]): number;
  /** Cuts the file, or lengthens it by zeros. */
  truncate(sizeBytes: number): Promise<void>;
  /** The bytes read as zeros from then on; the length stays. Without it, punching holes is EOPNOTSUPP. */
  punchHole?(offsetBytes: number, lenBytes: number): Promise<void>;
  /** What was written survives a crash when it resolves. */
  sync?(): Promise<void>;
  close?(): Promise<void>;

  /** For a store that keeps a number of its own with each cached page (Linux: page_private): told once where to keep it. */
  attach?(pages: StorePages): void;
  /** Reclaim wants a page that has a number: false keeps the page (Linux: release_folio). */
  releasePage?(pageIndex: number, value: number): boolean;
  /** A page that has a number left the cache, by truncation, a hole, or after `releasePage` (Linux: invalidate_folio). */
  invalidatePage?(pageIndex: number, value: number): void;
}

/** A store's own numbers, one int32 for each page that is cached. They live in the frame's `private`. */
export interface StorePages {
  /** Undefined when the page is not cached, or has no number. */
  getPrivate(pageIndex: number): number | undefined;
  /** False when the page is not cached. */
  setPrivate(pageIndex: number, value: number): boolean;
}

/** A file in the memory of the process, sparse. */
export class MemoryStore implements BackingStore {
  readonly name: string;
  sizeBytes: number;
  private readonly stored = new Map<number, Uint8Array>();

  constructor(options: { name?: string; sizeBytes?: number; contents?: Uint8Array } = {}) {
    this.name = options.name ?? 'memory file';
    this.sizeBytes = options.sizeBytes ?? 0;
    if (!(Number.isSafeInteger(this.sizeBytes) && this.sizeBytes >= 0)) {
      throw new KernelError('EINVAL', 'MemoryStore', `sizeBytes ${this.sizeBytes} must be an integer from 0 up`);
    }
    if (options.contents !== undefined) this.fill(options.contents);
  }

  private fill(contents: Uint8Array): void {
    for (let at = 0; at < contents.length; at += PAGE_SIZE) {
      this.writeSync(at, [contents.subarray(at, at + PAGE_SIZE)]);
    }
  }

  readSync(offsetBytes: number, frames: readonly Uint8Array[]): number {
    let at = offsetBytes;
    for (const frame of frames) {
      const lenBytes = Math.min(frame.length, this.sizeBytes - at);
      if (lenBytes <= 0) break;
      const page = this.stored.get(at / PAGE_SIZE);
      if (page === undefined) frame.fill(0, 0, lenBytes);
      else frame.set(page.subarray(0, lenBytes));
      at += lenBytes;
    }
    return at - offsetBytes;
  }

  writeSync(offsetBytes: number, frames: readonly Uint8Array[]): number {
    let at = offsetBytes;
    for (const frame of frames) {
      const index = at / PAGE_SIZE;
      let page = this.stored.get(index);
      if (page === undefined) this.stored.set(index, (page = new Uint8Array(PAGE_SIZE)));
      page.set(frame);
      at += frame.length;
    }
    this.sizeBytes = Math.max(this.sizeBytes, at);
    return at - offsetBytes;
  }

  async read(offsetBytes: number, frames: readonly Uint8Array[]): Promise<number> {
    return this.readSync(offsetBytes, frames);
  }

  async write(offsetBytes: number, frames: readonly Uint8Array[]): Promise<number> {
    return this.writeSync(offsetBytes, frames);
  }

  async truncate(sizeBytes: number): Promise<void> {
    if (sizeBytes < this.sizeBytes) this.zero(sizeBytes, this.sizeBytes);
    this.sizeBytes = sizeBytes;
  }

  async punchHole(offsetBytes: number, lenBytes: number): Promise<void> {
    this.zero(offsetBytes, offsetBytes + lenBytes);
  }

  private zero(start: number, end: number): void {
    for (const [index, page] of this.stored) {
      const base = index * PAGE_SIZE;
      if (base >= start && base + PAGE_SIZE <= end) this.stored.delete(index);
      else if (base < end && base + PAGE_SIZE > start)
        page.fill(0, Math.max(start - base, 0), Math.min(end - base, PAGE_SIZE));
    }
  }

  /** A copy of all its bytes. */
  contents(): Uint8Array {
    const bytes = new Uint8Array(this.sizeBytes);
    for (const [index, page] of this.stored) {
      const at = index * PAGE_SIZE;
      if (at < bytes.length) bytes.set(page.subarray(0, bytes.length - at), at);
    }
    return bytes;
  }
}
