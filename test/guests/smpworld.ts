import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { Kvm } from '../../src/kvm/index.js';
import { checkHost, Host, MemorySwap } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { BoardGuest, type GuestReport } from '../../src/vmm/index.js';
import { bundleWorker } from '../worker.js';

/**
 * A host on which our guests of one and of several vCPUs run, in threads or on the mm thread, in less memory than they have. What it has
 * given out of its arena is counted.
 *
 * Use: `const world = new SmpWorld({ framesBytes })`; `await world.boot({ ... })` for each guest, then `ended`; `await world.close()`.
 */

export const MIB = 2 ** 20;
/** Room for a guest, and for each thread of its: decoded code, mostly. */
const ARENA_BYTES = 48 * MIB;
const NR_DECODED_PAGES = 128;

export type Image = 'memhog' | 'smphog';

export interface SmpGuestOptions {
  image?: Image;
  nrVcpus?: number;
  threads?: boolean;
  ramBytes?: number;
  bootargs?: string;
  pin?: boolean;
  balloon?: boolean;
}

export interface SmpWorldOptions {
  framesBytes: number;
  debug?: boolean;
  checkFrames?: boolean;
}

export interface SmpGuest {
  readonly guest: BoardGuest;
  /** Resolves with how it ended. */
  readonly ended: Promise<GuestReport>;
  console(): string;
}

export class SmpWorld {
  readonly host: Host;
  readonly kvm: Kvm;
  /** Bytes of the arena that are given out. */
  arenaInUse = 0;
  private nrGuests = 0;

  /** `checkFrames`: see KvmOptions. */
  constructor({ framesBytes, debug = true, checkFrames = false }: SmpWorldOptions) {
    const swap = new MemorySwap({ sizeBytes: 128 * MIB });
    const frames = framesBytes / 4096;
    this.host = new Host({ frames, arenaBytes: ARENA_BYTES, swap, debug, defer: (fn) => setImmediate(fn) });
    this.countArena();
    const vcpuWorker = bundleWorker(new URL('../../src/node/vcpuworker.ts', import.meta.url));
    this.kvm = new Kvm(this.host, nodeEnvironment({ vcpuWorker }), {
      nrDecodedPages: NR_DECODED_PAGES,
      nrThreadDecodedPages: NR_DECODED_PAGES,
      checkFrames,
    });
  }

  private countArena(): void {
    const { host } = this;
    const [alloc, free] = [host.arenaAlloc.bind(host), host.arenaFree.bind(host)];
    host.arenaAlloc = (lenBytes, align) => {
      const address = alloc(lenBytes, align);
      this.arenaInUse += lenBytes;
      return address;
    };
    host.arenaFree = (address, lenBytes) => {
      free(address, lenBytes);
      this.arenaInUse -= lenBytes;
    };
  }

  async boot(options: SmpGuestOptions = {}): Promise<SmpGuest> {
    const { image = 'smphog', nrVcpus = 1, threads = false, ramBytes = 16 * MIB, bootargs = '', pin = false } = options;
    const balloon = options.balloon ? { targetBytes: 0 } : undefined;
    let console = '';
    const guest = await BoardGuest.create({
      name: `guest${this.nrGuests++}`,
      kvm: this.kvm,
      host: this.host,
      ramBytes,
      nrVcpus,
      threads,
      kernel: new Uint8Array(readFileSync(new URL(`../../guests/images/${image}.img`, import.meta.url))),
      bootargs,
      pin,
      ...(balloon && { balloon }),
      gunzip: gunzipSync,
      console: (bytes) => {
        console += Buffer.from(bytes).toString('latin1');
      },
    });
    return { guest, ended: guest.run(), console: () => console };
  }

  /** Frames in use, beyond the zero page; after a whole check. */
  framesInUse(): number {
    checkHost(this.host);
    return this.host.frames.nrFrames - this.host.frames.nrFree;
  }

  async close(): Promise<void> {
    checkHost(this.host);
    await this.host.stop();
  }
}

/** What a guest of ours says last when nothing was wrong. */
export function verdict(console: string): string | undefined {
  return /(\d+ MiB|\d+ harts).*: (verified \d+ words, )?0 errors, checksum 0x[0-9a-f]+/.exec(console)?.[0];
}
