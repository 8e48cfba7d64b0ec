import type { GuestMemory } from './guestmemory.js';
import type { Device } from './mmio.js';

/**
 * A doorbell for a NIC that moves a guest's memory by itself: the guest writes requests into a ring in its RAM, and rings; the NIC moves the bytes between the guest's pages and a
 * peer's memory, and the device writes into the request how it went.
 *
 *   register (32 bits)                  request in the ring (32 bytes, little-endian)
 *   0x00 ring's address, low            0  u32 opcode: RNIC_READ (into the guest), RNIC_WRITE
 *   0x04 and high                       4  u32 status: the guest writes 0; RNIC_DONE, or more: it failed
 *   0x08 (w) ring: request 0 to 63      8  u64 guest-physical address
 *   0x10 (r) bytes of the peer, low     16 u64 place in the peer's memory
 *   0x14 (r) and high                   24 u32 length in bytes
 *
 * All that a guest writes may be wrong: a request that makes no sense fails, a ring that is not in RAM is heard of in `onBroken`, once, and no request is looked at any more.
 */

export const RNIC_BASE = 0x1001_0000;
export const RNIC_SIZE = 0x1000;
export const RNIC_READ = 1;
export const RNIC_WRITE = 2;
export const RNIC_DONE = 1;
/** Status: the request makes no sense; the NIC could not do it. */
export const RNIC_INVALID = 2;
export const RNIC_FAILED = 3;

const NR_REQUESTS = 64;
const REQUEST_BYTES = 32;
const STATUS = 4;

/** The NIC behind it. */
export interface RnicPort {
  /** Bytes of the peer's memory. */
  readonly lenBytes: number;
  /** Moves bytes between the guest and the peer; resolves when that is done, true where it went well. */
  move(opcode: typeof RNIC_READ | typeof RNIC_WRITE, gpa: number, offset: number, length: number): Promise<boolean>;
  /** Ends it: what is under way fails. */
  close(): Promise<void>;
}

export interface RnicDoorbellOptions {
  readonly port: RnicPort;
  readonly memory: GuestMemory;
  readonly onBroken: (reason: string) => void;
}

export class RnicDoorbell implements Device {
  readonly name = 'rnic';
  private readonly options: RnicDoorbellOptions;
  private low = 0;
  private high = 0;
  private readonly busy = new Map<number, Promise<void>>();
  private broken = false;

  constructor(options: RnicDoorbellOptions) {
    this.options = options;
  }

  read(offset: number): number {
    const { lenBytes } = this.options.port;
    if (offset === 0x00) return this.low;
    if (offset === 0x04) return this.high;
    if (offset === 0x10) return lenBytes >>> 0;
    return offset === 0x14 ? Math.floor(lenBytes / 2 ** 32) : 0;
  }

  write(offset: number, _lenBytes: number, value: number): void {
    if (offset === 0x00) this.low = value;
    else if (offset === 0x04) this.high = value;
    else if (offset === 0x08) this.ring(value);
  }

  /** Resolves when nothing accesses guest memory any more. */
  async shutdown(): Promise<void> {
    this.broken = true;
    await this.options.port.close();
    await Promise.all(this.busy.values());
  }

  /** A bell for what is under way is not heard. */
  private ring(n: number): void {
    if (this.broken || n >= NR_REQUESTS || this.busy.has(n)) return;
    this.busy.set(n, this.serve(n));
  }

  /** One request, from its reading to its status. */
  private async serve(n: number): Promise<void> {
    const at = this.high * 2 ** 32 + this.low + n * REQUEST_BYTES;
    const { memory, onBroken } = this.options;
    try {
      const request = new Uint8Array(REQUEST_BYTES);
      await memory.read(at, request);
      const status = new Uint8Array(4);
      new DataView(status.buffer).setUint32(0, await this.perform(new DataView(request.buffer)), true);
      // Before its status, so that who sees that may ring for the next one.
      this.busy.delete(n);
      await memory.write(at + STATUS, status);
    } catch (error) {
      this.busy.delete(n);
      if (!this.broken) onBroken(`request ${n}: ${error instanceof Error ? error.message : String(error)}`);
      this.broken = true;
    }
  }

  private async perform(request: DataView): Promise<number> {
    const { port } = this.options;
    const opcode = request.getUint32(0, true);
    const [gpa, offset] = [Number(request.getBigUint64(8, true)), Number(request.getBigUint64(16, true))];
    const length = request.getUint32(24, true);
    const known = opcode === RNIC_READ || opcode === RNIC_WRITE;
    if (!known || !Number.isSafeInteger(gpa) || length === 0 || offset + length > port.lenBytes) return RNIC_INVALID;
    return (await port.move(opcode, gpa, offset, length)) ? RNIC_DONE : RNIC_FAILED;
  }
}
