import { afterEach, expect, test } from 'vitest';
import { KVM_CAP_PRE_FAULT_MEMORY } from '../../src/kvm/index.js';
import { MemorySwap, mmuNotifierRegister, VA_SIZE } from '../../src/mm/index.js';
import { SlotWorld } from './slotworld.js';
import { newHost, PAGE } from './testvm.js';

/** Guest memory that is mapped before the guest asks for it. */

const worlds: SlotWorld[] = [];

async function newWorld(nrPages: number, swap?: MemorySwap): Promise<SlotWorld> {
  const world = await SlotWorld.create(nrPages, { host: newHost(160, swap) });
  worlds.push(world);
  return world;
}

afterEach(() => {
  for (const world of worlds.splice(0)) world.destroy();
});

async function evictAll(w: SlotWorld): Promise<void> {
  const { t } = w;
  const isPresent = (page: number) => t.mm.pageTable.get(w.at(page) / PAGE) % 2 !== 0;
  const present = () => [...Array(w.nrPages).keys()].some(isPresent);
  for (let n = 0; present() && n < 50; n++) {
    t.host.reclaim.shrink(true, true, true);
    await t.host.writeback.drain();
  }
  expect(present()).toBe(false);
}

test('what KVM refuses is refused', async () => {
  const { t, ...w } = await newWorld(8);
  const gpa = w.region.guestPhysAddr;
  const ask = (range: object) => t.vcpu.preFaultMemory({ gpa, size: PAGE, ...range });
  expect(t.kvm.checkExtension(KVM_CAP_PRE_FAULT_MEMORY)).toBe(1);
  await expect(ask({ gpa: gpa + 1 })).rejects.toThrow('EINVAL: preFaultMemory: gpa 4294967297 must be a multiple of');
  await expect(ask({ size: 100 })).rejects.toThrow('EINVAL: preFaultMemory: size 100 must be a multiple of 4096');
  await expect(ask({ size: 0 })).rejects.toThrow('EINVAL: preFaultMemory: size 0 must be a page at least');
  await expect(ask({ flags: 1 })).rejects.toThrow('EINVAL: preFaultMemory: flags 1 must be 0');
  await expect(ask({ gpa: 0 })).rejects.toThrow('ENOENT: preFaultMemory: gpa 0x0 must be in a memslot');
  t.mm.munmap(w.hva, PAGE);
  await expect(ask({})).rejects.toThrow('EFAULT');
});

test('the first use of what was prefaulted is no fault, and it is not young before', async () => {
  const w = await newWorld(8, new MemorySwap({ sizeBytes: 2 ** 20 }));
  for (let page = 0; page < 8; page++) await w.t.store(w.gpa(page), BigInt(page));
  await evictAll(w);
  const range = { gpa: w.gpa(0), size: 8 * PAGE };
  await w.t.vcpu.preFaultMemory(range);
  expect(range).toEqual({ gpa: w.gpa(8), size: 0 });
  w.t.check();
  await w.t.load(w.t.gpa(20));
  const before = { ...w.t.vm.faults };
  for (let page = 0; page < 8; page++) expect(await w.t.load(w.gpa(page))).toBe(BigInt(page));
  expect(w.t.vm.faults).toEqual(before);
  // Once more changes nothing, and takes no right to write away.
  await w.t.store(w.gpa(3), 33n);
  const { minor } = w.t.vm.faults;
  await w.t.vcpu.preFaultMemory({ gpa: w.gpa(0), size: 8 * PAGE });
  await w.t.store(w.gpa(3), 34n);
  expect(w.t.vm.faults.minor).toBe(minor);
  w.t.check();
});

test('what is not done is left in the range, and is no error after a page', async () => {
  const w = await newWorld(8);
  const range = { gpa: w.gpa(5), size: 10 * PAGE };
  await w.t.vcpu.preFaultMemory(range);
  expect(range).toEqual({ gpa: w.gpa(8), size: 7 * PAGE });
  await expect(w.t.vcpu.preFaultMemory(range)).rejects.toThrow('ENOENT');
});

test('M36: the slot goes, with its memory, while prefault waits for a page of it: both end', async () => {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const w = await newWorld(8, swap);
  for (let page = 0; page < 8; page++) await w.t.store(w.gpa(page), 1n);
  for (const comesBack of [false, true]) {
    await evictAll(w);
    const read = swap.read.bind(swap);
    let waited = false;
    swap.read = async (slots, frames) => {
      swap.read = read;
      waited = true;
      w.delete();
      // The same place, with other memory.
      if (comesBack) w.set({ userspaceAddr: w.t.at(40) });
      else w.t.mm.munmap(w.at(0), PAGE);
      return read(slots, frames);
    };
    const done = w.t.vcpu.preFaultMemory({ gpa: w.gpa(comesBack ? 1 : 0), size: PAGE });
    if (comesBack) await done;
    else await expect(done).rejects.toThrow('ENOENT: preFaultMemory: gpa 0x100000000 must be in a memslot');
    expect(waited).toBe(true);
    w.t.check();
    if (!comesBack) w.set({});
  }
});

test('M36: the slot goes, and another comes, while prefault asks for a page without waiting: the other’s is installed', async () => {
  const w = await newWorld(8);
  await w.t.mm.write(w.t.at(43), Uint8Array.of(7));
  let nrTaken = 0;
  // Prefault holds no lock of the VM yet.
  mmuNotifierRegister(w.t.mm, 0, VA_SIZE, {
    mmapLock: () => {
      if (nrTaken++ > 0) return;
      w.delete();
      w.set({ userspaceAddr: w.t.at(40) });
    },
  });
  await w.t.vcpu.preFaultMemory({ gpa: w.gpa(3), size: PAGE });
  expect(nrTaken).toBeGreaterThan(0);
  const pfn = w.t.mm.tryGetPage(w.t.at(43), 0);
  w.t.mm.putPage(pfn);
  expect(w.t.vm.slots.find(w.gpa(3) / PAGE)!.direct.load(3) >>> 12).toBe(pfn);
  w.t.check();
});

test('N3 N8: prefault during a bracket installs nothing, and is done after it', async () => {
  const w = await newWorld(8);
  await w.t.mm.write(w.at(2), Uint8Array.of(5));
  const { invalidate, slots } = w.t.vm;
  const direct = () => slots.find(w.gpa(2) / PAGE)!.direct.load(2);
  invalidate.begin(w.at(2), w.at(3));
  const done = w.t.vcpu.preFaultMemory({ gpa: w.gpa(2), size: PAGE });
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(direct()).toBe(0);
  invalidate.end();
  await done;
  expect(direct()).not.toBe(0);
  w.t.check();
});

test('ENODEV: the VM is destroyed while prefault waits', async () => {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const w = await newWorld(8, swap);
  await w.t.store(w.gpa(0), 1n);
  await evictAll(w);
  const done = w.t.vcpu.preFaultMemory({ gpa: w.gpa(0), size: PAGE });
  w.t.vm.destroy();
  await expect(done).rejects.toThrow('ENODEV: preFaultMemory: the VM was destroyed');
});
