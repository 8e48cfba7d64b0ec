import { afterEach, expect, test } from 'vitest';
import { KVM_EXIT_INTR, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, Kvm, type Vcpu, type Vm } from '../../src/kvm/index.js';
import { DIRECT_V, DIRECT_W } from '../../src/kvm/memslot.js';
import { TURN_OWNER, TURN_THREAD } from '../../src/kvm/vcpustate.js';
import { RAM_BASE } from '../../src/machine/index.js';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  Host,
  MADV_DONTNEED,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PROT_READ,
  PROT_WRITE,
  pfnToPa,
} from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { CSR, IRQ_S_SOFT } from '../../src/riscv/index.js';
import { addi, csrrci, csrrsi, ld, sd, WFI } from '../isa/assemble.js';
import { bundleWorker } from '../worker.js';
import { A0, A1, code, T0, ZERO } from './guestcode.js';

/** vCPUs in threads of their own, against the mm thread that takes their memory away. */

const PAGE = 4096;
const RAM_PAGES = 64;
const STOP = 0x4000_0000;
const CODE_PAGE = 0;
/** vmtables.ts */
const MMU_LOCK = 0;
const DATA_PAGE = 16;
const env = nodeEnvironment({ vcpuWorker: bundleWorker(new URL('../../src/node/vcpuworker.ts', import.meta.url)) });

const A2 = 12;
const jal = (offset: number) =>
  0x6f |
  (offset & 0xff000) |
  (((offset >> 11) & 1) << 20) |
  (((offset >> 1) & 0x3ff) << 21) |
  (offset < 0 ? 1 << 31 : 0);
const amoaddD = (rd: number, rs1: number, rs2: number) => 0x302f | (rd << 7) | (rs1 << 15) | (rs2 << 20);
const bne = (rs1: number, rs2: number, offset: number) =>
  0x1063 |
  (rs1 << 15) |
  (rs2 << 20) |
  (((offset >> 11) & 1) << 7) |
  (((offset >> 1) & 15) << 8) |
  (((offset >> 5) & 63) << 25) |
  (offset < 0 ? 1 << 31 : 0);

/** Counts in memory at a0, for ever. */
const COUNT = code(ld(A1, 0, A0), addi(A1, A1, 1), sd(A1, 0, A0), jal(-12));

interface World {
  host: Host;
  mm: Mm;
  hva: number;
  vm: Vm;
  vcpus: Vcpu[];
}

const worlds: World[] = [];

function newWorld(nrVcpus: number, program: Uint8Array, environment = env): World {
  const host = new Host({
    frames: 512,
    arenaBytes: 4 * 2 ** 20,
    swap: new MemorySwap({ sizeBytes: 2 ** 20 }),
    debug: true,
  });
  const kvm = new Kvm(host, environment, { nrDecodedPages: 16, nrThreadDecodedPages: 16 });
  const mm = host.createMm();
  const hva = mm.mmap(0, RAM_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(hva + CODE_PAGE * PAGE, program);
  const vm = kvm.createVm(mm, { nrVcpus, threads: true, nrShadowPages: 8 });
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM_BASE, memorySize: RAM_PAGES * PAGE, userspaceAddr: hva });
  const vcpus = Array.from({ length: nrVcpus }, (_, id) => vm.createVcpu(id));
  for (const vcpu of vcpus) {
    vcpu.start(BigInt(RAM_BASE), 0n);
    vcpu.hart.setX(A0, BigInt(RAM_BASE + DATA_PAGE * PAGE));
    vcpu.hart.setX(T0, BigInt(STOP));
  }
  const world = { host, mm, hva, vm, vcpus };
  worlds.push(world);
  return world;
}

afterEach(async () => {
  for (const { host, mm, vm } of worlds.splice(0)) {
    await vm.destroy();
    mm.exit();
    checkHost(host);
    expect(host.stats().vmstat.nr_free_pages).toBe(host.stats().frames);
    await host.stop();
  }
});

const data = (w: World) => w.hva + DATA_PAGE * PAGE;

function counter(w: World): bigint {
  const bytes = new Uint8Array(8);
  w.mm.readSync(data(w), bytes);
  return new DataView(bytes.buffer).getBigUint64(0, true);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

function busyWait(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

test('no vCPU runs before the threads of all are ready, of those that the guest has yet to start too', async () => {
  let late: (() => void) | undefined;
  const startVcpuThread: typeof env.startVcpuThread = (init, onPost, onExit) => {
    let isFirst = true;
    const post = () => {
      if (init.id !== 1 || !isFirst) return onPost();
      isFirst = false;
      late = onPost;
    };
    return env.startVcpuThread!(init, post, onExit);
  };
  const w = newWorld(2, COUNT, { ...env, startVcpuThread });
  const [first] = w.vcpus;
  const exit = first!.run();
  await until(() => late !== undefined);
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
  expect([first!.state.turn, counter(w)]).toEqual([TURN_OWNER, 0n]);
  late!();
  await until(() => counter(w) > 0n);
  first!.immediateExit();
  expect((await exit).reason).toBe(KVM_EXIT_INTR);
});

test('N24: when a bracket has begun, no vCPU stores to what it takes away', async () => {
  const w = newWorld(1, COUNT);
  const running = w.vcpus[0]!.run();
  const words = new BigUint64Array(w.host.memory.buffer);
  for (let round = 0; round < 30; round++) {
    await until(() => counter(w) > 0n);
    const pfn = w.mm.tryGetPage(data(w), 0);
    w.mm.madvise(data(w), PAGE, MADV_DONTNEED);
    const left = words[pfnToPa(pfn) / 8];
    busyWait(2);
    expect(words[pfnToPa(pfn) / 8]).toBe(left);
    w.mm.putPage(pfn);
  }
  w.vcpus[0]!.immediateExit();
  expect((await running).reason).toBe(KVM_EXIT_INTR);
});

test('N15: reclaim takes a page from a vCPU that stores to it: no store is lost', async () => {
  const w = newWorld(1, COUNT);
  const running = w.vcpus[0]!.run();
  let seen = 0n;
  for (let round = 0; round < 30; round++) {
    await until(() => counter(w) > seen);
    seen = counter(w);
    w.host.reclaim.shrink(true, true, true);
    await w.host.writeback.drain();
  }
  expect(w.host.stats().swapOutPages).toBeGreaterThan(0);
  w.vcpus[0]!.immediateExit();
  await running;
  expect(w.vcpus[0]!.hart.getX(A1)).toBeLessThanOrEqual(counter(w) + 1n);
  expect(counter(w)).toBeGreaterThanOrEqual(seen);
});

test('N14: a page that a vCPU in its thread uses all the time is not idle for long, and one that it has not used is', async () => {
  const w = newWorld(1, COUNT);
  const { pageIdle } = w.host;
  w.mm.writeSync(data(w) + PAGE, new Uint8Array([1]));
  const running = w.vcpus[0]!.run();
  await until(() => counter(w) > 0n);
  const [hot, cold] = w.mm.pagemap(data(w), 2).map(({ pfn }) => pfn);
  for (let round = 0; round < 5; round++) {
    pageIdle.setIdle(cold!);
    expect(pageIdle.setIdle(hot!)).toBe(true);
    await until(() => !pageIdle.testIdle(hot!));
    expect(pageIdle.testIdle(cold!)).toBe(true);
  }
  w.vcpus[0]!.immediateExit();
  await running;
});

test('N28: fork under a vCPU that stores: the child is a copy of one instant, and the guest counts on', async () => {
  const w = newWorld(1, COUNT);
  const running = w.vcpus[0]!.run();
  const bytes = new BigUint64Array(1);
  for (let round = 0; round < 10; round++) {
    const before = counter(w);
    await until(() => counter(w) > before);
    const child = w.mm.fork();
    const read = () => {
      child.readSync(data(w), new Uint8Array(bytes.buffer));
      return bytes[0];
    };
    const copied = read();
    busyWait(2);
    expect(read()).toBe(copied);
    await until(() => counter(w) > copied!);
    expect(read()).toBe(copied);
    child.exit();
  }
  w.vcpus[0]!.immediateExit();
  expect((await running).reason).toBe(KVM_EXIT_INTR);
});

test('M28: a halted vCPU is woken by every interrupt', async () => {
  // sie.SSIE; wfi; sip.SSIP cleared; counted.
  const w = newWorld(
    1,
    code(
      csrrsi(ZERO, CSR.sie, 1 << IRQ_S_SOFT),
      WFI,
      csrrci(ZERO, CSR.sip, 1 << IRQ_S_SOFT),
      ld(A1, 0, A0),
      addi(A1, A1, 1),
      sd(A1, 0, A0),
      jal(-20),
    ),
  );
  const running = w.vcpus[0]!.run();
  for (let n = 1n; n <= 300n; n++) {
    w.vcpus[0]!.setInterrupt(IRQ_S_SOFT, true);
    await until(() => counter(w) >= n);
  }
  w.vcpus[0]!.immediateExit();
  expect((await running).reason).toBe(KVM_EXIT_INTR);
});

test('AMOs of two threads on one word lose nothing', async () => {
  const rounds = 200_000n;
  const w = newWorld(
    2,
    code(addi(A1, ZERO, 1), amoaddD(ZERO, A0, A1), addi(A2, A2, -1), bne(A2, ZERO, -8), sd(ZERO, 0, T0)),
  );
  for (const vcpu of w.vcpus) vcpu.hart.setX(A2, rounds);
  const exits = await Promise.all(w.vcpus.map((vcpu) => vcpu.run()));
  expect(exits.map((exit) => exit.reason)).toEqual([KVM_EXIT_MMIO, KVM_EXIT_MMIO]);
  expect(counter(w)).toBe(2n * rounds);
});

test('MMIO: a read leaves the guest, and goes on with what it is answered', async () => {
  const w = newWorld(1, code(ld(A1, 8, T0), sd(A1, 0, A0), sd(ZERO, 0, T0)));
  const [vcpu] = w.vcpus as [Vcpu];
  expect(await vcpu.run()).toMatchObject({ reason: KVM_EXIT_MMIO, physAddr: STOP + 8, lenBytes: 8, isWrite: false });
  vcpu.completeMmioRead(0x1122334455667788n);
  expect(await vcpu.run()).toMatchObject({ reason: KVM_EXIT_MMIO, physAddr: STOP, isWrite: true });
  expect(counter(w)).toBe(0x1122334455667788n);
});

test('N25: a vCPU is killed in the guest: it ends with a reason, and so do the others of its VM', async () => {
  const w = newWorld(2, COUNT);
  const running = w.vcpus.map(async (vcpu) => {
    for (;;) {
      const exit = await vcpu.run();
      if (exit.reason !== KVM_EXIT_INTR) return exit;
    }
  });
  await until(() => counter(w) > 0n);
  await w.vcpus[1]!.killThread();
  for (const exit of await Promise.all(running))
    expect(exit).toMatchObject({
      reason: KVM_EXIT_SHUTDOWN,
      message: expect.stringContaining('vCPU 1: its thread has died'),
    });
});

test('N25: a thread that waits for a lock that another one died with ends with its VM', async () => {
  const w = newWorld(2, COUNT);
  const { words } = w.vm.tables as unknown as { words: { store(i: number, value: number): void } };
  // Taken, and by nobody who lives: the first fault of each vCPU waits for it.
  words.store(MMU_LOCK, 1);
  const running = w.vcpus.map(async (vcpu) => {
    for (;;) {
      const exit = await vcpu.run();
      if (exit.reason !== KVM_EXIT_INTR) return exit;
    }
  });
  await until(() => w.vcpus.every(({ state }) => state.turn === TURN_THREAD));
  await new Promise((resolve) => setTimeout(resolve, 100));
  await w.vcpus[1]!.killThread();
  for (const { reason } of await Promise.all(running)) expect(reason).toBe(KVM_EXIT_SHUTDOWN);
});

test('threads are refused where the environment has none', () => {
  const host = new Host({ frames: 64, arenaBytes: 2 ** 20 });
  const kvm = new Kvm(host, { nowMs: env.nowMs, defer: env.defer, setTimer: env.setTimer }, { nrDecodedPages: 16 });
  expect(() => kvm.createVm(host.createMm(), { threads: true })).toThrow('threads must be false');
  expect(() => kvm.createVm(host.createMm(), { nrVcpus: 65 })).toThrow('nrVcpus 65 must be from 1 to 64');
});

test('N5: of two faults of one page that come together, the one for reading takes no right from the one for writing', () => {
  const w = newWorld(1, COUNT);
  const [slot] = w.vm.slots.all();
  const pfn = w.mm.tryGetPage(data(w), FAULT_FLAG_WRITE);
  w.vm.lockMmu();
  w.vm.tables.installDirect(slot!, DATA_PAGE, (pfn << 12) | DIRECT_V | DIRECT_W);
  w.vm.tables.installDirect(slot!, DATA_PAGE, (pfn << 12) | DIRECT_V);
  w.vm.unlockMmu();
  w.mm.putPage(pfn);
  expect(slot!.direct.readOnce(DATA_PAGE) & DIRECT_W).toBe(DIRECT_W);
});

test('N3 N18: once the mm has gone, nothing that was looked up is installed', () => {
  const w = newWorld(1, COUNT);
  const seq = () => w.vm.invalidate.readBegin();
  expect(w.vm.invalidate.readRetry(seq(), data(w))).toBe(false);
  w.mm.exit();
  expect(w.vm.invalidate.readRetry(seq(), data(w))).toBe(true);
});
