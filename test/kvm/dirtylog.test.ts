import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import {
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  KVM_DIRTY_LOG_INITIALLY_SET,
  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
  KVM_MEM_LOG_DIRTY_PAGES,
} from '../../src/kvm/index.js';
import { DATA_BASE, SlotWorld, TABLE_PAGE } from './slotworld.js';
import { PAGE } from './testvm.js';

/** The dirty log: its interface, and random writers against who copies what it says. */

const LOG = KVM_MEM_LOG_DIRTY_PAGES;
const NR_PAGES = 70;
const worlds: SlotWorld[] = [];

async function newWorld(nrPages = NR_PAGES): Promise<SlotWorld> {
  const world = await SlotWorld.create(nrPages);
  worlds.push(world);
  return world;
}

afterEach(() => {
  for (const world of worlds.splice(0)) world.destroy();
});

function pagesOf(bitmap: Uint8Array): number[] {
  return [...Array(bitmap.length * 8).keys()].filter((page) => ((bitmap[page >>> 3]! >>> (page & 7)) & 1) === 1);
}

function bitmapOf(nrPages: number, pages: readonly number[]): Uint8Array {
  const bitmap = new Uint8Array(Math.ceil(nrPages / 64) * 8);
  for (const page of pages) bitmap[page >>> 3]! |= 1 << (page & 7);
  return bitmap;
}

test('what KVM refuses is refused', async () => {
  const { t, ...w } = await newWorld();
  expect(() => t.vm.getDirtyLog(32)).toThrow('EINVAL: getDirtyLog: slot 32 must be from 0 to 31');
  expect(() => t.vm.getDirtyLog(5)).toThrow('ENOENT: getDirtyLog: slot 5 must exist');
  expect(() => t.vm.getDirtyLog(1)).toThrow('ENOENT: getDirtyLog: slot 1 must exist, with KVM_MEM_LOG_DIRTY_PAGES');
  t.vm.setUserMemoryRegion({ ...w.region, flags: LOG });
  const clear =
    (first: number, nrPages: number, bytes = 16) =>
    () =>
      t.vm.clearDirtyLog(1, first, nrPages, new Uint8Array(bytes));
  expect(clear(32, 32)).toThrow("EINVAL: clearDirtyLog: first 32 must be a multiple of 64 in the slot's 70 pages");
  expect(clear(128, 0)).toThrow('EINVAL: clearDirtyLog: first 128');
  expect(clear(64, 7)).toThrow('nrPages 7 must be at most the 6 from page 64 on');
  expect(clear(0, 32)).toThrow("nrPages 32 must be a multiple of 64, or reach the slot's end");
  expect(clear(0, 70, 8)).toThrow('bitmap of 8 bytes must have a bit for each of 70 pages');
  expect(clear(0, 64, 8)).not.toThrow();
  expect(clear(64, 6, 1)).not.toThrow();
  expect(t.kvm.checkExtension(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)).toBe(3);
  expect(() => t.vm.enableCap(1, 0)).toThrow('EINVAL: enableCap: capability 1 must be 168');
  expect(() => t.vm.enableCap(168, KVM_DIRTY_LOG_INITIALLY_SET)).toThrow('EINVAL: enableCap: flags 2');
});

test('N15: stores show once, at their guest frame, with and without paging, whatever was writable before', async () => {
  const w = await newWorld();
  await w.t.store(w.gpa(69), 1n);
  w.set({ flags: LOG });
  expect(w.t.vm.getDirtyLog(1)).toEqual(bitmapOf(NR_PAGES, []));
  for (const paging of [false, true]) {
    if (paging) await w.pagingOn();
    for (let round = 0; round < 3; round++) {
      for (const page of [0, 31, 32, 69]) await w.t.store(w.gpa(page) + 16, 1n);
      await w.t.store(w.gpa(32) + 8, 2n);
      await w.t.load(w.gpa(40));
      w.t.check();
      expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([0, 31, 32, 69]);
      w.t.check();
    }
  }
  // A store over two pages is one to both.
  await w.t.store(w.gpa(11) - 4, 1n);
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([10, 11]);
});

test("N15: the walker's accessed and dirty bits dirty the guest's table", async () => {
  const w = await newWorld();
  const region = { slot: 0, guestPhysAddr: w.t.gpa(0), memorySize: w.t.ramPages * PAGE, userspaceAddr: w.t.hva };
  w.t.vm.setUserMemoryRegion({ ...region, flags: LOG });
  await w.pagingOn();
  w.t.vm.getDirtyLog(0);
  await w.t.load(w.t.gpa(20));
  expect(pagesOf(w.t.vm.getDirtyLog(0))).toEqual([]);
  await w.t.load(w.gpa(3));
  expect(pagesOf(w.t.vm.getDirtyLog(0))).toEqual([TABLE_PAGE]);
  await w.t.store(w.gpa(3), 1n);
  expect(pagesOf(w.t.vm.getDirtyLog(0))).toEqual([TABLE_PAGE]);
  await w.t.store(w.gpa(4), 1n);
  expect(pagesOf(w.t.vm.getDirtyLog(0))).toEqual([]);
});

test('what the host writes for the guest is dirty, in each slot that shows the page', async () => {
  const w = await newWorld();
  w.set({ flags: LOG });
  w.t.vm.setUserMemoryRegion({ slot: 2, flags: LOG, guestPhysAddr: 0, memorySize: 8 * PAGE, userspaceAddr: w.at(10) });
  await w.t.vm.sbi.writeGuest(BigInt(w.gpa(12) - 1), new Uint8Array(2));
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([11, 12]);
  expect(pagesOf(w.t.vm.getDirtyLog(2))).toEqual([1, 2]);
  // By the guest: at its own place alone, as KVM has it.
  await w.t.store(3 * PAGE, 1n);
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([]);
  expect(pagesOf(w.t.vm.getDirtyLog(2))).toEqual([3]);
});

test('M34: the log goes with a slot that moves, and begins anew with one that was deleted or logged again', async () => {
  const w = await newWorld();
  w.set({ flags: LOG });
  await w.t.store(w.gpa(5), 1n);
  w.set({ guestPhysAddr: DATA_BASE + 0x10_0000 });
  await w.t.store(w.gpa(6), 1n);
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([5, 6]);
  await w.t.store(w.gpa(7), 1n);
  w.set({ flags: 0 });
  await w.t.store(w.gpa(8), 1n);
  w.set({ flags: LOG });
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([]);
  await w.t.store(w.gpa(8), 1n);
  w.delete();
  w.set({});
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([]);
  await w.t.store(w.gpa(8), 2n);
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([8]);
});

test('KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: what is asked is not cleared, what is cleared shows again', async () => {
  const w = await newWorld();
  w.t.vm.enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
  w.set({ flags: LOG });
  for (const page of [1, 5, 33, 66]) await w.t.store(w.gpa(page), 1n);
  for (let n = 0; n < 2; n++) expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([1, 5, 33, 66]);
  // Pages that are named and clean, or set and not named, stay as they are.
  w.t.vm.clearDirtyLog(1, 0, 64, bitmapOf(64, [0, 1]));
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([5, 33, 66]);
  w.t.vm.clearDirtyLog(1, 64, 6, Uint8Array.of(0xff));
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([5, 33]);
  w.t.check();
  await w.t.store(w.gpa(66), 2n);
  await w.t.store(w.gpa(1), 2n);
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([1, 5, 33, 66]);
});

test('KVM_DIRTY_LOG_INITIALLY_SET: all pages are dirty at first, and the guest takes no fault for it', async () => {
  const w = await newWorld();
  const flags = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
  w.t.vm.enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags);
  await w.t.store(w.gpa(1), 1n);
  w.set({ flags: LOG });
  const all = [...Array(NR_PAGES).keys()];
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual(all);
  const { minor } = w.t.vm.faults;
  await w.t.store(w.gpa(1), 2n);
  expect(w.t.vm.faults.minor).toBe(minor);
  w.t.vm.clearDirtyLog(1, 0, NR_PAGES, bitmapOf(NR_PAGES, all));
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([]);
  await w.t.store(w.gpa(1), 3n);
  expect(pagesOf(w.t.vm.getDirtyLog(1))).toEqual([1]);
});

/** Who copies the guest's data by its log, as live migration does, and what the log should have said. */
class Migrator {
  readonly w: SlotWorld;
  readonly copy: Uint8Array;
  readonly written = new Set<number>();
  manual = false;

  constructor(w: SlotWorld) {
    this.w = w;
    this.copy = new Uint8Array(NR_PAGES * PAGE);
  }

  private async memory(): Promise<Uint8Array> {
    const bytes = new Uint8Array(NR_PAGES * PAGE);
    await this.w.t.mm.read(this.w.hva, bytes);
    return bytes;
  }

  /** The slot is logged from now on; what was there before is copied. */
  async start(): Promise<void> {
    this.w.set({ flags: LOG });
    if (this.manual) this.w.t.vm.clearDirtyLog(1, 0, NR_PAGES, new Uint8Array(16).fill(0xff));
    this.written.clear();
    this.copy.set(await this.memory());
  }

  async sync(): Promise<void> {
    const { vm } = this.w.t;
    const bitmap = vm.getDirtyLog(1);
    if (this.manual) vm.clearDirtyLog(1, 0, NR_PAGES, bitmap);
    const memory = await this.memory();
    const pages = pagesOf(bitmap);
    for (const page of pages) this.copy.set(memory.subarray(page * PAGE, (page + 1) * PAGE), page * PAGE);
    expect(pages).toEqual([...this.written].sort((a, b) => a - b));
    expect(Buffer.compare(this.copy, memory), 'a write is lost').toBe(0);
    this.written.clear();
  }
}

type Step = (m: Migrator) => Promise<void> | void;
const page = fc.nat(NR_PAGES - 1);
const word = fc.constantFrom(0, 8, PAGE - 8);
const value = fc.bigInt({ min: 1n, max: 2n ** 64n - 1n });

const store = fc.tuple(page, word, value).map(
  ([p, k, x]): Step =>
    async (m) => {
      await m.w.t.store(m.w.gpa(p) + k, x);
      m.written.add(p);
    },
);
const load = page.map(
  (p): Step =>
    async (m) =>
      void (await m.w.t.load(m.w.gpa(p))),
);
const dma = fc.tuple(page, value).map(
  ([p, x]): Step =>
    async (m) => {
      await m.w.t.vm.sbi.writeGuest(BigInt(m.w.gpa(p)), new Uint8Array(BigUint64Array.of(x).buffer));
      m.written.add(p);
    },
);
const host: fc.Arbitrary<Step> = fc.constantFrom(
  (m: Migrator) => void m.w.t.host.reclaim.shrink(true, false, true),
  (m: Migrator) => void m.w.t.mm.notifiers.clearFlushYoung(m.w.hva, m.w.at(NR_PAGES)),
  (m: Migrator) => void m.w.t.host.compact(),
  (m: Migrator) => m.w.t.mm.fork().exit(),
);
const paging = fc.boolean().map(
  (on): Step =>
    (m) =>
      on ? m.w.pagingOn() : m.w.pagingOff(),
);
const move = fc.nat(7).map(
  (n): Step =>
    (m) =>
      m.w.set({ guestPhysAddr: DATA_BASE + n * NR_PAGES * PAGE }),
);
const restart: fc.Arbitrary<Step> = fc.constant(async (m: Migrator) => {
  m.w.set({ flags: 0 });
  await m.start();
});
const step = fc.oneof(
  { weight: 8, arbitrary: store },
  { weight: 3, arbitrary: load },
  { weight: 2, arbitrary: dma },
  { weight: 3, arbitrary: host },
  { weight: 1, arbitrary: paging },
  { weight: 1, arbitrary: move },
  { weight: 1, arbitrary: restart },
  { weight: 4, arbitrary: fc.constant((m: Migrator) => m.sync()) },
);
const modes = fc.constantFrom(0, 1, 3);

test('M34 N15: random writes against the log: none is lost, none is at another place', async () => {
  await fc.assert(
    fc.asyncProperty(modes, fc.array(step, { minLength: 40, maxLength: 100 }), async (mode, steps) => {
      const m = new Migrator(await SlotWorld.create(NR_PAGES, { frames: 96 }));
      m.manual = mode !== 0;
      m.w.t.vm.enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, mode);
      await m.start();
      for (const run of steps) {
        await run(m);
        m.w.t.check();
      }
      await m.sync();
      m.w.destroy();
    }),
    { numRuns: 25, ...(process.env.SEED && { seed: Number(process.env.SEED) }) },
  );
});
