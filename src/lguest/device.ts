import type { Host, Mm } from '../mm/index.js';
import type { LguestEnvironment } from './environment.js';
import { Lguest } from './lguest.js';

/**
 * What `/dev/lguest` is to Linux: a launcher opens it once for each guest. Guests of one device run on the mm thread, by turns.
 */
export interface LguestOptions {
  /** Pages of guest code kept decoded, for all guests together, 20 KiB each; default 512. */
  readonly nrDecodedPages?: number;
  /** From 0 below 1, for the choice of a victim among the page directories; default Math.random. */
  readonly random?: () => number;
  /** Milliseconds since 1970, for `time_sec` and `time_nsec` of struct lguest_data; default: 0 when the device is made. */
  readonly unixMs?: () => number;
  /** The only guest inside `run` blocks the thread while a page of its is read, where the swap device can; as in kvm. */
  readonly blockWhenAlone?: boolean;
}

export class LguestDevice {
  readonly host: Host;
  readonly env: LguestEnvironment;
  readonly options: LguestOptions;

  constructor(host: Host, env: LguestEnvironment, options: LguestOptions = {}) {
    this.host = host;
    this.env = env;
    this.options = options;
  }

  /** A guest to be, whose memory will lie in `mm`, the launcher's, which must be of this host. */
  open(mm: Mm): Lguest {
    return new Lguest(this, mm);
  }
}
