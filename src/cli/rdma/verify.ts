import { IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE } from '../../rdma/index.js';
import { formatSize } from '../args.js';
import { movePieces, type Piece } from './pipeline.js';
import { BUFFER_BYTES, type Remote } from './remote.js';

/**
 * All of the served region, written in random pieces of random order, read back in others, and compared. What a byte must be follows from the seed and
 * its place alone, so nothing is remembered.
 */

export interface VerifyReport {
  readonly seed: number;
  readonly bytesVerified: number;
  /** Bytes that were not what was written there. */
  readonly mismatches: number;
  readonly writes: number;
  readonly reads: number;
  readonly wallMs: number;
}

export async function verify(remote: Remote, seed: number): Promise<VerifyReport> {
  const { served, rnic } = remote;
  const { mm } = rnic;
  const began = performance.now();
  const [writes, reads] = [cut(served.length, new Random(seed)), cut(served.length, new Random(seed ^ 0x5bd1e995))];
  const progress = new Progress(2 * served.length);
  const before = async ({ offset, length }: Piece, va: number) => {
    await mm.write(va, contents(seed, offset, length));
    progress.add(length);
  };
  await movePieces(remote, IBV_WR_RDMA_WRITE, writes.values(), { before });
  let [bytesVerified, mismatches] = [0, 0];
  const after = async ({ offset, length }: Piece, va: number) => {
    const seen = new Uint8Array(length);
    await mm.read(va, seen);
    mismatches += differences(seen, contents(seed, offset, length));
    bytesVerified += length;
    progress.add(length);
  };
  await movePieces(remote, IBV_WR_RDMA_READ, reads.values(), { after });
  progress.end();
  const wallMs = performance.now() - began;
  process.stdout.write(
    `verified ${formatSize(bytesVerified)}: ${mismatches} bytes wrong (seed ${seed}; ${writes.length} writes, ${reads.length} reads, ${(wallMs / 1000).toFixed(1)} s)\n`,
  );
  return { seed, bytesVerified, mismatches, writes: writes.length, reads: reads.length, wallMs };
}

/** [0, length) in pieces of 1 byte to BUFFER_BYTES, short ones as likely as long ones, in random order. */
function cut(length: number, random: Random): Piece[] {
  const pieces: Piece[] = [];
  for (let offset = 0; offset < length; ) {
    const size = Math.min(length - offset, Math.floor(2 ** (random.next() * Math.log2(BUFFER_BYTES))));
    pieces.push({ offset, length: size });
    offset += size;
  }
  for (let i = pieces.length - 1; i > 0; i--) {
    const j = Math.floor(random.next() * (i + 1));
    [pieces[i], pieces[j]] = [pieces[j]!, pieces[i]!];
  }
  return pieces;
}

/** What the bytes [offset, offset + length) of the region must be. */
function contents(seed: number, offset: number, length: number): Uint8Array {
  const first = Math.floor(offset / 4);
  const words = new Uint32Array(Math.floor((offset + length + 3) / 4) - first);
  for (let i = 0; i < words.length; i++) words[i] = mix((seed + Math.imul(first + i, 0x9e3779b9)) | 0);
  return new Uint8Array(words.buffer, offset % 4, length);
}

function mix(x: number): number {
  let h = x ^ (x >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function differences(seen: Uint8Array, wanted: Uint8Array): number {
  if (Buffer.compare(seen, wanted) === 0) return 0;
  return wanted.reduce((sum, byte, i) => sum + (byte === seen[i] ? 0 : 1), 0);
}

/** Numbers from 0 to 1 that follow from a seed. */
class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed | 0;
  }

  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    return (mix(this.state) >>> 0) / 2 ** 32;
  }
}

/** One live line, on a terminal. */
class Progress {
  private readonly total: number;
  private done = 0;
  private shown = -1;

  constructor(total: number) {
    this.total = total;
  }

  add(bytes: number): void {
    this.done += bytes;
    const percent = Math.floor((this.done / this.total) * 100);
    if (process.stderr.isTTY !== true || percent === this.shown) return;
    this.shown = percent;
    process.stderr.write(`\r\x1b[K  ${'█'.repeat(percent / 5).padEnd(20, '░')} ${percent} % written and read back`);
  }

  end(): void {
    if (this.shown >= 0) process.stderr.write('\r\x1b[K');
  }
}
