import { utf8 } from '../fdt.js';
import { type FileSystemBackend, FuseServer, MAX_REQUEST } from '../fuse/index.js';
import type { DescriptorChain } from './chain.js';
import { QueueServer, type VirtioDevice } from './device.js';
import type { Virtqueue } from './queue.js';

/**
 * A shared folder of the host (virtio-fs): each chain of a queue is one FUSE request and the room for its reply.
 *
 *     guest# mount -t virtiofs TAG /mnt
 *
 * WHY virtio-fs and not 9p: Debian's kernel has it built in, so it needs no modules in an initramfs; and FUSE's identities and
 * fixed structures are simpler to serve safely than 9p's fids and walks.
 *
 * Source: VIRTIO 1.2, 5.11. Use: `new VirtioFs({ tag, fs })` into a slot of the board.
 */

const VIRTIO_ID_FS = 26;
const TAG_BYTES = 36;
/** For forgetting, which waits for nobody; and one for requests. */
const HIPRIOQ = 0;
const QUEUE_SIZES = [128, 128];
const MAX_IN_FLIGHT = 16;

export interface VirtioFsOptions {
  /** What the guest mounts: 1 to 36 bytes of UTF-8. */
  readonly tag: string;
  readonly fs: FileSystemBackend;
}

export class VirtioFs implements VirtioDevice {
  readonly name = 'virtio-fs';
  readonly deviceId = VIRTIO_ID_FS;
  readonly pciClass = 0x018000;
  readonly features = 0n;
  readonly queueSizes = QUEUE_SIZES;
  readonly config = new Uint8Array(TAG_BYTES + 4);
  private readonly fs: FileSystemBackend;
  private server: FuseServer | undefined;
  private queues: (QueueServer | undefined)[] = [];

  constructor({ tag, fs }: VirtioFsOptions) {
    this.config.set(tagBytes(tag));
    this.config[TAG_BYTES] = QUEUE_SIZES.length - 1;
    this.fs = fs;
  }

  attach(): void {}

  start(queues: readonly (Virtqueue | undefined)[]): void {
    const server = new FuseServer(this.fs);
    this.server = server;
    this.queues = queues.map(
      (queue, index) =>
        queue && new QueueServer(queue, (chain) => serve(server, chain), index === HIPRIOQ ? 1 : MAX_IN_FLIGHT),
    );
  }

  notify(index: number): void {
    this.queues[index]?.notify();
  }

  reset(): void {
    this.queues = [];
    void this.server?.close();
    this.server = undefined;
  }
}

function tagBytes(tag: string): number[] {
  const bytes = utf8(tag);
  if (bytes.length < 1 || bytes.length > TAG_BYTES || bytes.includes(0))
    throw new RangeError(`tag '${tag}' must have 1 to ${TAG_BYTES} bytes`);
  return bytes;
}

async function serve(server: FuseServer, chain: DescriptorChain): Promise<number> {
  if (chain.readableBytes > MAX_REQUEST)
    throw new Error(`a request of ${chain.readableBytes} bytes must have at most ${MAX_REQUEST}`);
  const request = new Uint8Array(chain.readableBytes);
  await chain.read(0, request);
  const reply = await server.handle(request, chain.writableBytes);
  if (reply === undefined) return 0;
  await chain.write(0, reply);
  return reply.length;
}
