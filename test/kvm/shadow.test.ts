import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RAM_BASE } from '../../src/machine/index.js';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../src/mm/index.js';
import { CSR } from '../../src/riscv/index.js';
import { FIRST_DATA_PAGE, PAGE, STOP, TestVm } from './testvm.js';

/**
 * Shadow paging against a model: a guest with two address spaces over the same pages loads, stores, and changes its page
 * tables, while the host takes pages away in every way that there is. After each step the whole state is checked.
 *
 * In fewer frames than the guest has pages, with and without enough shadow pages for its two roots.
 */

const RAM_PAGES = 96;
const FRAMES = 64;
const FEW_SHADOW_PAGES = 8;
const ENOUGH_SHADOW_PAGES = 16;
/** Virtual pages that are mapped to data pages, from this index of the last-level table on. */
const FIRST_VIRTUAL = 256;
const NR_VIRTUAL = 8;
const ROOTS = [{ root: 4, middle: 5, leaf: 6 } as const, { root: 7, middle: 8, leaf: 9 } as const];
const SATP_SV39 = 8n << 60n;
const V = 1n;
const RW = 6n;
const X = 8n;
const AD = 0xc0n;
const G = 32n;
/** Page of RAM for one more table. */
const SPARE = 10;

class World {
  readonly t: TestVm;
  /** Words of each data page, by page and word. */
  readonly memory = new Map<string, bigint>();
  /** Data page of each virtual page, for each root. */
  readonly maps: number[][] = [[], []];
  space = 0;

  constructor(t: TestVm) {
    this.t = t;
  }

  private pte(page: number, flags: bigint): bigint {
    return (BigInt(this.t.gpa(page) / PAGE) << 10n) | flags | V;
  }

  leafPte(page: number): bigint {
    return this.pte(page, RW | AD);
  }

  static async create(nrShadowPages: number): Promise<World> {
    const t = await TestVm.create({ frames: FRAMES, ramPages: RAM_PAGES, nrShadowPages });
    const world = new World(t);
    for (const [space, { root, middle, leaf }] of ROOTS.entries()) {
      const put = (page: number, index: number, pte: bigint) =>
        t.mm.write(t.at(page) + index * 8, new Uint8Array(BigUint64Array.of(pte).buffer));
      await put(root, STOP / 2 ** 30, (BigInt(STOP / PAGE) << 10n) | RW | AD | V);
      await put(root, 2, world.pte(middle, 0n));
      await put(middle, 0, world.pte(leaf, 0n));
      for (let page = 0; page < FIRST_DATA_PAGE; page++) await put(leaf, page, world.pte(page, RW | X | AD));
      for (let v = 0; v < NR_VIRTUAL; v++) {
        world.maps[space]!.push(FIRST_DATA_PAGE + v);
        await put(leaf, FIRST_VIRTUAL + v, world.pte(FIRST_DATA_PAGE + v, RW));
      }
    }
    world.switchTo(0);
    return world;
  }

  switchTo(space: number): void {
    this.space = space;
    const satp = SATP_SV39 | (BigInt(space) << 44n) | BigInt(this.t.gpa(ROOTS[space]!.root) / PAGE);
    const { csr } = this.t.vcpu.hart;
    csr.write(CSR.satp, Number(BigInt.asIntN(32, satp)), Number(BigInt.asIntN(32, satp >> 32n)));
  }

  va(v: number): number {
    return this.t.gpa(FIRST_VIRTUAL + v);
  }

  key(v: number, word: number): string {
    return `${this.maps[this.space]![v]}:${word}`;
  }

  dropPage(page: number): void {
    for (const key of this.memory.keys()) if (key.startsWith(`${page}:`)) this.memory.delete(key);
  }
}

type Step = (w: World) => Promise<void> | void;

const virtual = fc.nat(NR_VIRTUAL - 1);
/** Few, so that what is loaded was mostly stored. */
const word = fc.constantFrom(0, 1, PAGE / 8 - 1);
const dataPage = fc.integer({ min: FIRST_DATA_PAGE, max: RAM_PAGES - 1 });
const value = fc.bigInt({ min: 1n, max: 2n ** 64n - 1n });

const load = fc.tuple(virtual, word).map(
  ([v, k]): Step =>
    async (w) => {
      expect(await w.t.load(w.va(v) + k * 8)).toBe(w.memory.get(w.key(v, k)) ?? 0n);
    },
);

const store = fc.tuple(virtual, word, value).map(
  ([v, k, x]): Step =>
    async (w) => {
      await w.t.store(w.va(v) + k * 8, x);
      w.memory.set(w.key(v, k), x);
    },
);

/** The guest changes a pte of the present space, and fences. */
const remap = fc.tuple(virtual, dataPage).map(
  ([v, page]): Step =>
    async (w) => {
      await w.t.store(w.t.gpa(ROOTS[w.space]!.leaf) + (FIRST_VIRTUAL + v) * 8, w.leafPte(page));
      await w.t.fence();
      w.maps[w.space]![v] = page;
    },
);

const switchSpace = fc.nat(1).map(
  (space): Step =>
    (w) =>
      w.switchTo(space),
);

const dontneed = fc.tuple(dataPage, fc.integer({ min: 1, max: 8 })).map(
  ([page, n]): Step =>
    (w) => {
      const end = Math.min(page + n, RAM_PAGES);
      w.t.mm.madviseDontneed(w.t.at(page), (end - page) * PAGE);
      for (let p = page; p < end; p++) w.dropPage(p);
    },
);

const hostWrite = fc.tuple(dataPage, word, value).map(
  ([page, k, x]): Step =>
    async (w) => {
      await w.t.mm.write(w.t.at(page) + k * 8, new Uint8Array(BigUint64Array.of(x).buffer));
      w.memory.set(`${page}:${k}`, x);
    },
);

const reclaim = fc.boolean().map(
  (desperate): Step =>
    (w) => {
      w.t.host.reclaim.shrink(true, false, desperate);
    },
);

const moveSlot: fc.Arbitrary<Step> = fc.constant((w: World) => {
  w.t.deleteSlot();
  w.t.addSlot();
});

const age: fc.Arbitrary<Step> = fc.constant((w: World) => {
  w.t.mm.notifiers.clearFlushYoung(w.t.hva, w.t.at(RAM_PAGES));
});

const step = fc.oneof(
  { weight: 6, arbitrary: load },
  { weight: 6, arbitrary: store },
  { weight: 2, arbitrary: remap },
  { weight: 2, arbitrary: switchSpace },
  { weight: 2, arbitrary: dontneed },
  { weight: 1, arbitrary: hostWrite },
  { weight: 2, arbitrary: reclaim },
  { weight: 1, arbitrary: moveSlot },
  { weight: 1, arbitrary: age },
);

const shadowPages = fc.constantFrom(FEW_SHADOW_PAGES, ENOUGH_SHADOW_PAGES);

test('S9 N3 N5 N8 N15: shadow paging agrees with the model whatever the host takes away', async () => {
  await fc.assert(
    fc.asyncProperty(shadowPages, fc.array(step, { minLength: 40, maxLength: 120 }), async (nrShadowPages, steps) => {
      const w = await World.create(nrShadowPages);
      for (const run of steps) {
        await run(w);
        w.t.check();
      }
      w.t.destroy();
      await w.t.host.stop();
      expect(w.t.host.stats().framesFree).toBe(FRAMES);
    }),
    { numRuns: 25, ...(process.env.SEED && { seed: Number(process.env.SEED) }) },
  );
});

test('N14: the use of a page through a shadow entry shows once, and again after the next use', async () => {
  const w = await World.create(ENOUGH_SHADOW_PAGES);
  const young = () => w.t.mm.notifiers.clearFlushYoung(w.t.at(FIRST_DATA_PAGE), w.t.at(FIRST_DATA_PAGE + 1));
  await w.t.load(w.va(0));
  expect([young(), young()]).toEqual([true, false]);
  await w.t.load(w.va(0));
  expect([young(), young()]).toEqual([true, false]);
  w.t.destroy();
});

test('N14: the use of a page through a shadow entry shows to who only asks, and to idle page tracking, each time', async () => {
  const w = await World.create(ENOUGH_SHADOW_PAGES);
  const { mm, host } = w.t;
  const young = () => mm.notifiers.testYoung(w.t.at(FIRST_DATA_PAGE), w.t.at(FIRST_DATA_PAGE + 1));
  await w.t.store(w.va(0), 1n);
  const { pfn } = mm.pagemap(w.t.at(FIRST_DATA_PAGE), 1)[0]!;
  host.young.testAndClear(pfn);
  expect(young()).toBe(false);
  for (let use = 0; use < 3; use++) {
    host.pageIdle.setIdle(pfn);
    expect([young(), host.pageIdle.testIdle(pfn)]).toEqual([false, true]);
    await w.t.load(w.va(0));
    expect([young(), young(), host.pageIdle.testIdle(pfn), young()]).toEqual([true, true, false, false]);
    w.t.check();
  }
  w.t.destroy();
});

test('the guest sees a pte that it changed once it has fenced', async () => {
  const w = await World.create(ENOUGH_SHADOW_PAGES);
  await w.t.store(w.va(0), 1n);
  await w.t.store(w.va(1), 2n);
  await w.t.store(w.t.gpa(ROOTS[0].leaf) + FIRST_VIRTUAL * 8, w.leafPte(FIRST_DATA_PAGE + 1));
  await w.t.fence();
  expect(await w.t.load(w.va(0))).toBe(2n);
  w.t.destroy();
});

/** Page tables whose code is global, so that a change of satp takes nothing from the supervisor's TLB for its sake. */
async function globalWorld(): Promise<World> {
  const w = await World.create(ENOUGH_SHADOW_PAGES);
  for (const { leaf } of ROOTS)
    for (let page = 0; page < FIRST_DATA_PAGE; page++)
      await w.t.mm.write(w.t.at(leaf) + page * 8, bytesOf(w.leafPte(page) | X | G));
  return w;
}

test('a page that was global and is not any more is not found in other address spaces', async () => {
  const w = await globalWorld();
  const pteOf = (space: 0 | 1) => w.t.at(ROOTS[space].leaf) + FIRST_VIRTUAL * 8;
  const [a, b] = [FIRST_DATA_PAGE, FIRST_DATA_PAGE + 1];
  await w.t.mm.write(w.t.at(a), bytesOf(10n));
  await w.t.mm.write(w.t.at(b), bytesOf(11n));
  for (const space of [0, 1] as const) await w.t.mm.write(pteOf(space), bytesOf(w.leafPte(a) | G));
  expect(await w.t.load(w.va(0))).toBe(10n);
  await w.t.mm.write(pteOf(0), bytesOf(w.leafPte(a)));
  await w.t.mm.write(pteOf(1), bytesOf(w.leafPte(b)));
  await w.t.fence();
  expect(await w.t.load(w.va(0))).toBe(10n);
  w.switchTo(1);
  expect(await w.t.load(w.va(0))).toBe(11n);
  w.t.destroy();
});

test('a superpage that was global and is not any more is not found in other address spaces', async () => {
  const w = await globalWorld();
  const pteOf = (space: 0 | 1) => w.t.at(ROOTS[space].middle) + 8;
  const superpage = (flags: bigint) => bytesOf((BigInt(RAM_BASE / PAGE) << 10n) | RW | AD | V | flags);
  const va = w.t.gpa(512 + FIRST_DATA_PAGE);
  await w.t.mm.write(w.t.at(FIRST_DATA_PAGE), bytesOf(10n));
  await w.t.mm.write(w.t.at(FIRST_DATA_PAGE + 1), bytesOf(11n));
  for (const space of [0, 1] as const) await w.t.mm.write(pteOf(space), superpage(G));
  expect(await w.t.load(va)).toBe(10n);
  await w.t.mm.write(pteOf(0), superpage(0n));
  // The other space has a table of single pages there, and another page.
  await w.t.mm.write(pteOf(1), bytesOf((BigInt(w.t.gpa(SPARE) / PAGE) << 10n) | V));
  await w.t.mm.write(w.t.at(SPARE) + FIRST_DATA_PAGE * 8, bytesOf(w.leafPte(FIRST_DATA_PAGE + 1)));
  await w.t.fence();
  expect(await w.t.load(va)).toBe(10n);
  w.switchTo(1);
  expect(await w.t.load(va)).toBe(11n);
  w.t.destroy();
});

test('N3: a translation whose shadow entry was evicted leaves the TLB when the frame goes, though its rights were raised between', async () => {
  const w = await World.create(3);
  // Two places of one page; the first is only read.
  await w.t.mm.write(w.t.at(ROOTS[0].leaf) + (FIRST_VIRTUAL + 3) * 8, bytesOf(w.leafPte(FIRST_DATA_PAGE + 2)));
  await w.t.mm.write(w.t.at(FIRST_DATA_PAGE + 2), bytesOf(4n));
  // All of RAM once more, by a superpage of 1 GiB, whose shadow pages take the place of others.
  await w.t.mm.write(w.t.at(ROOTS[0].root) + 3 * 8, bytesOf((BigInt(RAM_BASE / PAGE) << 10n) | RW | AD | V));
  expect(await w.t.load(w.va(2))).toBe(4n);
  await w.t.load(3 * 2 ** 30 + (FIRST_DATA_PAGE + 5) * PAGE);
  expect(w.t.vm.shadow.stats().evictions).toBeGreaterThan(0);
  await w.t.store(w.va(3), 5n);
  w.t.mm.madviseDontneed(w.t.at(FIRST_DATA_PAGE + 2), PAGE);
  w.t.check();
  expect(await w.t.load(w.va(2))).toBe(0n);
  w.t.destroy();
});

test('what was read from page tables in a memslot is read again when the memslot is another', async () => {
  const w = await World.create(ENOUGH_SHADOW_PAGES);
  const { mm, vm } = w.t;
  const table = ROOTS[0].leaf;
  const put = (slot: number, page: number, nrPages: number, userspaceAddr: number) =>
    vm.setUserMemoryRegion({ slot, guestPhysAddr: w.t.gpa(page), memorySize: nrPages * PAGE, userspaceAddr });
  w.t.deleteSlot();
  put(0, 0, table, w.t.at(0));
  put(1, table, 1, w.t.at(table));
  put(2, table + 1, RAM_PAGES - table - 1, w.t.at(table + 1));
  await w.t.store(w.va(0), 1n);
  await w.t.store(w.va(1), 2n);
  const bytes = new Uint8Array(PAGE);
  await mm.read(w.t.at(table), bytes);
  bytes.set(bytesOf(w.leafPte(FIRST_DATA_PAGE + 1)), FIRST_VIRTUAL * 8);
  const other = mm.mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  await mm.write(other, bytes);
  put(1, table, 0, w.t.at(table));
  put(1, table, 1, other);
  expect(await w.t.load(w.va(0))).toBe(2n);
  w.t.check();
  w.t.destroy();
});

function bytesOf(word: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(word).buffer);
}
