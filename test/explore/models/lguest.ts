import { model, slow } from 'unpin/explore';
import { checkLguest, LGUEST_DATA, LguestDeath, LguestDevice } from 'unpin/lguest';
import {
  checkHost,
  Host,
  MADV_DONTNEED,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PROT_READ,
  PROT_WRITE,
} from 'unpin/mm';
import { addi, ECALL, ld, sd } from '../../isa/assemble.js';
import { byteAt, ENV } from '../world.js';

/**
 * lguest's own protocol: notify.ts, the shadow directories with their reverse map, and the hart's TLB. A guest runs on the mm thread, where it belongs, and takes turns
 * with the host where it waits for a page: each of its accesses may find that the world has changed since the one before.
 */

const PAGE = 4096;
const [ZERO, T0, A0, A1, A2, A3] = [0, 5, 10, 11, 12, 13];
const RW = PROT_READ | PROT_WRITE;
const NR_PAGES = 10;
const [CODE, DATA, ABSENT, SHARED, ROOT_A, MIDDLE, LEAF, ROOT_B] = [0, 1, 2, 3, 4, 5, 6, 7];
/** Beyond memory: a store there comes out. */
const STOP = (NR_PAGES + 1) * PAGE;
const NEW_PGTABLE = 4;

const li = (register: number, value: number) => addi(register, ZERO, value);
const words = (...code: number[]) => new Uint8Array(Uint32Array.from(code).buffer);

/** A guest with this code, its third page in swap. `random`: which directory is the victim. */
function setup(code: readonly number[], random = () => 0) {
  const swap = slow(new MemorySwap({ sizeBytes: 65536 }), 'read');
  const host = new Host({
    frames: 64,
    arenaBytes: 2 ** 20,
    pageTables: 12,
    pageCluster: 0,
    swap,
    defer: ENV.defer,
  });
  const mm = host.createMm();
  const base = mm.mmap(0, NR_PAGES * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(base + CODE * PAGE, words(...code));
  mm.writeSync(base + DATA * PAGE, new Uint8Array([1]));
  mm.writeSync(base + ABSENT * PAGE, new Uint8Array([5]));
  host.reclaim.shrink(true, true, true);
  // One page alone is waited for, and what goes meanwhile.
  for (let page = 0; page < NR_PAGES; page++) if (page !== ABSENT) mm.readSync(base + page * PAGE, new Uint8Array(1));
  const device = new LguestDevice(host, ENV, { nrDecodedPages: 4, nrShadowTables: 16, random });
  const lg = device.open(mm);
  return { host, mm, base, lg, dead: false, child: undefined as Mm | undefined };
}

type State = ReturnType<typeof setup>;

async function start({ lg, base }: State): Promise<void> {
  await lg.initialize({ base, pfnLimit: NR_PAGES, deviceLimit: NR_PAGES + 2, start: CODE });
  lg.setreg(T0, BigInt(STOP));
  lg.setreg(A0, BigInt(DATA * PAGE));
  lg.setreg(A1, BigInt(ABSENT * PAGE));
  lg.setreg(A2, 2n);
}

async function guest(state: State): Promise<void> {
  await start(state);
  const { addr } = await state.lg.run();
  if (addr !== BigInt(STOP)) throw new Error(`the guest came out for 0x${addr.toString(16)}`);
}

/** Stores to its page, waits for the other one, and stores to the first again, which may have gone meanwhile. */
const STORES = [sd(A2, 0, A0), ld(A3, 0, A1), addi(A2, A2, 1), sd(A2, 0, A0), ld(A3, 0, A0), sd(ZERO, 0, T0)];

const evict = ({ host }: State) => void host.reclaim.shrink(true, true, true);

const dataByte = (mm: Mm, base: number): number => byteAt(mm, base + DATA * PAGE);

/** At the end: the guest has seen its own last store, and it is there. */
function coherent({ host, mm, base, lg }: State, wanted = 3): string | undefined {
  checkLguest(lg);
  const seen = Number(lg.getreg(A3));
  lg.close();
  checkHost(host);
  const there = dataByte(mm, base);
  if (seen !== there) return `N3: the guest sees ${seen}, the host has ${there}`;
  return there === wanted ? undefined : `N15: the guest's store is lost: ${there}`;
}

const NOTIFY = 'lguest/notify.ts';
const PGDIRS = 'lguest/pgdirs.ts';
const noZap = {
  name: 'start zaps nothing',
  file: NOTIFY,
  find: 'nrZapped += directories.zap(',
  replace: 'nrZapped += Math.min(',
};
const noBumpOut = {
  name: 'the guest is not bumped out when its entry goes',
  file: PGDIRS,
  find: `this.rmap.remove(index);
    if (this.isVisible(this.tables.directoryOf(index))) this.hart.tlbFlushPage(vpnToVa(this.tables.vpnOf(index)));`,
  replace: 'this.rmap.remove(index);',
};
const noChain = {
  name: 'an entry is not in the reverse map',
  file: PGDIRS,
  find: 'this.rmap.add(index, gfn);',
  replace: 'void gfn;',
};

export const bumpOut = model({
  name: 'lguest: a guest is bumped out by reclaim',
  setup: () => setup(STORES),
  preemptions: 1,
  threads: [['guest', 'reclaim']],
  mutants: [
    noZap,
    noBumpOut,
    noChain,
    {
      name: 'code is kept when its page goes',
      file: PGDIRS,
      find: 'for (let index: number; (index = this.rmap.first(gfn)) >= 0; nr++) this.clear(index); this.dropCode(gfn);',
      replace: 'for (let index: number; (index = this.rmap.first(gfn)) >= 0; nr++) this.clear(index);',
      fails: /N3: code of page/,
    },
    {
      name: 'an entry for reading may write',
      file: 'lguest/mmu.ts',
      find: '(write ? SPTE_W : 0)',
      replace: '(rights & SPTE_W)',
      fails: /N5|N15/,
    },
  ],
  actors: { guest, reclaim: evict },
  check: (state) => coherent(state),
});

/** Looks at its page, waits for the other, and looks again. */
const LOADS = [ld(A3, 0, A0), ld(A2, 0, A1), ld(A3, 0, A0), sd(ZERO, 0, T0)];

export const hostCow = model({
  name: 'lguest: host copy-on-write under a running guest (M46)',
  setup: () => setup(LOADS),
  preemptions: 1,
  threads: [['guest', 'launcher']],
  mutants: [
    { ...noZap, fails: /N3/ },
    { ...noBumpOut, fails: /S10|N3/ },
    { ...noChain, fails: /S10|N3/ },
  ],
  actors: {
    guest,
    launcher(state) {
      state.child = state.mm.fork();
      state.mm.writeSync(state.base + DATA * PAGE, new Uint8Array([9]));
    },
  },
  async check(state) {
    const { child, mm, base, lg, host } = state;
    checkLguest(lg);
    // Once more, now that the page has been copied.
    lg.setreg(0, BigInt(CODE));
    await lg.run();
    checkLguest(lg);
    const seen = Number(lg.getreg(A3));
    lg.close();
    checkHost(host);
    if (seen !== 9) return `N3: the guest is left on the old page: ${seen}`;
    const [own, childs] = [dataByte(mm, base), dataByte(child!, base)];
    return own === 9 && childs === 1 ? undefined : `N20: the pages hold ${own} and ${childs}`;
  },
});

export const forkedGuest = model({
  name: 'lguest: a guest writes while its launcher forks',
  setup: () => ({ ...setup(STORES), atFork: -1 }),
  preemptions: 1,
  threads: [['guest', 'launcher']],
  mutants: [{ ...noZap, fails: /N3|N5|N15|N20/ }],
  actors: {
    guest,
    launcher(state) {
      state.child = state.mm.fork();
      state.atFork = dataByte(state.mm, state.base);
    },
  },
  check(state) {
    const wrong = coherent(state);
    if (wrong !== undefined) return wrong;
    const childs = dataByte(state.child!, state.base);
    return childs === state.atFork ? undefined : `N20: the child sees ${childs}, not ${state.atFork}`;
  },
});

/** Two address spaces, whose pages are the same; the guest goes from one to the other and waits in the second. */
const TWO_SPACES = [
  // a1: lguest_data; then s0: data page, s1: absent page, s2, s3: the roots, as the launcher sets them.
  ...[li(A0, 1), addi(A1, 20, 0), ECALL],
  ...[li(A0, NEW_PGTABLE), addi(A1, 18, 0), ECALL, ld(A3, 0, 8)],
  ...[li(A0, NEW_PGTABLE), addi(A1, 19, 0), ECALL, ld(A3, 0, 8), ld(A2, 0, 9)],
  ...[li(A0, NEW_PGTABLE), addi(A1, 18, 0), ECALL, ld(A3, 0, 8)],
  ...[sd(ZERO, 0, T0)],
];

/** The first table pages map memory and the device one to one, for both roots. */
function setupSpaces(random: () => number) {
  const state = setup(TWO_SPACES, random);
  const { mm, base } = state;
  const write = (gpa: number, value: bigint) =>
    mm.writeSync(base + gpa, new Uint8Array(new BigUint64Array([value]).buffer));
  for (const root of [ROOT_A, ROOT_B]) write(root * PAGE, (BigInt(MIDDLE) << 10n) | 1n);
  write(MIDDLE * PAGE, (BigInt(LEAF) << 10n) | 1n);
  for (let page = 0; page < NR_PAGES + 2; page++) write(LEAF * PAGE + page * 8, (BigInt(page) << 10n) | 15n);
  write(SHARED * PAGE + LGUEST_DATA.kernelAddress, 0xffffffc000000000n);
  mm.writeSync(base + SHARED * PAGE + LGUEST_DATA.hcallStatus, new Uint8Array(64).fill(0xff));
  return state;
}

async function guestOfSpaces(state: State): Promise<void> {
  const { lg } = state;
  await start(state);
  lg.setreg(8, BigInt(DATA * PAGE));
  lg.setreg(9, BigInt(ABSENT * PAGE));
  lg.setreg(18, BigInt(ROOT_A * PAGE));
  lg.setreg(19, BigInt(ROOT_B * PAGE));
  lg.setreg(20, BigInt(SHARED * PAGE));
  const { addr } = await lg.run();
  if (addr !== BigInt(STOP)) throw new Error(`the guest came out for 0x${addr.toString(16)}`);
}

/** The page's frame goes to another mm, and the page gets another one. */
function clear({ host, mm, base }: State): void {
  mm.madvise(base + DATA * PAGE, PAGE, MADV_DONTNEED);
  const other = host.createMm();
  other.writeSync(other.mmap(0, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS), new Uint8Array([77]));
  mm.writeSync(base + DATA * PAGE, new Uint8Array([9]));
}

/** What the guest sees now: another look from the end of its program. */
async function looksAgain(state: State): Promise<string | undefined> {
  const { lg, host, mm, base } = state;
  checkLguest(lg);
  lg.setreg(0, BigInt(CODE + (TWO_SPACES.length - 2) * 4));
  await lg.run();
  checkLguest(lg);
  const seen = Number(lg.getreg(A3));
  lg.close();
  checkHost(host);
  const there = dataByte(mm, base);
  return seen === there ? undefined : `N3: the guest sees ${seen}, the host has ${there}`;
}

const victimMutants = [noZap, noBumpOut, noChain];

export const victimOfItself = model({
  name: 'lguest: the present directory is the victim, beside a clear',
  setup: () => setupSpaces(() => 0),
  preemptions: 1,
  threads: [['guest', 'clear']],
  mutants: victimMutants,
  actors: { guest: guestOfSpaces, clear },
  check: looksAgain,
});

export const victims = model({
  name: 'lguest: victims by chance, beside a clear',
  setup() {
    let n = 0;
    return setupSpaces(() => (n++ % 2) / 4);
  },
  preemptions: 1,
  threads: [['guest', 'clear']],
  mutants: [
    noZap,
    noBumpOut,
    {
      name: 'the TLB is not flushed for another address space',
      file: PGDIRS,
      find: 'this.current = directory; this.hart.tlbFlushAll();',
      replace: 'this.current = directory;',
      fails: /S10/,
    },
  ],
  actors: { guest: guestOfSpaces, clear },
  check: looksAgain,
});

/** The guest may die of it, and of nothing else. */
async function mayDie(state: State): Promise<void> {
  try {
    await guest(state);
  } catch (error) {
    if (!(error instanceof LguestDeath) && !/EFAULT|EINVAL|EBADF/.test((error as Error).message)) throw error;
    state.dead = true;
  }
}

const exitMutants = [
  {
    name: 'neither the bracket of exit nor release takes the entries',
    edits: [
      { file: NOTIFY, find: noZap.find, replace: noZap.replace },
      { file: NOTIFY, find: 'directories.zap(0, access.pfnLimit);', replace: '' },
    ],
  },
];

export const launcherExit = model({
  name: 'lguest: the launcher exits beside its guest',
  setup: () => setup(STORES),
  preemptions: 1,
  threads: [['guest', 'launcher']],
  mutants: exitMutants,
  actors: {
    guest: mayDie,
    launcher: ({ mm }) => mm.exit(),
  },
  check({ lg, host }) {
    if (lg.isInitialized) {
      const { directories } = lg.cpu;
      if (directories.count(0, NR_PAGES, false) > 0) return 'N4: entries are left of an mm that has exited';
      checkLguest(lg);
    }
    lg.close();
    checkHost(host);
    return host.frames.nrFree === host.frames.nrFrames ? undefined : 'N4: frames are left';
  },
});

export const deviceClosed = model({
  name: 'lguest: the device is closed beside its guest',
  setup: () => setup(STORES),
  preemptions: 1,
  threads: [['guest', 'launcher']],
  mutants: [
    {
      name: 'close leaves the subscription',
      file: 'lguest/lguest.ts',
      find: 'if (subscription !== undefined) mmuNotifierUnregister(subscription);',
      replace: '',
    },
    {
      name: 'close leaves what was held for an instruction',
      file: 'lguest/cpu.ts',
      find: 'free(): void { this.held.releaseAll();',
      replace: 'free(): void {',
    },
  ],
  actors: { guest: mayDie, launcher: ({ lg }) => lg.close() },
  check({ host, mm, lg }) {
    lg.close();
    if (mm.notifiers.nrSubscriptions > 0) return 'N17: a subscription is left';
    checkHost(host);
    return undefined;
  },
});
