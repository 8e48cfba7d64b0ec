import { model } from 'unpin/explore';
import { cpuRelax, INVALIDATE_SEQ_LABEL, InvalidateSeq, Words } from 'unpin/mm';

/**
 * N8: InvalidateSeq between an mm that takes two pages away, one after the other, and a fault on the first of them; as it is, and with
 * each of its protections taken out. begin and end run without the driver's lock, as in src/notifier, or under it, as in src/kvm.
 */

const SEQ = 0;
const LOCK = 4;
const PTE = 5;
const ENTRY = 6;
const NAMES = ['driver', 'pte', 'entry'];

const VA = 0x10000;
const OTHER_VA = 0x50000;
const PFN = 7;

class Driver {
  readonly words = new Words({ buffer: new SharedArrayBuffer(64) }, 0, 8, {
    word: (i) => (i < LOCK ? INVALIDATE_SEQ_LABEL.word(i) : NAMES[i - LOCK]!),
  });
  /** Between the return of start and end: nothing may be mapped. */
  closed = false;

  seq(): InvalidateSeq {
    return new InvalidateSeq(this.words, SEQ);
  }

  invalidate(seq: InvalidateSeq, va: number, locked: boolean): void {
    const { words } = this;
    if (locked) words.lock(LOCK);
    seq.begin(va, va + 4096);
    if (!locked) words.lock(LOCK);
    if (va === VA) words.writeOnce(ENTRY, 0);
    words.unlock(LOCK);
    this.closed = va === VA;
    if (va === VA) words.exchange(PTE, 0);
    if (locked) words.lock(LOCK);
    this.closed = false;
    seq.end();
    if (locked) words.unlock(LOCK);
  }

  fault(seq: InvalidateSeq): void {
    const { words } = this;
    for (;;) {
      const begun = seq.readBegin();
      const pfn = words.readOnce(PTE);
      if (this.install(seq, begun, pfn)) return;
      cpuRelax();
    }
  }

  /** The sequence number is read too late. */
  faultLate(seq: InvalidateSeq): void {
    const pfn = this.words.readOnce(PTE);
    this.install(seq, seq.readBegin(), pfn);
  }

  private install(seq: InvalidateSeq, begun: number, pfn: number): boolean {
    const { words } = this;
    words.lock(LOCK);
    const stale = seq.readRetry(begun, VA);
    if (!stale) words.writeOnce(ENTRY, pfn);
    words.unlock(LOCK);
    return !stale;
  }
}

/** The count drops before seq moves. */
class EndsBackwards extends InvalidateSeq {
  private readonly w: Words;
  constructor(words: Words) {
    super(words, SEQ);
    this.w = words;
  }
  override end(): void {
    this.w.store(1, this.w.readOnce(1) - 1);
    this.w.store(0, this.w.readOnce(0) + 1);
  }
}

/** Only seq is looked at, not the bracket that is under way. */
class IgnoresBracket extends InvalidateSeq {
  override readRetry(seq: number): boolean {
    return this.readBegin() !== seq;
  }
}

/** Only the bracket that is under way is looked at, not the one that ran in between. */
class IgnoresSeq extends InvalidateSeq {
  override readRetry(_seq: number, va: number): boolean {
    return super.readRetry(this.readBegin(), va);
  }
}

/** seq is compared before the bracket that is under way is looked at. */
class RetriesBackwards extends InvalidateSeq {
  private readonly w: Words;
  constructor(words: Words) {
    super(words, SEQ);
    this.w = words;
  }
  override readRetry(seq: number, va: number): boolean {
    if (this.w.load(0) !== seq) return true;
    return this.w.load(1) !== 0 && va / 4096 >= this.w.readOnce(2) && va / 4096 < this.w.readOnce(3);
  }
}

function protocol(name: string, locked: boolean, seqOf: (driver: Driver) => InvalidateSeq, late = false) {
  return model({
    name,
    setup() {
      const driver = new Driver();
      driver.words.store(PTE, PFN);
      return driver;
    },
    actors: {
      mm: (driver) => {
        driver.invalidate(seqOf(driver), VA, locked);
        driver.invalidate(seqOf(driver), OTHER_VA, locked);
      },
      fault: (driver) => (late ? driver.faultLate(seqOf(driver)) : driver.fault(seqOf(driver))),
    },
    invariant(driver) {
      if (driver.closed && driver.words.load(ENTRY) !== 0) return 'N3: an entry is mapped between start and end';
      return undefined;
    },
    check(driver) {
      if (driver.words.load(ENTRY) !== 0) return 'N8: an entry that was looked up before the clear is mapped after end';
      return undefined;
    },
  });
}

export const asItIs = protocol('as in src/notifier', false, (driver) => driver.seq());
export const asItIsLocked = protocol('as in src/kvm', true, (driver) => driver.seq());
export const endsBackwards = protocol('count before seq in end', false, (driver) => new EndsBackwards(driver.words));
export const ignoresBracket = protocol('no look at the bracket', true, ({ words }) => new IgnoresBracket(words, SEQ));
export const ignoresSeq = protocol('no look at seq', true, ({ words }) => new IgnoresSeq(words, SEQ));
export const retriesBackwards = protocol('seq before count', false, ({ words }) => new RetriesBackwards(words));
export const readsLate = protocol('seq after the look-up', true, (driver) => driver.seq(), true);
