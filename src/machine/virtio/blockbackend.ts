import { KernelError } from '../../base/index.js';

/**
 * What a virtio-blk device stores its blocks in: a file (`openFileStore` of unpin/node is one), memory, or an overlay of two.
 *
 * Calls may be under way side by side; the caller orders what must be ordered. They reject with KernelError (EIO, ENOSPC, ...).
 */
export interface BlockBackend {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Holes give their space back: the disk offers discard. */
  readonly sparse?: boolean;
  /** Fills `buffers` from byte `offset` on; resolves with the bytes read, fewer only at the end. */
  read(offset: number, buffers: readonly Uint8Array[]): Promise<number>;
  write(offset: number, buffers: readonly Uint8Array[]): Promise<number>;
  /** What was written before is durable when this resolves. */
  sync(): Promise<void>;
  /** Makes a range read as zeros. */
  punchHole(offset: number, lenBytes: number): Promise<void>;
  close(): Promise<void>;
}

const BLOCK_BYTES = 4096;

/** A disk in memory that holds what was written, in blocks of 4 KiB. */
export class MemoryDisk implements BlockBackend {
  readonly name = 'memory';
  readonly sizeBytes: number;
  readonly readOnly = false;
  readonly sparse = true;
  private readonly blocks = new Map<number, Uint8Array>();

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  get nrBlocks(): number {
    return this.blocks.size;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    return this.move(offset, buffers, (block, from, part) => {
      const stored = this.blocks.get(block);
      if (stored === undefined) part.fill(0);
      else part.set(stored.subarray(from, from + part.length));
    });
  }

  async write(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    return this.move(offset, buffers, (block, from, part) => {
      let stored = this.blocks.get(block);
      if (stored === undefined) this.blocks.set(block, (stored = new Uint8Array(BLOCK_BYTES)));
      stored.set(part, from);
    });
  }

  /** Calls `fn` for each part of a buffer that lies in one block. */
  private move(
    offset: number,
    buffers: readonly Uint8Array[],
    fn: (block: number, from: number, part: Uint8Array) => void,
  ): number {
    let moved = 0;
    for (const buffer of buffers) {
      for (let at = 0; at < buffer.length; ) {
        const from = (offset + moved) % BLOCK_BYTES;
        const len = Math.min(BLOCK_BYTES - from, buffer.length - at, this.sizeBytes - offset - moved);
        if (len <= 0) return moved;
        fn(Math.floor((offset + moved) / BLOCK_BYTES), from, buffer.subarray(at, at + len));
        at += len;
        moved += len;
      }
    }
    return moved;
  }

  async sync(): Promise<void> {}

  async punchHole(offset: number, lenBytes: number): Promise<void> {
    const end = offset + lenBytes;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / BLOCK_BYTES);
      const next = Math.min((block + 1) * BLOCK_BYTES, end);
      if (next - at === BLOCK_BYTES) this.blocks.delete(block);
      else this.blocks.get(block)?.fill(0, at % BLOCK_BYTES, next - block * BLOCK_BYTES);
      at = next;
    }
  }

  async close(): Promise<void> {
    this.blocks.clear();
  }
}

const SECTOR_BYTES = 512;
/** Sectors whose states are kept in one array, made when the first of them is written. */
const CHUNK_SECTORS = 2048;
const IN_BASE = 0;
const IN_UPPER = 1;
const IS_ZERO = 2;

/**
 * Copy on write: reads come from `base` until a sector is written, and from `upper` afterwards; `base` is never written. So many guests run
 * on one image, each with an upper of its own. Where a sector is, is known for each of 512 bytes, so nothing is read in order to be written.
 *
 * `upper` has the base's size, and reads as what was written to it; a file with holes is one. Nothing of it outlives `close`, so `sync` does
 * nothing. All ranges are whole sectors. `close` closes the upper only.
 */
export class OverlayDisk implements BlockBackend {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly = false;
  readonly sparse = true;
  private readonly base: BlockBackend;
  private readonly upper: BlockBackend;
  private readonly states = new Map<number, Uint8Array>();

  /** Throws KernelError EINVAL where the upper is smaller than the base. */
  constructor(base: BlockBackend, upper: BlockBackend) {
    if (upper.sizeBytes < base.sizeBytes)
      throw new KernelError(
        'EINVAL',
        'overlay',
        `${upper.sizeBytes} bytes must be at least the base's ${base.sizeBytes}`,
      );
    this.name = `overlay of ${base.name}`;
    this.sizeBytes = base.sizeBytes;
    this.base = base;
    this.upper = upper;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    let moved = 0;
    for (const buffer of buffers) {
      for (const { state, at, lenBytes } of this.runs(offset + moved, buffer.length)) {
        const part = buffer.subarray(at, at + lenBytes);
        if (state === IS_ZERO) part.fill(0);
        else if ((await this.layer(state).read(offset + moved + at, [part])) < lenBytes) return moved + at;
      }
      moved += buffer.length;
    }
    return moved;
  }

  private layer(state: number): BlockBackend {
    return state === IN_BASE ? this.base : this.upper;
  }

  async write(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    const moved = await this.upper.write(offset, buffers);
    this.mark(offset, moved - (moved % SECTOR_BYTES), IN_UPPER);
    return moved;
  }

  async sync(): Promise<void> {}

  async punchHole(offset: number, lenBytes: number): Promise<void> {
    this.mark(offset, lenBytes, IS_ZERO);
    if (this.upper.sparse) await this.upper.punchHole(offset, lenBytes);
  }

  async close(): Promise<void> {
    await this.upper.close();
  }

  private mark(offset: number, lenBytes: number, state: number): void {
    const end = (offset + lenBytes) / SECTOR_BYTES;
    for (let sector = offset / SECTOR_BYTES; sector < end; ) {
      const index = Math.floor(sector / CHUNK_SECTORS);
      const next = Math.min((index + 1) * CHUNK_SECTORS, end);
      let chunk = this.states.get(index);
      if (chunk === undefined) this.states.set(index, (chunk = new Uint8Array(CHUNK_SECTORS)));
      chunk.fill(state, sector - index * CHUNK_SECTORS, next - index * CHUNK_SECTORS);
      sector = next;
    }
  }

  private stateOf(sector: number): number {
    return this.states.get(Math.floor(sector / CHUNK_SECTORS))?.[sector % CHUNK_SECTORS] ?? IN_BASE;
  }

  /** Runs of sectors of one state; `at` counts bytes from `offset`. The states are those of the moment when each run is asked for. */
  private *runs(offset: number, lenBytes: number) {
    for (let at = 0; at < lenBytes; ) {
      const state = this.stateOf((offset + at) / SECTOR_BYTES);
      let end = at + SECTOR_BYTES;
      while (end < lenBytes && this.stateOf((offset + end) / SECTOR_BYTES) === state) end += SECTOR_BYTES;
      yield { state, at, lenBytes: Math.min(end, lenBytes) - at };
      at = end;
    }
  }
}
