import { PAGE_SIZE } from '../../mm/index.js';

/**
 * One direction of one connection, as the memory sees it: the fault that it waits for, what became of the last one, and how far to read ahead. A connection
 * has two, for what it receives and for what it sends, for each may wait while the other goes on.
 *
 * Read-ahead (as Linux's file_ra_state): a fault asks for what its message needs. One that goes on where the pages asked for last end is of a stream: it asks for
 * twice as many, and puts a mark; when the stream comes to the mark the next window is asked for, while this one is copied. In full flow the mark is where the last window but one
 * begins: two windows lie before the stream, so that the device has something to do while the NIC waits for a processor.
 *
 *   | used up to here       | the last but one     | the last             | asked for at the mark
 *     asked ^                 ^ mark                 ^ last                 ^ end
 */
export class Access {
  /** Called when it may go on. */
  readonly resume: () => void;
  private readonly maxWindow: number;
  /** A fault is under way at the mm thread. */
  waiting = false;
  /** The region that the window is in, by its key; 0: there is none. */
  windowKey = 0;
  /** The page whose use asks for the next window; NO_MARK: none does. */
  mark = NO_MARK;
  /** The pages that were asked for, and are on their way: up to `end`. The last window begins at `last`, and has `nrPages`. */
  private asked = 0;
  private last = 0;
  private end = 0;
  nrPages = 0;
  /** What the last fault ended with, for the page that it was for: a FAILED_ code below 0; 0: nothing. */
  private failed = 0;
  private failedKey = 0;
  private failedPage = 0;
  private reason: string | undefined;
  /** Why the access that was refused last has failed, where the mm thread has said it: for people. */
  why: string | undefined;
  /** The message that is under way, where its length is known: bytes up to `messageEnd` of `messageKey`. */
  private messageKey = 0;
  private messageEnd = 0;

  /** `maxWindow`: pages of a window, at most. */
  constructor(resume: () => void, maxWindow = MAX_WINDOW) {
    this.resume = resume;
    this.maxWindow = maxWindow;
  }

  /** A message of [to, to + lenBytes) of `key` begins: its first fault asks for all of it. */
  beginMessage(key: number, to: number, lenBytes: number): void {
    this.messageKey = key;
    this.messageEnd = to + lenBytes;
  }

  /** Pages to ask for at a fault of `page`, which is at `to` of `key` and where `lenBytes` are to be moved. */
  pagesToAsk(key: number, page: number, to: number, lenBytes: number): number {
    const lenToEnd = this.messageKey === key && this.messageEnd > to ? this.messageEnd - to : 0;
    const wanted = Math.ceil(((to % PAGE_SIZE) + Math.max(lenBytes, lenToEnd)) / PAGE_SIZE);
    const needed = Math.min(wanted, this.maxWindow);
    const known = key === this.windowKey && page >= this.asked && page <= this.end;
    // On its way, or gone again: the rest is asked for once more.
    if (known && page < this.end) return Math.max(Math.min(this.end - page, this.maxWindow), needed);
    this.nrPages = known ? Math.min(Math.max(2 * this.nrPages, needed), this.maxWindow) : needed;
    this.windowKey = key;
    this.asked = page;
    this.last = page;
    this.end = page + this.nrPages;
    this.mark = !known ? NO_MARK : this.nrPages > needed ? page + needed : page;
    return this.nrPages;
  }

  /** `page`, at or behind the mark, is used: the first page of the next window, which is of `nrPages`; or -1: the stream has gone elsewhere. */
  advance(page: number): number {
    if (page >= this.end) {
      this.mark = NO_MARK;
      return -1;
    }
    const start = this.end;
    this.asked = Math.min(this.mark, this.last);
    this.mark = this.last;
    this.last = start;
    this.nrPages = Math.min(2 * this.nrPages, this.maxWindow);
    this.end = start + this.nrPages;
    return start;
  }

  /** What would be asked for is there. */
  endReadAhead(): void {
    this.windowKey = 0;
    this.mark = NO_MARK;
  }

  fail(key: number, page: number, code: number, reason: string | undefined): void {
    this.failed = code;
    this.reason = reason;
    this.failedKey = key;
    this.failedPage = page;
  }

  /** Why the last fault failed, if it was this one; once. */
  takeFailure(key: number, page: number): number {
    const { failed } = this;
    this.failed = 0;
    if (failed === 0 || this.failedKey !== key || this.failedPage !== page) return 0;
    this.why = this.reason;
    return failed;
  }
}

const NO_MARK = Number.MAX_SAFE_INTEGER;
/** WHY: 2 MiB are on their way while 1 MiB is copied: as much as a disk reads while another thread has its processor. */
export const MAX_WINDOW = 256;

/** What an access may end with, instead of bytes. */
export const FAILED_KEY = -1;
export const FAILED_BOUNDS = -2;
export const FAILED_ACCESS = -3;
export const FAILED_PD = -4;
/** The mm has no such page, or not with that right. */
export const FAILED_FAULT = -5;
/** Its contents are lost, or nothing can be had for it. */
export const FAILED_MEMORY = -6;
