import { type Mutant, model } from 'unpin/explore';
import {
  checkHost,
  createRemote,
  FAULT_FLAG_WRITE,
  Host,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MemorySwap,
  MMU_NOTIFY_CLEAR,
  type Mm,
  PROT_READ,
  PROT_WRITE,
  RangeList,
  RemoteMm,
} from 'unpin/mm';
import { checkRdma, IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_ON_DEMAND, IBV_ACCESS_REMOTE_WRITE } from 'unpin/rdma';
import { type DeviceImpl, openDevice } from '../../../src/rdma/device.js';
import type { Mr } from '../../../src/rdma/mr.js';
import { Access } from '../../../src/rdma/nic/access.js';
import { NicMemory, type NicPages } from '../../../src/rdma/nic/nicmemory.js';
import { NIC_STATE_WORDS, NicState } from '../../../src/rdma/nic/nicstate.js';
import { memoryWords, type Region } from '../../../src/rdma/nic/region.js';
import { RegionTable } from '../../../src/rdma/nic/regiontable.js';

/**
 * A NIC in a thread of its own against what the mm thread does to registered memory. Both halves are the production code: the NIC's `NicMemory` over its own view of the shared tables,
 * with `RemoteMm`; on the other side device, regions and notifier. The wire is left out: the NIC writes one byte to a region. A copy takes some steps here, in which the
 * page must stay what it was.
 */

const PAGE = 4096;
const VA = 0x4000_0000;
const CHILD = 2 ** 21;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
const ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ON_DEMAND;
const RIGHT = IBV_ACCESS_REMOTE_WRITE;
/** Words of a region (nic/region.ts). */
const VPN = 9;
const TABLE = 10;
const LOCK = 12;
const SEQ = 16;

/** Keys count up, so that every schedule has the same. What is deferred stands still, until the model runs it: the device's own NIC never does. */
function environment(deferred: (() => void)[]) {
  let next = 1;
  return {
    nowMs: () => 0,
    defer: (fn: () => void) => void deferred.push(fn),
    setTimer: () => () => {},
    randomFill(bytes: Uint8Array) {
      bytes.fill(0);
      bytes[1] = next++;
    },
    net: { connect: () => refuse(), listen: () => refuse() },
  };
}

function refuse(): never {
  throw new Error('no connections here');
}

/** One page with 1 in it, with or without an entry in the region over it. */
async function setup(options: { entry?: boolean; implicit?: boolean; maxMr?: number } = {}) {
  const host = new Host({
    frames: 64,
    arenaBytes: 2 ** 17,
    pageTables: 12,
    swap: new MemorySwap({ sizeBytes: 65536 }),
    defer: (fn) => void setImmediate(fn),
  });
  const mm = host.createMm();
  mm.mmap(VA, options.implicit ? CHILD : 2 * PAGE, RW, ANON);
  mm.writeSync(VA, new Uint8Array([1]));
  mm.writeSync(VA + PAGE, new Uint8Array([5]));
  const deferred: (() => void)[] = [];
  const device = openDevice(host, environment(deferred), { maxMr: options.maxMr ?? 2 });
  const context = device.openContext(mm);
  deferred.length = 0;
  const pd = context.allocPd();
  const length = options.implicit ? Number.POSITIVE_INFINITY : PAGE;
  const mr = (await pd.regMr(options.implicit ? 0 : VA, length, ACCESS)) as Mr;
  const { region } = mr.implicit?.childOf(VA / PAGE) ?? mr.table!;
  const nic = makeNic(device, mm, region.base + LOCK);
  const state = { host, mm, device, deferred, context, pd, mr, nic, key: mr.rkey, child: undefined as Mm | undefined };
  if (options.entry !== false) write(state);
  return state;
}

type State = Awaited<ReturnType<typeof setup>>;

/** The NIC's half: what a worker would have. */
function makeNic(device: DeviceImpl, mm: Mm, lockWord: number) {
  const { memory } = device.host;
  const { init } = device;
  const words = memoryWords(memory);
  const remote = new RemoteMm(memory, createRemote(mm, { nrFrames: 1 }).descriptor);
  const pages: NicPages = {
    tryGetPage: (va, flags) => remote.lookup(va, (flags & FAULT_FLAG_WRITE) !== 0),
    putPage: () => {},
    mapZero: (va) => remote.mapZero(va),
  };
  const nic = {
    copying: 0,
    asked: false,
    access: new Access(() => {}),
    bytes: new Uint8Array(memory.buffer, init.countersAddr, 8),
    memory: undefined as unknown as NicMemory,
  };
  const table = new RegionTable(words, init.regionsAddr, init.nrRegions);
  const ops = {
    // Slowly: others come in between.
    copy(dst: number) {
      nic.copying = dst >>> 12;
      words.load(lockWord);
      words.load(lockWord);
      nic.copying = 0;
    },
  };
  nic.memory = new NicMemory(memory, words, new NicState(memory, init.stateAddr), table, ops, {
    request: () => {
      nic.asked = true;
    },
    readAhead: () => {},
    pagesOf: () => pages,
  });
  return nic;
}

/** The NIC writes a byte; what it cannot do by itself it leaves. */
function write({ nic, key, pd }: Pick<State, 'nic' | 'key' | 'pd'>): void {
  nic.memory.write(nic.access, key, VA, RIGHT, pd.handle, nic.bytes, 0, 1);
}

/** After each step: a page that is being copied to is mapped, for writing; and entries show what is mapped, with no more rights. */
function wrong(state: State): string | undefined {
  const { nic, mm, host } = state;
  if (nic.copying !== 0) {
    if (host.frames.refcount[nic.copying]! <= 0) return `N4: the NIC copies into frame ${nic.copying}, which is free`;
    if (!isMapped(mm, nic.copying)) return `N1: the NIC copies into frame ${nic.copying}, which the page has left`;
  }
  for (const mr of state.device.mrs()) {
    const { table } = mr;
    if (table === undefined || !mr.isLive) continue;
    const why = wrongEntry(table.region, mr.mm);
    if (why !== undefined) return why;
  }
  return undefined;
}

function isMapped(mm: Mm, pfn: number): boolean {
  const pte = mm.pageTable.get(VA / PAGE);
  return (pte & 1) !== 0 && pte >>> 12 === pfn && (pte & 2) !== 0;
}

function wrongEntry(region: Region, mm: Mm): string | undefined {
  const entry = region.words.readOnce(region.words.readOnce(region.base + TABLE));
  const pte = mm.pageTable.get(region.words.readOnce(region.base + VPN));
  if (entry === 0) return undefined;
  if ((pte & 1) === 0 || pte >>> 12 !== entry >>> 12)
    return `N3: the NIC shows frame ${entry >>> 12}, which the page has left`;
  return (entry & 2) !== 0 && (pte & 2) === 0 ? 'N5: the NIC may write, the page may not be written' : undefined;
}

function allIsWell(state: State): string | undefined {
  checkRdma(state.context);
  checkHost(state.host);
  return wrong(state);
}

const NOTIFY = 'rdma/notify.ts';
const MEMORY = 'rdma/nic/nicmemory.ts';
const STATE = 'rdma/nic/nicstate.ts';
const ODP = 'rdma/odptable.ts';
const fails = /N1|N3|N4|N5/;

const noWait: Mutant = {
  name: 'a bracket begins while a copy is in flight',
  file: NOTIFY,
  find: '// One wait a bracket, however many pages it has. device.state.awaitCopy();',
  replace: '',
  fails,
};
const noZap: Mutant = {
  name: 'a bracket leaves the entries',
  file: NOTIFY,
  find: 'nrZapped += table.zapVpnsLocked(range.ranges[2 * i]!, range.ranges[2 * i + 1]!);',
  replace: 'nrZapped += 0;',
  fails,
};
const noCount: Mutant = {
  name: 'a copy does not say that it has begun',
  edits: [
    {
      file: STATE,
      find: 'enterCopy(): void { this.words.store(COPY, this.words.readOnce(COPY) + 1); }',
      replace: 'enterCopy(): void {}',
    },
    {
      file: STATE,
      find: 'leaveCopy(): void { this.words.store(COPY, this.words.readOnce(COPY) + 1);',
      replace: 'leaveCopy(): void {',
    },
  ],
  fails,
};
const lateEntry: Mutant = {
  name: 'who takes away looks for a copy first, and takes away then',
  edits: [
    {
      file: NOTIFY,
      find: 'invalidateRangeStart(_sub, range: MmuNotifierRange): number {',
      replace: 'invalidateRangeStart(_sub, range: MmuNotifierRange): number { device.state.awaitCopy();',
    },
    { file: NOTIFY, find: '// One wait a bracket, however many pages it has. device.state.awaitCopy();', replace: '' },
  ],
  preemptions: 2,
  fails,
};

const OPERATIONS = {
  munmap: ({ mm }: State) => mm.munmap(VA, PAGE),
  reclaim: ({ host }: State) => void host.reclaim.shrink(true, true, true),
  fork: (state: State) => void (state.child = state.mm.fork()),
} as const;

/** It copies, and what it copies to goes. */
function copyBeside(operation: keyof typeof OPERATIONS, mutants: readonly Mutant[]) {
  return model({
    name: `rdma: a copy in flight and ${operation}`,
    setup: () => setup(),
    preemptions: 1,
    invariant: wrong,
    mutants,
    actors: { nic: write, mm: OPERATIONS[operation] },
    check: allIsWell,
  });
}

export const copyAndMunmap = copyBeside('munmap', [noWait, noZap, noCount, lateEntry]);
export const copyAndReclaim = copyBeside('reclaim', [noWait, noZap]);
export const copyAndFork = copyBeside('fork', [noWait, noZap]);

const faultMutants: readonly Mutant[] = [
  {
    name: 'a fault asks for no retry',
    file: MEMORY,
    find: '|| leaf.seq.readRetry(seq, va)',
    replace: '',
    fails,
  },
  {
    name: 'seq is read after the look-up',
    edits: [
      { file: MEMORY, find: 'const seq = known ? leaf.seq.readBegin() : 0;', replace: '' },
      {
        file: MEMORY,
        find: 'if (pfn < 0) return pfn; const result = this.install(',
        replace: 'if (pfn < 0) return pfn; const seq = leaf.seq.readBegin(); const result = this.install(',
      },
    ],
    fails,
  },
  {
    name: 'the retry is asked for before the lock is taken',
    edits: [
      {
        file: MEMORY,
        find: 'leaf.lock(); const stale = (leaf.flags() & REGION_DEAD) !== 0 || leaf.seq.readRetry(seq, va);',
        replace: 'const stale = (leaf.flags() & REGION_DEAD) !== 0 || leaf.seq.readRetry(seq, va); leaf.lock();',
      },
    ],
    fails,
  },
];

/** It faults, and what it looks up goes. */
function faultBeside(operation: keyof typeof OPERATIONS, mutants: readonly Mutant[]) {
  return model({
    name: `rdma: a fault of the NIC and ${operation}`,
    setup: () => setup({ entry: false }),
    preemptions: 1,
    invariant: wrong,
    mutants,
    actors: { nic: write, mm: OPERATIONS[operation] },
    check: allIsWell,
  });
}

export const faultAndMunmap = faultBeside('munmap', faultMutants);
export const faultAndFork = faultBeside('fork', faultMutants);

/** M38: two brackets over the page, one inside the other, and a fault. */
export const nested = model({
  name: 'rdma: a fault and brackets that nest',
  setup: () => setup({ entry: false }),
  preemptions: 1,
  mutants: [
    {
      name: 'M38: the lock is held from start to end',
      edits: [
        {
          file: NOTIFY,
          find: 'region.unlock(); if (range.event === MMU_NOTIFY_UNMAP)',
          replace: 'if (range.event === MMU_NOTIFY_UNMAP)',
        },
        { file: NOTIFY, find: 'region.lock(); region.seq.end();', replace: 'region.seq.end();' },
      ],
      fails: /deadlock|lock/,
    },
  ],
  // Inside a bracket nothing is installed.
  invariant: ({ mr }) => wrongInside(mr.table!.region),
  actors: {
    nic: write,
    mm({ mm }) {
      const [outer, inner] = [new RangeList(mm), new RangeList(mm)];
      mm.notifiers.invalidateRangeStart(outer.set(MMU_NOTIFY_CLEAR, VA / PAGE, VA / PAGE + 1));
      mm.notifiers.invalidateRangeStart(inner.set(MMU_NOTIFY_CLEAR, VA / PAGE, VA / PAGE + 1));
      mm.notifiers.invalidateRangeEnd(inner);
      mm.notifiers.invalidateRangeEnd(outer);
    },
  },
  check: allIsWell,
});

/** While a bracket is counted, and its start does not hold the lock. */
function wrongInside({ words, base }: Region): string | undefined {
  const inProgress = words.readOnce(base + SEQ) % 16;
  if (inProgress === 0 || words.readOnce(base + LOCK) !== 0) return undefined;
  return words.readOnce(words.readOnce(base + TABLE)) === 0 ? undefined : 'N3: an entry is there inside a bracket';
}

const UNPLUG_WAIT = 'region.unlock(); this.device.state.awaitCopy(); }';
const deregMutants: readonly Mutant[] = [
  {
    name: 'deregistration does not wait for the copy in flight',
    edits: [
      { file: ODP, find: UNPLUG_WAIT, replace: 'region.unlock(); }' },
      {
        file: NOTIFY,
        find: 'table.zapAllLocked(); region.unlock(); device.state.awaitCopy();',
        replace: 'table.zapAllLocked(); region.unlock();',
      },
    ],
    fails,
  },
  {
    name: 'M41: who installs does not ask whether the region is still the same',
    file: MEMORY,
    find: 'const same = region !== undefined && this.find(region, region.byteOf(to)) && this.leaf === leaf && leaf.key() === id;',
    replace: 'const same = region !== null && to > 0 && id !== -1;',
    fails,
  },
];

/** The last region goes, what it was over is unmapped, and the first of other memory comes in its place. */
function deregBeside(entry: boolean, mutants: readonly Mutant[]) {
  return model({
    name: `rdma: a ${entry ? 'copy' : 'fault'} and the last region that goes, and the first that comes in its place`,
    setup: () => setup({ entry, maxMr: 1 }),
    preemptions: 1,
    invariant: wrong,
    mutants,
    actors: {
      nic: write,
      async mm({ mm, mr, pd }) {
        await mr.deregMr();
        mm.munmap(VA, PAGE);
        await pd.regMr(VA + PAGE, PAGE, ACCESS);
      },
    },
    check: allIsWell,
  });
}

export const copyAndDereg = deregBeside(true, [deregMutants[0]!]);
export const faultAndDereg = deregBeside(false, [deregMutants[1]!]);

/** All of a child is unmapped, the implicit region goes right after it; the NIC is at work in the child. */
export const implicitChild = model({
  name: 'rdma: an implicit region whose child is unmapped, and which goes',
  setup: () => setup({ implicit: true }),
  preemptions: 1,
  invariant: wrong,
  mutants: [
    {
      name: 'M40: who destroys a child does not look whether it is there still',
      file: 'rdma/implicit.ts',
      find: 'if (this.children.get(number) !== child || child.table.region.nrEntries() > 0) return;',
      replace: '',
    },
    noWait,
  ],
  actors: {
    nic: write,
    async mm({ mm, mr, deferred }) {
      mm.munmap(VA, CHILD);
      await mr.deregMr();
      for (const fn of deferred.splice(0)) fn();
    },
  },
  check: allIsWell,
});

/** NicState by itself: who waits sleeps at once. */
function bare() {
  const memory = { buffer: new SharedArrayBuffer(4 * NIC_STATE_WORDS) };
  return { nic: new NicState(memory, 0, 0), other: new NicState(memory, 0, 0) };
}

export const asleep = model({
  name: 'rdma: who waits for a copy sleeps',
  setup: bare,
  mutants: [
    {
      name: 'who ends a copy wakes nobody',
      file: STATE,
      find: 'if (this.words.load(NR_WAITERS) !== 0) this.words.notify(COPY);',
      replace: '',
      fails: /^(lost wake-up|deadlock)/,
    },
    {
      name: 'who ends a copy looks who sleeps before it says so',
      file: STATE,
      find: 'leaveCopy(): void { this.words.store(COPY, this.words.readOnce(COPY) + 1); if (this.words.load(NR_WAITERS) !== 0) this.words.notify(COPY);',
      replace:
        'leaveCopy(): void { if (this.words.load(NR_WAITERS) !== 0) this.words.notify(COPY); this.words.store(COPY, this.words.readOnce(COPY) + 1);',
      preemptions: 3,
      fails: /^(lost wake-up|deadlock)/,
    },
  ],
  actors: {
    nic({ nic }) {
      for (let k = 0; k < 2; k++) {
        nic.enterCopy();
        nic.leaveCopy();
      }
    },
    mm: ({ other }) => void other.awaitCopy(),
  },
});

/** A NIC's thread that was killed in a copy: its end is told, beside a notifier that waits. */
export const killed = model({
  name: 'rdma: a NIC that dies in a copy, beside a notifier',
  setup: bare,
  mutants: [
    {
      name: 'the end of a thread ends no copy',
      file: STATE,
      find: 'if ((this.words.load(COPY) & 1) === 1) this.leaveCopy();',
      replace: '',
      fails: /^(lost wake-up|deadlock)/,
    },
  ],
  actors: {
    nic({ nic }) {
      nic.enterCopy();
      nic.over();
    },
    mm: ({ other }) => void other.awaitCopy(),
  },
});
