import { afterEach, expect, test } from 'vitest';
import { KVM_MEM_READONLY, VmMemory } from '../../src/kvm/index.js';
import { RAM_BASE } from '../../src/machine/index.js';
import { SlotWorld } from './slotworld.js';
import { PAGE } from './testvm.js';

/** Guest memory that is given back for a balloon. */

const worlds: SlotWorld[] = [];

afterEach(() => {
  for (const world of worlds.splice(0)) world.destroy();
});

test('N3: frames of whole pages come back, and the guest finds zeros there, whichever slots they are in', async () => {
  const w = await SlotWorld.create(200);
  worlds.push(w);
  const memory = new VmMemory(w.t.vm);
  for (let page = 0; page < 200; page++) await w.t.store(w.gpa(page), 7n);
  const free = () => w.t.host.stats().framesFree;
  const before = free();
  await memory.discard([{ gpa: w.gpa(3) + 1, lenBytes: 3 * PAGE }]);
  expect(free()).toBe(before + 2);
  w.t.check();
  for (const [page, value] of [
    [3, 7n],
    [4, 0n],
    [5, 0n],
    [6, 7n],
  ] as const)
    expect(await w.t.load(w.gpa(page))).toBe(value);
  // In many runs, with holes between slots, and what is no RAM at all.
  const runs = Array.from({ length: 100 }, (_, i) => ({ gpa: w.gpa(2 * i), lenBytes: PAGE }));
  await memory.discard([{ gpa: 0, lenBytes: RAM_BASE }, ...runs, { gpa: w.gpa(200), lenBytes: 2 ** 32 }]);
  expect(await w.t.load(w.gpa(40))).toBe(0n);
  expect(await w.t.load(w.gpa(41))).toBe(7n);
  w.t.check();
});

test('N3: locked memory too, as a pinned guest has it', async () => {
  const w = await SlotWorld.create(8);
  worlds.push(w);
  await w.t.store(w.gpa(2), 7n);
  await w.t.mm.mlock(w.at(0), 8 * PAGE);
  await new VmMemory(w.t.vm).discard([{ gpa: w.gpa(2), lenBytes: PAGE }]);
  expect(await w.t.load(w.gpa(2))).toBe(0n);
  w.t.check();
});

test('M49: what is given back is given back to swap too: its slots are free, and it does not come back from there', async () => {
  const w = await SlotWorld.create(64);
  worlds.push(w);
  const { host, mm } = w.t;
  for (let page = 0; page < 64; page++) await w.t.store(w.gpa(page), 7n);
  const isSwapped = (page: number) => mm.pagemap(w.at(page), 1)[0]!.swapped;
  for (let pass = 0; pass < 100 && !isSwapped(63); pass++) {
    host.reclaim.shrink(true, true, true);
    await host.writeback.drain();
  }
  const isAway = Array.from({ length: 64 }, (_, page) => isSwapped(page));
  const nrAway = isAway.slice(32).filter((away) => away).length;
  expect(nrAway).toBeGreaterThan(8);
  const used = () => host.stats().swapSlotsUsed;
  const before = used();
  await new VmMemory(w.t.vm).discard([{ gpa: w.gpa(32), lenBytes: 32 * PAGE }]);
  expect(before - used()).toBe(nrAway);
  for (let page = 0; page < 64; page++) expect(await w.t.load(w.gpa(page))).toBe(page < 32 ? 7n : 0n);
  w.t.check();
});

test('a read-only slot keeps what it has, and a VM that has ended is ENODEV', async () => {
  const w = await SlotWorld.create(8);
  worlds.push(w);
  const memory = new VmMemory(w.t.vm);
  await w.t.store(w.gpa(2), 7n);
  w.delete();
  w.set({ flags: KVM_MEM_READONLY });
  await memory.discard([{ gpa: w.gpa(0), lenBytes: 8 * PAGE }]);
  expect(await w.t.load(w.gpa(2))).toBe(7n);
  w.t.vm.destroy();
  await expect(memory.discard([{ gpa: RAM_BASE, lenBytes: PAGE }])).rejects.toThrow('ENODEV: guestMemory');
});
