import { bug } from '../../base/index.js';
import { pfnToPa } from '../layout.js';
import type { PageOps } from '../page/pageops.js';

/**
 * Pages that are one 64-bit value repeated (Linux: zswap's same-filled pages, swap_zeromap): most of them zeros. Reclaim keeps the value and gives the
 * frame up; they take no slot of the swap device, are never written or read, and come back without waiting.
 *
 * A pte names the number of its value (`mkSamePte`); number 0 is zeros. Ptes that name one number have nothing else in common: each gets a frame of its own.
 *
 * Use: `numberOf` while nobody may write the page, `get` for each pte that will name it; `fill` and `put` when the page comes back, `put` when it goes.
 */

/** Different values at a time; the pages of others go to the device. */
const MAX_VALUES = 65_536;

export class SameFilled {
  /** Ptes that name a number. */
  nrPages = 0;
  private readonly pageOps: PageOps;
  /** By number: its value, and the ptes that name it. */
  private readonly values: bigint[] = [0n];
  private readonly counts: number[] = [0];
  private readonly numbers = new Map<bigint, number>([[0n, 0]]);
  private readonly free: number[] = [];

  private readonly enabled: boolean;

  /** Not `enabled`: no page is one. */
  constructor(pageOps: PageOps, enabled: boolean) {
    this.pageOps = pageOps;
    this.enabled = enabled;
  }

  /** The number of the value that fills the frame, or -1. It is in use with the first `get`. */
  numberOf(pfn: number): number {
    const pa = pfnToPa(pfn);
    if (!this.enabled || this.pageOps.isSameFilled(pa) === 0) return -1;
    return this.enter(this.pageOps.firstWord(pa));
  }

  private enter(value: bigint): number {
    const known = this.numbers.get(value);
    if (known !== undefined) return known;
    if (this.values.length - this.free.length > MAX_VALUES) return -1;
    const number = this.free.pop() ?? this.values.length;
    this.values[number] = value;
    this.counts[number] = 0;
    this.numbers.set(value, number);
    return number;
  }

  /** One more pte names the number. */
  get(number: number): void {
    this.counts[number] = this.counts[number]! + 1;
    this.nrPages++;
  }

  /** One pte less does; or none did after `numberOf`. */
  put(number: number): void {
    const count = this.counts[number]!;
    if (!(count > 0)) bug('N22', `value ${number} of same-filled pages put more often than taken`);
    this.counts[number] = count - 1;
    this.nrPages--;
    this.forgetUnused(number);
  }

  /** Forgets the value if no pte names it: after a `numberOf` that was not followed by `get`. */
  forgetUnused(number: number): void {
    if (number === 0 || this.counts[number] !== 0) return;
    this.numbers.delete(this.values[number]!);
    this.free.push(number);
    this.counts[number] = -1;
  }

  /** Fills the frame as the pages were. */
  fill(pfn: number, number: number): void {
    if (number === 0) this.pageOps.zero(pfnToPa(pfn));
    else this.pageOps.fillWords(pfnToPa(pfn), this.values[number]!);
  }

  /** For the checker. */
  countOf(number: number): number {
    return Math.max(0, this.counts[number] ?? 0);
  }

  /** Numbers that were ever in use. */
  get nrNumbers(): number {
    return this.values.length;
  }
}
