import { model } from 'unpin/explore';
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
  Words,
} from 'unpin/mm';
import { PteNotifier, pteNotifierReadBegin, pteNotifierReadRetry, pteNotifierRegister } from 'unpin/notifier';

/** The real mm with a driver on its general form, as it must be, and with one protection missing; and mm's own asynchronous half. */

const PTE_PRESENT = 1;
const LOCK = 4;
const ENTRY = 5;

interface Without {
  seq?: boolean;
  bracket?: boolean;
  retryUnderLock?: boolean;
  zap?: boolean;
}

class Driver {
  readonly words: Words;
  private readonly seq: InvalidateSeq;
  private readonly mm: Mm;
  private readonly va: number;
  private readonly without: Without;

  constructor(mm: Mm, va: number, without: Without) {
    this.mm = mm;
    this.va = va;
    this.without = without;
    const names = ['driver', 'entry'];
    this.words = new Words(mm.host.memory, mm.host.arenaAlloc(24, 4), 6, {
      word: (i) => (i < INVALIDATE_SEQ_WORDS ? INVALIDATE_SEQ_LABEL.word(i) : names[i - LOCK]!),
    });
    this.seq = new InvalidateSeq(this.words, 0);
    mmuNotifierRegister(mm, va, va + 4096, {
      invalidateRangeStart: (_sub, { start, end }) => this.start(start, end),
      invalidateRangeEnd: () => this.end(),
    });
  }

  private start(start: number, end: number): void {
    this.words.lock(LOCK);
    if (!this.without.bracket) this.seq.begin(start, end);
    if (!this.without.zap) this.words.writeOnce(ENTRY, 0);
    this.words.unlock(LOCK);
  }

  private end(): void {
    this.words.lock(LOCK);
    if (!this.without.bracket) this.seq.end();
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
    const early = this.without.retryUnderLock ? this.seq.readRetry(seq, this.va) : false;
    this.words.lock(LOCK);
    const stale = this.without.retryUnderLock ? early : !this.without.seq && this.seq.readRetry(seq, this.va);
    if (!stale) this.words.writeOnce(ENTRY, pfn);
    this.words.unlock(LOCK);
    return !stale;
  }
}

function setup(without: Without) {
  const host = new Host({ frames: 64, arenaBytes: 4096, pageTables: 8, swap: new MemorySwap({ sizeBytes: 65536 }) });
  const mm = host.createMm();
  const va = mm.mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(va, new Uint8Array([1]));
  return { host, mm, va, driver: new Driver(mm, va, without) };
}

type State = ReturnType<typeof setup>;

const TAKE_AWAY = {
  reclaim: ({ host }: State) => void host.reclaim.shrink(true, true, true),
  munmap: ({ mm, va }: State) => mm.munmap(va, 4096),
  dontneed: ({ mm, va }: State) => mm.madviseDontneed(va, 4096),
};

function race(operation: keyof typeof TAKE_AWAY, without: Without = {}) {
  return model({
    name: `${operation} and a fault`,
    setup: () => setup(without),
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

export const reclaim = race('reclaim');
export const munmap = race('munmap');
export const dontneed = race('dontneed');
export const munmapNoSeq = race('munmap', { seq: true });
export const dontneedNoSeq = race('dontneed', { seq: true });
export const noSeq = race('reclaim', { seq: true });
export const noBracket = race('reclaim', { bracket: true });
export const retryBeforeLock = race('reclaim', { retryUnderLock: true });
export const noZap = race('reclaim', { zap: true });

/** The proposal's face, with and without an address to ask for. */
function face(name: string, retry: (pn: PteNotifier, seq: number, va: number) => boolean) {
  return model({
    name,
    setup() {
      const state = setup({});
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

export const faceWithAddress = face('ReadRetry with an address', pteNotifierReadRetry);
export const faceWithout = face('ReadRetry of the area', (pn, seq) => pteNotifierReadRetry(pn, seq));
export const faceNoRetry = face('no ReadRetry', () => false);

/** Two faults and a reclaim on the mm thread: they take turns where they wait. */
export const asynchronous = model({
  name: 'asynchronous faults',
  setup() {
    const state = setup({});
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
