import { afterEach, expect, test } from 'vitest';
import {
  KVM_CAP_READONLY_MEM,
  KVM_EXIT_INTR,
  KVM_EXIT_MMIO,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
} from '../../src/kvm/index.js';
import { MemorySwap, mmuNotifierRegister, mmuNotifierUnregister, VA_SIZE } from '../../src/mm/index.js';
import { CSR } from '../../src/riscv/index.js';
import { addi, ld, sd } from '../isa/assemble.js';
import { A0, A1, code, LOOP, T0, ZERO } from './guestcode.js';
import { DATA_BASE, SlotWorld } from './slotworld.js';
import { newHost, PAGE, STOP, type TestVmOptions } from './testvm.js';

/** Memslots that come, move, change and go while a guest runs. */

const worlds: SlotWorld[] = [];
const EXC_LOAD_ACCESS = 5n;
const EXC_STORE_ACCESS = 7n;
const AMOADD_D = 0x0000302f;

async function newWorld(nrPages = 8, options: TestVmOptions = {}): Promise<SlotWorld> {
  const world = await SlotWorld.create(nrPages, options);
  worlds.push(world);
  return world;
}

afterEach(() => {
  for (const world of worlds.splice(0)) world.destroy();
});

test('what KVM refuses of a slot that exists is refused, and the slot is as it was', async () => {
  const w = await newWorld();
  await w.t.store(w.gpa(1), 5n);
  const set = (change: object) => () => w.t.vm.setUserMemoryRegion({ ...w.region, ...change });
  expect(set({ flags: 4 })).toThrow('EINVAL: setUserMemoryRegion: flags 4 may be KVM_MEM_LOG_DIRTY_PAGES (1)');
  expect(set({ userspaceAddr: w.at(1) })).toThrow('EINVAL: setUserMemoryRegion: slot 1 keeps its userspaceAddr 0x');
  expect(set({ memorySize: 4 * PAGE })).toThrow('slot 1 keeps its memorySize 32768; delete it and make it anew');
  expect(set({ flags: KVM_MEM_READONLY })).toThrow('slot 1 keeps its KVM_MEM_READONLY 0');
  expect(set({ guestPhysAddr: w.t.gpa(60) })).toThrow('EEXIST: setUserMemoryRegion: guestPhysAddr 0x8003c000 overlaps');
  expect(set({ guestPhysAddr: 2 ** 44 - PAGE })).toThrow('EFAULT: setUserMemoryRegion: guestPhysAddr + memorySize');
  expect(set({ slot: 2, userspaceAddr: VA_SIZE - PAGE })).toThrow('userspaceAddr + memorySize must not exceed 2^39');
  expect(set({ slot: 2, memorySize: 0 })).toThrow('EINVAL: setUserMemoryRegion: slot 2 is to be deleted and does not');
  // Two pages on, it overlaps only where it is now.
  expect(set({ guestPhysAddr: w.gpa(2) })).not.toThrow();
  expect(set({})).not.toThrow();
  expect(await w.t.load(w.gpa(1))).toBe(5n);
  w.t.check();
});

test('no arena left for a slot is ENOMEM, and changes nothing', async () => {
  const w = await newWorld();
  const huge = { slot: 2, guestPhysAddr: 2 ** 40, memorySize: 2 ** 33, userspaceAddr: 0 };
  expect(() => w.t.vm.setUserMemoryRegion(huge)).toThrow('ENOMEM');
  expect(w.t.vm.slots.all().map((s) => s.slot)).toEqual([0, 1]);
  w.t.check();
});

test('S9 N3: a slot that moves shows its memory at the new place alone, with and without paging', async () => {
  const w = await newWorld();
  for (const paging of [false, true]) {
    if (paging) await w.pagingOn();
    await w.t.store(w.gpa(1), 5n);
    const old = w.gpa(1);
    w.set({ guestPhysAddr: w.region.guestPhysAddr + 0x10_0000 });
    w.t.check();
    expect(await w.t.tryLoad(old)).toMatchObject({ reason: KVM_EXIT_MMIO, physAddr: old, isWrite: false });
    w.t.vcpu.completeMmioRead(0n);
    expect(await w.t.vcpu.run()).toMatchObject({ physAddr: STOP });
    expect(await w.t.load(w.gpa(1))).toBe(5n);
    w.t.check();
  }
});

test('S9: a place that was taken by one slot and then by another shows the second', async () => {
  const w = await newWorld();
  await w.t.mm.write(w.at(0), code(addi(A1, ZERO, 1), sd(ZERO, 0, T0)));
  await w.t.mm.write(w.t.at(40), code(addi(A1, ZERO, 2), sd(ZERO, 0, T0)));
  const run = async () => {
    w.t.vcpu.hart.pc = BigInt(w.gpa(0));
    expect(await w.t.vcpu.run()).toMatchObject({ physAddr: STOP });
    return w.t.vcpu.hart.getX(A1);
  };
  for (const paging of [false, true]) {
    if (paging) await w.pagingOn();
    w.delete();
    w.set({ userspaceAddr: w.hva });
    expect(await run()).toBe(1n);
    w.delete();
    w.t.check();
    w.set({ userspaceAddr: w.t.at(40) });
    expect(await run()).toBe(2n);
    w.t.check();
  }
});

test('the code that the guest runs goes while it runs: it comes out, and its memory is whole', async () => {
  const w = await newWorld();
  await w.t.mm.write(w.at(0), code(LOOP));
  w.t.vcpu.hart.pc = BigInt(w.gpa(0));
  w.setCsr(CSR.stvec, BigInt(w.t.gpa(1)));
  const running = w.t.vcpu.run();
  await new Promise((resolve) => setTimeout(resolve, 10));
  w.delete();
  // Nothing to fetch any more: an access fault, whose handler comes out.
  expect(await running).toMatchObject({ reason: KVM_EXIT_MMIO, physAddr: STOP });
  expect(w.t.vcpu.hart.getX(A1)).toBe(1n);
  w.set({});
  w.t.vcpu.hart.pc = BigInt(w.gpa(0));
  const again = w.t.vcpu.run();
  w.t.vcpu.immediateExit();
  expect(await again).toEqual({ reason: KVM_EXIT_INTR });
});

test('M29: slots that come, move and go inside a bracket: the count is right, and nothing is installed before its end', async () => {
  const w = await newWorld();
  await w.t.store(w.gpa(2), 5n);
  let wanted = 0;
  const duringBracket = (change: () => void) => {
    const other = mmuNotifierRegister(w.t.mm, 0, VA_SIZE, {
      invalidateRangeStart: () => {
        change();
        w.t.vcpu.hart.pc = BigInt(w.t.gpa(0));
        w.t.vcpu.hart.setX(A0, BigInt(w.gpa(2)));
        w.t.vcpu.hart.run(1);
        wanted = w.t.vcpu.core.mmu.waitHva;
      },
    });
    w.t.mm.madviseDontneed(w.at(2), PAGE);
    mmuNotifierUnregister(other);
    expect(w.t.vm.invalidate.inProgress).toBe(0);
    w.t.check();
  };
  duringBracket(() => w.set({ guestPhysAddr: DATA_BASE + 0x20_0000 }));
  expect(wanted).toBe(w.at(2));
  expect(await w.t.load(w.gpa(2))).toBe(0n);
  await w.t.store(w.gpa(2), 6n);
  duringBracket(() => {
    w.delete();
    w.set({ slot: 3, guestPhysAddr: DATA_BASE });
  });
  expect(wanted).toBe(w.at(2));
  expect(await w.t.load(w.gpa(2))).toBe(0n);
});

test('a vCPU waits for a page whose slot goes, with its memory: the access is made anew, and is MMIO', async () => {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const w = await newWorld(8, { host: newHost(128, swap) });
  await w.t.store(w.gpa(3), 5n);
  const pte = () => w.t.mm.pageTable.get(w.at(3) / PAGE);
  while (pte() % 2 !== 0) {
    w.t.host.reclaim.shrink(true, true, true);
    await w.t.host.writeback.drain();
  }
  let waited = false;
  const read = swap.read.bind(swap);
  swap.read = async (slots, frames) => {
    if (w.t.vcpu.core.mmu.waitHva === w.at(3)) {
      waited = true;
      w.delete();
      w.t.mm.munmap(w.hva, 8 * PAGE);
    }
    return read(slots, frames);
  };
  const load = w.t.tryLoad(w.gpa(3));
  expect(await load).toMatchObject({ reason: KVM_EXIT_MMIO, physAddr: w.gpa(3), isWrite: false });
  expect(waited).toBe(true);
});

test('M35: slots that come and go give back all that they had', async () => {
  const w = await newWorld();
  await w.t.store(w.gpa(1), 5n);
  w.delete();
  // Together more than the arena has.
  for (let n = 0; n < 1000; n++) {
    w.set({ slot: n % 32 === 0 ? 31 : n % 32, memorySize: 8 * PAGE });
    if (n % 2 === 0) w.set({ guestPhysAddr: DATA_BASE + n * PAGE });
    w.delete();
  }
  const big = { slot: 5, guestPhysAddr: 2 ** 40, memorySize: 2 ** 29, userspaceAddr: 0 };
  for (let n = 0; n < 20; n++) {
    w.t.vm.setUserMemoryRegion(big);
    w.t.vm.setUserMemoryRegion({ ...big, memorySize: 0 });
  }
});

test('a read-only slot: loads and fetches work, a store comes out as MMIO and writes nothing', async () => {
  const w = await newWorld();
  expect(w.t.kvm.checkExtension(KVM_CAP_READONLY_MEM)).toBe(1);
  w.delete();
  w.set({ flags: KVM_MEM_READONLY });
  await w.t.mm.write(w.at(0), code(ld(A1, 0, A0), sd(ZERO, 0, T0), AMOADD_D | (A0 << 15) | (A1 << 20)));
  await w.t.mm.write(w.at(1), new Uint8Array(BigUint64Array.of(77n).buffer));
  for (const paging of [false, true]) {
    if (paging) await w.pagingOn();
    // First of all, and again when the page is there for reading.
    for (let n = 0; n < 2; n++) {
      const exit = await w.t.call(0x40, BigInt(w.gpa(1) + 8), 5n);
      expect(exit).toMatchObject({
        reason: KVM_EXIT_MMIO,
        physAddr: w.gpa(1) + 8,
        lenBytes: 8,
        isWrite: true,
        data: 5n,
      });
      expect(await w.t.vcpu.run()).toMatchObject({ physAddr: STOP });
      expect(await w.t.load(w.gpa(1))).toBe(77n);
    }
    w.t.vcpu.hart.pc = BigInt(w.gpa(0));
    w.t.vcpu.hart.setX(A0, BigInt(w.gpa(1)));
    await w.t.vcpu.run();
    expect(w.t.vcpu.hart.getX(A1)).toBe(77n);
    // An AMO reaches no device, and no memory that cannot be written.
    w.t.vcpu.hart.pc = BigInt(w.gpa(0) + 8);
    await w.t.vcpu.run();
    expect(w.t.vcpu.hart.getX(A1)).toBe(EXC_STORE_ACCESS);
    w.t.check();
  }
  const bytes = new Uint8Array(16);
  await w.t.mm.read(w.at(1), bytes);
  expect([...new BigUint64Array(bytes.buffer)]).toEqual([77n, 0n]);
});

test('tables of the guest in a read-only slot: a walk that would set accessed or dirty is an access fault', async () => {
  const w = await newWorld();
  w.delete();
  w.set({ slot: 2, flags: KVM_MEM_READONLY, guestPhysAddr: DATA_BASE + 0x40_0000 });
  const table = w.gpa(0);
  await w.pagingOn(w.at(0), table);
  const { hart } = w.t.vcpu;
  await w.t.load(w.t.gpa(20));
  await w.t.tryLoad(DATA_BASE);
  expect(hart.getX(A1)).toBe(EXC_LOAD_ACCESS);
  await w.t.call(0x40, BigInt(DATA_BASE), 1n);
  expect(hart.getX(A1)).toBe(EXC_STORE_ACCESS);
  expect((await w.dataPte(w.at(0))) & 0xc0n).toBe(0n);
  w.t.check();
});

test('flags that change while the guest runs: the slot keeps its memory', async () => {
  const w = await newWorld(8, { host: newHost(128, new MemorySwap({ sizeBytes: 2 ** 20 })) });
  for (let page = 0; page < 8; page++) await w.t.store(w.gpa(page), BigInt(page));
  for (let n = 0; n < 6; n++) {
    w.set({ flags: n % 2 === 0 ? KVM_MEM_LOG_DIRTY_PAGES : 0, guestPhysAddr: DATA_BASE + (n % 3) * 0x10_0000 });
    w.t.check();
    for (let page = 0; page < 8; page++) expect(await w.t.load(w.gpa(page))).toBe(BigInt(page + n * 8));
    for (let page = 0; page < 8; page++) await w.t.store(w.gpa(page), BigInt(page + (n + 1) * 8));
    w.t.check();
  }
});
