import { afterEach, expect, test } from 'vitest';
import { KVM_MEM_LOG_DIRTY_PAGES } from '../../src/kvm/index.js';
import { DIRECT_A, DIRECT_V, DIRECT_W } from '../../src/kvm/memslot.js';
import { SPTE_A, SPTE_V, SPTE_W } from '../../src/kvm/spte.js';
import { AD, D, LEAF, PagedVm, R, RAM_PAGES, RW, SUPERPAGE, V } from './pagedvm.js';
import { FIRST_DATA_PAGE as DATA, PAGE } from './testvm.js';

/** What a shadow fault enters beside its own page, and what not. The guest's pages are mapped one to one. */

const worlds: PagedVm[] = [];

async function newWorld(): Promise<PagedVm> {
  const w = await PagedVm.create();
  worlds.push(w);
  return w;
}

afterEach(() => {
  for (const { t } of worlds.splice(0)) {
    t.check();
    t.destroy();
  }
});

const range = (from: number, end: number) => Array.from({ length: end - from }, (_, i) => from + i);

test('faults in sequence enter 8, 16 and more pages that follow, and these fault no more', async () => {
  const w = await newWorld();
  await w.load(20);
  await w.load(21);
  expect(w.entered).toEqual(range(20, 30));
  const { minor } = w.t.vm.faults;
  for (const page of range(22, 30)) expect(Number((await w.load(page)) & 0xffn)).toBe(page);
  expect(w.t.vm.faults.minor).toBe(minor);
  await w.load(30);
  expect(w.entered).toEqual(range(20, 47));
  expect(w.t.vm.shadow.stats().prefetched).toBe(24);
});

test('faults far from each other enter nothing else; near ones the 8 aligned pages around them', async () => {
  const w = await newWorld();
  for (const page of [20, 28, 60, 36]) await w.load(page);
  expect(w.entered).toEqual([20, 28, 36, 60]);
  await w.load(34);
  expect(w.entered).toEqual([20, 28, ...range(32, 40), 60]);
});

test('N14: what was prefetched is old until it is used, and its first use shows', async () => {
  const w = await newWorld();
  await w.load(20);
  await w.load(21);
  expect(w.direct(25) & (DIRECT_V | DIRECT_A)).toBe(DIRECT_V);
  expect(w.sptes(25).map((spte) => spte & (SPTE_V | SPTE_A))).toEqual([SPTE_V]);
  expect([w.young(25), w.young(21), w.young(21)]).toEqual([false, true, false]);
  await w.load(25);
  expect([w.young(25), w.young(25), w.young(26)]).toEqual([true, false, false]);
});

test("the guest's accessed and dirty bits are asked for as by a walk", async () => {
  const w = await newWorld();
  await w.put(LEAF, 22, w.pte(22, RW | D));
  await w.put(LEAF, 23, w.pte(23, RW | (AD & ~D)));
  await w.put(LEAF, 24, w.pte(24, RW | AD) & ~V);
  await w.put(LEAF, 25, w.pte(25, 4n | AD));
  await w.put(LEAF, 26, w.pte(26, AD));
  await w.put(LEAF, 27, w.pte(27, R | AD) | (1n << 60n));
  await w.put(LEAF, 28, w.pte(RAM_PAGES, RW | AD));
  await w.load(20);
  await w.load(21);
  expect(w.entered).toEqual([20, 21, 23, 29]);
  expect(w.sptes(23)[0]! & SPTE_W).toBe(0);
  expect(w.sptes(29)[0]! & SPTE_W).toBe(SPTE_W);
  await w.t.store(w.t.gpa(23), 1n);
  expect((await w.t.load(w.t.gpa(LEAF) + 23 * 8)) & D).toBe(D);
});

test('a store enters only what stores may use', async () => {
  const w = await newWorld();
  await w.put(LEAF, 23, w.pte(23, RW | (AD & ~D)));
  await w.put(LEAF, 24, w.pte(24, R | AD));
  await w.t.store(w.t.gpa(20), 1n);
  await w.t.store(w.t.gpa(21), 1n);
  expect(w.entered).toEqual([20, 21, 22, ...range(25, 30)]);
});

test('what the host does not map is left alone', async () => {
  const w = await newWorld();
  w.t.mm.madviseDontneed(w.t.at(23), PAGE);
  await w.load(20);
  await w.load(21);
  expect(w.entered).toEqual([20, 21, 22, ...range(24, 30)]);
  expect(w.t.mm.pagemap(w.t.at(23), 1)[0]!.present).toBe(false);
});

test('N15: where the slot logs, a page that was not written is not entered writable', async () => {
  const w = await newWorld();
  w.setSlot(KVM_MEM_LOG_DIRTY_PAGES);
  await w.load(20);
  await w.load(21);
  expect(w.entered).toEqual(range(20, 30));
  for (const page of range(20, 30)) expect([w.direct(page) & DIRECT_W, w.sptes(page)[0]! & SPTE_W]).toEqual([0, 0]);
  await w.t.store(w.t.gpa(40), 1n);
  await w.t.store(w.t.gpa(41), 1n);
  expect(w.entered).toEqual([...range(20, 30), 40, 41]);
  w.t.check();
  await w.t.store(w.t.gpa(24), 1n);
  const written = [...w.t.vm.getDirtyLog(0)].flatMap((byte, i) =>
    range(0, 8)
      .filter((k) => (byte >> k) & 1)
      .map((k) => 8 * i + k),
  );
  expect(written.filter((page) => page >= DATA)).toEqual([24, 40, 41]);
});

test('N3 N8: a bracket under way keeps prefetch out', async () => {
  const w = await newWorld();
  const { tables, invalidate } = w.t.vm;
  for (const page of [60, 20]) await w.load(page);
  tables.lock();
  invalidate.begin(w.t.at(24), w.t.at(25));
  tables.unlock();
  await w.load(21);
  expect(w.entered).toEqual([20, 21, 60]);
  tables.lock();
  invalidate.end();
  tables.unlock();
  await w.load(22);
  expect(w.entered).toEqual([...range(20, 39), 60]);
});

test('N3: what was prefetched goes with its page, and with its slot', async () => {
  const w = await newWorld();
  await w.load(20);
  await w.load(21);
  w.t.mm.madviseDontneed(w.t.at(24), 2 * PAGE);
  expect(w.entered).toEqual([...range(20, 24), ...range(26, 30)]);
  w.t.check();
  expect(await w.load(24)).toBe(0n);
  w.t.deleteSlot();
  w.t.check();
  w.t.addSlot();
  expect(w.entered).toEqual([]);
});

test('a fence drops what was prefetched and differs', async () => {
  const w = await newWorld();
  await w.load(20);
  await w.load(21);
  await w.t.store(w.t.gpa(LEAF) + 24 * 8, w.pte(60, RW | AD));
  await w.t.fence();
  expect(await w.load(24)).toBe(60n);
  expect(await w.load(25)).toBe(25n);
});

test('parts of a superpage are entered without a look at ptes, as far as the slot goes', async () => {
  const w = await newWorld();
  await w.t.load(SUPERPAGE + 120 * PAGE);
  await w.t.load(SUPERPAGE + 121 * PAGE);
  expect(w.entered).toEqual(range(120, RAM_PAGES));
  expect(await w.t.load(SUPERPAGE + 125 * PAGE)).toBe(125n);
});
