import type { Words } from '../../base/index.js';
import { vaToVpn } from '../layout.js';
import type { MmuNotifierRange } from './range.js';

/**
 * What a driver needs to install an external entry without a race (N8): a sequence count, the number of brackets under
 * way, and the hull of their ranges, in four words that its threads share (Linux: mmu_invalidate_seq, kvm_mmu_invalidate_begin).
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
 * `begin`, `end` and `readRetry` run under the driver's own lock, or all in one thread; `readBegin` does not need it. So two stores alone order
 * themselves, those of `end`: who reads the new seq sees the ptes cleared, and who sees no bracket sees that seq has moved, though he may hold no
 * lock that `end` was under (registration.ts). For the rest the lock does, as in Linux, and an atomic store is 5 to 10 ns.
 */

const SEQ = 0;
const IN_PROGRESS = 1;
const START_VPN = 2;
const END_VPN = 3;
/** Words that an InvalidateSeq takes. */
export const INVALIDATE_SEQ_WORDS = 4;

/** Names of the four words, for the `Words` that hold them from a multiple of four. */
export const INVALIDATE_SEQ_LABEL = {
  word: (i: number): string => ['seq', 'inProgress', 'range start', 'range end'][i & 3]!,
  value: (i: number, value: number): string => ((i & 3) < 2 ? String(value) : `page 0x${value.toString(16)}`),
};

export class InvalidateSeq {
  private readonly words: Words;
  private readonly base: number;

  /** Uses words [base, base + 4), which must be zero. */
  constructor(words: Words, base: number) {
    this.words = words;
    this.base = base;
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
    const { words, base } = this;
    const inProgress = words.readOnce(base + IN_PROGRESS);
    if (inProgress === 0 || startVpn < words.readOnce(base + START_VPN)) words.writeOnce(base + START_VPN, startVpn);
    if (inProgress === 0 || endVpn > words.readOnce(base + END_VPN)) words.writeOnce(base + END_VPN, endVpn);
    words.writeOnce(base + IN_PROGRESS, inProgress + 1);
  }

  /** A bracket closes. seq moves before the count drops, so that a reader sees one of the two. Pairs with `readRetry`. */
  end(): void {
    const { words, base } = this;
    words.store(base + SEQ, (words.readOnce(base + SEQ) + 1) | 0);
    words.store(base + IN_PROGRESS, words.readOnce(base + IN_PROGRESS) - 1);
  }

  /** Before the primary pte is looked up. Pairs with `end`. */
  readBegin(): number {
    return this.words.load(this.base + SEQ);
  }

  /** Whether what was looked up since `readBegin` may not be installed for `va`; without one, any bracket under way counts. */
  readRetry(seq: number, va?: number): boolean {
    const { words, base } = this;
    if (words.load(base + IN_PROGRESS) !== 0) {
      if (va === undefined) return true;
      const vpn = vaToVpn(va);
      if (vpn >= words.readOnce(base + START_VPN) && vpn < words.readOnce(base + END_VPN)) return true;
    }
    return words.load(base + SEQ) !== seq;
  }

  /** Brackets under way. */
  get inProgress(): number {
    return this.words.load(this.base + IN_PROGRESS);
  }
}
