import { expect, test } from 'vitest';
import {
  checkVm,
  KVM_EXIT_INTR,
  KVM_EXIT_MEMORY_FAULT,
  KVM_EXIT_MMIO,
  KVM_EXIT_SYSTEM_EVENT,
  Kvm,
  type VcpuExit,
} from '../../src/kvm/index.js';
import * as S from '../../src/machine/index.js';
import { checkHost, Host, MAP_ANONYMOUS, MAP_PRIVATE, MemorySwap, PROT_READ, PROT_WRITE } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { ECALL, sd } from '../isa/assemble.js';
import { Random } from '../isa/random.js';
import { bundleWorker } from '../worker.js';
import { A0, code, T0, ZERO } from './guestcode.js';

/**
 * SBI calls with whatever a guest may pass: known and unknown extensions and functions, hart masks, addresses in RAM, at its ends, nowhere, wrapping round.
 * The guest gets an answer, or has asked for its end; the host goes on, and no memory but the guest's is touched.
 */

const PAGE = 4096;
const RAM_PAGES = 32;
const RAM_BYTES = RAM_PAGES * PAGE;
const STOP = 0x4000_0000;
const ROUNDS = Number(process.env.UNPIN_SBI_ROUNDS ?? 600);
const env = nodeEnvironment({ vcpuWorker: bundleWorker(new URL('../../src/node/vcpuworker.ts', import.meta.url)) });

const EIDS = [
  ...Array.from({ length: 16 }, (_, eid) => eid),
  S.SBI_EXT_BASE,
  S.SBI_EXT_TIME,
  S.SBI_EXT_IPI,
  S.SBI_EXT_RFENCE,
  S.SBI_EXT_HSM,
  S.SBI_EXT_SRST,
  S.SBI_EXT_DBCN,
  0x12345678,
];
const EDGES = [0n, 1n, 2n, 3n, 4095n, 4096n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 4096n];

function argument(random: Random): bigint {
  switch (random.below(4)) {
    case 0:
      return EDGES[random.below(EDGES.length)]!;
    case 1:
      return BigInt(S.RAM_BASE + PAGE + random.below(RAM_BYTES));
    case 2:
      return BigInt(S.RAM_BASE + RAM_BYTES - random.below(16));
    default:
      return random.next();
  }
}

async function fuzz(threads: boolean, seed: number): Promise<void> {
  const random = new Random(seed);
  const host = new Host({
    frames: 256,
    arenaBytes: 4 * 2 ** 20,
    swap: new MemorySwap({ sizeBytes: 2 ** 20 }),
    debug: true,
  });
  const kvm = new Kvm(host, env, { nrDecodedPages: 16, nrThreadDecodedPages: 16 });
  const mm = host.createMm();
  const hva = mm.mmap(0, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.writeSync(hva, code(ECALL, sd(ZERO, 0, T0)));
  const console = { write: () => {}, read: () => random.below(300) - 40 };
  const vm = kvm.createVm(mm, { nrVcpus: 2, threads, nrShadowPages: 8, console });
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: S.RAM_BASE, memorySize: RAM_BYTES, userspaceAddr: hva });
  const vcpus = [vm.createVcpu(0), vm.createVcpu(1)] as const;
  let over = false;
  // The second hart runs whatever the first one starts it with, for as long as it is let.
  const second = (async () => {
    while (!over) await vcpus[1].run();
  })();
  const counts = new Map<number, number>();
  for (let round = 0; round < ROUNDS; round++) {
    const [vcpu] = vcpus;
    vcpu.start(BigInt(S.RAM_BASE), 0n);
    vcpu.hart.setX(T0, BigInt(STOP));
    for (let n = 0; n < 6; n++) vcpu.hart.setX(A0 + n, argument(random));
    vcpu.hart.setX(16, random.below(5) === 0 ? random.next() : BigInt(random.below(8)));
    vcpu.hart.setX(17, random.below(40) === 0 ? random.next() : BigInt(EIDS[random.below(EIDS.length)]!));
    // A hart that stops itself waits for another to start it.
    const timer = setTimeout(() => vcpu.immediateExit(), 200);
    const exit = await answer(vcpu.run());
    clearTimeout(timer);
    counts.set(exit.reason, (counts.get(exit.reason) ?? 0) + 1);
    expect([KVM_EXIT_MMIO, KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_MEMORY_FAULT]).toContain(exit.reason);
  }
  expect(counts.get(KVM_EXIT_MMIO)).toBeGreaterThan(ROUNDS / 2);
  over = true;
  vcpus[1].immediateExit();
  await second;
  if (!threads) checkVm(vm);
  await vm.destroy();
  mm.exit();
  checkHost(host);
  await host.stop();
}

/** One that was told to come out had stopped itself: it has answered. */
async function answer(run: Promise<VcpuExit>): Promise<VcpuExit> {
  const exit = await run;
  return exit.reason === KVM_EXIT_INTR ? { reason: KVM_EXIT_SYSTEM_EVENT, type: 1, flags: 0 } : exit;
}

test('calls of the SBI at random, on the mm thread', () => fuzz(false, 1));
test('calls of the SBI at random, in threads', () => fuzz(true, 2));
