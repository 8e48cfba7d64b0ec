import { type Mutant, model } from 'unpin/explore';
import {
  checkHost,
  cpuRelax,
  Host,
  INVALIDATE_SEQ_LABEL,
  INVALIDATE_SEQ_WORDS,
  InvalidateSeq,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  type MmuSubscription,
  mmuNotifierRegister,
  mmuNotifierUnregister,
  PROT_READ,
  PROT_WRITE,
  Words,
} from 'unpin/mm';

/**
 * What the mm does to a page, on its own thread, against devices on threads of theirs that read and write it through an external
 * table: fork, copy-on-write, mprotect, mremap, migration, reclaim, exit, unregistration.
 *
 * A device does its access under its own lock, as a vCPU does within guest mode and a NIC within a copy: what takes its entry away waits for that.
 */

const PTE_PRESENT = 1;
const PTE_WRITE = 2;
const LOCK = 4;
/** pfn << 1 | may write; 0: none. */
const ENTRY = 5;
const DEAD = 6;

class Device {
  readonly words: Words;
  readonly sub: MmuSubscription;
  private readonly seq: InvalidateSeq;
  private readonly mm: Mm;
  private readonly va: number;
  private readonly bytes: Words;

  constructor(mm: Mm, va: number, name: string) {
    this.mm = mm;
    this.va = va;
    const names = ['lock', 'entry', 'dead'];
    const { host } = mm;
    this.words = new Words(host.memory, host.arenaAlloc(28, 4), 7, {
      word: (i) => (i < INVALIDATE_SEQ_WORDS ? INVALIDATE_SEQ_LABEL.word(i) : `${name}'s ${names[i - LOCK]}`),
    });
    this.bytes = new Words(host.memory, 0, host.frames.endPfn * 1024, { word: (i) => `frame ${i >>> 10}` });
    this.seq = new InvalidateSeq(this.words, 0);
    this.sub = mmuNotifierRegister(mm, va, va + 4096, {
      invalidateRangeStart: (_sub, { start, end }) => this.start(start, end),
      invalidateRangeEnd: () => this.end(),
      release: () => this.release(),
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

  private release(): void {
    this.words.lock(LOCK);
    this.words.writeOnce(DEAD, 1);
    this.words.writeOnce(ENTRY, 0);
    this.words.unlock(LOCK);
  }

  /** Stores to the page. False: the right to write has to be had from the mm thread. */
  write(value: number): boolean {
    for (;;) {
      this.words.lock(LOCK);
      const entry = this.words.readOnce(ENTRY);
      if ((entry & 1) !== 0) this.bytes.writeOnce((entry >>> 1) << 10, value);
      this.words.unlock(LOCK);
      if ((entry & 1) !== 0) return true;
      if (!this.fault(PTE_PRESENT | PTE_WRITE)) return false;
    }
  }

  /** Loads from the page; undefined where the mm thread has to be asked. */
  read(): number | undefined {
    for (;;) {
      this.words.lock(LOCK);
      const entry = this.words.readOnce(ENTRY);
      const value = entry === 0 ? 0 : this.bytes.readOnce((entry >>> 1) << 10);
      this.words.unlock(LOCK);
      if (entry !== 0) return value;
      if (!this.fault(PTE_PRESENT)) return undefined;
    }
  }

  /** False when the pte does not have what is needed, or the device may install nothing any more. */
  private fault(need: number): boolean {
    const seq = this.seq.readBegin();
    const pte = this.mm.pageTable.get(this.va / 4096);
    if ((pte & need) !== need) return false;
    this.words.lock(LOCK);
    const dead = this.words.readOnce(DEAD) !== 0;
    const stale = this.seq.readRetry(seq, this.va);
    if (!stale && !dead) this.words.writeOnce(ENTRY, ((pte >>> 12) << 1) | ((pte & PTE_WRITE) >> 1));
    this.words.unlock(LOCK);
    if (stale) cpuRelax();
    return !dead;
  }

  /** What it maps now; to be looked at when nothing runs. */
  get entry(): number {
    return this.words.readOnce(ENTRY);
  }
}

function setup() {
  const host = new Host({ frames: 64, arenaBytes: 4096, pageTables: 12, swap: new MemorySwap({ sizeBytes: 65536 }) });
  const mm = host.createMm();
  const va = mm.mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(va, new Uint8Array([1]));
  return {
    host,
    mm,
    va,
    device: new Device(mm, va, 'device'),
    wrote: false,
    child: undefined as Mm | undefined,
    seen: 0,
  };
}

type State = ReturnType<typeof setup>;

function byteAt(mm: Mm, va: number): number {
  const byte = new Uint8Array(1);
  mm.readSync(va, byte);
  return byte[0]!;
}

/** A device maps what its page is, with no more rights; nothing is lost or left over. */
function coherent({ host, mm, va, device }: State): string | undefined {
  const { entry } = device;
  const pte = mm.pageTable.get(va / 4096);
  if (entry !== 0 && pte >>> 12 !== entry >>> 1)
    return `N4: the device maps frame ${entry >>> 1}, which the page has left`;
  if ((entry & 1) !== 0 && (pte & PTE_WRITE) === 0) return 'N5: the device may write, the page may not be written';
  checkHost(host);
  return undefined;
}

/** What the device has written is there. */
function nothingLost(state: State): string | undefined {
  const value = byteAt(state.mm, state.va);
  return value === (state.wrote ? 2 : 1) ? undefined : `N15: the device's write is lost: ${value}`;
}

const writer = (state: State) => {
  state.wrote = state.device.write(2);
};
const reader = (state: State) => {
  const value = state.device.read();
  if (value !== undefined && value !== 1 && value !== 2) throw new Error(`N2: the device read ${value}`);
};

const MODEL = 'models/mm.ts';
const noSeq: Mutant = {
  name: 'the fault asks for no retry',
  file: MODEL,
  find: 'const stale = this.seq.readRetry(seq, this.va);',
  replace: 'const stale = seq < 0;',
};
const noZap: Mutant = {
  name: 'start leaves the entry',
  file: MODEL,
  find: `this.seq.begin(start, end);
    this.words.writeOnce(ENTRY, 0);`,
  replace: 'this.seq.begin(start, end);',
};
const noCount: Mutant = {
  name: 'no bracket is counted',
  edits: [
    { file: MODEL, find: 'this.seq.begin(start, end);', replace: 'void [start, end];' },
    { file: MODEL, find: 'this.seq.end();', replace: '' },
  ],
};

/** The operation opens no bracket. */
function noBracket(file: string): Mutant {
  return { name: `no bracket in ${file}`, file: `mm/${file}`, find: START, replace: 'mm.range.seal();' };
}

/** At exit the brackets and `release` protect twice: only without both is it seen. */
function andNoRelease(mutant: Mutant): Mutant {
  const { name, file, find, replace, edits = [] } = mutant;
  const first = file === undefined ? edits : [{ file, find: find!, replace: replace! }];
  const release = {
    file: MODEL,
    find: `this.words.writeOnce(DEAD, 1);
    this.words.writeOnce(ENTRY, 0);`,
    replace: '',
  };
  return { name: `${name}, and release does nothing`, edits: [...first, release] };
}

const START = 'mmuNotifierInvalidateRangeStart(mm);';

export const forkAndWriter = model({
  name: 'fork and a writer',
  setup,
  mutants: [
    noSeq,
    noZap,
    noBracket('fault/fork.ts'),
    {
      name: 'the parent keeps its right to write',
      file: 'mm/fault/fork.ts',
      find: 'if (shared !== pte) words.writeOnce(from + k, shared);',
      replace: '',
    },
  ],
  actors: {
    fork(state) {
      state.child = state.mm.fork();
      state.seen = byteAt(state.child, state.va);
    },
    writer,
  },
  check(state) {
    const now = byteAt(state.child!, state.va);
    if (now !== state.seen) return `N20: the child saw ${state.seen} after the fork, and ${now} later`;
    return coherent(state) ?? nothingLost(state);
  },
});

export const copyOnWriteAndReader = model({
  name: 'copy-on-write and a reader',
  setup() {
    const state = setup();
    state.child = state.mm.fork();
    return state;
  },
  mutants: [noSeq, noZap, noBracket('fault/cow.ts')],
  actors: {
    write(state) {
      state.mm.writeSync(state.va, new Uint8Array([2]));
      state.wrote = true;
    },
    reader,
  },
  check(state) {
    if (byteAt(state.child!, state.va) !== 1) return 'N20: the child sees the write of the parent';
    return coherent(state) ?? nothingLost(state);
  },
});

export const mprotectAndWriter = model({
  name: 'mprotect and a writer',
  setup,
  mutants: [noSeq, noZap, noBracket('vma/mprotect.ts')],
  actors: {
    mprotect(state) {
      state.mm.mprotect(state.va, 4096, PROT_READ);
      state.seen = byteAt(state.mm, state.va);
    },
    writer,
  },
  check(state) {
    const now = byteAt(state.mm, state.va);
    if (now !== state.seen) return `M26: ${state.seen} when it was read-only already, ${now} later`;
    return coherent(state) ?? nothingLost(state);
  },
});

export const migrateAndWriter = model({
  name: 'migration and a writer',
  setup,
  mutants: [
    noSeq,
    noZap,
    noCount,
    {
      name: 'no bracket in migrate.ts',
      file: 'mm/rmap/migrate.ts',
      find: 'this.bracket.start(blockable);',
      replace: '',
    },
    {
      name: 'no migration entry: the page is still there while it is copied',
      edits: [
        {
          file: 'mm/rmap/migrate.ts',
          find: 'mkMigrationPte(pageTable.words.readOnce(i))',
          replace: 'pageTable.words.readOnce(i)',
        },
        {
          file: 'mm/rmap/migrate.ts',
          find: 'if (pteIsMigration(pte) && migrationPfn(pte) === this.from)',
          replace: 'if (pte >>> 12 === this.from)',
        },
        {
          file: 'mm/rmap/migrate.ts',
          find: 'migrationToPte(pte, this.to)',
          replace: '(pte & 0xfff) | (this.to << 12)',
        },
        { file: MODEL, find: 'const stale = this.seq.readRetry(seq, this.va);', replace: 'const stale = seq < 0;' },
      ],
    },
  ],
  actors: {
    migrate({ host, mm, va }) {
      host.migration.migrate([mm.pageTable.get(va / 4096) >>> 12], [host.frames.alloc(0)], true);
    },
    writer,
  },
  check: (state) => coherent(state) ?? nothingLost(state),
});

export const mremapAndWriter = model({
  name: 'mremap and a writer',
  setup,
  mutants: [noSeq, noZap, noBracket('vma/mremap.ts')],
  actors: {
    mremap(state) {
      state.mm.mremap(state.va, 4096, 4096, 3, state.va + 2 ** 21);
      state.seen = byteAt(state.mm, state.va + 2 ** 21);
    },
    writer,
  },
  check(state) {
    const now = byteAt(state.mm, state.va + 2 ** 21);
    if (now !== state.seen) return `M21: ${state.seen} at the new address, ${now} later, written through the old one`;
    return coherent(state);
  },
});

export const reclaimAndWriter = model({
  name: 'reclaim and a writer',
  setup,
  mutants: [noSeq, noZap, noCount],
  actors: { reclaim: ({ host }) => void host.reclaim.shrink(true, true, true), writer },
  check: (state) => coherent(state) ?? nothingLost(state),
});

export const exitAndReaders = model({
  name: 'exit and two readers',
  setup() {
    const state = setup();
    return { ...state, other: new Device(state.mm, state.va, 'other') };
  },
  preemptions: 1,
  mutants: [noSeq, noZap, noBracket('vma/mmap.ts')].map(andNoRelease),
  actors: {
    exit: ({ mm }) => mm.exit(),
    reader,
    other: ({ other }) => void other.read(),
  },
  check(state) {
    const left = state.device.entry | state.other.entry;
    if (left !== 0) return `M9: after exit a device maps frame ${left >>> 1}`;
    checkHost(state.host);
    return undefined;
  },
});

export const unregisterAndReader = model({
  name: 'unregister, munmap and a reader',
  setup,
  mutants: [
    {
      name: 'the fault does not see that it was released',
      file: MODEL,
      find: 'const dead = this.words.readOnce(DEAD) !== 0;',
      replace: 'const dead = false;',
    },
    {
      name: 'unregister does not release',
      file: 'mm/notifier/notifier.ts',
      find: `this.releaseOne(sub);
    this.remove(sub);`,
      replace: 'this.remove(sub);',
    },
  ],
  actors: {
    mm({ mm, va, device }) {
      mmuNotifierUnregister(device.sub);
      mm.munmap(va, 4096);
    },
    reader,
  },
  check({ host, device }) {
    if (device.entry !== 0) return `N17: after it was unregistered the device maps frame ${device.entry >>> 1}`;
    checkHost(host);
    return undefined;
  },
});
