import { afterEach, expect, test } from 'vitest';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, PfnCache } from '../../src/kvm/index.js';
import { checkHost, Host, MemorySwap } from '../../src/mm/index.js';
import { SlotWorld } from './slotworld.js';
import { newHost, PAGE } from './testvm.js';

/** A guest page whose host frame a device remembers. */

const worlds: SlotWorld[] = [];

async function newWorld(swap?: MemorySwap): Promise<SlotWorld> {
  const world = await SlotWorld.create(8, { host: newHost(160, swap) });
  worlds.push(world);
  return world;
}

afterEach(() => {
  for (const world of worlds.splice(0)) world.destroy();
});

async function evict(w: SlotWorld, page: number): Promise<void> {
  for (let n = 0; w.t.mm.pageTable.get(w.at(page) / PAGE) % 2 !== 0; n++) {
    expect(n).toBeLessThan(50);
    w.t.host.reclaim.shrink(true, true, true);
    await w.t.host.writeback.drain();
  }
}

async function newCache(w: SlotWorld, page: number): Promise<PfnCache> {
  const cache = new PfnCache(w.t.vm);
  await cache.activate(w.gpa(page) + 16, 8);
  return cache;
}

test('what cannot be cached is refused', async () => {
  const w = await newWorld();
  const cache = new PfnCache(w.t.vm);
  await expect(cache.activate(w.gpa(1) - 4, 8)).rejects.toThrow('EINVAL: pfnCache: 8 bytes at gpa 4294971388 must lie');
  await expect(cache.activate(0, 8)).rejects.toThrow('EFAULT: pfnCache: gpa 0x0 must be in RAM that can be written');
  expect(() => new PfnCache(w.t.vm).tryRefresh()).toThrow('EINVAL: pfnCache: the cache was deactivated');
  w.delete();
  w.set({ flags: KVM_MEM_READONLY });
  await expect(cache.activate(w.gpa(0), 8)).rejects.toThrow('EFAULT');
  await new PfnCache(w.t.vm, false).activate(w.gpa(0), 8);
  w.t.check();
});

test('N3: it shows what the guest wrote and the guest sees what it wrote, until the host takes the frame away', async () => {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const w = await newWorld(swap);
  const cache = await newCache(w, 2);
  const { u8 } = w.t.host;
  await w.t.store(w.gpa(2) + 16, 7n);
  expect([cache.check(), u8[cache.pa]]).toEqual([true, 7]);
  u8[cache.pa] = 8;
  expect(await w.t.load(w.gpa(2) + 16)).toBe(8n);
  // Neither a reference nor a pin: it is evicted as ever, with what was written.
  await evict(w, 2);
  expect(cache.check()).toBe(false);
  await cache.refresh();
  expect([cache.check(), u8[cache.pa]]).toEqual([true, 8]);
  w.t.check();
  for (const change of [() => w.t.mm.madviseDontneed(w.at(2), PAGE), () => w.t.mm.fork().exit()]) {
    change();
    expect(cache.check()).toBe(false);
    await cache.refresh();
    w.t.check();
  }
  // What is elsewhere does not concern it.
  w.t.mm.madviseDontneed(w.at(3), PAGE);
  expect(cache.check()).toBe(true);
  cache.deactivate();
  expect(cache.check()).toBe(false);
  checkHost(w.t.host);
});

test('it is stale when its slot moved, went, or came back with other memory', async () => {
  const w = await newWorld();
  await w.t.mm.write(w.t.at(42) + 16, Uint8Array.of(9));
  const cache = await newCache(w, 2);
  w.set({ guestPhysAddr: w.region.guestPhysAddr + 0x10_0000 });
  expect(cache.check()).toBe(false);
  await expect(cache.refresh()).rejects.toThrow('EFAULT: pfnCache: gpa 0x100002010 must be in RAM');
  w.delete();
  w.set({ guestPhysAddr: w.region.guestPhysAddr - 0x10_0000, userspaceAddr: w.t.at(40) });
  expect(cache.check()).toBe(false);
  await cache.refresh();
  expect(w.t.host.u8[cache.pa]).toBe(9);
  w.t.check();
});

test('what a device writes by it is in the dirty log', async () => {
  const w = await newWorld();
  w.set({ flags: KVM_MEM_LOG_DIRTY_PAGES });
  const cache = await newCache(w, 2);
  expect([...w.t.vm.getDirtyLog(1)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  w.t.host.u8[cache.pa] = 1;
  cache.markDirty();
  expect([...w.t.vm.getDirtyLog(1)]).toEqual([4, 0, 0, 0, 0, 0, 0, 0]);
});

test('M30: two refresh at once, and a third turns it to another page: all see the frame that is mapped now', async () => {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const w = await newWorld(swap);
  for (let page = 0; page < 8; page++) await w.t.store(w.gpa(page) + 16, BigInt(page + 1));
  const cache = await newCache(w, 2);
  await evict(w, 2);
  const [first, second] = [cache.refresh(), cache.refresh()];
  const third = cache.activate(w.gpa(5) + 16, 8);
  await first;
  expect([cache.check(), w.t.host.u8[cache.pa]]).toEqual([true, 6]);
  await Promise.all([second, third]);
  expect([cache.check(), w.t.host.u8[cache.pa]]).toEqual([true, 6]);
  w.t.check();
  await evict(w, 5);
  const fourth = cache.refresh();
  cache.deactivate();
  await expect(fourth).rejects.toThrow('EINVAL: pfnCache: the cache was deactivated');
  checkHost(w.t.host);
});

test('N8: a refresh during a bracket is valid only after it', async () => {
  const w = await newWorld();
  const cache = await newCache(w, 2);
  cache.drop();
  w.t.vm.invalidate.begin(w.at(2), w.at(3));
  const refreshed = cache.refresh();
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(cache.check()).toBe(false);
  w.t.vm.invalidate.end();
  await refreshed;
  expect(cache.check()).toBe(true);
});

test('a valid cache that is turned to another page shows that one', async () => {
  const w = await newWorld();
  await w.t.store(w.gpa(5) + 16, 6n);
  const cache = await newCache(w, 2);
  await cache.activate(w.gpa(5) + 16, 8);
  expect(w.t.host.u8[cache.pa]).toBe(6);
});

test('the slot shows other memory, and the old is gone, when a refresh has waited: the new is found', async () => {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const w = await newWorld(swap);
  await w.t.mm.write(w.t.at(42) + 16, Uint8Array.of(9));
  const cache = await newCache(w, 2);
  await evict(w, 2);
  const read = swap.read.bind(swap);
  swap.read = async (slots, frames) => {
    swap.read = read;
    w.delete();
    w.t.mm.munmap(w.at(0), 8 * PAGE);
    w.set({ userspaceAddr: w.t.at(40) });
    return read(slots, frames);
  };
  await cache.refresh();
  expect(w.t.host.u8[cache.pa]).toBe(9);
  w.t.check();
});

test('N19: where the VM may map nothing any more, what was cached is not used', async () => {
  let nowMs = 0;
  let step = 0;
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const host = new Host({ frames: 160, arenaBytes: 2 ** 23, swap, now: () => (nowMs += step), notifierBudgetMs: 10 });
  const w = await SlotWorld.create(8, { host });
  worlds.push(w);
  const cache = await newCache(w, 2);
  step = 11;
  w.t.mm.madviseDontneed(w.at(3), PAGE);
  step = 0;
  expect(w.t.vm.poisoned).toBeDefined();
  // Its frames are pinned until the VM is told, soon after.
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(cache.check()).toBe(false);
  await expect(cache.refresh()).rejects.toThrow('ENODEV: pfnCache: the VM may map nothing any more');
});

test('it ends with its VM, and with its mm', async () => {
  const w = await newWorld();
  const cache = await newCache(w, 2);
  w.t.mm.exit();
  expect(cache.check()).toBe(false);
  await expect(cache.refresh()).rejects.toThrow();
  w.t.vm.destroy();
  await expect(cache.refresh()).rejects.toThrow('ENODEV: pfnCache: the VM was destroyed');
  checkHost(w.t.host);
});
