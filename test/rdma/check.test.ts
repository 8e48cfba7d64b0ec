import { afterEach, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/mm/index.js';
import { PTE_WRITE } from '../../src/mm/pgtable/pte.js';
import { checkRdma, IBV_ACCESS_LOCAL_WRITE, IBV_WR_RDMA_WRITE } from '../../src/rdma/index.js';
import type { Mr } from '../../src/rdma/mr.js';
import { E_VALID, REGION_DEAD } from '../../src/rdma/nic/region.js';
import { pattern, RdmaWorld, sge } from './rdmaworld.js';

/** The whole-state checker of a NIC's regions sees what it is there for: one word is made wrong, and it says which number is broken. */

let w: RdmaWorld;
afterEach(() => w.stop());

/** A region of which two pages were written remotely. */
async function setUp() {
  w = await RdmaWorld.create();
  const { va, mr } = await w.region(w.b, 4);
  const from = await w.region(w.a, 4);
  await w.fill(w.a, from.va, pattern(2 * PAGE_SIZE, 1));
  const sgList = [sge(from.mr, from.va, 2 * PAGE_SIZE)];
  await w.send(w.a, { opcode: IBV_WR_RDMA_WRITE, sgList, remoteAddr: va, rkey: mr.rkey });
  await w.turns(5);
  w.check();
  const impl = mr as Mr;
  const { table } = impl;
  const { region } = table!;
  const { pageTable } = w.b.mm;
  const pteOf = (page: number) => pageTable.find(va / PAGE_SIZE + page);
  const entry = (page: number, value: number) => region.words.writeOnce(region.entryWord(page), value);
  expect(region.nrEntries()).toBe(2);
  return { va, impl, region, table: table!, pageTable, pteOf, entry };
}

type World = Awaited<ReturnType<typeof setUp>>;

/** By what is wrong: what is said, and how it is made so; the function that this returns takes it back. */
const BREAK: Record<string, [message: RegExp, wrong: (w: World) => () => void]> = {
  'an entry names another frame': [
    /N3: .* names frame \d+, its pte \d+/,
    (s) => withEntry(s, (old) => old + (1 << 12)),
  ],
  'an entry is not valid': [/N3: entry 0 is neither empty nor valid/, (s) => withEntry(s, (old) => old & ~E_VALID)],
  'an entry is miscounted': [/N3: a region counts 2 entries and has 1/, (s) => withEntry(s, () => 0)],
  'an entry outlives its pte': [/N3: .* nothing is mapped there/, (s) => withPte(s, () => 0)],
  'an entry allows more than the pte': [
    /N5: .* may write, its pte may not/,
    (s) => withPte(s, (old) => old & ~PTE_WRITE),
  ],
  'a dead region has entries': [
    /N3: page 0 of a region that is dead/,
    ({ region }) => {
      const flags = region.flags();
      region.addFlags(REGION_DEAD);
      return () => region.words.writeOnce(region.base + 1, flags);
    },
  ],
  'a key has gone': [
    /N17: a region's key is 0x0/,
    ({ region, impl }) => {
      region.setKey(0);
      return () => region.setKey(impl.lkey);
    },
  ],
  'a region that lives has no subscription': [
    /N17: a region that lives has no subscription/,
    ({ table }) => {
      table.sub.registered = false;
      return () => (table.sub.registered = true);
    },
  ],
  'a bracket is counted that is not open': [
    /N8: 1 brackets are counted/,
    ({ region, va }) => {
      region.seq.begin(va, va + PAGE_SIZE);
      return () => region.seq.end();
    },
  ],
  'a demand paged region pins': [
    /S11: a demand paged region pins/,
    ({ table }) => {
      table.sub.pinned.add(1);
      return () => table.sub.pinned.clear();
    },
  ],
};

function withEntry({ region, entry }: World, by: (old: number) => number): () => void {
  const old = region.entry(0);
  entry(0, by(old));
  return () => entry(0, old);
}

function withPte({ pageTable, pteOf }: World, by: (old: number) => number): () => void {
  const i = pteOf(0);
  const old = pageTable.words.readOnce(i);
  pageTable.set(i, by(old));
  return () => pageTable.set(i, old);
}

test.each(Object.entries(BREAK))('the checker sees it where %s', async (_what, [message, wrong]) => {
  const undo = wrong(await setUp());
  expect(() => checkRdma(w.b.context)).toThrow(message);
  undo();
  w.check();
});

test('the checker sees it where a frame of a pinned region is free', async () => {
  w = await RdmaWorld.create();
  const { mr } = await w.region(w.b, 2, IBV_ACCESS_LOCAL_WRITE);
  w.check();
  const { refcount } = w.host.frames;
  const pfn = (mr as Mr).pinned!.pfns[0]!;
  const old = refcount[pfn]!;
  refcount[pfn] = 0;
  expect(() => checkRdma(w.b.context)).toThrow(/N4: frame \d+ of a pinned region is free/);
  refcount[pfn] = old;
  w.check();
});
