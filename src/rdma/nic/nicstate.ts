import { cpuRelax, KernelError, Words, type WordsLabel } from '../../base/index.js';

/**
 * Whether the NIC is in a copy, and how others wait until it is not: what makes an invalidation meet the copies that are in flight.
 *
 *   NIC                                      who takes an entry, or a region, away
 *   enterCopy: COPY becomes odd              entry = 0
 *   looks entries up, copies                 awaitCopy: COPY is odd? waits until it has moved
 *   leaveCopy: COPY becomes even             goes on
 *
 * Required outcome: when `awaitCopy` has returned, no copy uses what was taken away before. Either the NIC finds the entry gone, or the other sees it
 * in its copy: both store first and load then, sequentially consistent. COPY counts, so that a NIC which is in its next copy is not waited
 * for: that one has begun after the entry went. Proved by test/explore/models/rdma.ts.
 *
 * A copy is short (64 KiB at most), takes no lock and waits for nothing. The NIC may be killed in one: then the end of its thread tells that it is over (`over`), and who waits
 * before that is told ETIMEDOUT, which costs the region (N19).
 */

const COPY = 0;
/** How many sleep until COPY moves. */
const NR_WAITERS = 1;
/** How often a notifier waited. */
const NR_WAITS = 2;
export const NIC_STATE_WORDS = 16;

const LABEL: WordsLabel = {
  word: (i) => ['copy', 'waiters', 'waits'][i] ?? `nic word ${i}`,
  value: (i, value) => (i === COPY ? `${value} (${(value & 1) === 1 ? 'in a copy' : 'outside'})` : `${value}`),
};

/** A copy that has not ended by then never will. */
const COPY_TIMEOUT_MS = 2000;
const LOOK_AGAIN_MS = 20;
/** WHY: a copy ends within a few microseconds, a sleep costs 20 or more. */
const SPINS = 2000;

export class NicState {
  private readonly words: Words;
  private readonly nrSpins: number;

  /** `address` of NIC_STATE_WORDS words, zero at first. `nrSpins`: looks before who waits sleeps. */
  constructor(memory: { buffer: SharedArrayBuffer }, address: number, nrSpins = SPINS) {
    this.words = new Words(memory, address, NIC_STATE_WORDS, LABEL);
    this.nrSpins = nrSpins;
  }

  /** By the NIC. Pairs with `leaveCopy`, and with `awaitCopy`. */
  enterCopy(): void {
    this.words.store(COPY, this.words.readOnce(COPY) + 1);
  }

  leaveCopy(): void {
    this.words.store(COPY, this.words.readOnce(COPY) + 1);
    if (this.words.load(NR_WAITERS) !== 0) this.words.notify(COPY);
  }

  /** By any thread, with no lock that the NIC takes in a copy: it takes none. Whether there was one to wait for. Throws KernelError ETIMEDOUT. */
  awaitCopy(): boolean {
    const seen = this.words.load(COPY);
    if ((seen & 1) === 0) return false;
    this.words.fetchAdd(NR_WAITS, 1);
    for (let spin = 0; spin < this.nrSpins; spin++) {
      if (this.words.load(COPY) !== seen) return true;
      cpuRelax();
    }
    this.words.fetchAdd(NR_WAITERS, 1);
    try {
      this.sleepWhile(seen);
    } finally {
      this.words.fetchAdd(NR_WAITERS, -1);
    }
    return true;
  }

  private sleepWhile(seen: number): void {
    for (let waitedMs = 0; waitedMs < COPY_TIMEOUT_MS; waitedMs += LOOK_AGAIN_MS) {
      if (this.words.load(COPY) !== seen) return;
      this.words.wait(COPY, seen, LOOK_AGAIN_MS);
    }
    throw new KernelError('ETIMEDOUT', 'invalidate', `a NIC has not ended its copy within ${COPY_TIMEOUT_MS} ms`);
  }

  /** The NIC's thread has ended, perhaps in a copy. */
  over(): void {
    if ((this.words.load(COPY) & 1) === 1) this.leaveCopy();
  }

  nrWaits(): number {
    return this.words.readOnce(NR_WAITS);
  }
}
