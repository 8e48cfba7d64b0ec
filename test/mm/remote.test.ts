import { afterEach, describe, expect, it, vi } from 'vitest';
import { Words } from '../../src/base/index.js';
import {
  checkHost,
  createRemote,
  FAULT_FLAG_WRITE,
  FAULT_RETRY,
  Host,
  type HostOptions,
  MADV_DONTNEED,
  MADV_FREE,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MAP_SHARED,
  MemorySwap,
  type Mm,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  mmuNotifierUnpin,
  mmuNotifierUnregister,
  PROT_READ,
  PROT_WRITE,
  REMOTE_ZERO,
} from '../../src/mm/index.js';
import { AREA_HEAD, areaWords, slotPfn, slotVpn } from '../../src/mm/remote/descriptor.js';
import type { RemoteArea } from '../../src/mm/remote/remotearea.js';
import { demandZeroPte } from '../../src/mm/remote/undrained.js';
import { RemoteDriver, RemoteUser, serve } from './remotedriver.js';

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;
const VA = 0x4000_0000;

interface World {
  host: Host;
  mm: Mm;
  driver: RemoteDriver;
  user: RemoteUser;
  area: ReturnType<typeof createRemote>;
}

/** Both halves on one thread. Of `nrPages` mapped at VA the last one has been written by the mm thread: their tables are armed. */
function world(options: Partial<HostOptions> = {}, nrPages = 64): World {
  const host = new Host({
    frames: 1024,
    arenaBytes: 2 ** 20,
    debug: true,
    swap: new MemorySwap({ sizeBytes: 2 ** 24 }),
    ...options,
  });
  const mm = host.createMm();
  mm.mmap(VA, nrPages * PAGE, RW, ANON | MAP_FIXED);
  const driver = new RemoteDriver(mm, VA, nrPages);
  const area = createRemote(mm);
  area.refill();
  mm.writeSync(VA + (nrPages - 1) * PAGE, new Uint8Array([1]));
  return { host, mm, driver, area, user: new RemoteUser(host.memory, driver.describe(area.descriptor)) };
}

function ok({ host, driver }: World): void {
  expect(driver.wrong).toBeUndefined();
  checkHost(host);
  expect(driver.wrong).toBeUndefined();
}

function byteAt(mm: Mm, va: number): number {
  const byte = new Uint8Array(1);
  mm.readSync(va, byte);
  return byte[0]!;
}

describe('another thread', () => {
  it('N8: finds what is present, and makes pages of zeros where a table is armed', () => {
    const w = world();
    const { user, host, mm, area } = w;
    const { remote } = user;
    expect(remote.lookup(VA + 63 * PAGE, true)).toBe(mm.pageTable.get(VA / PAGE + 63) >>> 12);
    expect(remote.lookup(VA, false)).toBe(FAULT_RETRY);
    expect(remote.lookup(VA, true)).toBe(REMOTE_ZERO);
    const [faults, resident] = [host.vmstat.pgfault, mm.residentPages];
    expect(user.write(0, 7)).toBe(true);
    expect(user.read(0)).toBe(7);
    expect(mm.residentPages).toBe(resident);
    area.drain();
    expect([mm.residentPages, host.vmstat.pgfault, host.stats().remoteFaults]).toEqual([resident + 1, faults + 1, 1]);
    expect(mm.pagemap(VA, 1)[0]).toMatchObject({ present: true, exclusive: true, softDirty: true });
    expect(byteAt(mm, VA)).toBe(7);
    ok(w);
  });

  it('gets zeros, though the frame was another page before', () => {
    const w = world();
    for (let k = 0; k < 20; k++) {
      expect(w.user.write(k, -1)).toBe(true);
      const bytes = new Uint8Array(PAGE);
      w.mm.readSync(VA + k * PAGE, bytes);
      expect(bytes.subarray(4).every((byte) => byte === 0)).toBe(true);
    }
    ok(w);
  });

  it('crosses where it has no frame left, and gets more', async () => {
    const w = world({}, 512);
    let crossings = 0;
    for (let k = 0; k < 500; k++)
      while (!w.user.write(k, k)) {
        crossings++;
        await serve(w.driver, k, true);
        w.area.refill();
      }
    expect(crossings).toBeGreaterThan(5);
    expect(crossings).toBeLessThan(20);
    for (let k = 0; k < 500; k++) expect(w.user.read(k)).toBe(k);
    ok(w);
  });

  it('what it has mapped is seen by all who look', () => {
    const w = world();
    for (let k = 0; k < 8; k++) w.user.write(k, k);
    expect(w.mm.smapsRollup().Rss).toBe(9 * 4);
    for (let k = 8; k < 16; k++) w.user.write(k, k);
    expect(w.mm.procStatus()).toMatchObject({ VmRSS: 17 * 4, RssAnon: 17 * 4 });
    const pfn = w.mm.tryGetPage(VA + 20 * PAGE, FAULT_FLAG_WRITE);
    w.mm.putPage(pfn);
    w.user.write(21, 1);
    const undrained = w.mm.tryGetPage(VA + 21 * PAGE, FAULT_FLAG_WRITE);
    expect(w.user.remote.lookup(VA + 21 * PAGE, true)).toBe(undrained);
    checkHost(w.host, 1);
    w.mm.putPage(undrained);
    ok(w);
  });
});

describe('what is not plain memory', () => {
  const lookup = (w: World, k = 0) => w.user.remote.lookup(VA + k * PAGE, true);

  it.each<[string, (w: World) => void]>([
    ['read-only', ({ mm }) => mm.mprotect(VA, 64 * PAGE, PROT_READ)],
    ['unmapped', ({ mm }) => mm.munmap(VA, 8 * PAGE)],
    ['mapped anew', ({ mm }) => void mm.mmap(VA, 8 * PAGE, RW, ANON | MAP_FIXED)],
    ['shared', ({ mm }) => void mm.mmap(VA, 8 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)],
    ['moved away', ({ mm }) => void mm.mremap(VA, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, VA + 2 ** 30)],
    ['locked', ({ mm }) => void mm.mlock(VA, 8 * PAGE, 1)],
    ['of a mm that is gone', ({ mm }) => mm.exit()],
  ])('%s: the mm thread is asked', (_name, change) => {
    const w = world();
    expect(lookup(w)).toBe(REMOTE_ZERO);
    change(w);
    expect(lookup(w)).toBe(FAULT_RETRY);
    expect(w.user.remote.mapZero(VA)).toBe(FAULT_RETRY);
    ok(w);
  });

  it('an area that reaches less than four pages into a table is not armed there', () => {
    const w = world({}, 6);
    expect([0, 1, 2, 3, 4].map((k) => lookup(w, k))).toEqual([0, 0, 0, 0, FAULT_RETRY]);
  });

  it('advice that leaves memory as it is leaves the arm', () => {
    const w = world();
    w.mm.madvise(VA, 8 * PAGE, 10);
    expect(lookup(w)).toBe(REMOTE_ZERO);
    ok(w);
  });
});

describe('N1: a bracket accounts for what was mapped before', () => {
  it.each<[string, (w: World) => void, number | undefined]>([
    ['munmap', ({ mm }) => mm.munmap(VA, 8 * PAGE), undefined],
    ['munmap of one page', ({ mm }) => mm.munmap(VA + 3 * PAGE, PAGE), 1],
    ['DONTNEED', ({ mm }) => mm.madvise(VA, 8 * PAGE, MADV_DONTNEED), 0],
    ['FREE', ({ mm }) => mm.madvise(VA, 8 * PAGE, MADV_FREE), 1],
    ['mprotect', ({ mm }) => mm.mprotect(VA, 8 * PAGE, PROT_READ), 1],
    ['soft-dirty clearing', ({ mm }) => mm.clearSoftDirty(), 1],
    ['fork', ({ mm }) => void mm.fork(), 1],
    ['migration', ({ host }) => void host.compact(), 1],
    ['mlock', ({ mm }) => void mm.mlock(VA, 8 * PAGE), 1],
    [
      'a move',
      ({ mm }) => void mm.mremap(VA, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, VA + 2 ** 30),
      undefined,
    ],
    [
      'a move of all',
      ({ mm }) => void mm.mremap(VA, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, VA + 2 ** 30),
      undefined,
    ],
    ['exit', ({ mm }) => mm.exit(), undefined],
  ])('%s', (_name, change, left) => {
    const w = world();
    for (let k = 0; k < 8; k++) w.user.write(k, 1);
    change(w);
    ok(w);
    if (left !== undefined) expect(byteAt(w.mm, VA)).toBe(left);
    // And again, with what came since.
    for (let k = 8; k < 16; k++) w.user.write(k, 1);
    ok(w);
    w.mm.exit();
    w.area.destroy();
    ok(w);
    expect(w.host.stats()).toMatchObject({
      remoteFrames: 0,
      framesFree: w.host.frames.nrFrames - [...w.host.mms].reduce((n, m) => n + m.residentPages, 0),
    });
  });

  it('the child of a fork does not see what is written after', () => {
    const w = world();
    w.user.write(0, 1);
    const child = w.mm.fork();
    expect(w.user.write(0, 2)).toBe(false);
    expect(w.user.write(1, 3)).toBe(true);
    expect([byteAt(child, VA), byteAt(child, VA + PAGE), byteAt(w.mm, VA + PAGE)]).toEqual([1, 0, 3]);
    ok(w);
  });

  it('without a driver too, until its threads are told to be gone', () => {
    const w = world();
    for (let k = 0; k < 8; k++) w.user.write(k, 1);
    const { sub } = w.driver;
    mmuNotifierUnregister(sub);
    // There are brackets still, for its threads' sake: it hears of none (N17).
    const heard = vi.fn();
    Object.assign(sub.ops, { invalidateRangeStart: heard, invalidateRangeEnd: heard });
    w.mm.munmap(VA, 4 * PAGE);
    expect(w.user.remote.lookup(VA, true)).toBe(FAULT_RETRY);
    w.mm.madvise(VA + 4 * PAGE, 4 * PAGE, MADV_DONTNEED);
    expect(heard).not.toHaveBeenCalled();
    checkHost(w.host);
    w.area.destroy();
    checkHost(w.host);
  });

  it('a table is kept while a thread may be on its way to it', () => {
    const w = world();
    const { mm, user } = w;
    // Two areas of one table; of the upper one nothing is there, but it is armed.
    mm.mmap(VA + 64 * PAGE, 64 * PAGE, PROT_READ, ANON | MAP_FIXED);
    mm.madvise(VA + 32 * PAGE, 32 * PAGE, MADV_DONTNEED);
    mm.munmap(VA + 64 * PAGE, 64 * PAGE);
    expect(mm.pageTable.find(VA / PAGE)).toBeGreaterThan(0);
    expect(user.write(40, 5)).toBe(true);
    ok(w);
    expect(byteAt(mm, VA + 40 * PAGE)).toBe(5);
    // In pieces, so that what is left is told apart from what was armed.
    for (const [start, end] of [
      [16, 32],
      [0, 16],
      [32, 64],
    ] as const)
      mm.munmap(VA + start * PAGE, (end - start) * PAGE);
    ok(w);
    expect(mm.pageTable.find(VA / PAGE)).toBe(0);
  });
});

describe('frames in hand', () => {
  it('N26: whoever waits for a frame gets them, and small hosts give few', () => {
    const w = world({ frames: 128 });
    expect(w.host.nrRemoteFrames).toBe(8);
    const other = w.host.createMm();
    const va = other.mmap(0, 256 * PAGE, RW, ANON);
    for (let k = 0; k < 200; k++) other.writeSync(va + k * PAGE, new Uint8Array([k]));
    expect(w.host.nrRemoteFrames).toBe(0);
    expect(w.user.write(3, 1)).toBe(false);
    ok(w);
    expect(world({ frames: 64, swap: undefined! }).area.refill()).toBeLessThanOrEqual(4);
  });

  it('all areas together hold a sixteenth', () => {
    const w = world();
    const others = Array.from({ length: 3 }, () => createRemote(w.mm, { nrFrames: 32 }));
    for (const other of others) other.refill();
    expect(w.host.nrRemoteFrames).toBe(64);
    checkHost(w.host);
    for (const area of [w.area, ...others]) area.destroy();
    expect(w.host.nrRemoteFrames).toBe(0);
    expect(w.mm.remotes).toBeUndefined();
    ok(w);
  });

  it.each([0, 3, 2.5, 8192, Number.NaN])('nrFrames %s is refused', (nrFrames) => {
    const mm = new Host({ frames: 64 }).createMm();
    expect(() => createRemote(mm, { nrFrames })).toThrow(/EINVAL: createRemote: nrFrames .* must be a power of two/);
  });
});

describe('N19: a poisoned driver', () => {
  it('gets no frames any more', () => {
    const w = world();
    w.user.write(0, 1);
    const { ops } = w.driver.sub;
    ops.invalidateRangeStart = () => {
      throw new Error('broken');
    };
    w.mm.madvise(VA, PAGE, MADV_DONTNEED);
    expect(w.driver.sub.poisoned).toMatch(/broken/);
    expect(w.user.remote.lookup(VA + PAGE, true)).toBe(FAULT_RETRY);
    expect(w.user.remote.mapZero(VA + PAGE)).toBe(FAULT_RETRY);
    expect(w.area.refill()).toBe(0);
    w.mm.exit();
    checkHost(w.host);
  });

  it('whose thread is about to write a pte: it is waited for, and the page is pinned like the others', () => {
    const w = world();
    const { host, mm, user, area } = w;
    user.write(0, 1);
    area.drain();
    // The thread has said where its next frame goes, and has not written the pte yet.
    expect(isStopped(1, () => user.write(1, 2))).toBe(true);
    goOnWhenLookedAt(area, 20);
    w.driver.sub.ops.invalidateRangeStart = () => {
      throw new Error('broken');
    };
    mm.madvise(VA + 32 * PAGE, PAGE, MADV_DONTNEED);
    vi.restoreAllMocks();
    expect(mm.pagemap(VA + PAGE, 1)[0]).toMatchObject({ present: true });
    expect(host.stats().pinnedFrames).toBe(3);
    checkHost(host);
  });

  it.each(['munmap', 'exit'] as const)(
    'whose thread stood still before it wrote a pte, and goes on after %s, harms nobody',
    (how) => {
      const w = world();
      const { host, driver, area } = w;
      driver.sub.ops.invalidateRangeStart = () => {
        throw new Error('broken');
      };
      let other = host.createMm();
      const before = stoppedBeforePte(() => {
        if (how === 'munmap') w.mm.munmap(VA, 64 * PAGE);
        else w.mm.exit();
        // Whoever comes next gets the tables that were given back last.
        if (how === 'exit') other = host.createMm();
        other.mmap(VA, 64 * PAGE, RW, ANON | MAP_FIXED);
        other.writeSync(VA, new Uint8Array([1]));
        return host.frames.nrFree;
      });
      w.user.write(1, 0x5a5a);
      vi.restoreAllMocks();
      expect(before.nrCalls).toBe(1);
      expect(driver.sub.poisoned).toMatch(/broken/);
      area.drain();
      // What it has mapped after all may be written at any time: the frame is nobody else's.
      checkHost(host);
      expect([byteAt(other, VA), byteAt(other, VA + PAGE)]).toEqual([1, 0]);
      expect(host.frames.nrFree).toBe(before.result);
      expect(host.nrRemoteFrames).toBe(1);
      area.recover();
      expect(host.nrRemoteFrames).toBe(0);
      area.destroy();
      mmuNotifierUnregister(driver.sub);
      mmuNotifierUnpin(driver.sub);
      for (const mm of host.mms) mm.exit();
      checkHost(host);
      expect(host.frames.nrFree).toBe(host.frames.nrFrames);
    },
  );
});

/** Runs `body` when the thread is about to exchange its first pte. */
function stoppedBeforePte<T>(body: () => T): { nrCalls: number; result: T | undefined } {
  const run: { nrCalls: number; result: T | undefined } = { nrCalls: 0, result: undefined };
  for (const name of ['lock', 'unlock'] as const) vi.spyOn(Words.prototype, name).mockImplementation(() => {});
  const real = Words.prototype.compareExchange;
  vi.spyOn(Words.prototype, 'compareExchange').mockImplementation(function (this: Words, ...args) {
    if (run.nrCalls++ === 0) {
      run.result = body();
      run.nrCalls = 1;
    }
    return real.apply(this, args);
  });
  return run;
}

/** The thread, stopped before it writes the pte, writes it when its slot is looked at for the `nrLooks`th time. */
function goOnWhenLookedAt({ mm, descriptor }: RemoteArea, nrLooks: number): void {
  const { areaAddr, capacity } = descriptor;
  const words = new Words(mm.host.memory, areaAddr, areaWords(capacity));
  const head = words.load(AREA_HEAD);
  const vpn = words.load(slotVpn(head, capacity));
  const real = Words.prototype.load;
  let nr = 0;
  vi.spyOn(Words.prototype, 'load').mockImplementation(function (this: Words, i) {
    const value = real.call(this, i);
    if (value !== vpn || ++nr !== nrLooks) return value;
    mm.pageTable.words.store(mm.pageTable.find(vpn), demandZeroPte(words.readOnce(slotPfn(head, capacity))));
    words.store(AREA_HEAD, head + 1);
    return value;
  });
}

/** The thread is stopped for ever before its store number `nrStores`. */
class Stopped extends Error {}

function stopAfter(nrStores: number): void {
  let nr = 0;
  // Both halves are on one thread here: nobody waits for the lock.
  for (const name of ['lock', 'unlock'] as const) vi.spyOn(Words.prototype, name).mockImplementation(() => {});
  for (const name of ['store', 'writeOnce', 'compareExchange'] as const) {
    const real = Words.prototype[name] as (...args: number[]) => number;
    vi.spyOn(Words.prototype, name).mockImplementation(function (this: Words, ...args: number[]) {
      if (nr++ >= nrStores) throw new Stopped();
      return real.apply(this, args);
    } as never);
  }
}

afterEach(() => void vi.restoreAllMocks());

/** False when it was done before that many stores. */
function isStopped(nrStores: number, body: () => void): boolean {
  stopAfter(nrStores);
  try {
    body();
    return false;
  } catch (error) {
    if (!(error instanceof Stopped)) throw error;
    return true;
  } finally {
    vi.restoreAllMocks();
  }
}

describe('N25: a thread that is stopped before any of its stores', () => {
  const operations: [string, (w: World) => void][] = [
    ['nothing', () => {}],
    ['munmap', ({ mm }) => mm.munmap(VA, 8 * PAGE)],
    ['munmap of all', ({ mm }) => mm.munmap(VA, 64 * PAGE)],
    ['DONTNEED', ({ mm }) => mm.madvise(VA, 64 * PAGE, MADV_DONTNEED)],
    ['mprotect', ({ mm }) => mm.mprotect(VA, 64 * PAGE, PROT_READ)],
    ['fork', ({ mm }) => void mm.fork()],
    ['a fault of the mm thread', ({ mm }) => mm.writeSync(VA + PAGE, new Uint8Array([9]))],
    ['mlock', ({ mm }) => void mm.mlock(VA, 8 * PAGE)],
    ['more frames', ({ area }) => void area.refill()],
    ['frames taken back', ({ area }) => area.takeBack()],
    ['frames taken back and given again', ({ area }) => [area.takeBack(), area.refill()]],
    ['a move', ({ mm }) => void mm.mremap(VA, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, VA + 2 ** 30)],
    ['exit', ({ mm }) => mm.exit()],
  ];

  it.each(operations)('%s, then recovery: each frame is somewhere, once', (_name, operation) => {
    let nrPoints = 0;
    for (let nrStores = 0; ; nrStores++) {
      const w = world();
      w.user.write(0, 7);
      const stopped = isStopped(nrStores, () => w.user.write(1, 8));
      // Whoever finds the lock of a thread that has ended takes it over.
      w.driver.forget();
      operation(w);
      checkHost(w.host);
      w.area.recover();
      checkHost(w.host);
      expect(w.host.nrRemoteFrames).toBe(0);
      if (!w.mm.exited) secondLife(w);
      w.mm.exit();
      w.area.destroy();
      checkHost(w.host);
      if (!stopped) break;
      nrPoints++;
    }
    expect(nrPoints).toBe(5);
  });

  /** Another thread goes on with the descriptor. */
  function secondLife(w: World): void {
    w.area.refill();
    const user = new RemoteUser(w.host.memory, w.driver.describe(w.area.descriptor));
    for (let k = 16; k < 24; k++) user.write(k, k);
    checkHost(w.host);
  }
});
