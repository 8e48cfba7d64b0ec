import { type Mutant, model } from 'unpin/explore';
import {
  checkHost,
  createRemote,
  Host,
  MADV_DONTNEED,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PROT_READ,
  PROT_WRITE,
} from 'unpin/mm';
import { RemoteDriver, RemoteUser } from '../../mm/remotedriver.js';
import { byteAt } from '../world.js';

/**
 * A thread that resolves its faults by itself, and makes pages of zeros, against what the mm thread does to the same pages, the same leaf table, and the
 * frames that the thread has in hand.
 */

const PAGE = 4096;
const VA = 0x4000_0000;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

/** Eight pages of plain memory in an armed table, of which the last one is there; of the others the thread uses the first. */
function setup() {
  const host = new Host({ frames: 64, arenaBytes: 4096, pageTables: 12, swap: new MemorySwap({ sizeBytes: 65536 }) });
  const mm = host.createMm();
  mm.mmap(VA, 8 * PAGE, RW, ANON);
  const driver = new RemoteDriver(mm, VA, 8);
  const area = createRemote(mm, { nrFrames: 2 });
  area.refill();
  mm.writeSync(VA + 7 * PAGE, new Uint8Array([1]));
  const user = new RemoteUser(host.memory, driver.describe(area.descriptor));
  return { host, mm, driver, area, user, wrote: false, child: undefined as Mm | undefined, seen: 0 };
}

type State = ReturnType<typeof setup>;

const invariant = ({ driver }: State) => driver.wrong;

function coherent({ host, driver, area }: State): string | undefined {
  checkHost(host);
  area.recover();
  checkHost(host);
  return driver.wrong;
}

/** What the thread wrote is there, and survives reclaim. */
function nothingLost(state: State): string | undefined {
  const expected = state.wrote ? 2 : 0;
  const value = byteAt(state.mm, VA);
  if (value !== expected) return `N15: the thread wrote ${expected}, the page holds ${value}`;
  state.host.reclaim.shrink(true, true, true);
  state.host.reclaim.shrink(true, true, true);
  const later = byteAt(state.mm, VA);
  return later === expected ? undefined : `N15: the page was taken for clean: ${value} is ${later} after reclaim`;
}

const writer = (state: State) => {
  state.wrote = state.user.write(0, 2);
};

const USER = 'mm/remotedriver.ts';
const REMOTES = 'mm/remote/remotes.ts';
const REMOTE_MM = 'mm/remote/remotemm.ts';
const AREA = 'mm/remote/remotearea.ts';

const noSeq: Mutant = {
  name: 'the fault asks for no retry',
  file: USER,
  find: 'const stale = this.seq.readRetry(seq, va);',
  replace: 'const stale = seq < 0;',
};

const outsideLock: Mutant = {
  name: 'the page of zeros is made before the lock is taken',
  file: USER,
  find: `this.words.lock(LOCK);
    const dead = this.words.readOnce(DEAD) !== 0;
    const stale = this.seq.readRetry(seq, va);
    if (!stale && !dead && pfn === REMOTE_ZERO) pfn = this.remote.mapZero(va);`,
  replace: `if (pfn === REMOTE_ZERO) pfn = this.remote.mapZero(va);
    this.words.lock(LOCK);
    const dead = this.words.readOnce(DEAD) !== 0;
    const stale = this.seq.readRetry(seq, va);`,
};

const noDrain: Mutant = {
  name: 'a bracket does not account for what was mapped before',
  file: REMOTES,
  find: `this.drain();
    if (range.event !== MMU_NOTIFY_UNMAP`,
  replace: 'if (range.event !== MMU_NOTIFY_UNMAP',
};

const noDisarm: Mutant = {
  name: 'munmap leaves the arm',
  edits: [
    { file: REMOTES, find: 'this.disarm(startVpn, endVpn);\n    if (this.isStuck', replace: 'if (this.isStuck' },
    { file: REMOTES, find: 'this.arms.store(pages.table, 0);', replace: '' },
  ],
};

const plainPublish: Mutant = {
  name: 'the mm thread does not look whether the pte is absent still',
  file: REMOTES,
  find: 'if (pageTable.words.compareExchange(i, PTE_NONE, pte) !== PTE_NONE) return false;',
  replace: 'pageTable.words.store(i, pte);',
};

const plainMap: Mutant = {
  name: 'the thread does not look whether the pte is absent still',
  file: REMOTE_MM,
  find: 'if (this.tables.compareExchange(i, PTE_NONE, demandZeroPte(pfn)) !== PTE_NONE) return this.giveUp(slot);',
  replace: 'this.tables.store(i, demandZeroPte(pfn));',
};

export const munmapAndWriter = model({
  name: 'munmap and a thread that maps',
  setup,
  invariant,
  mutants: [noSeq, outsideLock, noDrain, noDisarm],
  actors: {
    // The table stays.
    munmap: ({ mm }) => mm.munmap(VA, 4 * PAGE),
    writer(state) {
      writer(state);
      // What it may not have any more, it does not get later either.
      writer(state);
    },
  },
  check: coherent,
});

export const dontneedAndWriter = model({
  name: 'DONTNEED and a thread that maps',
  setup,
  invariant,
  mutants: [noSeq, outsideLock, noDrain],
  actors: {
    dontneed: ({ mm }) => mm.madvise(VA, 8 * PAGE, MADV_DONTNEED),
    writer,
  },
  check: coherent,
});

export const munmapBesideWriter = model({
  name: 'munmap of the other half of a table, and a thread that maps in its own',
  setup() {
    const state = setup();
    state.mm.mmap(VA + 8 * PAGE, 8 * PAGE, PROT_READ, ANON);
    state.mm.readSync(VA + 8 * PAGE, new Uint8Array(1));
    state.mm.madvise(VA + 4 * PAGE, 4 * PAGE, MADV_DONTNEED);
    return state;
  },
  invariant,
  mutants: [
    {
      name: 'a table where a thread may be at work is given back',
      file: 'mm/pgtable/pagetable.ts',
      find: 'this.addUsed(table * PTRS_PER_TABLE, 1);',
      replace: 'this.pool.pinned.delete(table);',
    },
  ],
  actors: {
    munmap({ mm, host }) {
      mm.munmap(VA + 8 * PAGE, 8 * PAGE);
      // A table that was given back is another's next.
      const other = host.createMm();
      other.mmap(VA, 8 * PAGE, RW, ANON);
      other.writeSync(VA, new Uint8Array([3]));
    },
    writer,
  },
  check: (state) => coherent(state) ?? nothingLost(state),
});

export const mprotectAndWriter = model({
  name: 'mprotect and a thread that maps',
  setup,
  invariant,
  mutants: [
    noSeq,
    outsideLock,
    {
      name: 'mprotect leaves the arm',
      file: REMOTES,
      find: 'if (!this.isPlain(vma, prot, flags)) this.disarm(startVpn, endVpn);',
      replace: '',
    },
  ],
  actors: {
    mprotect(state) {
      state.mm.mprotect(VA, 8 * PAGE, PROT_READ);
      state.seen = byteAt(state.mm, VA);
    },
    writer(state) {
      if (state.user.write(0, 2)) state.wrote = true;
      if (state.user.write(1, 2)) state.wrote = state.user.write(0, 2) || state.wrote;
    },
  },
  check(state) {
    const now = byteAt(state.mm, VA);
    if (now !== state.seen) return `M26: ${state.seen} when it was read-only already, ${now} later`;
    return coherent(state);
  },
});

export const forkAndWriter = model({
  name: 'fork and a thread that maps',
  setup,
  invariant,
  mutants: [noSeq],
  actors: {
    fork(state) {
      state.child = state.mm.fork();
      state.seen = byteAt(state.child, VA);
    },
    writer,
  },
  check(state) {
    const now = byteAt(state.child!, VA);
    if (now !== state.seen) return `N20: the child saw ${state.seen} after the fork, and ${now} later`;
    return coherent(state) ?? nothingLost(state);
  },
});

export const reclaimAndWriter = model({
  name: 'reclaim and a thread that maps',
  setup,
  invariant,
  mutants: [noSeq],
  actors: {
    reclaim({ host }) {
      host.reclaim.shrink(true, true, true);
      host.reclaim.shrink(true, true, true);
    },
    writer(state) {
      state.wrote = state.user.write(0, 2);
      // It may have been taken meanwhile, and then is the mm thread's to bring back.
      state.user.write(0, 2);
    },
  },
  check: (state) => coherent(state) ?? nothingLost(state),
});

export const faultAndWriter = model({
  name: 'a fault of the mm thread and a thread that maps the same page',
  setup,
  invariant,
  mutants: [plainPublish, plainMap],
  actors: {
    fault: ({ mm }) => mm.writeSync(VA + 8, new Uint8Array([3])),
    writer,
  },
  check(state) {
    if (byteAt(state.mm, VA + 8) !== 3) return 'N15: the write of the mm thread is lost';
    return coherent(state) ?? nothingLost(state);
  },
});

export const readFaultAndWriter = model({
  name: 'a read fault of the mm thread and a thread that maps the same page',
  setup,
  invariant,
  mutants: [plainPublish, plainMap],
  actors: {
    fault: (state) => void (state.seen = byteAt(state.mm, VA)),
    writer,
  },
  check: (state) => coherent(state) ?? nothingLost(state),
});

export const takeBackAndWriter = model({
  name: 'frames are taken back, given to another, and given again',
  setup,
  invariant,
  mutants: [
    {
      name: 'the thread does not look again whether the frame is its own',
      file: REMOTE_MM,
      find: 'if (((area.load(AREA_FILLED) - head) | 0) <= 0) return this.giveUp(slot);',
      replace: '',
    },
    {
      name: 'the frame that the thread may be using is taken too',
      file: AREA,
      find: 'if (keep !== this.filled && words.load(slotVpn(keep, capacity)) !== 0) keep = (keep + 1) | 0;',
      replace: '',
    },
    {
      name: 'the thread says where the frame goes when it is there',
      edits: [
        { file: REMOTE_MM, find: 'area.store(slot, vpn);', replace: '' },
        {
          file: REMOTE_MM,
          find: 'area.store(AREA_HEAD, (head + 1) | 0);',
          replace: 'area.store(slot, vpn); area.store(AREA_HEAD, (head + 1) | 0);',
        },
      ],
    },
  ],
  actors: {
    takeBack({ area, host }) {
      area.takeBack();
      const other = host.createMm();
      other.mmap(VA, 8 * PAGE, RW, ANON);
      for (let k = 0; k < 3; k++) other.writeSync(VA + k * PAGE, new Uint8Array([3]));
      area.refill();
    },
    writer(state) {
      writer(state);
      state.user.write(1, 2);
    },
  },
  check: (state) => coherent(state) ?? nothingLost(state),
});

export const mlockAndWriter = model({
  name: 'mlock and munlock, and a thread that maps',
  setup,
  invariant,
  mutants: [
    {
      name: 'the walk of mlock counts what is not accounted for',
      file: 'mm/vma/mlock.ts',
      find: ' || isUndrained(host.frames, pte)',
      replace: '',
    },
  ],
  actors: {
    mlock({ mm }) {
      void mm.mlock(VA, 8 * PAGE, 1);
      mm.munlock(VA, 8 * PAGE);
    },
    writer,
  },
  check: (state) => coherent(state) ?? nothingLost(state),
});

export const exitAndWriter = model({
  name: 'exit and a thread that maps',
  setup,
  mutants: [
    outsideLock,
    noDrain,
    {
      name: 'the thread finds the root until the tables are given back, and does not look whether its driver was released',
      edits: [
        { file: 'mm/exit.ts', find: 'remotesDetach(mm);', replace: '' },
        { file: USER, find: 'const dead = this.words.readOnce(DEAD) !== 0;', replace: 'const dead = false;' },
      ],
    },
  ],
  actors: {
    exit({ mm, host }) {
      mm.exit();
      const other = host.createMm();
      other.mmap(VA, 8 * PAGE, RW, ANON);
      other.writeSync(VA, new Uint8Array([3]));
    },
    writer,
  },
  check({ host, area, driver }) {
    driver.forget();
    area.destroy();
    checkHost(host);
    const [other] = host.mms;
    return byteAt(other!, VA) === 3 ? undefined : 'N4: the thread wrote to a page of another mm';
  },
});
