/**
 * Whether a transfer may block the thread it is asked for on. From the page cache of the system a run of pages comes in microseconds, and a thread of
 * Node's pool takes ten times as long to be woken and to answer; from a disk it may take milliseconds, in which this thread has guests to run.
 *
 * Nothing tells beforehand which it will be. So what the last one took tells: as long as they are quick they block, after a slow one the next are left to
 * the pool, then one is tried again, and each slow try makes the pause twice as long. (Linux polls for completions of fast devices by the same reasoning.)
 */

/** Longer is slow. WHY: what the pool costs, by itself, and what a copy takes wherever it is done. */
const SLOW_MS = 0.06;
const COPY_MS = 0.001;
/** A longer transfer is the pool's: 256 KiB. WHY: of a stream from the page cache in such runs the pool costs a tenth of all processor time. */
const MAX_PAGES = 64;
/** Transfers left to the pool after a slow one, at first and at most. */
const FIRST_PAUSE = 16;
const MAX_PAUSE = 4096;

export class Blocking {
  private readonly now: () => number;
  private pause = 0;
  private left = 0;

  /** `now` in milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.now = now;
  }

  /** Does the transfer of `nrPages` here and now if that is likely to be quick; false: it is for the pool. Throws what `transfer` throws. */
  tried(nrPages: number, transfer: () => void): boolean {
    if (nrPages > MAX_PAGES) return false;
    if (this.left > 0) {
      this.left--;
      return false;
    }
    const start = this.now();
    transfer();
    const slow = this.now() - start > SLOW_MS + nrPages * COPY_MS;
    this.pause = slow ? Math.min(Math.max(FIRST_PAUSE, 2 * this.pause), MAX_PAUSE) : 0;
    this.left = this.pause;
    return true;
  }
}
