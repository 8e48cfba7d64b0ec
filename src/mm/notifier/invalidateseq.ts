import { bug, type Words } from '../../base/index.js';
import { vaToVpn } from '../layout.js';
import type { MmuNotifierRange } from './range.js';

/**
 * What a driver needs to install an external entry without a race (N8): a sequence count, the number of brackets under way, and the hull of their
 * ranges, in three words that its threads share (Linux: mmu_invalidate_seq, mmu_invalidate_in_progress, kvm_mmu_invalidate_begin).
 *
 *   mm thread                                  external fault
 *   start: lock; begin(range); zap; unlock     seq = readBegin()
 *     (flush)                                  pfn = mm.tryGetPage(va)
 *   clears the pte                             lock
 *   end: lock; end(); unlock                   if (readRetry(seq, va)) unlock, put the page, again
 *                                              install; unlock; put the page
 *
 * Required outcome: no external entry for the range is installed between start and end (N3), nor one that was looked up
 * before the pte was cleared. The bracket that is under way is seen by its count and range, the one that ran in between by seq.
 *
 * `begin`, `end` and `readRetry` run under the driver's own lock, or all in one thread; `readBegin` does not need it, nor does a `readRetry` whose
 * driver takes its lock after `begin` (registration.ts). seq and the count are one word, which `end` changes by one store: whoever sees no bracket sees
 * that seq has moved, and whoever reads the new seq sees the ptes cleared. For the rest the lock does, as in Linux.
 *
 * WHY one word: an atomic store is 12 ns, of the 40 that a bracket of one page may cost. What it takes is width: seq comes round after 2^28
 * brackets, a minute of nothing else, and a look-up that takes just so long would not see it.
 */

const STATE = 0;
const START_VPN = 1;
const END_VPN = 2;
/** Words that an InvalidateSeq takes. */
export const INVALIDATE_SEQ_WORDS = 3;

/** STATE: brackets under way in the low bits, seq above them. */
const COUNT_BITS = 4;
const COUNT_MASK = 0xf;
/** One more to seq, one less to the count. */
const ONE_ENDED = 0x10 - 1;

/** Names of the three words, for the `Words` that begin with them. */
export const INVALIDATE_SEQ_LABEL = {
  word: (i: number): string => ['seq', 'range start', 'range end'][i]!,
  value: (i: number, value: number): string => (i === STATE ? describeState(value) : `page 0x${value.toString(16)}`),
};

function describeState(state: number): string {
  return `${state >>> COUNT_BITS}, ${state & COUNT_MASK} in progress`;
}

export class InvalidateSeq {
  private readonly words: Words;
  // WHY = 0: a field that begins as undefined is a value of any kind to the engine, which asks of which at each use.
  private readonly state: number = 0;
  private readonly startVpn: number = 0;
  private readonly endVpn: number = 0;

  /** Uses words [base, base + 3), which must be zero. */
  constructor(words: Words, base: number) {
    this.words = words;
    this.state = base + STATE;
    this.startVpn = base + START_VPN;
    this.endVpn = base + END_VPN;
  }

  /** A bracket over the bytes [start, end) opens. Overlapping brackets widen the range to their hull. */
  begin(start: number, end: number): void {
    this.beginPages(vaToVpn(start), vaToVpn(end - 1) + 1);
  }

  /** As `begin`, over the hull of the range that a callback got. WHY: without a division of bytes of 39 bits it takes a third of the time. */
  beginRange({ ranges, nrRanges }: MmuNotifierRange): void {
    this.beginPages(ranges[0]!, ranges[2 * nrRanges - 1]!);
  }

  private beginPages(startVpn: number, endVpn: number): void {
    const { words } = this;
    const state = words.readOnce(this.state);
    if ((state & COUNT_MASK) !== 0) this.widen(state, startVpn, endVpn);
    else {
      words.writeOnce(this.startVpn, startVpn);
      words.writeOnce(this.endVpn, endVpn);
    }
    words.writeOnce(this.state, state + 1);
  }

  /** Another bracket is under way: the range becomes the hull of both. */
  private widen(state: number, startVpn: number, endVpn: number): void {
    const { words } = this;
    if ((state & COUNT_MASK) === COUNT_MASK)
      bug('N7', `more than ${COUNT_MASK} brackets overlap: starts without an end`);
    if (startVpn < words.readOnce(this.startVpn)) words.writeOnce(this.startVpn, startVpn);
    if (endVpn > words.readOnce(this.endVpn)) words.writeOnce(this.endVpn, endVpn);
  }

  /** A bracket closes: seq moves and the count drops, at once. Pairs with `readRetry`. */
  end(): void {
    const { words, state } = this;
    words.store(state, words.readOnce(state) + ONE_ENDED);
  }

  /** Before the primary pte is looked up. Pairs with `end`. */
  readBegin(): number {
    return this.words.load(this.state) >>> COUNT_BITS;
  }

  /** Whether what was looked up since `readBegin` may not be installed for `va`; without one, any bracket under way counts. */
  readRetry(seq: number, va?: number): boolean {
    const { words } = this;
    const state = words.load(this.state);
    if (state >>> COUNT_BITS !== seq) return true;
    if ((state & COUNT_MASK) === 0) return false;
    if (va === undefined) return true;
    const vpn = vaToVpn(va);
    if (vpn >= words.readOnce(this.startVpn) && vpn < words.readOnce(this.endVpn)) return true;
    // Without the lock it may be the range of the next bracket already.
    return words.load(this.state) >>> COUNT_BITS !== seq;
  }

  /** Brackets under way. */
  get inProgress(): number {
    return this.words.load(this.state) & COUNT_MASK;
  }
}
