import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KernelError } from '../../src/base/index.js';
import { checkHost, type File, Host, MAP_PRIVATE, MAP_SHARED, type Mm } from '../../src/mm/index.js';
import { PG_DIRTY, PG_LOCKED, PG_WRITEBACK } from '../../src/mm/page/frames.js';
import { FaultyStore } from '../mm/faultystore.js';
import { FaultySwap } from '../mm/faultyswap.js';
import { TestDriver } from '../mm/testdriver.js';
import { orHang } from './hang.js';

/**
 * Random operations on two files and a memory file, by call, through shared and private mappings of two mms, and through external MMUs, against
 * a naive model: an array of bytes for each file, and the private copies. Reclaim comes at random points, transfers are held up, and fail. After each
 * step the whole state is checked, and that what is clean is what the store has (N15). At the end everything is in the stores.
 */

const PAGE = 4096;
/** Pages that each mapping spans; files are at most that long. */
const NR_PAGES = 20;
const NR_FILES = 3;
const PUNCH = 3;

interface ModelFile {
  readonly bytes: Uint8Array;
  size: number;
}

interface World {
  host: Host;
  swap: FaultySwap;
  stores: FaultyStore[];
  /** Two openers of each file. */
  files: File[][];
  /** Failed transfers that each opener has been told of. */
  told: number[][];
  model: ModelFile[];
  mms: Mm[];
  drivers: TestDriver[];
  /** Private copies of pages of file 0, for each mm. */
  copies: Map<number, Uint8Array>[];
  /** Transfers were made to fail: calls may be refused. */
  faulty: boolean;
  /** Not every failure is one of a write. */
  otherFailures: boolean;
}

const sharedVa = (f: number, p: number) => 0x1000_0000 + (f * 64 + p) * PAGE;
const privateVa = (p: number) => 0x2000_0000 + p * PAGE;

function newWorld(nrSlots: number): World {
  const swap = new FaultySwap(nrSlots);
  const defer = (fn: () => void) => void setImmediate(fn);
  const host = new Host({ frames: 64, arenaBytes: 65536, swap, debug: true, defer, oom: 'refuse' });
  const model = [5 * PAGE + 100, 0, 3 * PAGE].map((size, f) => {
    const bytes = new Uint8Array(NR_PAGES * PAGE);
    if (f === 0) for (let i = 0; i < size; i++) bytes[i] = (i * 13 + (i >>> 12)) & 255;
    return { bytes, size };
  });
  const stores = [new FaultyStore(model[0]!.bytes.slice(0, model[0]!.size)), new FaultyStore(0)];
  const files = stores.map((store) => [host.openFile(store), host.openFile(store)]);
  const memfd = host.memfdCreate('ram', 3 * PAGE);
  files.push([memfd, memfd]);
  const mms = [host.createMm({ name: 'a' }), host.createMm({ name: 'b' })];
  const w: World = {
    host,
    swap,
    stores,
    files,
    told: [
      [0, 0],
      [0, 0],
    ],
    model,
    mms,
    drivers: mms.map((mm) => new TestDriver(mm)),
    copies: [new Map(), new Map()],
    faulty: false,
    otherFailures: false,
  };
  for (const m of [0, 1]) {
    for (let f = 0; f < NR_FILES; f++) mapShared(w, m, f);
    mapPrivate(w, m);
  }
  return w;
}

function mapShared(w: World, m: number, f: number): void {
  w.mms[m]!.mmap(sharedVa(f, 0), NR_PAGES * PAGE, 3, MAP_SHARED | 0x10, w.files[f]![m]!);
}

function mapPrivate(w: World, m: number): void {
  w.mms[m]!.mmap(privateVa(0), NR_PAGES * PAGE, 3, MAP_PRIVATE | 0x10, w.files[0]![m]!);
  w.copies[m]!.clear();
}

/** What may stand in the way where something fails, or there is no room. */
const TROUBLE = ['EIO', 'ENOMEM', 'ENOSPC'];

/** The result of `body`, or the code with which it was refused, if that is one of `codes`. */
async function attempt<T>(codes: string[], body: () => Promise<T>): Promise<T | string> {
  try {
    return await body();
  } catch (error) {
    if (error instanceof KernelError && codes.includes(error.code)) return error.code;
    throw error;
  }
}

/** Whether trouble is allowed now. */
function troubled(w: World): boolean {
  return w.faulty || w.host.swap.nrFree === 0;
}

function expectTrouble(w: World): void {
  expect(troubled(w)).toBe(true);
}

const endPage = (file: ModelFile) => Math.ceil(file.size / PAGE);

function expectBytes(what: object, found: Uint8Array, expected: Uint8Array): void {
  const differs = found.findIndex((byte, i) => byte !== expected[i]);
  expect({ ...what, differs }).toEqual({ ...what, differs: -1 });
}

type Command = (w: World) => Promise<void>;
const who = fc.nat(1);
const whichFile = fc.nat(NR_FILES - 1);
const page = fc.nat(NR_PAGES - 1);
const byte = fc.integer({ min: 1, max: 255 });
const position = fc.oneof(
  fc.nat(NR_PAGES * PAGE - 1),
  page.map((p) => p * PAGE),
);
const length = fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 5 * PAGE }));

const write = fc.tuple(whichFile, who, position, length, byte).map(
  ([f, o, pos, len, value]): Command =>
    async (w) => {
      const file = w.model[f]!;
      const src = Uint8Array.from({ length: Math.min(len, NR_PAGES * PAGE - pos) }, (_, i) => value + (i >>> 8));
      const nr = await attempt(TROUBLE, () => w.files[f]![o]!.write(src, pos));
      if (typeof nr === 'string') return expectTrouble(w);
      if (nr < src.length) expectTrouble(w);
      file.bytes.set(src.subarray(0, nr), pos);
      file.size = Math.max(file.size, pos + nr);
    },
);

const read = fc.tuple(whichFile, who, position, length).map(
  ([f, o, pos, len]): Command =>
    async (w) => {
      await readBack(w, f, o, pos, len);
    },
);

async function readBack(w: World, f: number, o: number, pos: number, len: number): Promise<boolean> {
  const file = w.model[f]!;
  const dst = new Uint8Array(len);
  const nr = await attempt(TROUBLE, () => w.files[f]![o]!.read(dst, pos));
  const expected = Math.max(0, Math.min(len, file.size - pos));
  if (typeof nr === 'string' || nr < expected) {
    expectTrouble(w);
    return false;
  }
  expect(nr).toBe(expected);
  expectBytes({ f, pos, len }, dst.subarray(0, nr), file.bytes.subarray(pos, pos + nr));
  return true;
}

/** Writes one byte through a shared mapping, by call or by the external MMU, within the file; beyond its end it is refused. */
const mapWrite = fc.tuple(whichFile, who, page, fc.nat(PAGE - 1), byte, fc.boolean()).map(
  ([f, m, p, offset, value, external]): Command =>
    async (w) => {
      const file = w.model[f]!;
      const at = Math.min(p * PAGE + offset, Math.max(p * PAGE, file.size - 1));
      const va = sharedVa(f, 0) + at;
      const store = () => (external ? w.drivers[m]!.store(va, value) : w.mms[m]!.write(va, Uint8Array.of(value)));
      const result = await attempt([...TROUBLE, 'EFAULT'], store);
      if (p >= endPage(file)) expect(result).toBe('EFAULT');
      else if (typeof result === 'string') expectTrouble(w);
      else file.bytes[at] = value;
    },
);

const mapRead = fc.tuple(whichFile, who, page, fc.boolean()).map(
  ([f, m, p, external]): Command =>
    async (w) => {
      await readMapped(w, w.mms[m]!, f, p);
      if (!external || p >= endPage(w.model[f]!)) return;
      const found = await attempt(TROUBLE, () => w.drivers[m]!.load(sharedVa(f, p)));
      if (typeof found === 'string') expectTrouble(w);
      else expect({ f, p, found }).toEqual({ f, p, found: w.model[f]!.bytes[p * PAGE] });
    },
);

async function readMapped(w: World, mm: Mm, f: number, p: number): Promise<void> {
  const file = w.model[f]!;
  const dst = new Uint8Array(PAGE);
  const result = await attempt([...TROUBLE, 'EFAULT'], () => mm.read(sharedVa(f, p), dst));
  if (p >= endPage(file)) expect(result).toBe('EFAULT');
  else if (typeof result === 'string') expectTrouble(w);
  else expectBytes({ shared: f, p }, dst, file.bytes.subarray(p * PAGE, (p + 1) * PAGE));
}

const privateWrite = fc.tuple(who, page, fc.nat(PAGE - 1), byte).map(
  ([m, p, offset, value]): Command =>
    async (w) => {
      const result = await attempt([...TROUBLE, 'EFAULT'], () =>
        w.mms[m]!.write(privateVa(p) + offset, Uint8Array.of(value)),
      );
      const file = w.model[0]!;
      if (p >= endPage(file)) expect(result).toBe('EFAULT');
      else if (typeof result === 'string') expectTrouble(w);
      else {
        const copy = w.copies[m]!.get(p) ?? file.bytes.slice(p * PAGE, (p + 1) * PAGE);
        copy[offset] = value;
        w.copies[m]!.set(p, copy);
      }
    },
);

const privateRead = fc.tuple(who, page).map(
  ([m, p]): Command =>
    async (w) => {
      await readPrivate(w, w.mms[m]!, m, p);
    },
);

async function readPrivate(w: World, mm: Mm, m: number, p: number): Promise<void> {
  const file = w.model[0]!;
  const dst = new Uint8Array(PAGE);
  const result = await attempt([...TROUBLE, 'EFAULT'], () => mm.read(privateVa(p), dst));
  if (p >= endPage(file)) expect(result).toBe('EFAULT');
  else if (typeof result === 'string') expectTrouble(w);
  else expectBytes({ private: m, p }, dst, w.copies[m]!.get(p) ?? file.bytes.subarray(p * PAGE, (p + 1) * PAGE));
}

const size = fc.oneof(
  fc.nat(NR_PAGES * PAGE),
  page.map((p) => p * PAGE),
  fc.nat(3 * PAGE),
);

const truncate = fc.tuple(whichFile, size).map(
  ([f, newSize]): Command =>
    async (w) => {
      const file = w.model[f]!;
      const result = await attempt(TROUBLE, () => w.files[f]![0]!.truncate(newSize));
      const now = w.files[f]![0]!.sizeBytes;
      if (typeof result === 'string') {
        expectTrouble(w);
        expect([file.size, newSize]).toContain(now);
      } else expect(now).toBe(newSize);
      if (now < file.size) file.bytes.fill(0, now);
      file.size = now;
      if (f === 0)
        for (const copies of w.copies) for (const p of copies.keys()) if (p >= endPage(file)) copies.delete(p);
    },
);

const punch = fc.tuple(whichFile, position, length).map(
  ([f, pos, len]): Command =>
    async (w) => {
      const file = w.model[f]!;
      const result = await attempt(TROUBLE, () => w.files[f]![0]!.fallocate(PUNCH, pos, len));
      if (typeof result !== 'string') file.bytes.fill(0, pos, pos + len);
      else {
        expectTrouble(w);
        await adopt(w, f, pos, Math.min(pos + len, file.size));
      }
    },
);

/** What is in the range is unknown: the model takes it over. */
async function adopt(w: World, f: number, start: number, end: number): Promise<void> {
  const dst = new Uint8Array(Math.max(0, end - start));
  let nr: number | string = 'EIO';
  for (let i = 0; i < 200 && nr !== dst.length; i++)
    nr = await attempt(TROUBLE, () => w.files[f]![0]!.read(dst, start));
  expect(nr).toBe(dst.length);
  w.model[f]!.bytes.set(dst, start);
}

/** An opener is told of a lost write exactly once, and of nothing else. */
const fsync = fc.tuple(fc.nat(1), who, fc.boolean()).map(
  ([f, o, byMsync]): Command =>
    async (w) => {
      const va = sharedVa(f, 0);
      const call = () => (byMsync ? w.mms[o]!.msync(va, NR_PAGES * PAGE, 4) : w.files[f]![o]!.fsync());
      const result = await attempt(TROUBLE, call);
      const lost = w.stores[f]!.nrFailedWrites;
      if (!w.otherFailures) expect({ f, told: typeof result === 'string' }).toEqual({ f, told: lost > w.told[f]![o]! });
      w.told[f]![o] = lost;
      if (typeof result !== 'string' && !w.faulty) expectStored(w, f);
    },
);

function expectStored(w: World, f: number): void {
  const file = w.model[f]!;
  const stored = w.stores[f]!.inner.contents();
  expect(stored.length).toBe(file.size);
  expectBytes({ stored: f }, stored, file.bytes);
}

const shrink = fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()).map(
  ([blockable, sync, desperate]): Command =>
    async (w) => {
      w.host.reclaim.shrink(blockable, sync, desperate);
      w.host.reclaim.shrink(blockable, sync, desperate);
    },
);

const compact = fc.constant<Command>(async (w) => {
  w.host.compact();
});

const refusing = fc.boolean().map(
  (on): Command =>
    async (w) => {
      w.drivers[1]!.refuse = on;
    },
);

/** Transfers that begin now are still under way while the next steps run into them. */
const hold = fc.boolean().map(
  (writes): Command =>
    async (w) => {
      const held = [...w.stores, w.swap];
      for (const device of held) device.held = true;
      if (writes) void w.host.sync();
      else w.host.reclaim.shrink(true, false, true);
      await new Promise((resolve) => setImmediate(resolve));
      for (const device of held) device.held = false;
      setTimeout(() => {
        for (const device of held) device.pump();
      }, 2);
    },
);

const remap = fc.tuple(whichFile, who, fc.boolean()).map(
  ([f, m, isPrivate]): Command =>
    async (w) => {
      if (isPrivate) mapPrivate(w, m);
      else {
        w.mms[m]!.munmap(sharedVa(f, 3), 5 * PAGE);
        mapShared(w, m, f);
      }
    },
);

const dontneed = fc.tuple(who, page).map(
  ([m, p]): Command =>
    async (w) => {
      w.mms[m]!.madviseDontneed(privateVa(p), PAGE);
      w.copies[m]!.delete(p);
      w.mms[m]!.madviseDontneed(sharedVa(0, p), PAGE);
    },
);

/** A child sees what its parent sees, and what it writes to its copies is its own. */
const fork = fc.tuple(who, page, byte).map(
  ([m, p, value]): Command =>
    async (w) => {
      const child = w.mms[m]!.fork();
      for (const q of [p, (p + 7) % NR_PAGES]) {
        await readPrivate(w, child, m, q);
        for (let f = 0; f < NR_FILES; f++) await readMapped(w, child, f, q);
      }
      await attempt([...TROUBLE, 'EFAULT'], () => child.write(privateVa(p), Uint8Array.of(value)));
      await readPrivate(w, w.mms[m]!, m, p);
      checkHost(w.host);
      child.exit();
    },
);

const failWrites = fc.tuple(fc.nat(1), fc.nat(3), fc.boolean()).map(
  ([f, n, short]): Command =>
    async (w) => {
      w.faulty = true;
      if (short) w.stores[f]!.shortWrites = n;
      else w.stores[f]!.failWrites = n;
      w.swap.failWrites = n;
    },
);

const failReads = fc.tuple(fc.nat(1), fc.nat(3), fc.boolean()).map(
  ([f, n, short]): Command =>
    async (w) => {
      w.faulty = true;
      if (short) w.stores[f]!.shortReads = n;
      else w.stores[f]!.failReads = n;
    },
);

const failOther = fc.tuple(fc.nat(1), fc.nat(2), fc.nat(2)).map(
  ([f, n, what]): Command =>
    async (w) => {
      w.faulty = true;
      w.otherFailures = true;
      if (what === 0) w.stores[f]!.failTruncates = n;
      else if (what === 1) w.stores[f]!.failPunches = n;
      else w.stores[f]!.failSyncs = n;
    },
);

/** N15: a cached page that is clean and at rest is what its store holds, and zeros behind that. */
function checkClean(w: World): void {
  const { frames, u8 } = w.host;
  for (const [f, store] of w.stores.entries()) {
    const as = w.files[f]![0]!.mapping;
    const stored = store.inner.contents();
    for (let p = 0; p < as.endIndex; p++) {
      const pfn = as.pages.get(p);
      if (pfn <= 0 || (frames.flags[pfn]! & (PG_DIRTY | PG_WRITEBACK | PG_LOCKED)) !== 0) continue;
      const expected = new Uint8Array(PAGE);
      expected.set(stored.subarray(p * PAGE, Math.min((p + 1) * PAGE, as.storeBytes)));
      if (as.punching === undefined) expectBytes({ clean: f, p }, u8.subarray(pfn * PAGE, (pfn + 1) * PAGE), expected);
    }
  }
}

const run = (w: World, commands: Command[]): Promise<void> => orHang(w.host, runAll(w, commands));

async function runAll(w: World, commands: Command[]): Promise<void> {
  try {
    for (const command of commands) {
      await command(w);
      checkHost(w.host);
      checkClean(w);
    }
    await settle(w);
    for (let f = 0; f < NR_FILES; f++) expect(await readBack(w, f, 0, 0, NR_PAGES * PAGE)).toBe(true);
    for (const m of [0, 1]) for (let p = 0; p < NR_PAGES; p++) await readPrivate(w, w.mms[m]!, m, p);
    for (const file of w.files.flat()) if (!file.closed) file.close();
    await w.host.stop();
    checkHost(w.host);
    for (const f of [0, 1]) expectStored(w, f);
    expect(w.drivers.map((d) => [d.nrReleases, d.nrStarts - d.nrEnds])).toEqual([
      [1, 0],
      [1, 0],
    ]);
    expect([w.host.frames.nrFree, w.host.swap.nrFree]).toEqual([64, w.host.swap.nrSlots]);
    expect(w.host.tables.bytesInUse).toBe(0);
  } finally {
    for (const device of [...w.stores, w.swap]) device.pump();
  }
}

/** Everything works again: then nothing may be refused any more, and what was written before is stored. */
async function settle(w: World): Promise<void> {
  for (const store of w.stores) {
    store.failReads = store.failWrites = store.shortReads = store.shortWrites = 0;
    store.failTruncates = store.failPunches = store.failSyncs = 0;
    store.pump();
  }
  w.swap.failWrites = 0;
  w.swap.pump();
  w.faulty = false;
  for (const f of [0, 1]) {
    for (const o of [0, 1]) await attempt(TROUBLE, () => w.files[f]![o]!.fsync());
    expect(await attempt(TROUBLE, () => w.files[f]![0]!.fsync())).toBe(undefined);
    expectStored(w, f);
  }
}

const healthy = [
  write,
  write,
  read,
  mapWrite,
  mapWrite,
  mapRead,
  privateWrite,
  privateRead,
  truncate,
  punch,
  fsync,
  shrink,
  shrink,
  compact,
  refusing,
  hold,
  remap,
  dontneed,
  fork,
];

const numRuns = Number(process.env.MODEL_RUNS ?? 50);

test('N15 N23 N29: files, mappings and copies agree with the model, and the stores with the files', async () => {
  const commands = fc.array(fc.oneof(...healthy), { minLength: 5, maxLength: 50 });
  const property = fc.asyncProperty(commands, (c) => run(newWorld(1024), c));
  await fc.assert(property, { numRuns });
});

test('N15 N27: with transfers that fail or stop half way nothing is lost, and each opener is told', async () => {
  const commands = fc.array(fc.oneof(...healthy, fsync, failWrites, failWrites, failReads), {
    minLength: 5,
    maxLength: 50,
  });
  const property = fc.asyncProperty(commands, (c) => run(newWorld(1024), c));
  await fc.assert(property, { numRuns });
});

test('N23 N29: with cuts and holes that the store refuses, it catches up', async () => {
  const commands = fc.array(fc.oneof(...healthy, failOther, failOther), { minLength: 5, maxLength: 50 });
  const property = fc.asyncProperty(commands, (c) => run(newWorld(1024), c));
  await fc.assert(property, { numRuns });
});

test('N26: with a swap that is too small, nothing hangs and nothing is lost', async () => {
  const commands = fc.array(fc.oneof(...healthy), { minLength: 5, maxLength: 50 });
  const property = fc.asyncProperty(commands, (c) => run(newWorld(8), c));
  await fc.assert(property, { numRuns });
});
