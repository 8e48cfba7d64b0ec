import { type Mutant, model, slow } from 'unpin/explore';
import {
  checkHost,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FAULT_FLAG_WRITE,
  type File,
  Host,
  MADV_FREE,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  MemoryStore,
  MemorySwap,
  type Mm,
  PROT_READ,
  PROT_WRITE,
} from 'unpin/mm';
import { Device } from '../externaldevice.js';
import { lateSeq, noBracket, noBracketOfRanges, noCount, noSeq, noZap } from '../externalmutants.js';
import { byteAt } from '../world.js';

/**
 * Who has written a page, and what it holds: write-back, truncation and holes, soft-dirty marks and MADV_FREE, each against a device on a thread of its own. A write
 * is in the page, and in its file in the end (N15, N27).
 */

const RW = PROT_READ | PROT_WRITE;

function newHost(): Host {
  return new Host({ frames: 64, arenaBytes: 4096, pageTables: 12, swap: new MemorySwap({ sizeBytes: 65536 }) });
}

function anonymous() {
  const host = newHost();
  const mm = host.createMm();
  const va = mm.mmap(0, 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(va, new Uint8Array([1]));
  return { host, mm, va, device: new Device(mm, va, 'device'), wrote: false, seen: 0 };
}

/** A shared mapping of one page, dirty already, with 1 in it. */
function shared(makeStore: () => MemoryStore = () => new MemoryStore({ sizeBytes: 4096 })) {
  const host = newHost();
  const mm = host.createMm();
  const store = makeStore();
  const file: File = host.openFile(store);
  const va = mm.mmap(0, 4096, RW, MAP_SHARED, file);
  mm.writeSync(va, new Uint8Array([1]));
  return {
    host,
    mm,
    va,
    store,
    file,
    device: new Device(mm, va, 'device'),
    wrote: false,
    other: undefined as Mm | undefined,
  };
}

interface Mapped {
  readonly mm: Mm;
  readonly va: number;
}

interface Written {
  readonly device: Device;
  wrote: boolean;
}

const invariant = <S extends Written>({ device }: S) => device.wrong;
const writer = <S extends Written>(state: S) => {
  state.wrote = state.device.write(2);
};

/** Gives the right to write again, as the mm thread does for a device that faults. */
function grant<S extends Mapped>({ mm, va }: S): void {
  const pfn = mm.tryGetPage(va, FAULT_FLAG_WRITE);
  if (pfn > 0) mm.putPage(pfn);
}

function storedByte(store: MemoryStore): number {
  const page = new Uint8Array(4096);
  store.readSync(0, [page]);
  return page[0]!;
}

const NO_CLEANING_BRACKET: Mutant = {
  name: 'no bracket in file/filewriteback.ts',
  file: 'mm/file/filewriteback.ts',
  find: 'bracket.start(true);',
  replace: '',
};

/** All that is dirty goes to the store; then it holds what the page does. */
async function inTheFile({ host, mm, va, store, file, device, wrote }: ReturnType<typeof shared>) {
  const value = byteAt(mm, va);
  if (value !== (wrote ? 2 : 1)) return `N15: the device's write is lost: ${value}`;
  await file.fsync();
  if (storedByte(store) !== value) return `N15: the page holds ${value}, its file ${storedByte(store)}`;
  checkHost(host);
  return device.wrong;
}

export const cleaning = model({
  name: 'write-back of a file and a writer',
  setup: () => shared(),
  invariant,
  threads: [['clean', 'grant']],
  mutants: [
    noSeq,
    lateSeq,
    noZap,
    NO_CLEANING_BRACKET,
    {
      name: 'the ptes keep the right to write',
      file: 'mm/file/filewriteback.ts',
      find: 'pageTable.set(i, pte & ~(PTE_WRITE | PTE_DIRTY));',
      replace: 'pageTable.set(i, pte & ~PTE_DIRTY);',
    },
  ],
  actors: {
    clean: ({ host, file }) => host.pageCache.writeback.syncSome(file.mapping, 1),
    grant,
    writer,
  },
  check: inTheFile,
});

export const redirtied = model({
  name: 'a slow store, and writers beside it',
  setup: () => shared(() => slow(new MemoryStore({ sizeBytes: 4096 }), 'write')),
  preemptions: 1,
  invariant,
  threads: [['fsync', 'write']],
  mutants: [
    NO_CLEANING_BRACKET,
    {
      name: 'what was written again meanwhile counts as clean',
      file: 'mm/file/filewriteback.ts',
      find: 'as.clearWriteback(pfn);',
      replace: 'as.clearWriteback(pfn); as.clearDirty(pfn);',
      fails: /N15: /,
    },
    {
      name: 'the page is marked clean when it is written, not before',
      edits: [
        { file: 'mm/file/filewriteback.ts', find: 'as.clearDirty(batch[k]!);', replace: '' },
        {
          file: 'mm/file/filewriteback.ts',
          find: 'as.clearWriteback(pfn);',
          replace: 'as.clearWriteback(pfn); if (ok) as.clearDirty(pfn);',
        },
      ],
    },
  ],
  actors: {
    fsync: ({ file }) => file.fsync(),
    async write(state) {
      await state.mm.write(state.va, new Uint8Array([2]));
      state.wrote = true;
    },
    writer: ({ device }) => void device.write(2),
  },
  async check(state) {
    return inTheFile({ ...state, wrote: true });
  },
});

/** Frames that are free become another's: nobody may see what is in them. */
const OTHERS = 77;

function reuseFrames(state: { host: Host; other: Mm | undefined }): void {
  state.other = state.host.createMm();
  const va = state.other.mmap(0, 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS);
  state.other.writeSync(va, new Uint8Array([OTHERS]));
}

const reader = <S extends { device: Device }>({ device }: S) => {
  const value = device.read();
  if (value === OTHERS) throw new Error("N4: the device reads another's page");
};

const TRUNCATE = 'mm/file/truncate.ts';
const takesPages = [noSeq, noZap, noCount, noBracket('file/truncate.ts')];

export const truncation = model({
  name: 'truncation and a reader',
  setup: () => shared(),
  invariant,
  mutants: [
    ...takesPages,
    {
      name: 'the page leaves the cache before it is unmapped',
      edits: [
        {
          file: TRUNCATE,
          find: 'unmapMappingRange(host, as, as.endIndex, XA_MAX_INDEX, true); zeroCached(host, as, sizeBytes, as.endIndex * PAGE_SIZE); dropPages(host, as, as.endIndex, XA_MAX_INDEX);',
          replace:
            'dropPages(host, as, as.endIndex, XA_MAX_INDEX); unmapMappingRange(host, as, as.endIndex, XA_MAX_INDEX, true);',
        },
      ],
    },
  ],
  actors: {
    async truncate(state) {
      await state.file.truncate(0);
      reuseFrames(state);
    },
    reader,
  },
  check({ host, device }) {
    if (device.frame !== 0) return `N23: beyond the end the device maps frame ${device.frame}`;
    checkHost(host);
    return undefined;
  },
});

export const hole = model({
  name: 'a hole in a file and a reader',
  setup: () => shared(),
  invariant,
  mutants: takesPages,
  actors: {
    async punch(state) {
      await state.file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
      reuseFrames(state);
    },
    reader,
  },
  check({ host, mm, va, device }) {
    if (device.frame !== 0) return `N23: in the hole the device maps frame ${device.frame}`;
    if (byteAt(mm, va) !== 0) return `N23: the hole holds ${byteAt(mm, va)}`;
    checkHost(host);
    return undefined;
  },
});

export const softDirty = model({
  name: 'soft-dirty clearing and a writer',
  setup: anonymous,
  invariant,
  threads: [['clear', 'grant']],
  mutants: [
    noSeq,
    lateSeq,
    noZap,
    noBracketOfRanges('pgtable/softdirty.ts'),
    {
      name: 'the ptes keep the right to write',
      file: 'mm/pgtable/softdirty.ts',
      find: 'pte & ~(PTE_SOFT_DIRTY | (pteIsPresent(pte) ? PTE_WRITE : 0))',
      replace: 'pte & ~PTE_SOFT_DIRTY',
    },
  ],
  actors: {
    clear(state) {
      state.mm.clearSoftDirty();
      state.seen = byteAt(state.mm, state.va);
    },
    grant,
    writer,
  },
  check({ host, mm, va, device, seen, wrote }) {
    const value = byteAt(mm, va);
    if (value !== (wrote ? 2 : 1)) return `N15: the device's write is lost: ${value}`;
    if (value !== seen && !mm.pagemap(va, 1)[0]!.softDirty) return 'M17: a write after the marks were taken left none';
    checkHost(host);
    return device.wrong;
  },
});

export const lazyfree = model({
  name: 'MADV_FREE and a writer',
  setup: anonymous,
  invariant,
  threads: [['free', 'grant']],
  mutants: [
    noSeq,
    lateSeq,
    noZap,
    noBracket('vma/madvisepages.ts'),
    {
      name: 'the pte keeps the right to write',
      file: 'mm/vma/madvisepages.ts',
      find: 'pte & ~(PTE_WRITE | PTE_DIRTY | PTE_ACCESSED)',
      replace: 'pte & ~(PTE_DIRTY | PTE_ACCESSED)',
    },
  ],
  actors: {
    free(state) {
      state.mm.madvise(state.va, 4096, MADV_FREE);
      state.seen = byteAt(state.mm, state.va);
    },
    grant,
    writer,
  },
  check({ host, mm, va, device, seen }) {
    const value = byteAt(mm, va);
    host.reclaim.shrink(true, true, true);
    if (value !== seen && byteAt(mm, va) !== value) return `N15: ${value} was written after MADV_FREE, and is lost`;
    checkHost(host);
    return device.wrong;
  },
});
