import { describe, expect, test, vi } from 'vitest';
import { KVM_EXIT_MMIO, Kvm } from '../../src/kvm/index.js';
import {
  LGUEST_DATA,
  LGUEST_STATUS_PIE,
  LHCALL_LGUEST_INIT,
  LHCALL_NEW_PGTABLE,
  LHCALL_RING_FREE,
  LHCALL_SET_PTE,
} from '../../src/lguest/index.js';
import {
  checkHost,
  MADV_DONTNEED,
  MemorySwap,
  mmuNotifierRegister,
  mmuNotifierUnregister,
  PAGE_SIZE,
} from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { addi, ECALL } from '../isa/assemble.js';
import { LOOP } from '../kvm/guestcode.js';
import { TestVm } from '../kvm/testvm.js';
import {
  A2,
  FIRST_DATA_PAGE as DATA,
  endedAfterEach,
  KERNEL,
  newHost,
  notify,
  PAGE,
  PTE,
  pte,
  TestGuest,
  type TestGuestOptions,
  USER,
  words,
  ZERO,
} from './testguest.js';

/** The driver and the host's mm: what the host does to a guest's pages, the guest sees, and nothing of it is pinned. */

const made = endedAfterEach();

async function paged(options: TestGuestOptions = {}): Promise<TestGuest> {
  const t = await made(TestGuest.paged(options));
  await t.number();
  return t;
}

const V = 0x500000n;
const RW = PTE.V | PTE.R | PTE.W | PTE.U;

describe('S10: the guest is bumped out when an entry that it may be using goes', () => {
  test('of a page in several address spaces, all entries go, and no others', async () => {
    const t = await paged();
    const kernel = t.va(DATA * PAGE);
    await t.map(V, DATA, RW);
    await t.map(V + 4096n, DATA + 1, RW);
    const other = await t.newRoot();
    for (const root of [t.root, other]) {
      await t.hcall(LHCALL_NEW_PGTABLE, BigInt(root));
      await t.load(kernel);
    }
    await t.hcall(LHCALL_NEW_PGTABLE, BigInt(t.root));
    await t.load(V);
    await t.load(V + 4096n);
    const { zapped } = t.lg.stats;
    const { minor } = t.lg.stats.faults;
    t.mm.madvise(t.base + DATA * PAGE, PAGE, MADV_DONTNEED);
    expect(t.lg.stats.zapped - zapped).toBe(2);
    t.check();
    expect(await t.load(V)).toBe(0n);
    expect(await t.load(kernel)).toBe(0n);
    expect(await t.load(V + 4096n)).toBe(BigInt(DATA + 1));
    expect(t.lg.stats.faults.minor - minor).toBe(2);
    t.check();
  });

  test('M46: host copy-on-write does not leave the guest on the old page', async () => {
    const t = await paged();
    const va = t.va(DATA * PAGE);
    await t.store(va, 1n);
    expect(await t.load(va)).toBe(1n);
    const child = t.mm.fork();
    t.check();
    // The launcher writes: the page is copied, and the guest must see the copy.
    await t.mm.write(t.base + DATA * PAGE, new Uint8Array([2]));
    t.check();
    expect(await t.load(va)).toBe(2n);
    // The guest writes: its copy, not the child's.
    await t.load(va + 4096n);
    await t.store(va + 4096n, 3n);
    t.check();
    const seen = new Uint8Array(8);
    await child.read(t.base + (DATA + 1) * PAGE, seen);
    expect(seen[0]).toBe(DATA + 1);
    await child.read(t.base + DATA * PAGE, seen);
    expect(seen[0]).toBe(1);
    expect(await t.load(va + 4096n)).toBe(3n);
    child.exit();
    t.check();
  });

  test('N20: what a guest writes after a fork of its launcher, the child does not see', async () => {
    const t = await paged();
    const va = t.va(DATA * PAGE);
    await t.store(va, 1n);
    const child = t.mm.fork();
    await t.store(va, 2n);
    const seen = new Uint8Array(1);
    await child.read(t.base + DATA * PAGE, seen);
    expect(seen[0]).toBe(1);
    expect(await t.read64(DATA * PAGE)).toBe(2n);
    child.exit();
  });

  test('code that was decoded goes with its page', async () => {
    const t = await paged();
    const page = DATA * PAGE;
    await t.lg.memory.write(page, words(addi(A2, ZERO, 1), ...notify(77)));
    await t.must(t.call(page), 77);
    expect(t.lg.getreg(A2)).toBe(1n);
    t.evict();
    t.check();
    const other = t.host.createMm();
    const va = other.mmap(0, 100 * PAGE, 3, 0x22);
    for (let i = 0; i < 100; i++) await other.write(va + i * PAGE, new Uint8Array(PAGE).fill(0xff));
    other.exit();
    await t.must(t.call(page), 77);
    // The launcher's disk reads other code into it.
    await t.lg.memory.write(page, words(addi(A2, ZERO, 2), ...notify(78)));
    await t.must(t.call(page), 78);
    expect(t.lg.getreg(A2)).toBe(2n);
    t.mm.madvise(t.base + page, PAGE, MADV_DONTNEED);
    t.check();
    await t.mm.write(t.base + page, words(addi(A2, ZERO, 3), ...notify(79)));
    await t.must(t.call(page), 79);
    expect(t.lg.getreg(A2)).toBe(3n);
  });

  test('N14: what the guest used is young, once', async () => {
    const t = await paged();
    await t.load(t.va(DATA * PAGE));
    const [sub] = [...t.mm.notifiers.all()];
    const young = () => sub!.ops.clearFlushYoung!(sub!, t.base + DATA * PAGE, t.base + (DATA + 1) * PAGE);
    const { brackets } = t.host.vmstat;
    expect([young(), young()]).toEqual([true, false]);
    t.check();
    await t.load(t.va(DATA * PAGE));
    expect([young(), young()]).toEqual([true, false]);
    expect(t.host.vmstat.brackets).toBe(brackets);
  });

  test('N14: the use of a page shows to who only asks, and to idle page tracking, each time', async () => {
    const t = await paged();
    const at = t.base + DATA * PAGE;
    const young = () => t.mm.notifiers.testYoung(at, at + PAGE);
    await t.load(t.va(DATA * PAGE));
    const { pfn } = t.mm.pagemap(at, 1)[0]!;
    t.host.young.testAndClear(pfn);
    expect(young()).toBe(false);
    for (let use = 0; use < 3; use++) {
      t.host.pageIdle.setIdle(pfn);
      expect([young(), t.host.pageIdle.testIdle(pfn)]).toEqual([false, true]);
      await t.load(t.va(DATA * PAGE));
      expect([young(), young(), t.host.pageIdle.testIdle(pfn), young()]).toEqual([true, true, false, false]);
    }
    t.check();
  });

  test('N3: nothing is shown while a bracket is open; the guest goes on when it has ended', async () => {
    const t = await paged();
    await t.load(t.va(DATA * PAGE));
    const { notifiers } = t.mm;
    const seen: string[] = [];
    // Another driver, whose callback comes after ours, and in which ours has let go already.
    const sub = mmuNotifierRegister(t.mm, t.base, t.base + t.ramPages * PAGE, {
      invalidateRangeStart: () => {
        seen.push(`start ${t.lg.cpu.directories.count(DATA, DATA + 1, false)} ${t.lg.cpu.invalidate.inProgress}`);
      },
      invalidateRangeEnd: () => {
        seen.push(`end ${t.lg.cpu.invalidate.inProgress}`);
      },
    });
    t.mm.madvise(t.base + DATA * PAGE, PAGE, MADV_DONTNEED);
    expect(seen).toEqual(['start 0 1', 'end 0']);
    expect(notifiers.nrSubscriptions).toBe(2);
    expect(sub.poisoned).toBeUndefined();
    expect(await t.load(t.va(DATA * PAGE))).toBe(0n);
  });
});

test('N26: the smallest host, full of others, is enough for an instruction over two pages under three tables each', async () => {
  const host = newHost(96, new MemorySwap({ sizeBytes: 2 ** 22 }));
  const t = await paged({ host, ramPages: 64 });
  const other = host.createMm();
  const va = other.mmap(0, 80 * PAGE, 3, 0x22);
  const hog = async () => {
    for (let i = 0; i < 80; i++) await other.write(va + i * PAGE, new Uint8Array([i]));
  };
  await t.map(V, DATA, RW);
  await t.map(V + 4096n, DATA + 1, RW);
  for (let round = 0; round < 6; round++) {
    await hog();
    await t.store(V + 4092n, BigInt(round));
    await hog();
    expect(await t.load(V + 4092n)).toBe(BigInt(round));
    t.check();
  }
  other.exit();
});

/** All of its pages go, now and whenever it waits for one. Ended by the result, which is how often it has waited. */
function evictAtEachWait(t: TestGuest): () => number {
  const { mm } = t;
  const real = mm.faultIn;
  let nrWaits = 0;
  mm.faultIn = async (va, flags) => {
    if (++nrWaits > 200) throw new Error('it does not get on');
    t.evict();
    await real.call(mm, va, flags);
  };
  t.evict();
  return () => {
    Reflect.deleteProperty(mm, 'faultIn');
    return nrWaits;
  };
}

test('N26: what an instruction waited for is kept until it has retired, though all else goes at each wait', async () => {
  const t = await paged();
  await t.map(V, DATA, RW);
  await t.map(V + 4096n, DATA + 1, RW);
  const hasWaited = evictAtEachWait(t);
  await t.store(V + 4092n, 0x1122334455667788n);
  expect(hasWaited()).toBeGreaterThan(4);
  expect(await t.load(V + 4092n)).toBe(0x1122334455667788n);
  t.check();
});

test('N26: whatever a hypercall, a trap or an interrupt needs may be absent, all of it, each time', async () => {
  const t = await paged();
  await t.process(DATA, [8], ECALL);
  await t.handler(33, 33);
  const absent = async <T>(what: () => Promise<T>): Promise<T> => {
    t.evict();
    const result = await what();
    t.check();
    return result;
  };
  const other = await t.newRoot();
  await t.map(V, DATA + 1, RW);
  for (let round = 0; round < 3; round++) {
    await absent(() => t.hcall(LHCALL_SET_PTE, BigInt(t.root), V, pte(DATA + 1, RW | PTE.A)));
    await t.ring(3 * round, [LHCALL_SET_PTE, BigInt(t.root), V, 0n], [LHCALL_NEW_PGTABLE, BigInt(other)], [17, 5n]);
    await absent(() => t.must(t.call(0x80, 0n), 5));
    await absent(() => t.must(t.lg.run()));
    await absent(() => t.hcall(LHCALL_NEW_PGTABLE, BigInt(t.root)));
    // Out of the process, with its frame, and back; then an interrupt of it.
    await absent(() => t.must(t.sret(USER, 0), 8));
    t.lg.irq(1);
    await absent(() => t.must(t.sret(USER, LGUEST_STATUS_PIE), 33));
    expect((await t.frame()).epc).toBe(USER);
  }
  expect(t.lg.stats.hypercalls).toBeGreaterThan(20);
  const calls = t.lg.stats.hypercalls;
  await absent(() => t.hcall(0));
  expect(t.lg.stats.hypercalls - calls).toBe(2);
  await t.write(DATA * PAGE + PAGE - 2, new TextEncoder().encode('bye'));
  await absent(() => expect(t.hcall(2, BigInt((DATA + 1) * PAGE - 2), 1n)).rejects.toThrow('bye'));
});

test('N26: LHCALL_LGUEST_INIT begins again where its page is absent, and is one hypercall', async () => {
  const t = await made(TestGuest.bare());
  // Far from the code, or it would come from swap with it.
  const data = 60 * PAGE;
  await t.number();
  await t.write64(data + LGUEST_DATA.kernelAddress, KERNEL);
  await t.write(data + LGUEST_DATA.hcallStatus, new Uint8Array(64).fill(LHCALL_RING_FREE));
  const hasWaited = evictAtEachWait(t);
  await t.hcall(LHCALL_LGUEST_INIT, BigInt(data));
  // For the code, and for the data to read and to write.
  expect(hasWaited()).toBeGreaterThan(1);
  // And the notification with which the routine ends.
  expect(t.lg.stats.hypercalls).toBe(2);
  expect(await t.read64(data + LGUEST_DATA.memBytes)).toBe(BigInt(t.ramPages * PAGE));
});

test('two lguest guests and a kvm guest share one host, whose memory does not hold them', async () => {
  const host = newHost(96, new MemorySwap({ sizeBytes: 2 ** 22 }));
  const kvm = new Kvm(host, nodeEnvironment(), { nrDecodedPages: 16 });
  const vm = await TestVm.create({ host, kvm, ramPages: 64, nrShadowPages: 16 });
  const [a, b] = [await paged({ host }), await paged({ host })];
  const each = async (fn: (page: number) => Promise<unknown>) => {
    for (let page = DATA; page < 64; page++) await fn(page);
  };
  await Promise.all([
    each((page) => a.store(a.va(page * PAGE), BigInt(page + 1000))),
    each((page) => b.store(b.va(page * PAGE), BigInt(page + 2000))),
    each((page) => vm.store(vm.gpa(page), BigInt(page + 3000))),
  ]);
  await Promise.all([
    each(async (page) => expect(await a.load(a.va(page * PAGE))).toBe(BigInt(page + 1000))),
    each(async (page) => expect(await b.load(b.va(page * PAGE))).toBe(BigInt(page + 2000))),
    each(async (page) => expect(await vm.load(vm.gpa(page))).toBe(BigInt(page + 3000))),
  ]);
  expect(host.vmstat.pswpout).toBeGreaterThan(0);
  for (const t of [a, b]) t.check();
  vm.check();
  // Both drivers follow their mm by the same callbacks, in the same order in their notify.ts.
  const [lguestOps, kvmOps] = [a, vm].map(({ mm }) => Object.keys([...mm.notifiers.all()][0]!.ops));
  expect(lguestOps).toEqual(kvmOps);
  vm.destroy();
  expect(KVM_EXIT_MMIO).toBe(6);
});

describe('ends', () => {
  test('the launcher’s mm exits under the guest: it dies, and keeps nothing', async () => {
    const t = await TestGuest.paged();
    await t.load(t.va(DATA * PAGE));
    t.mm.exit();
    await expect(t.load(t.va(DATA * PAGE))).rejects.toThrow(/no memory for guest-physical page/);
    expect(t.lg.cpu.directories.count(0, t.ramPages, false)).toBe(0);
    t.lg.close();
    checkHost(t.host);
    expect(t.host.frames.nrFrames - t.host.frames.nrFree).toBe(0);
  });

  test('its memory is unmapped: it dies, with a reason', async () => {
    const t = await paged();
    await t.load(t.va(DATA * PAGE));
    t.mm.munmap(t.base + DATA * PAGE, PAGE);
    await expect(t.load(t.va(DATA * PAGE))).rejects.toThrow(/no memory for guest-physical page 0x20000: EFAULT/);
    t.check();
  });

  test('M37: its launcher closes it while it waits for a page, or halts, or had its turn: run comes back, and no frame is kept', async () => {
    const t = await TestGuest.paged();
    const closed = 'the device was closed';
    t.evict();
    const waiting = expect(t.load(t.va(DATA * PAGE))).rejects.toThrow(closed);
    t.lg.close();
    await waiting;
    const device = t.device;
    const again = await TestGuest.paged({ host: t.host, device });
    const halting = expect(again.call(0x80, 10n)).rejects.toThrow(closed);
    await new Promise((resolve) => setImmediate(resolve));
    again.lg.close();
    await halting;
    const third = await TestGuest.paged({ host: t.host, device });
    const spinning = expect(third.call(await third.code(LOOP))).rejects.toThrow(closed);
    third.lg.close();
    third.lg.close();
    await spinning;
    expect(() => third.lg.getreg(1)).toThrow('EBADF: getreg: the device is closed');
    await expect(third.lg.initialize({ base: 0, pfnLimit: 1, start: 0 })).rejects.toThrow('EBADF');
    third.lg.irq(3);
    for (const { mm } of [t, again, third]) {
      expect(mm.notifiers.nrSubscriptions).toBe(0);
      mm.exit();
    }
    checkHost(t.host);
    expect(t.host.frames.nrFrames).toBe(t.host.frames.nrFree);
  });

  test('M37: its launcher closes it while it holds the pages that it has waited for: they are given back', async () => {
    const t = await TestGuest.paged();
    const { held } = t.lg.cpu;
    let nrHeld = 0;
    // The first of them: the access needs more, and waits for the next.
    vi.spyOn(held, 'hold').mockImplementationOnce((pfn) => {
      held.hold(pfn);
      queueMicrotask(() => {
        nrHeld = held.length;
        t.lg.close();
      });
    });
    t.evict();
    await expect(t.load(t.va(DATA * PAGE))).rejects.toThrow('the device was closed');
    expect(nrHeld).toBe(1);
    t.mm.exit();
    checkHost(t.host);
    expect(t.host.frames.nrFrames).toBe(t.host.frames.nrFree);
  });

  test('M37: it cannot be closed under a callback, and is whole after the refusal', async () => {
    const t = await paged();
    let refused: unknown;
    const sub = mmuNotifierRegister(t.mm, t.base, t.base + PAGE, {
      invalidateRangeStart: () => {
        try {
          t.lg.close();
        } catch (error) {
          refused = error;
        }
      },
    });
    t.mm.madvise(t.base + DATA * PAGE, PAGE, MADV_DONTNEED);
    t.mm.fork().exit();
    expect(String(refused)).toContain('EDEADLK');
    mmuNotifierUnregister(sub);
    expect(await t.load(t.va((DATA + 1) * PAGE))).toBe(BigInt(DATA + 1));
    t.check();
  });

  test('N19: its subscription is poisoned: it dies', async () => {
    const t = await TestGuest.paged();
    const { ops } = [...t.mm.notifiers.all()][0]!;
    ops.invalidateRangeEnd = () => {
      throw new Error('broken');
    };
    t.mm.madvise(t.base, PAGE, MADV_DONTNEED);
    await new Promise((resolve) => setImmediate(resolve));
    await expect(t.lg.run()).rejects.toThrow('the host tells it nothing more: ');
    t.lg.close();
    t.mm.exit();
    checkHost(t.host);
  });
});

test('the checker sees what it should', async () => {
  const t = await paged();
  const { tables } = t.lg.cpu.directories;
  const va = t.va(DATA * PAGE);
  const child = t.mm.fork();
  await t.load(va);
  const index = t.lg.cpu.directories.rmap.first(DATA);
  const spte = tables.entries[index]!;
  tables.entries[index] = spte | PTE.W;
  expect(() => t.check()).toThrow('BUG N5');
  tables.entries[index] = spte + PAGE_SIZE;
  expect(() => t.check()).toThrow('BUG N3');
  tables.entries[index] = 0;
  expect(() => t.check()).toThrow('BUG S10');
  tables.entries[index] = spte;
  t.check();
  t.lg.cpu.hart.tlbFill(0x7000, spte >>> 12, 1, 0);
  expect(() => t.check()).toThrow('BUG S10: the TLB');
  t.lg.cpu.hart.tlbFlushAll();
  child.exit();
  await t.hcall(LHCALL_SET_PTE, BigInt(t.root), va, pte(DATA, RW));
  t.check();
});
