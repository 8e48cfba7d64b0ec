import { type Mutant, model } from 'unpin/explore';
import { cpuRelax, INVALIDATE_SEQ_LABEL, InvalidateSeq, Words } from 'unpin/mm';

/**
 * N8: InvalidateSeq between an mm that takes two pages away, one after the other, and a fault on the first of them. begin and end run without the driver's lock, as in src/notifier, or under it, as in src/kvm.
 */

const SEQ = 0;
const LOCK = 3;
const PTE = 4;
const ENTRY = 5;
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

  private install(seq: InvalidateSeq, begun: number, pfn: number): boolean {
    const { words } = this;
    words.lock(LOCK);
    const stale = seq.readRetry(begun, VA);
    if (!stale) words.writeOnce(ENTRY, pfn);
    words.unlock(LOCK);
    return !stale;
  }
}

const fails = /^check: N8: /;
const SEQ_FILE = 'mm/notifier/invalidateseq.ts';
const MODEL = 'models/invalidateseq.ts';

const MUTANTS: readonly Mutant[] = [
  {
    name: 'end: the count drops before seq moves',
    file: SEQ_FILE,
    find: 'words.store(state, words.readOnce(state) + ONE_ENDED);',
    replace: `words.store(state, words.readOnce(state) - 1);
    words.store(state, words.readOnce(state) + ONE_ENDED + 1);`,
    fails,
  },
  {
    name: 'readRetry: seq is compared before the count is looked at',
    file: SEQ_FILE,
    find: 'const state = words.load(this.state); if (state >>> COUNT_BITS !== seq) return true;',
    replace: `if (words.load(this.state) >>> COUNT_BITS !== seq) return true;
    const state = words.load(this.state);`,
    fails,
  },
  {
    name: 'readRetry: seq is not looked at',
    file: SEQ_FILE,
    find: 'if (state >>> COUNT_BITS !== seq) return true;',
    replace: '',
    fails,
  },
  {
    name: 'readRetry: the range may be that of a later bracket',
    file: SEQ_FILE,
    find: 'return words.load(this.state) >>> COUNT_BITS !== seq;',
    replace: 'return false;',
    fails,
  },
  {
    name: 'the fault reads seq after the look-up',
    file: MODEL,
    find: `const begun = seq.readBegin();
      const pfn = words.readOnce(PTE);`,
    replace: `const pfn = words.readOnce(PTE);
      const begun = seq.readBegin();`,
    fails,
  },
];

const IGNORES_BRACKET: Mutant = {
  name: 'readRetry: the bracket under way is not looked at',
  file: SEQ_FILE,
  find: 'if ((state & COUNT_MASK) === 0) return false;',
  replace: 'if (seq >= 0) return false;',
  fails: /^invariant: N3: /,
};

function protocol(name: string, locked: boolean, mutants: readonly Mutant[]) {
  return model({
    name,
    mutants,
    preemptions: 3,
    setup() {
      const driver = new Driver();
      driver.words.store(PTE, PFN);
      return driver;
    },
    actors: {
      mm: (driver) => {
        driver.invalidate(driver.seq(), VA, locked);
        driver.invalidate(driver.seq(), OTHER_VA, locked);
      },
      fault: (driver) => driver.fault(driver.seq()),
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

export const asItIs = protocol('InvalidateSeq as in src/notifier', false, MUTANTS);
export const asItIsLocked = protocol('InvalidateSeq as in src/kvm', true, [MUTANTS[2]!, MUTANTS[4]!, IGNORES_BRACKET]);
