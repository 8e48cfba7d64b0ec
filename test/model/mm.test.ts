import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KernelError } from '../../src/base/index.js';
import { checkHost, FAULT_OOM, Host, type Mm, type OomMode } from '../../src/mm/index.js';
import { FaultySwap } from '../mm/faultyswap.js';
import { TestDriver } from '../mm/testdriver.js';
import { orHang } from './hang.js';

/**
 * Random operations on two mms of one small host, against a naive model: a map from pages to their contents. After each step the
 * whole state is checked. Both mms have an external MMU, and the second a driver that may refuse. Transfers fail now and then; a page that
 * was damaged in swap may answer EHWPOISON, and stays lost; nothing else may differ from the model, ever.
 */

const PAGE = 4096;
const BASE = 0x1000_0000;
/** Pages that operations work on: more than there are frames. */
const NR_PAGES = 200;
const PROT_RW = 3;
const MAP = 0x22 | 0x10;

interface World {
  host: Host;
  swap: FaultySwap;
  mms: Mm[];
  drivers: TestDriver[];
  /** Byte of each mapped page, for each mm; undefined: not mapped. */
  model: Map<number, number>[];
  locked: Set<number>[];
  /** Damage was injected: a page may be lost. */
  damaged: boolean;
}

/** With `sameFilled` most pages take no slot: those alone that an external MMU has written a part of. */
function newWorld(nrSlots: number, sameFilled: boolean, oom: OomMode = 'refuse'): World {
  const swap = new FaultySwap(nrSlots);
  const host = new Host({
    sameFilled,
    frames: 64,
    arenaBytes: 65536,
    swap,
    overcommit: 'always',
    debug: true,
    oom,
    defer: (fn) => setImmediate(fn),
  });
  const mms = [host.createMm({ rlimitMemlock: 20 * PAGE }), host.createMm()];
  const drivers = mms.map((mm) => new TestDriver(mm));
  const model = mms.map((mm) => {
    mm.mmap(va(0), NR_PAGES * PAGE, PROT_RW, MAP);
    return new Map([...Array(NR_PAGES).keys()].map((p) => [p, 0]));
  });
  return { host, swap, mms, drivers, model, locked: [new Set(), new Set()], damaged: false };
}

const va = (page: number) => BASE + page * PAGE;

/** Runs `body`; true when it was refused with one of `codes`. */
async function refused(codes: string[], body: () => Promise<void> | void): Promise<boolean> {
  try {
    await body();
    return false;
  } catch (error) {
    if (error instanceof KernelError && codes.includes(error.code)) return true;
    throw error;
  }
}

/** What may stand in the way of an access to a page that is mapped. */
const LOSS = ['EHWPOISON', 'ENOMEM'];
/** To one that is not: the mm may have been killed meanwhile. */
const MISSING = ['EFAULT', 'ENOMEM'];

type Command = (w: World) => Promise<void>;

const page = fc.nat(NR_PAGES - 1);
const who = fc.nat(1);
const span = fc.tuple(page, fc.integer({ min: 1, max: 60 })).map(([a, n]) => [a, Math.min(a + n, NR_PAGES)] as const);
const byte = fc.integer({ min: 1, max: 255 });

const mmap = fc.tuple(who, span).map(
  ([m, [a, b]]): Command =>
    async (w) => {
      w.mms[m]!.mmap(va(a), (b - a) * PAGE, PROT_RW, MAP);
      for (let p = a; p < b; p++) {
        w.model[m]!.set(p, 0);
        w.locked[m]!.delete(p);
      }
    },
);

const munmap = fc.tuple(who, span).map(
  ([m, [a, b]]): Command =>
    async (w) => {
      w.mms[m]!.munmap(va(a), (b - a) * PAGE);
      for (let p = a; p < b; p++) {
        w.model[m]!.delete(p);
        w.locked[m]!.delete(p);
      }
    },
);

const dontneed = fc.tuple(who, span).map(
  ([m, [a, b]]): Command =>
    async (w) => {
      for (let p = a; p < b; p++) {
        const codes = !w.model[m]!.has(p) ? ['ENOMEM'] : w.locked[m]!.has(p) ? ['EINVAL'] : [];
        const no = await refused(codes, () => w.mms[m]!.madviseDontneed(va(p), PAGE));
        expect(no).toBe(codes.length > 0);
        if (!no) w.model[m]!.set(p, 0);
      }
    },
);

/** Writes the pages of a span by address; each page is one byte's repetition. */
const write = fc.tuple(who, span, byte).map(
  ([m, [a, b], value]): Command =>
    async (w) => {
      for (let p = a; p < b; p++) await writePage(w, m, p, (value + p) & 255 || 1);
    },
);

async function writePage(w: World, m: number, p: number, value: number): Promise<void> {
  const mapped = w.model[m]!.has(p);
  const no = await refused(mapped ? LOSS : MISSING, () => w.mms[m]!.write(va(p), new Uint8Array(PAGE).fill(value)));
  if (!mapped) expect(no).toBe(true);
  else if (!no) w.model[m]!.set(p, value);
  else await lost(w, m, p);
}

const read = fc.tuple(who, span).map(
  ([m, [a, b]]): Command =>
    async (w) => {
      for (let p = a; p < b; p++) await readPage(w, m, p);
    },
);

async function readPage(w: World, m: number, p: number): Promise<void> {
  const bytes = new Uint8Array(PAGE);
  const mapped = w.model[m]!.has(p);
  const no = await refused(mapped ? LOSS : MISSING, () => w.mms[m]!.read(va(p), bytes));
  if (!mapped) expect(no).toBe(true);
  else if (no) await lost(w, m, p);
  else expect({ m, p, differs: bytes.findIndex((b) => b !== w.model[m]!.get(p)) }).toEqual({ m, p, differs: -1 });
}

/** A page could not be had: right only after injected damage, with everything full, or when its mm was killed. It begins anew. */
async function lost(w: World, m: number, p: number): Promise<void> {
  const full = w.host.swap.nrFree === 0 || w.host.stats().pinnedFrames > 0;
  expect(w.damaged || full || w.mms[m]!.oomKilled !== undefined).toBe(true);
  if (w.locked[m]!.has(p)) return;
  w.mms[m]!.madviseDontneed(va(p), PAGE);
  w.model[m]!.set(p, 0);
}

/** The external MMU stores to the last byte of each page and takes the byte back, or loads it. */
const external = fc.tuple(who, span, fc.boolean()).map(
  ([m, [a, b], store]): Command =>
    async (w) => {
      for (let p = a; p < b; p++) await externalPage(w, m, p, store);
    },
);

async function externalPage(w: World, m: number, p: number, store: boolean): Promise<void> {
  const driver = w.drivers[m]!;
  const mapped = w.model[m]!.has(p);
  const at = va(p) + PAGE - 1;
  let value = 0;
  const no = await refused(mapped ? LOSS : MISSING, async () => {
    value = await driver.load(at);
    if (store) await driver.store(at, value);
  });
  if (!mapped) expect(no).toBe(true);
  else if (no) await lost(w, m, p);
  else expect({ m, p, value }).toEqual({ m, p, value: w.model[m]!.get(p) });
}

const mlock = fc.tuple(who, span).map(
  ([m, [a, b]]): Command =>
    async (w) => {
      const codes = ['ENOMEM', 'EAGAIN', 'EHWPOISON'];
      const no = await refused(codes, () => w.mms[m]!.mlock(va(a), (b - a) * PAGE));
      const end = firstHole(w, m, a, b);
      if (!no) expect(end).toBe(b);
      // Refused by a limit, nothing more is locked; by a hole, what lies before it is; while waiting, all of it.
      const pages = [...Array(end - a).keys()].map((k) => a + k);
      const isLocked = (p: number) => w.mms[m]!.findVma(va(p))!.locked;
      if (pages.every(isLocked)) for (const p of pages) w.locked[m]!.add(p);
      else expect(pages.filter(isLocked)).toEqual(pages.filter((p) => w.locked[m]!.has(p)));
    },
);

/** The first page of [a, b) that is not mapped, or b. */
function firstHole(w: World, m: number, a: number, b: number): number {
  for (let p = a; p < b; p++) if (!w.model[m]!.has(p)) return p;
  return b;
}

const munlock = fc.tuple(who, span).map(
  ([m, [a, b]]): Command =>
    async (w) => {
      const end = firstHole(w, m, a, b);
      const no = await refused(['ENOMEM'], () => w.mms[m]!.munlock(va(a), (b - a) * PAGE));
      expect(no).toBe(end < b);
      for (let p = a; p < end; p++) w.locked[m]!.delete(p);
    },
);

const shrink = fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()).map(
  ([blockable, sync, desperate]): Command =>
    async (w) => {
      w.host.reclaim.shrink(blockable, sync, desperate);
    },
);

const refusing = fc.boolean().map(
  (on): Command =>
    async (w) => {
      w.drivers[1]!.refuse = on;
    },
);

const hold = fc.boolean().map(
  (on): Command =>
    async (w) => {
      if (on) {
        // What is submitted now stays under way while the next reads and writes by others run into it.
        w.swap.held = true;
        w.host.reclaim.shrink(true, false, true);
        w.host.reclaim.shrink(true, false, true);
        w.swap.held = false;
        setTimeout(() => w.swap.pump(), 2);
      } else w.swap.pump();
    },
);

const failWrites = fc.nat(3).map(
  (n): Command =>
    async (w) => {
      w.swap.failWrites = n;
    },
);

const failReads = fc.nat(2).map(
  (n): Command =>
    async (w) => {
      w.swap.failReads = n;
      if (n > 0) w.damaged = true;
    },
);

const damage = fc.nat(2).map(
  (n): Command =>
    async (w) => {
      w.swap.damage = n;
      if (n > 0) w.damaged = true;
    },
);

/** Two waiters for the same pages at once. */
const together = fc.tuple(who, span).map(
  ([m, [a, b]]): Command =>
    async (w) => {
      await Promise.all([readAll(w, m, a, b), readAll(w, m, a, b)]);
    },
);

async function readAll(w: World, m: number, a: number, b: number): Promise<void> {
  for (let p = a; p < b; p++) {
    const bytes = new Uint8Array(1);
    if (!w.model[m]!.has(p)) continue;
    const no = await refused(LOSS, () => w.mms[m]!.read(va(p) + 7, bytes));
    if (!no) expect(bytes[0]).toBe(w.model[m]!.get(p));
  }
}

/** An mm that was killed because memory ran out is dead to its owner, who begins anew; nobody else has lost anything. */
async function replaceDead(w: World): Promise<void> {
  for (const [m, mm] of w.mms.entries()) {
    if (mm.oomKilled === undefined) continue;
    expect(mm.tryGetPage(va(0) + NR_PAGES * PAGE, 0)).toBe(FAULT_OOM);
    expect(await refused(['ENOMEM'], () => mm.read(va(0), new Uint8Array(1)))).toBe(true);
    mm.exit();
    expect([w.drivers[m]!.nrReleases, w.drivers[m]!.table.size]).toEqual([1, 0]);
    const next = w.host.createMm(m === 0 ? { rlimitMemlock: 20 * PAGE } : {});
    next.mmap(va(0), NR_PAGES * PAGE, PROT_RW, MAP);
    w.mms[m] = next;
    w.drivers[m] = new TestDriver(next);
    w.model[m] = new Map([...Array(NR_PAGES).keys()].map((p) => [p, 0]));
    w.locked[m] = new Set();
  }
}

function checkLocks(w: World): void {
  for (const [m, mm] of w.mms.entries()) {
    const locked = mm.vmas.all().flatMap((v) => (v.locked ? [[v.start, v.end]] : []));
    for (const p of w.locked[m]!) expect(locked.some(([start, end]) => va(p) >= start! && va(p) < end!)).toBe(true);
    expect(mm.vm.locked).toBe(w.locked[m]!.size);
  }
}

const run = (w: World, commands: Command[]): Promise<void> => orHang(w.host, runAll(w, commands));

async function runAll(w: World, commands: Command[]): Promise<void> {
  try {
    for (const command of commands) {
      await command(w);
      checkHost(w.host);
      checkLocks(w);
      await replaceDead(w);
    }
    w.swap.pump();
    for (const [m, model] of w.model.entries()) for (const p of model.keys()) await readPage(w, m, p);
    for (const mm of w.mms) mm.exit();
    await w.host.stop();
    checkHost(w.host);
    expect(w.drivers.map((d) => [d.nrReleases, d.nrStarts - d.nrEnds, d.seq.inProgress])).toEqual([
      [1, 0, 0],
      [1, 0, 0],
    ]);
    expect(w.host.frames.nrFree).toBe(64);
    expect(w.host.swap.nrFree).toBe(w.host.swap.nrSlots);
    expect(w.host.tables.bytesInUse).toBe(0);
    expect(w.host.anonVmas.nrLive).toBe(0);
  } finally {
    w.swap.pump();
  }
}

const healthy = [
  mmap,
  munmap,
  dontneed,
  write,
  write,
  read,
  external,
  external,
  mlock,
  munlock,
  shrink,
  refusing,
  hold,
  together,
];

test('N1 N4 N15 N22: random operations agree with the model, and every counter with the whole state', async () => {
  const commands = fc.array(fc.oneof(...healthy), { minLength: 5, maxLength: 40 });
  const property = fc.asyncProperty(fc.boolean(), commands, (same, c) => run(newWorld(1024, same), c));
  await fc.assert(property, { numRuns: Number(process.env.MODEL_RUNS ?? 20) });
});

test('N27: with transfers that fail and pages that are damaged, nothing else is lost', async () => {
  const commands = fc.array(fc.oneof(...healthy, failWrites, failReads, damage), { minLength: 5, maxLength: 40 });
  const property = fc.asyncProperty(fc.boolean(), commands, (same, c) => run(newWorld(1024, same), c));
  await fc.assert(property, { numRuns: Number(process.env.MODEL_RUNS ?? 20) });
});

test('N26: with a swap that is too small, accesses end in ENOMEM and never hang', async () => {
  const commands = fc.array(fc.oneof(...healthy), { minLength: 5, maxLength: 40 });
  const property = fc.asyncProperty(commands, (c) => run(newWorld(40, false), c));
  await fc.assert(property, { numRuns: Number(process.env.MODEL_RUNS ?? 20) });
});

test('N12 N26: with a swap that is too small the largest mm dies, and the other loses nothing', async () => {
  const commands = fc.array(fc.oneof(...healthy), { minLength: 5, maxLength: 40 });
  const property = fc.asyncProperty(commands, (c) => run(newWorld(40, false, 'kill'), c));
  await fc.assert(property, { numRuns: Number(process.env.MODEL_RUNS ?? 20) });
});
