import { KernelError } from '../../base/index.js';
import type { BlockBackend } from './blockbackend.js';
import type { DescriptorChain } from './chain.js';
import { QueueServer, VIRTIO_ID_BLOCK, type VirtioDevice } from './device.js';
import type { Virtqueue } from './queue.js';

/**
 * virtio-blk: a disk over a `BlockBackend`. Requests are carried out side by side and end in any order; a flush makes durable what was
 * answered before it came.
 *
 * Bytes move in pieces of 128 KiB for 16 requests at a time, whatever sizes the guest asks for. What the backend refuses, and what is beyond the
 * end, is the guest's I/O error; a chain that is no request, or memory that is not RAM, breaks the queue.
 *
 * Source: VIRTIO 1.2, 5.2. Use: `new VirtioBlk({ backend, serial })`.
 */

const PCI_CLASS_STORAGE_OTHER = 0x018000;
export const VIRTIO_BLK_F_SEG_MAX = 2n;
export const VIRTIO_BLK_F_RO = 5n;
export const VIRTIO_BLK_F_BLK_SIZE = 6n;
export const VIRTIO_BLK_F_FLUSH = 9n;
export const VIRTIO_BLK_F_DISCARD = 13n;
export const VIRTIO_BLK_F_WRITE_ZEROES = 14n;
export const VIRTIO_BLK_T_IN = 0;
export const VIRTIO_BLK_T_OUT = 1;
export const VIRTIO_BLK_T_FLUSH = 4;
export const VIRTIO_BLK_T_GET_ID = 8;
export const VIRTIO_BLK_T_DISCARD = 11;
export const VIRTIO_BLK_T_WRITE_ZEROES = 13;
export const VIRTIO_BLK_S_OK = 0;
export const VIRTIO_BLK_S_IOERR = 1;
export const VIRTIO_BLK_S_UNSUPP = 2;

const SECTOR_BYTES = 512;
const QUEUE_SIZE = 256;
/** Data segments of a request: the chain's others are header and status. */
const SEG_MAX = QUEUE_SIZE - 2;
const HEADER_BYTES = 16;
const SEGMENT_BYTES = 16;
const ID_BYTES = 20;
const MAX_SEGMENTS = 16;
const MAX_SEGMENT_SECTORS = 2 ** 22;
const PIECE_BYTES = 128 * 1024;
const MAX_IN_FLIGHT = 16;
const CONFIG_BYTES = 60;

export interface VirtioBlkOptions {
  readonly backend: BlockBackend;
  /** Up to 20 bytes of ASCII. */
  readonly serial?: string;
  /** The guest may not write, whatever the backend may. */
  readonly readOnly?: boolean;
  /** The backend refused what the guest asked for: it gets an I/O error. */
  readonly onError?: (error: KernelError) => void;
}

interface Request {
  readonly type: number;
  readonly sector: number;
  readonly chain: DescriptorChain;
}

export class VirtioBlk implements VirtioDevice {
  readonly name = 'virtio-blk';
  readonly deviceId = VIRTIO_ID_BLOCK;
  readonly pciClass = PCI_CLASS_STORAGE_OTHER;
  readonly features: bigint;
  readonly queueSizes = [QUEUE_SIZE];
  readonly config = new Uint8Array(CONFIG_BYTES);
  private readonly options: VirtioBlkOptions;
  private readonly readOnly: boolean;
  private readonly capacity: number;
  private server: QueueServer | undefined;

  /** Throws KernelError EINVAL for a backend that is not whole sectors: its last bytes would be lost. */
  constructor(options: VirtioBlkOptions) {
    const { backend } = options;
    this.options = options;
    this.readOnly = backend.readOnly || options.readOnly === true;
    this.capacity = backend.sizeBytes / SECTOR_BYTES;
    if (this.capacity < 1 || !Number.isInteger(this.capacity)) {
      const what = `${backend.name} has ${backend.sizeBytes} bytes; a disk must have a multiple of ${SECTOR_BYTES}, and not 0`;
      throw new KernelError('EINVAL', 'disk', what);
    }
    this.features = featureBits(this.readOnly, backend.sparse === true);
    this.writeConfigFields();
  }

  private writeConfigFields(): void {
    const view = new DataView(this.config.buffer);
    view.setUint32(0, this.capacity, true);
    view.setUint32(4, Math.floor(this.capacity / 2 ** 32), true);
    view.setUint32(12, SEG_MAX, true);
    view.setUint32(20, SECTOR_BYTES, true);
    view.setUint32(36, MAX_SEGMENT_SECTORS, true); // max_discard_sectors
    view.setUint32(40, MAX_SEGMENTS, true); // max_discard_seg
    view.setUint32(44, 8, true); // discard_sector_alignment
    view.setUint32(48, MAX_SEGMENT_SECTORS, true); // max_write_zeroes_sectors
    view.setUint32(52, MAX_SEGMENTS, true); // max_write_zeroes_seg
    view.setUint8(56, 1); // write_zeroes_may_unmap
  }

  attach(): void {}

  start([requests]: readonly (Virtqueue | undefined)[]): void {
    this.server = requests && new QueueServer(requests, (chain) => this.serve(chain), MAX_IN_FLIGHT);
  }

  notify(): void {
    this.server?.notify();
  }

  reset(): void {
    this.server = undefined;
  }

  /** Carries a request out; the bytes written, of which the last is its status. */
  private async serve(chain: DescriptorChain): Promise<number> {
    if (chain.readableBytes < HEADER_BYTES || chain.writableBytes < 1)
      throw new KernelError('EINVAL', 'virtio-blk', 'a request must have a header of 16 bytes and room for its status');
    const header = new Uint8Array(HEADER_BYTES);
    await chain.read(0, header);
    const view = new DataView(header.buffer);
    const sector = view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32;
    const status = await this.carryOut({ type: view.getUint32(0, true), sector, chain });
    await chain.write(chain.writableBytes - 1, Uint8Array.of(status));
    return chain.writableBytes;
  }

  private carryOut(request: Request): Promise<number> | number {
    switch (request.type) {
      case VIRTIO_BLK_T_IN:
        return this.read(request);
      case VIRTIO_BLK_T_OUT:
        return this.readOnly ? VIRTIO_BLK_S_IOERR : this.write(request);
      case VIRTIO_BLK_T_FLUSH:
        return this.readOnly ? VIRTIO_BLK_S_OK : this.attempt(() => this.flush());
      case VIRTIO_BLK_T_GET_ID:
        return this.getId(request);
      case VIRTIO_BLK_T_DISCARD:
        return this.options.backend.sparse ? this.zero(request) : VIRTIO_BLK_S_UNSUPP;
      case VIRTIO_BLK_T_WRITE_ZEROES:
        return this.zero(request);
      default:
        return VIRTIO_BLK_S_UNSUPP;
    }
  }

  private async flush(): Promise<boolean> {
    await this.options.backend.sync();
    return true;
  }

  private async read({ sector, chain }: Request): Promise<number> {
    const { backend } = this.options;
    const lenBytes = chain.writableBytes - 1;
    if (!this.inDisk(sector, lenBytes)) return VIRTIO_BLK_S_IOERR;
    for (let at = 0; at < lenBytes; at += PIECE_BYTES) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, lenBytes - at));
      const status = await this.attempt(
        async () => (await backend.read(sector * SECTOR_BYTES + at, [piece])) === piece.length,
      );
      if (status !== VIRTIO_BLK_S_OK) return status;
      await chain.write(at, piece);
    }
    return VIRTIO_BLK_S_OK;
  }

  private async write({ sector, chain }: Request): Promise<number> {
    const { backend } = this.options;
    const lenBytes = chain.readableBytes - HEADER_BYTES;
    if (!this.inDisk(sector, lenBytes)) return VIRTIO_BLK_S_IOERR;
    for (let at = 0; at < lenBytes; at += PIECE_BYTES) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, lenBytes - at));
      await chain.read(HEADER_BYTES + at, piece);
      const status = await this.attempt(
        async () => (await backend.write(sector * SECTOR_BYTES + at, [piece])) === piece.length,
      );
      if (status !== VIRTIO_BLK_S_OK) return status;
    }
    return VIRTIO_BLK_S_OK;
  }

  /** Discard and write zeroes: a list of segments, each checked before any is touched. */
  private async zero({ chain }: Request): Promise<number> {
    const lenBytes = chain.readableBytes - HEADER_BYTES;
    if (this.readOnly || lenBytes % SEGMENT_BYTES !== 0 || lenBytes > MAX_SEGMENTS * SEGMENT_BYTES)
      return VIRTIO_BLK_S_IOERR;
    const view = new DataView(new ArrayBuffer(lenBytes));
    await chain.read(HEADER_BYTES, new Uint8Array(view.buffer));
    const segments: { sector: number; nrSectors: number }[] = [];
    for (let at = 0; at < lenBytes; at += SEGMENT_BYTES) {
      const sector = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
      segments.push({ sector, nrSectors: view.getUint32(at + 8, true) });
    }
    const allowed = segments.every(
      ({ sector, nrSectors }) => nrSectors <= MAX_SEGMENT_SECTORS && this.inDisk(sector, nrSectors * SECTOR_BYTES),
    );
    if (!allowed) return VIRTIO_BLK_S_IOERR;
    return this.attempt(async () => {
      for (const { sector, nrSectors } of segments)
        await this.options.backend.punchHole(sector * SECTOR_BYTES, nrSectors * SECTOR_BYTES);
      return true;
    });
  }

  private async getId({ chain }: Request): Promise<number> {
    const id = new Uint8Array(Math.min(ID_BYTES, chain.writableBytes - 1));
    const { serial = '' } = this.options;
    for (let i = 0; i < id.length; i++) id[i] = serial.charCodeAt(i) & 0x7f;
    await chain.write(0, id);
    return VIRTIO_BLK_S_OK;
  }

  private inDisk(sector: number, lenBytes: number): boolean {
    return lenBytes % SECTOR_BYTES === 0 && sector + lenBytes / SECTOR_BYTES <= this.capacity;
  }

  /** The status for what the backend did; `io` resolves with false where it fell short. */
  private async attempt(io: () => Promise<boolean>): Promise<number> {
    try {
      if (await io()) return VIRTIO_BLK_S_OK;
      const { name } = this.options.backend;
      this.options.onError?.(
        new KernelError('EIO', 'disk', `${name} is shorter than it was; it was changed while in use`),
      );
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.options.onError?.(error);
    }
    return VIRTIO_BLK_S_IOERR;
  }
}

function featureBits(readOnly: boolean, sparse: boolean): bigint {
  const bits = [VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH];
  if (readOnly) bits.push(VIRTIO_BLK_F_RO);
  else bits.push(VIRTIO_BLK_F_WRITE_ZEROES, ...(sparse ? [VIRTIO_BLK_F_DISCARD] : []));
  return bits.reduce((all, bit) => all | (1n << bit), 0n);
}
