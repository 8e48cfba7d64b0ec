import { type Mutant, model, slow } from 'unpin/explore';
import {
  checkHost,
  cpuRelax,
  FAULT_FLAG_WRITE,
  FAULT_RETRY,
  Host,
  INVALIDATE_SEQ_LABEL,
  INVALIDATE_SEQ_WORDS,
  InvalidateSeq,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  mmuNotifierRegister,
  PROT_READ,
  PROT_WRITE,
  type SwapDevice,
  Words,
} from 'unpin/mm';
import { PteNotifier, pteNotifierReadBegin, pteNotifierReadRetry, pteNotifierRegister } from 'unpin/notifier';

/** The real mm with a driver on its general form, and on the proposal's face; and mm's own asynchronous half. */

const PTE_PRESENT = 1;
const LOCK = INVALIDATE_SEQ_WORDS;
const ENTRY = LOCK + 1;
const NR_WORDS = LOCK + 2;

class Driver {
  readonly words: Words;
  private readonly seq: InvalidateSeq;
  private readonly mm: Mm;
  private readonly va: number;

  constructor(mm: Mm, va: number) {
    this.mm = mm;
    this.va = va;
    const names = ['driver', 'entry'];
    this.words = new Words(mm.host.memory, mm.host.arenaAlloc(4 * NR_WORDS, 4), NR_WORDS, {
      word: (i) => (i < LOCK ? INVALIDATE_SEQ_LABEL.word(i) : names[i - LOCK]!),
    });
    this.seq = new InvalidateSeq(this.words, 0);
    mmuNotifierRegister(mm, va, va + 4096, {
      invalidateRangeStart: (_sub, { start, end }) => this.start(start, end),
      invalidateRangeEnd: () => this.end(),
    });
  }

  private start(start: number, end: number): void {
    this.words.lock(LOCK);
    this.seq.begin(start, end);
    this.words.writeOnce(ENTRY, 0);
    this.words.unlock(LOCK);
  }

  private end(): void {
    this.words.lock(LOCK);
    this.seq.end();
    this.words.unlock(LOCK);
  }

  /** On a thread of its own, which may read the page tables and nothing else of the mm: no reference is taken. */
  fault(): void {
    for (;;) {
      const seq = this.seq.readBegin();
      const pte = this.mm.pageTable.get(this.va / 4096);
      if ((pte & PTE_PRESENT) === 0) return;
      if (this.install(seq, pte >>> 12)) return;
      cpuRelax();
    }
  }

  private install(seq: number, pfn: number): boolean {
    this.words.lock(LOCK);
    const stale = this.seq.readRetry(seq, this.va);
    if (!stale) this.words.writeOnce(ENTRY, pfn);
    this.words.unlock(LOCK);
    return !stale;
  }
}

function setup(swap: SwapDevice = new MemorySwap({ sizeBytes: 65536 })) {
  const host = new Host({ frames: 64, arenaBytes: 4096, pageTables: 8, swap });
  const mm = host.createMm();
  const va = mm.mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(va, new Uint8Array([1]));
  return { host, mm, va, driver: new Driver(mm, va) };
}

type State = ReturnType<typeof setup>;

const TAKE_AWAY = {
  reclaim: ({ host }: State) => void host.reclaim.shrink(true, true, true),
  munmap: ({ mm, va }: State) => mm.munmap(va, 4096),
  dontneed: ({ mm, va }: State) => mm.madviseDontneed(va, 4096),
};

const DRIVER = 'models/driver.ts';
/** Each leaves a freed frame mapped. */
const fails = /^check: N4: /;

const WITHOUT: Record<string, Mutant> = {
  seq: {
    name: 'the fault asks for no retry',
    file: DRIVER,
    find: 'const stale = this.seq.readRetry(seq, this.va);',
    replace: 'const stale = seq < 0;',
    fails,
  },
  bracket: {
    name: 'no bracket is counted',
    edits: [
      { file: DRIVER, find: 'this.seq.begin(start, end);', replace: 'void [start, end];' },
      { file: DRIVER, find: 'this.seq.end();', replace: '' },
    ],
    fails,
  },
  retryUnderLock: {
    name: 'the retry is asked for before the lock is taken',
    file: DRIVER,
    find: `this.words.lock(LOCK);
    const stale = this.seq.readRetry(seq, this.va);`,
    replace: `const stale = this.seq.readRetry(seq, this.va);
    this.words.lock(LOCK);`,
    fails,
  },
  zap: { name: 'start leaves the entry', file: DRIVER, find: 'this.words.writeOnce(ENTRY, 0);', replace: '', fails },
};

function race(operation: keyof typeof TAKE_AWAY, mutants: readonly Mutant[]) {
  return model({
    name: `${operation} and a fault`,
    mutants,
    setup: () => setup(),
    actors: {
      [operation]: TAKE_AWAY[operation],
      fault: ({ driver }: State) => driver.fault(),
    },
    check({ host, mm, va, driver }) {
      const entry = driver.words.load(ENTRY);
      const page = mm.pageTable.get(va / 4096);
      if (entry !== 0 && page >>> 12 !== entry) return `N4: the device maps frame ${entry}, which the page has left`;
      checkHost(host);
      return undefined;
    },
  });
}

export const reclaim = race('reclaim', Object.values(WITHOUT));
export const munmap = race('munmap', [WITHOUT.seq!, WITHOUT.zap!]);
export const dontneed = race('dontneed', [WITHOUT.seq!, WITHOUT.zap!]);

/** The proposal's face, with and without an address to ask for. */
function face(name: string, retry: (pn: PteNotifier, seq: number, va: number) => boolean, mutants: readonly Mutant[]) {
  return model({
    name,
    mutants,
    setup() {
      const state = setup();
      const { host, mm, va } = state;
      const words = new Words(host.memory, host.arenaAlloc(4, 4), 1, 'entry');
      const pn = new PteNotifier({ clear: () => words.exchange(0, 0) });
      pteNotifierRegister(pn, mm.findVma(va)!);
      return { ...state, words, pn };
    },
    actors: {
      dontneed: TAKE_AWAY.dontneed,
      fault({ mm, va, words, pn }) {
        const seq = pteNotifierReadBegin(pn);
        const pte = mm.pageTable.get(va / 4096);
        if ((pte & PTE_PRESENT) === 0) return;
        // Without a lock of the driver's: the entry is there before it is asked, and goes when the answer is retry.
        words.store(0, pte >>> 12);
        if (retry(pn, seq, va)) words.compareExchange(0, pte >>> 12, 0);
      },
    },
    check: ({ mm, va, words }) =>
      words.load(0) === mm.pageTable.get(va / 4096) >>> 12 ? undefined : `N4: frame ${words.load(0)} stays mapped`,
  });
}

const REGISTRATION = 'notifier/registration.ts';

export const faceWithAddress = face('ReadRetry with an address', pteNotifierReadRetry, [
  {
    name: 'no ReadRetry',
    file: DRIVER,
    find: 'if (retry(pn, seq, va)) words',
    replace: 'if (seq < 0) words',
    fails,
  },
  {
    name: 'no bracket is counted',
    edits: [
      { file: REGISTRATION, find: 'this.seq.beginRange(range);', replace: '' },
      { file: REGISTRATION, find: 'this.seq.end();', replace: '' },
    ],
    fails,
  },
]);
export const faceWithout = face('ReadRetry of the area', (pn, seq) => pteNotifierReadRetry(pn, seq), [
  {
    name: 'the end of a bracket does not move seq',
    file: 'mm/notifier/invalidateseq.ts',
    find: 'words.readOnce(state) + ONE_ENDED',
    replace: 'words.readOnce(state) - 1',
    fails,
  },
]);

/** Two faults and a reclaim on the mm thread: they take turns where they wait, for a device that is done at once or whenever it likes. */
function asynchronousFaults(name: string, preemptions: number, makeSwap: () => SwapDevice) {
  return model({
    name,
    preemptions,
    setup() {
      const state = setup(makeSwap());
      state.host.reclaim.shrink(true, true, true);
      return state;
    },
    threads: [['read', 'write', 'reclaim']],
    actors: {
      read: async ({ mm, va }) => {
        const byte = new Uint8Array(1);
        await mm.read(va, byte);
        if (byte[0] !== 1 && byte[0] !== 2) throw new Error(`read ${byte[0]}`);
      },
      write: async ({ mm, va }) => {
        while (mm.tryGetPage(va, FAULT_FLAG_WRITE) === FAULT_RETRY) await mm.faultIn(va, FAULT_FLAG_WRITE);
        mm.putPage(mm.pageTable.get(va / 4096) >>> 12);
        await mm.write(va, new Uint8Array([2]));
      },
      reclaim: ({ host }) => void host.reclaim.shrink(true, true, true),
    },
    async check({ host, mm, va }) {
      const byte = new Uint8Array(1);
      await mm.read(va, byte);
      checkHost(host);
      return byte[0] === 2 ? undefined : `N15: the write is lost: ${byte[0]}`;
    },
  });
}

const memorySwap = () => new MemorySwap({ sizeBytes: 65536 });
export const asynchronous = asynchronousFaults('asynchronous faults', 1, memorySwap);
export const slowDevice = asynchronousFaults('faults and a slow device', 1, () => slow(memorySwap(), 'read', 'write'));
