import { afterEach, expect, test } from 'vitest';
import { checkVm, KVM_MEM_LOG_DIRTY_PAGES, PfnCache } from '../../src/kvm/index.js';
import { DIRECT_V, DIRECT_W } from '../../src/kvm/memslot.js';
import { ENTRIES, PAGE_GFN, PAGE_PARENTS, PAGE_ROLE, PAGE_VPN, roleLevel } from '../../src/kvm/shadowpool.js';
import { pfnToPa } from '../../src/mm/index.js';
import { PTE_WRITE } from '../../src/mm/pgtable/pte.js';
import { SlotWorld } from './slotworld.js';
import { PAGE } from './testvm.js';

/** The whole-state checker of a VM sees what it is there for: one word is made wrong, and it says which number is broken. */

const READ = 1;
const WRITTEN = 2;

const worlds: SlotWorld[] = [];
afterEach(() => {
  for (const world of worlds.splice(0)) world.destroy();
});

/** A guest with paging that has read a page of its data and written another. */
async function setUp() {
  const w = await SlotWorld.create(8);
  worlds.push(w);
  const { t } = w;
  const { vm } = t;
  for (const page of [READ, WRITTEN]) await t.mm.write(w.at(page), new Uint8Array([page]));
  await w.pagingOn();
  await t.load(w.gpa(READ));
  await t.store(w.gpa(WRITTEN), 1n);
  t.check();
  const slot = vm.slots.bySlot(1)!;
  const { pool } = vm.shadow;
  /** The index of the shadow entry that shows a page of data. */
  const spte = (page: number) => vm.shadow.chain(slot.rmap.readOnce(page))[0]!;
  const change = (
    words: { readOnce(i: number): number; writeOnce(i: number, value: number): void },
    i: number,
    by: (old: number) => number,
  ) => words.writeOnce(i, by(words.readOnce(i)));
  const leafPage = spte(WRITTEN) >>> 9;
  const pages = Array.from({ length: pool.nrPages }, (_, page) => page).filter((page) => pool.isUsed(page));
  const rootPage = pages.find((page) => roleLevel(pool.get(page, PAGE_ROLE)) === 2)!;
  return { w, t, vm, slot, pool, spte, change, leafPage, rootPage };
}

type World = Awaited<ReturnType<typeof setUp>>;

const FRAME = 1 << 12;
const BREAK: Record<string, [message: RegExp, wrong: (w: World) => unknown]> = {
  'a direct entry shows another frame': [
    /N3: gfn \d+ shows frame/,
    ({ change, slot }) => change(slot.direct, WRITTEN, (old) => old + FRAME),
  ],
  'a direct entry outlives its pte': [
    /N3: gfn \d+ shows frame \d+, the host maps undefined/,
    ({ t, w }) => t.mm.pageTable.set(t.mm.pageTable.find(w.at(READ) / PAGE), 0),
  ],
  'a direct entry allows more than the pte': [
    /N5: gfn \d+ is writable/,
    ({ t, w }) => {
      const i = t.mm.pageTable.find(w.at(WRITTEN) / PAGE);
      t.mm.pageTable.set(i, t.mm.pageTable.words.readOnce(i) & ~PTE_WRITE);
    },
  ],
  'a shadow entry shows another frame': [
    /N3: spte \d+ outlived gfn/,
    ({ change, pool, spte }) => change(pool.entries, spte(READ), (old) => old + FRAME),
  ],
  'a shadow entry outlives its direct entry': [
    /N3: spte \d+ outlived gfn/,
    ({ change, slot }) => change(slot.direct, READ, (old) => old & ~DIRECT_V),
  ],
  'a shadow entry allows more than its direct entry': [
    /N5: spte \d+ is writable/,
    ({ change, slot }) => change(slot.direct, WRITTEN, (old) => old & ~DIRECT_W),
  ],
  'a shadow entry is in the chain of another page': [
    /S9: spte \d+ is in the chain of gfn/,
    ({ slot }) => slot.rmap.writeOnce(READ + 3, slot.rmap.readOnce(READ)),
  ],
  'a shadow entry is in no chain': [
    /S9: \d+ shadow entries, \d+ of them in chains/,
    ({ slot }) => slot.rmap.writeOnce(READ, 0),
  ],
  'a shadow page is not found': [
    /S9: shadow page \d+ is not found/,
    ({ pool, rootPage }) => pool.set(rootPage, PAGE_GFN, pool.get(rootPage, PAGE_GFN) + 1),
  ],
  'a shadow page has forgotten its link': [
    /S9: page \d+ knows of 0 links to it of 1/,
    ({ pool, leafPage }) => pool.set(leafPage, PAGE_PARENTS, 0),
  ],
  'a shadow page thinks that it is elsewhere': [
    /S9: page \d+ is at vpn \d+, and thinks/,
    ({ pool, leafPage }) => pool.set(leafPage, PAGE_VPN, pool.get(leafPage, PAGE_VPN) + ENTRIES),
  ],
  'the TLB knows a frame that no direct entry has': [
    /N3: the TLB maps/,
    ({ t }) => t.vcpu.hart.tlbFill(0x7000, t.host.frames.freeList()[0]!, 1, 0),
  ],
};

test.each(Object.entries(BREAK))('the checker sees it where %s', async (_what, [message, wrong]) => {
  const w = await setUp();
  const { direct, rmap } = w.slot;
  const saved = [direct, rmap, w.pool.entries].map((words) =>
    Array.from({ length: words.length }, (_, i) => words.readOnce(i)),
  );
  const pageWords = [w.leafPage, w.rootPage].flatMap((page) =>
    [PAGE_GFN, PAGE_VPN, PAGE_PARENTS].map((word) => [page, word, w.pool.get(page, word)] as const),
  );
  const ptes = [READ, WRITTEN].map((n) => w.t.mm.pageTable.find(w.w.at(n) / PAGE));
  const old = ptes.map((i) => w.t.mm.pageTable.words.readOnce(i));
  wrong(w);
  expect(() => checkVm(w.vm)).toThrow(message);
  // As it was, so that the VM can go.
  for (const [k, words] of [direct, rmap, w.pool.entries].entries())
    for (const [i, value] of saved[k]!.entries()) words.writeOnce(i, value);
  for (const [page, word, value] of pageWords) w.pool.set(page, word, value);
  for (const [k, i] of ptes.entries()) w.t.mm.pageTable.set(i, old[k]!);
  w.t.vcpu.hart.tlbFlushAll();
  w.t.check();
});

test('the checker sees it where the dirty log misses a page that may be written', async () => {
  const { w, t, vm } = await setUp();
  w.set({ flags: KVM_MEM_LOG_DIRTY_PAGES });
  await t.store(w.gpa(WRITTEN), 2n);
  t.check();
  vm.slots.bySlot(1)!.dirty.writeOnce(0, 0);
  expect(() => checkVm(vm)).toThrow(/N15: gfn \d+ is writable, and not in the dirty log/);
});

test('the checker sees it where a pfn cache shows another frame, or may write what the host may not', async () => {
  const { w, t, vm } = await setUp();
  const cache = new PfnCache(vm);
  await cache.activate(w.gpa(WRITTEN), 8);
  t.check();
  const { pa } = cache;
  cache.pa = pa + pfnToPa(1);
  expect(() => checkVm(vm)).toThrow(/N3: a pfn cache shows frame/);
  cache.pa = pa;
  vm.zapVpns(w.at(WRITTEN) / PAGE, w.at(WRITTEN) / PAGE + 1);
  t.vcpu.hart.tlbFlushAll();
  const { pageTable } = t.mm;
  const i = pageTable.find(w.at(WRITTEN) / PAGE);
  const pte = pageTable.words.readOnce(i);
  pageTable.set(i, pte & ~PTE_WRITE);
  expect(() => checkVm(vm)).toThrow(/N5: a pfn cache may write frame/);
  pageTable.set(i, pte);
  t.check();
  cache.deactivate();
});
