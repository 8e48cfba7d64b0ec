/**
 * One direction of one connection, as the memory sees it: the fault that it waits for, what became of the last one, and how far to read ahead. A connection
 * has two, for what it receives and for what it sends, for each may wait while the other goes on.
 */
export class Access {
  /** Called when it may go on. */
  readonly resume: () => void;
  /** A fault is under way at the mm thread. */
  waiting = false;
  /** What the last fault ended with, for the page that it was for: a FAILED_ code below 0; 0: nothing. */
  private failed = 0;
  private failedKey = 0;
  private failedPage = 0;
  private lastPage = -1;
  private window = 1;

  constructor(resume: () => void) {
    this.resume = resume;
  }

  /** Pages to ask for at a fault of `page`, of which `wanted` are needed: more while faults follow one another. */
  pagesToAsk(page: number, wanted: number): number {
    const follows = page > this.lastPage && page <= this.lastPage + 2 * this.window;
    this.window = Math.min(MAX_WINDOW, Math.max(wanted, follows ? 2 * this.window : 1));
    this.lastPage = page + this.window - 1;
    return this.window;
  }

  fail(key: number, page: number, code: number): void {
    this.failed = code;
    this.failedKey = key;
    this.failedPage = page;
  }

  /** Why the last fault failed, if it was this one; once. */
  takeFailure(key: number, page: number): number {
    const { failed } = this;
    this.failed = 0;
    return failed !== 0 && this.failedKey === key && this.failedPage === page ? failed : 0;
  }
}

/** WHY: read-ahead of the swap device works in runs of 16 pages; so many of them are in flight. */
const MAX_WINDOW = 256;

/** What an access may end with, instead of bytes. */
export const FAILED_KEY = -1;
export const FAILED_BOUNDS = -2;
export const FAILED_ACCESS = -3;
export const FAILED_PD = -4;
/** The mm has no such page, or not with that right. */
export const FAILED_FAULT = -5;
/** Its contents are lost, or nothing can be had for it. */
export const FAILED_MEMORY = -6;
