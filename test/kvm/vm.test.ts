import { afterEach, expect, test } from 'vitest';
import type { KernelError } from '../../src/base/index.js';
import {
  KVM_CAP_SYNC_MMU,
  KVM_EXIT_INTR,
  KVM_EXIT_MEMORY_FAULT,
  KVM_EXIT_MMIO,
  KVM_EXIT_SHUTDOWN,
  KVM_EXIT_SYSTEM_EVENT,
  KVM_SYSTEM_EVENT_SHUTDOWN,
  Kvm,
} from '../../src/kvm/index.js';
import { RAM_BASE } from '../../src/machine/index.js';
import {
  checkHost,
  Host,
  MemorySwap,
  mmuNotifierRegister,
  mmuNotifierUnregister,
  VA_SIZE,
} from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { HART_EXIT_WAIT } from '../../src/riscv/index.js';
import { addi, ECALL, sd } from '../isa/assemble.js';
import { A0, A1, A7, code, T0, ZERO } from './guestcode.js';
import { FIRST_DATA_PAGE as DATA, newHost, PAGE, STOP, TestVm } from './testvm.js';

/** The kvm driver: its interface, and its relation with mm case by case. */

const SRST = 0x53525354n;
const vms: TestVm[] = [];

async function newVm(options = {}): Promise<TestVm> {
  const t = await TestVm.create(options);
  vms.push(t);
  return t;
}

afterEach(() => {
  for (const t of vms.splice(0)) t.destroy();
});

test('what KVM refuses is refused', async () => {
  const t = await newVm();
  const slot = { slot: 1, guestPhysAddr: 0, memorySize: PAGE, userspaceAddr: t.hva };
  const set = (change: object) => () => t.vm.setUserMemoryRegion({ ...slot, ...change });
  expect(() => t.vm.createVcpu(0)).toThrow('EEXIST: createVcpu: vCPU 0');
  expect(set({ slot: 32 })).toThrow('EINVAL: setUserMemoryRegion: slot 32 must be from 0 to 31');
  expect(set({ memorySize: 100 })).toThrow('EINVAL: setUserMemoryRegion: memorySize 100 must be a multiple of 4096');
  expect(set({ guestPhysAddr: RAM_BASE })).toThrow(
    'EEXIST: setUserMemoryRegion: guestPhysAddr 0x80000000 overlaps slot 0',
  );
  expect(() => t.kvm.createVm(t.mm, { nrShadowPages: 2 })).toThrow(
    'EINVAL: createVm: nrShadowPages 2 must be 3 at least',
  );
  const host = newHost(64);
  expect(() => t.kvm.createVm(host.createMm({ name: 'another' }))).toThrow(
    "EINVAL: createVm: another must be an mm of this Kvm's own host",
  );
  await host.stop();
  expect(t.kvm.checkExtension(KVM_CAP_SYNC_MMU)).toBe(1);
  expect(t.kvm.checkExtension(9999)).toBe(0);
});

test('run comes out for MMIO, power off, and when it is told to', async () => {
  const t = await newVm();
  const write = await t.call(0x40, 0x3000_0008n, 0x1122334455667788n);
  expect(write).toMatchObject({ reason: KVM_EXIT_MMIO, physAddr: 0x3000_0008, lenBytes: 8, isWrite: true });
  expect(write).toMatchObject({ data: 0x1122334455667788n });
  expect(await t.vcpu.run()).toMatchObject({ reason: KVM_EXIT_MMIO, physAddr: STOP });

  expect(await t.tryLoad(0x3000_0010)).toMatchObject({ reason: KVM_EXIT_MMIO, isWrite: false, lenBytes: 8 });
  t.vcpu.completeMmioRead(77n);
  await t.vcpu.run();
  expect(t.vcpu.hart.getX(A1)).toBe(77n);

  const spinning = t.spin();
  setTimeout(() => t.vcpu.immediateExit(), 5);
  expect(await spinning).toEqual({ reason: KVM_EXIT_INTR });

  await t.mm.write(t.at(1), code(ECALL));
  t.vcpu.hart.setX(A7, SRST);
  t.vcpu.hart.setX(16, 0n);
  const off = await t.call(PAGE, 0n, 1n);
  expect(off).toEqual({ reason: KVM_EXIT_SYSTEM_EVENT, type: KVM_SYSTEM_EVENT_SHUTDOWN, flags: 1 });
});

test('S9 N3: what the host drops, the guest does not see any more', async () => {
  const t = await newVm();
  await t.store(t.gpa(DATA), 5n);
  expect(await t.load(t.gpa(DATA))).toBe(5n);
  t.mm.madviseDontneed(t.at(DATA), PAGE);
  t.check();
  expect(await t.load(t.gpa(DATA))).toBe(0n);
  await t.mm.write(t.at(DATA), Uint8Array.of(9));
  expect(await t.load(t.gpa(DATA))).toBe(9n);
  t.check();
});

test('N3: code that is replaced by way of the host is not run any more', async () => {
  const t = await newVm();
  await t.mm.write(t.at(1), code(addi(A1, ZERO, 1), sd(ZERO, 0, T0)));
  await t.call(PAGE);
  expect(t.vcpu.hart.getX(A1)).toBe(1n);
  t.mm.madviseDontneed(t.at(1), PAGE);
  await t.mm.write(t.at(1), code(addi(A1, ZERO, 2), sd(ZERO, 0, T0)));
  await t.call(PAGE);
  expect(t.vcpu.hart.getX(A1)).toBe(2n);
  t.check();
});

test('N3 N8: a fault during a bracket installs nothing, and is served after it', async () => {
  const t = await newVm();
  await t.store(t.gpa(DATA), 5n);
  let exit = 0;
  const other = mmuNotifierRegister(t.mm, 0, VA_SIZE, {
    invalidateRangeStart: () => {
      // kvm, registered first, has begun its bracket; the host's pte is still there.
      t.vcpu.hart.pc = BigInt(RAM_BASE);
      t.vcpu.hart.setX(A0, BigInt(t.gpa(DATA)));
      exit = t.vcpu.hart.run(1);
    },
  });
  const { retries } = t.vm.faults;
  t.mm.madviseDontneed(t.at(DATA), PAGE);
  mmuNotifierUnregister(other);
  expect(exit).toBe(HART_EXIT_WAIT);
  expect(t.vm.faults.retries).toBe(retries + 1);
  t.check();
  expect(await t.load(t.gpa(DATA))).toBe(0n);
});

test("N14: the guest's use of a page shows once, and again after the next use", async () => {
  const t = await newVm();
  const young = () => t.mm.notifiers.clearFlushYoung(t.at(DATA), t.at(DATA + 1));
  await t.load(t.gpa(DATA));
  expect([young(), young()]).toEqual([true, false]);
  await t.load(t.gpa(DATA));
  expect([young(), young()]).toEqual([true, false]);
});

test("N14: the guest's use of a page shows to who only asks, and to idle page tracking, each time", async () => {
  const t = await newVm();
  const young = () => t.mm.notifiers.testYoung(t.at(DATA), t.at(DATA + 1));
  await t.store(t.gpa(DATA), 1n);
  const { pfn } = t.mm.pagemap(t.at(DATA), 1)[0]!;
  t.host.young.testAndClear(pfn);
  expect(young()).toBe(false);
  for (let use = 0; use < 3; use++) {
    t.host.pageIdle.setIdle(pfn);
    expect([young(), t.host.pageIdle.testIdle(pfn)]).toEqual([false, true]);
    await t.load(t.gpa(DATA));
    expect([young(), young(), t.host.pageIdle.testIdle(pfn), young()]).toEqual([true, true, false, false]);
    t.check();
  }
});

test('a region over what is not mapped is a memory fault, not the end of the host', async () => {
  const t = await newVm();
  t.vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: 0, memorySize: PAGE, userspaceAddr: t.hva + 2 ** 30 });
  const exit = await t.tryLoad(0x10);
  expect(exit).toMatchObject({ reason: KVM_EXIT_MEMORY_FAULT, gpa: 0, error: { code: 'EFAULT' } });
});

/** Swap that, whenever a page is read, has every page evicted that nobody holds. */
class EvictingSwap extends MemorySwap {
  host: Host | undefined;
  nrReads = 0;

  override async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    if (++this.nrReads > 100) throw new Error('the instruction makes no progress');
    if (this.host !== undefined) await evictAll(this.host);
    return super.read(slots, frames);
  }
}

async function evictAll({ reclaim, writeback }: Host): Promise<void> {
  for (let i = 0; i < 20; i++) {
    reclaim.shrink(true, false, true);
    await writeback.drain();
  }
}

test('N26 M31: an instruction makes progress whatever is evicted while it waits', async () => {
  const swap = new EvictingSwap({ sizeBytes: 2 ** 20 });
  const t = await newVm({ frames: 64, ramPages: 64, swap });
  for (let page = DATA; page < 64; page++) await t.store(t.gpa(page), BigInt(page));
  // A store that lies across pages 1 and 2, to pages 40 and 41: four pages at once.
  await t.mm.write(t.at(2) - 2, code(sd(A1, 0, A0), sd(ZERO, 0, T0)));
  swap.host = t.host;
  await evictAll(t.host);
  const exit = await t.call(2 * PAGE - 2, BigInt(t.gpa(41) - 4), 0x1122334455667788n);
  expect(exit).toMatchObject({ reason: KVM_EXIT_MMIO, physAddr: STOP });
  expect(swap.nrReads).toBeGreaterThan(3);
  swap.host = undefined;
  t.check();
  expect(await t.load(t.gpa(41) - 4)).toBe(0x1122334455667788n);
});

/** Swap whose reads wait until they are let through. */
class GatedSwap extends MemorySwap {
  private waiting: (() => void)[] = [];
  closed = false;

  override async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    if (this.closed) await new Promise<void>((resolve) => this.waiting.push(resolve));
    return super.read(slots, frames);
  }

  open(): void {
    this.closed = false;
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}

test('a guest that waits for a page does not hold up the others', async () => {
  const swap = new GatedSwap({ sizeBytes: 2 ** 20 });
  const host = newHost(64, swap);
  const first = await newVm({ host, ramPages: 128 });
  for (let page = DATA; page < 128; page++) await first.store(first.gpa(page), BigInt(page));
  swap.closed = true;
  let waits = true;
  const page = [...Array(128).keys()].slice(DATA).find((p) => !isPresent(first, p))!;
  const load = first.load(first.gpa(page)).finally(() => {
    waits = false;
  });
  const second = await newVm({ host, kvm: first.kvm, ramPages: 32 });
  await second.store(second.gpa(DATA), 7n);
  expect(await second.load(second.gpa(DATA))).toBe(7n);
  expect(waits).toBe(true);
  swap.open();
  expect(await load).toBe(BigInt(page));
});

function isPresent(t: TestVm, page: number): boolean {
  let present = false;
  t.mm.forEachPresent(t.at(page) / PAGE, t.at(page) / PAGE + 1, () => {
    present = true;
  });
  return present;
}

test('a guest that runs gives way sooner while another waits for a page', async () => {
  let clockMs = 0;
  let nrTurns = 0;
  const env = nodeEnvironment();
  const defer = (fn: () => void) => {
    nrTurns++;
    env.defer(fn);
  };
  const swap = new GatedSwap({ sizeBytes: 2 ** 20 });
  const host = newHost(64, swap);
  const kvm = new Kvm(host, { ...env, nowMs: () => clockMs, defer }, { nrDecodedPages: 64 });
  const waiter = await newVm({ host, kvm, ramPages: 128 });
  for (let page = DATA; page < 128; page++) await waiter.store(waiter.gpa(page), BigInt(page));
  const runner = await newVm({ host, kvm, ramPages: 32 });

  // A slice of the runner takes a millisecond, by this clock.
  const { hart } = runner.vcpu;
  const run = hart.run.bind(hart);
  const turnsIn = async (nrSlices: number) => {
    nrTurns = 0;
    hart.run = (nrInstructions) => {
      clockMs++;
      if (--nrSlices === 0) runner.vcpu.immediateExit();
      return run(Math.min(nrInstructions, 100));
    };
    await runner.spin();
    return nrTurns;
  };
  const alone = await turnsIn(100);
  swap.closed = true;
  const page = [...Array(128).keys()].slice(DATA).find((p) => !isPresent(waiter, p))!;
  const load = waiter.load(waiter.gpa(page));
  const beside = await turnsIn(100);
  swap.open();
  await load;
  expect(alone).toBeLessThanOrEqual(25);
  expect(beside).toBeGreaterThanOrEqual(95);
});

/** Swap that counts its reads by their kind. */
class CountingSwap extends MemorySwap {
  nr = { blocking: 0, promised: 0 };

  override readSync(slots: readonly number[], frames: readonly Uint8Array[]): void {
    this.nr.blocking++;
    super.readSync(slots, frames);
  }

  override async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    this.nr.promised++;
    super.readSync(slots, frames);
  }
}

test('blockWhenAlone: a vCPU waits by blocking only while no other is inside run', async () => {
  const swap = new CountingSwap({ sizeBytes: 2 ** 20 });
  const host = newHost(64, swap);
  const kvm = new Kvm(host, nodeEnvironment(), { nrDecodedPages: 64, blockWhenAlone: true });
  const first = await newVm({ host, kvm, ramPages: 128 });
  for (let page = DATA; page < 128; page++) await first.store(first.gpa(page), BigInt(page));
  const second = await newVm({ host, kvm });
  const loadAll = async () => {
    swap.nr = { blocking: 0, promised: 0 };
    for (let page = DATA; page < 128; page++) expect(await first.load(first.gpa(page))).toBe(BigInt(page));
    return swap.nr;
  };
  const alone = await loadAll();
  expect(alone.promised).toBe(0);
  expect(alone.blocking).toBeGreaterThan(0);

  const spinning = second.spin();
  const together = await loadAll();
  second.vcpu.immediateExit();
  await spinning;
  expect(together.promised).toBeGreaterThan(0);
  expect(together.blocking).toBe(0);
});

test("N17: a VM that is destroyed hears nothing more, and its memory stays its owner's", async () => {
  const t = await TestVm.create();
  await t.store(t.gpa(DATA), 5n);
  t.vm.destroy();
  t.vm.destroy();
  const before = t.host.stats().notifierCalls.invalidateRangeStart;
  t.mm.madviseDontneed(t.at(DATA + 1), PAGE);
  expect(t.host.stats().notifierCalls.invalidateRangeStart).toBe(before);
  const bytes = new Uint8Array(8);
  await t.mm.read(t.at(DATA), bytes);
  expect(bytes[0]).toBe(5);
  t.mm.exit();
  expect(t.host.stats().framesFree).toBe(t.host.stats().frames);
});

test('N17: what is called of a vCPU that is destroyed writes nothing to memory that others may have by now', async () => {
  const t = await TestVm.create();
  await t.store(t.gpa(DATA), 5n);
  t.vm.destroy();
  const arenaAndTables = t.host.u8.subarray(0, t.host.framesBase).fill(0);
  t.vcpu.kick();
  t.vcpu.immediateExit();
  t.vcpu.setInterrupt(1, true);
  expect(arenaAndTables.findIndex((byte) => byte !== 0)).toBe(-1);
});

test('M35: a VM that nothing was registered with gives back all that it had', () => {
  const host = newHost(64);
  const kvm = new Kvm(host, nodeEnvironment(), { nrDecodedPages: 16 });
  const mm = host.createMm();
  // Together more than the arena has.
  for (let n = 0; n < 64; n++) kvm.createVm(mm, { nrShadowPages: 32 }).destroy();
  expect(mm.notifiers.nrSubscriptions).toBe(0);
});

test('M37: a VM cannot be destroyed under a callback, and is whole after the refusal', async () => {
  const t = await newVm();
  await t.store(t.gpa(DATA), 5n);
  const refused: string[] = [];
  const attempt = () => {
    try {
      t.vm.destroy();
    } catch (error) {
      refused.push((error as KernelError).code);
    }
  };
  const other = mmuNotifierRegister(t.mm, 0, VA_SIZE, { invalidateRangeStart: attempt, invalidateRangeEnd: attempt });
  t.mm.madviseDontneed(t.at(DATA), PAGE);
  mmuNotifierUnregister(other);
  expect(refused).toEqual(['EDEADLK', 'EDEADLK']);
  expect(await t.load(t.gpa(DATA))).toBe(0n);
  await t.store(t.gpa(DATA), 6n);
  t.mm.madviseDontneed(t.at(DATA), PAGE);
  expect(await t.load(t.gpa(DATA))).toBe(0n);
  t.check();
});

test("N18: when the mm exits under a VM, the guest's entries go before the frames", async () => {
  const t = await TestVm.create();
  await t.store(t.gpa(DATA), 5n);
  t.mm.exit();
  t.check();
  expect(await t.tryLoad(t.gpa(DATA))).toMatchObject({ reason: KVM_EXIT_MEMORY_FAULT });
  t.vm.destroy();
});

test('M29: the first memslot comes during a bracket, which is counted all the same', async () => {
  const t = await newVm();
  await t.load(t.gpa(DATA));
  t.deleteSlot();
  const inside: number[] = [];
  const other = mmuNotifierRegister(t.mm, 0, VA_SIZE, {
    invalidateRangeStart: () => {
      t.addSlot();
      inside.push(t.vm.invalidate.inProgress);
    },
  });
  t.mm.madviseDontneed(t.at(DATA), PAGE);
  mmuNotifierUnregister(other);
  expect([...inside, t.vm.invalidate.inProgress]).toEqual([1, 0]);
  expect(await t.load(t.gpa(DATA))).toBe(0n);
  t.check();
});

test('M29: a memslot that goes during a bracket leaves the count of brackets right', async () => {
  const t = await newVm();
  await t.load(t.gpa(DATA));
  const other = mmuNotifierRegister(t.mm, 0, VA_SIZE, {
    invalidateRangeStart: () => {
      t.deleteSlot();
      t.addSlot();
    },
  });
  t.mm.madviseDontneed(t.at(DATA), PAGE);
  mmuNotifierUnregister(other);
  expect(t.vm.invalidate.inProgress).toBe(0);
  expect(await t.load(t.gpa(DATA))).toBe(0n);
  t.check();
});

test('N19: a VM whose callback overran its time runs no more, says why, and gives what was pinned back when it is destroyed', async () => {
  let nowMs = 0;
  let step = 0;
  const host = new Host({
    ...{ frames: 256, arenaBytes: 8 * 2 ** 20, swap: new MemorySwap({ sizeBytes: 4 * 2 ** 20 }), debug: true },
    ...{ now: () => (nowMs += step), notifierBudgetMs: 10 },
  });
  const kvm = new Kvm(host, nodeEnvironment(), { nrDecodedPages: 64 });
  const [t, other] = [await newVm({ host, kvm }), await newVm({ host, kvm })];
  await t.store(t.gpa(DATA), 5n);
  await other.store(other.gpa(DATA), 6n);
  step = 11;
  t.mm.madviseDontneed(t.at(DATA + 1), PAGE);
  step = 0;
  expect(t.vm.poisoned).toMatch(/invalidateRangeStart took 11.0 ms; its budget is 10 ms/);
  const { pinnedFrames } = host.stats();
  expect(pinnedFrames).toBeGreaterThan(1);
  expect(await t.tryLoad(t.gpa(DATA))).toEqual({
    reason: KVM_EXIT_SHUTDOWN,
    message: expect.stringMatching(/the VM may map nothing any more: invalidateRangeStart took/),
  });
  t.mm.munmap(t.at(DATA), PAGE);
  expect(host.stats().pinnedFrames).toBe(pinnedFrames);
  expect(await other.load(other.gpa(DATA))).toBe(6n);
  t.vm.destroy();
  expect(host.stats().pinnedFrames).toBe(0);
  checkHost(host);
});

test('M37: a VM that is destroyed while its vCPU waits for a page, or sleeps, or had its turn: run comes back, and nothing of it is used', async () => {
  const host = newHost(128);
  const kvm = new Kvm(host, nodeEnvironment(), { nrDecodedPages: 64 });
  const shutdown = { reason: KVM_EXIT_SHUTDOWN, message: 'the VM was destroyed' };
  const waiting = await newVm({ host, kvm });
  await waiting.store(waiting.gpa(DATA), 5n);
  while (waiting.mm.pageTable.get(waiting.at(DATA) / PAGE) % 2 !== 0) host.reclaim.shrink(true, true, true);
  const load = waiting.tryLoad(waiting.gpa(DATA));
  const spinning = await newVm({ host, kvm });
  const spin = spinning.spin();
  for (const t of [waiting, spinning]) {
    t.vm.destroy();
    t.vcpu.kick();
    t.vcpu.setInterrupt(9, true);
  }
  expect(await Promise.all([load, spin])).toEqual([shutdown, shutdown]);
  expect(await spinning.vcpu.run()).toEqual(shutdown);
  checkHost(host);
});
