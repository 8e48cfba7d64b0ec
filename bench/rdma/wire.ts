import { createMemory } from '../../src/base/index.js';
import {
  CRC32C_SCRATCH_BYTES,
  type Crc32c,
  createCrc32c,
  RDMAP_WRITE,
  RdmaStream,
  type StreamOwner,
  type TxMessage,
} from '../../src/rdma/wire/index.js';
import { median } from '../lib/common.js';

/** The wire alone, in memory: what CRC32C and the framing cost, in bytes a second of this thread's processor time. */

const SLICE_BYTES = 32 * 2 ** 20;
const BLOCK_BYTES = 32768;

export interface WireRate {
  readonly name: string;
  /** Bytes a second of processor time, the median of the rounds. */
  readonly rate: number;
}

export function measureWire(rounds: number): WireRate[] {
  const inside = createMemory(CRC32C_SCRATCH_BYTES + BLOCK_BYTES);
  const own = new Uint8Array(inside.buffer, CRC32C_SCRATCH_BYTES, BLOCK_BYTES);
  const stretches: [string, () => void][] = [
    ['CRC32C, bytes in its memory', crcLoop(createCrc32c(inside, 0), own)],
    ['CRC32C, bytes elsewhere', crcLoop(createCrc32c(), new Uint8Array(BLOCK_BYTES))],
    ['WRITE sent and received, CRC', streamLoop(createCrc32c())],
    ['WRITE sent and received, no CRC', streamLoop(undefined)],
  ];
  const rates: number[][] = stretches.map(() => []);
  for (const [, run] of stretches) run();
  for (let round = 0; round < rounds; round++)
    for (const [i, [, run]] of stretches.entries()) rates[i].push(SLICE_BYTES / processorSeconds(run));
  return stretches.map(([name], i) => ({ name, rate: median(rates[i]) }));
}

function processorSeconds(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

function crcLoop(crc: Crc32c, bytes: Uint8Array): () => void {
  return () => {
    for (let done = 0; done < SLICE_BYTES; done += BLOCK_BYTES) crc.update(0, bytes, 0, BLOCK_BYTES);
  };
}

/** One WRITE after another from a buffer to a buffer, through two streams and chunks of 64 KiB, as TCP brings them. */
function streamLoop(crc: Crc32c | undefined): () => void {
  return () => {
    const sender = new Ends(SLICE_BYTES);
    const common = { crc, ird: 1, ord: 1 };
    const out = new Uint8Array(65536);
    const from = new RdmaStream(sender, { ...common, initiator: true });
    const to = new RdmaStream(new Ends(0), { ...common, initiator: false });
    for (let end = from.transmit(out, 0, out.length); end > 0; end = from.transmit(out, 0, out.length))
      to.receive(out, 0, end);
  };
}

/** An owner that sends so many bytes, and takes whatever comes. */
class Ends implements StreamOwner {
  private readonly buffer = new Uint8Array(2 ** 20);
  private left: number;

  constructor(lenBytes: number) {
    this.left = lenBytes;
  }

  nextMessage(message: TxMessage): boolean {
    if (this.left === 0) return false;
    message.opcode = RDMAP_WRITE;
    message.lenBytes = this.buffer.length;
    this.left -= this.buffer.length;
    return true;
  }

  fetch(_message: TxMessage, offset: number, out: Uint8Array, at: number, lenBytes: number): number {
    out.set(this.buffer.subarray(offset, offset + lenBytes), at);
    return lenBytes;
  }

  place(_opcode: number, _stag: number, to: number, bytes: Uint8Array, start: number, end: number): number {
    this.buffer.set(bytes.subarray(start, end), to);
    return end - start;
  }

  checkPlacement(): number {
    return 0;
  }

  sent(): void {}

  beginReceive(): number {
    return 0;
  }
  placeReceive(): number {
    return 0;
  }
  endReceive(): number {
    return 0;
  }
  checkSource(): number {
    return 0;
  }
  fetchSource(): number {
    return 0;
  }
  atomic(): number {
    return 0;
  }
  readDone(): void {}
  completeAtomic(): number {
    return 1;
  }
  ended(): void {}
}
