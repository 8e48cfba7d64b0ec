import { KernelError } from '../base/index.js';
import type { Host, Mm } from '../mm/index.js';
import { RiscvEngine } from '../riscv/index.js';
import type { LguestEnvironment } from './environment.js';
import { Lguest } from './lguest.js';
import { MIN_SHADOW_TABLES } from './pgdirs.js';

/**
 * What `/dev/lguest` is to Linux: a launcher opens it once for each guest. Guests of one device run on the mm thread, by turns.
 */
export interface LguestOptions {
  /** Pages of guest code kept decoded, for all guests together, 20 KiB each; default 512. */
  readonly nrDecodedPages?: number;
  /** Tables of shadow page directories for each guest, 8 KiB each; default 96, and one for each 2 MiB of its memory. At least 16. */
  readonly nrShadowTables?: number;
  /** From 0 below 1, for the choice of a victim among the page directories; default Math.random. */
  readonly random?: () => number;
  /** Milliseconds since 1970, for `time_sec` and `time_nsec` of struct lguest_data; default: 0 when the device is made. */
  readonly unixMs?: () => number;
  /** The only guest inside `run` blocks the thread while a page of its is read, where the swap device can; as in kvm. */
  readonly blockWhenAlone?: boolean;
}

const DEFAULT_DECODED_PAGES = 512;
const DEFAULT_SHADOW_TABLES = 96;
const PAGES_PER_TABLE = 512;

export class LguestDevice {
  readonly host: Host;
  readonly env: LguestEnvironment;
  readonly options: LguestOptions;
  readonly engine: RiscvEngine;
  readonly unixMs: () => number;
  /** Guests inside `run`, and those of them that wait for a page. */
  nrRunning = 0;
  nrWaiting = 0;

  /** Throws KernelError ENOMEM where the host's arena has no room for decoded code. */
  constructor(host: Host, env: LguestEnvironment, options: LguestOptions = {}) {
    this.host = host;
    this.env = env;
    this.options = options;
    const startMs = env.nowMs();
    this.unixMs = options.unixMs ?? (() => env.nowMs() - startMs);
    this.engine = new RiscvEngine({
      memory: host.memory,
      alloc: (lenBytes, align) => host.arenaAlloc(lenBytes, align),
      free: (addr, lenBytes) => host.arenaFree(addr, lenBytes),
      nrDecodedPages: options.nrDecodedPages ?? DEFAULT_DECODED_PAGES,
      ...(env.hostIsTso !== undefined && { hostIsTso: env.hostIsTso }),
    });
  }

  /** A guest to be, whose memory will lie in `mm`, the launcher's. Throws KernelError EINVAL where that is of another host. */
  open(mm: Mm): Lguest {
    if (mm.host !== this.host)
      throw new KernelError('EINVAL', 'open', `${mm.name} must be an mm of the device's own host`);
    return new Lguest(this, mm);
  }

  /** For a guest of so many pages. */
  nrShadowTables(pfnLimit: number): number {
    const nr = this.options.nrShadowTables ?? DEFAULT_SHADOW_TABLES + Math.ceil(pfnLimit / PAGES_PER_TABLE);
    return Math.max(nr, MIN_SHADOW_TABLES);
  }

  /** Whether who waits now may block the thread. */
  get mayBlock(): boolean {
    return (this.options.blockWhenAlone ?? false) && this.nrRunning === 1 && this.host.canBlock;
  }
}
