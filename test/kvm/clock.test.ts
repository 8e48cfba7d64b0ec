import { expect, test } from 'vitest';
import { TICKS_PER_MS, VmClock } from '../../src/kvm/clock.js';
import { Kvm } from '../../src/kvm/index.js';
import { MemorySwap } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { CSR, IRQ_S_TIMER } from '../../src/riscv/index.js';
import { addi, csrrs, ECALL, ld, sd, WFI } from '../isa/assemble.js';
import { A0, A1, A7, code, T0, ZERO } from './guestcode.js';
import { FIRST_DATA_PAGE as DATA, newHost, PAGE, TestVm } from './testvm.js';

/** The guest's clock, which stands while the guest waits for memory. */

const A2 = 12;
const A6 = 16;
const [S2, S3] = [18, 19];
const HOUR_MS = 3_600_000;

function newClock() {
  const host = newHost(64);
  const env = { ms: 1000 };
  const clock = VmClock.create(host, () => env.ms, 1000);
  const other = new VmClock({ buffer: host.memory.buffer }, clock.address, () => env.ms, 1000);
  return { env, clock, other, ms: () => clock.now() / TICKS_PER_MS };
}

test('it stands while all that are not idle wait, for all views alike, and goes on where it stood', () => {
  const { env, clock, other, ms } = newClock();
  clock.enter();
  other.enter();
  env.ms += 5;
  clock.waitBegins();
  env.ms += 5;
  expect([ms(), other.now(), clock.stands]).toEqual([10, 10 * TICKS_PER_MS, false]);
  // The other becomes idle: nobody is left who could do something with the time.
  other.leave();
  env.ms += HOUR_MS;
  expect([ms(), other.now(), other.stands]).toEqual([10, 10 * TICKS_PER_MS, true]);
  other.enter();
  env.ms += 5;
  expect(ms()).toBe(15);
  other.waitBegins();
  env.ms += 4 * HOUR_MS;
  expect(ms()).toBe(15);
  clock.waitEnds();
  env.ms += 7;
  expect(ms()).toBe(22);
  other.waitEnds();
  clock.leave();
  other.leave();
  // Idle, it runs: what the guest waits for is time.
  env.ms += HOUR_MS;
  expect(ms()).toBe(22 + HOUR_MS);
});

test('more than 2^32 ticks, and many stops', () => {
  const { env, clock, ms } = newClock();
  clock.enter();
  let expected = 0;
  for (let n = 0; n < 2000; n++) {
    env.ms += HOUR_MS;
    expected += HOUR_MS;
    clock.waitBegins();
    env.ms += HOUR_MS + n;
    expect(ms()).toBe(expected);
    clock.waitEnds();
  }
});

/** Swap whose reads take an hour by the environment's clock. */
class SlowSwap extends MemorySwap {
  readonly env: { ms: number };
  nrReads = 0;

  constructor(env: { ms: number }) {
    super({ sizeBytes: 2 ** 20 });
    this.env = env;
  }

  override async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    this.nrReads++;
    this.env.ms += HOUR_MS / 2;
    await new Promise((resolve) => setTimeout(resolve, 3));
    this.env.ms += HOUR_MS / 2;
    return super.read(slots, frames);
  }
}

async function newSwapped() {
  const env = { ms: 0 };
  const swap = new SlowSwap(env);
  const host = newHost(64, swap);
  const kvm = new Kvm(host, { ...nodeEnvironment(), nowMs: () => env.ms }, { nrDecodedPages: 64 });
  const t = await TestVm.create({ host, kvm, ramPages: 32 });
  await t.mm.write(
    t.at(1),
    code(csrrs(A1, CSR.time, ZERO), ld(ZERO, 0, A0), csrrs(A2, CSR.time, ZERO), sd(ZERO, 0, T0)),
  );
  await t.store(t.gpa(DATA), 5n);
  const evict = async () => {
    for (let n = 0; n < 20; n++) {
      host.reclaim.shrink(true, true, true);
      await host.writeback.drain();
    }
  };
  return { env, swap, t, evict };
}

test('a guest that waits an hour for its memory sees no time go by, and its timer is not due', async () => {
  const { swap, t, evict } = await newSwapped();
  const { hart } = t.vcpu;
  t.vcpu.core.timer.set(1000 * TICKS_PER_MS);
  for (let n = 0; n < 3; n++) {
    await evict();
    swap.nrReads = 0;
    await t.call(PAGE, BigInt(t.gpa(DATA)));
    expect(swap.nrReads).toBeGreaterThan(0);
    expect(hart.getX(A2) - hart.getX(A1)).toBe(0n);
    expect(hart.interruptPending()).toBe(false);
  }
  t.destroy();
});

const DBCN_WRITE = { eid: 0x4442434e, fid: 0n, args: (gpa: number) => [16n, BigInt(gpa), 0n] };
const DBCN_READ = { eid: 0x4442434e, fid: 1n, args: DBCN_WRITE.args };
const SEND_IPI_V01 = { eid: 4, fid: 0n, args: (gpa: number) => [BigInt(gpa), 0n, 0n] };

test.each([
  ['writes to the console', DBCN_WRITE],
  ['reads from the console', DBCN_READ],
  ['sends an interrupt by the mask of old', SEND_IPI_V01],
])('a guest that %s waits an hour for the memory that the call names, and sees no time go by', async (_what, call) => {
  const { swap, t, evict } = await newSwapped();
  const { hart } = t.vcpu;
  await t.mm.write(t.at(1), code(csrrs(S2, CSR.time, ZERO), ECALL, csrrs(S3, CSR.time, ZERO), sd(ZERO, 0, T0)));
  await t.store(t.gpa(DATA), 1n);
  await t.call(PAGE);
  await evict();
  // Its code is there when it makes the call.
  await t.mm.read(t.at(1), new Uint8Array(8));
  swap.nrReads = 0;
  call.args(t.gpa(DATA)).forEach((value, i) => {
    hart.setX(A0 + i, value);
  });
  hart.setX(A7, BigInt(call.eid));
  hart.setX(A6, call.fid);
  hart.pc = BigInt(t.gpa(1));
  await t.vcpu.run();
  expect([hart.getX(A0), swap.nrReads > 0]).toEqual([0n, true]);
  expect(hart.getX(S3) - hart.getX(S2)).toBe(0n);
  t.destroy();
});

test('a guest that sleeps has its time go by, and its timer wakes it', async () => {
  const { env, t } = await newSwapped();
  await t.mm.write(t.at(1), code(addi(A1, ZERO, 0), WFI, csrrs(A1, CSR.time, ZERO), sd(ZERO, 0, T0)));
  const { hart } = t.vcpu;
  hart.csr.write(CSR.sie, 1 << IRQ_S_TIMER, 0);
  const before = t.vm.clock.now();
  t.vcpu.core.timer.set(before + 10 * TICKS_PER_MS);
  const ticking = setInterval(() => env.ms++, 1);
  // Its sleep may end early; then it sleeps again.
  for (let n = 0; n < 1000 && !hart.interruptPending(); n++) await t.call(PAGE);
  clearInterval(ticking);
  expect(hart.interruptPending()).toBe(true);
  expect(t.vm.clock.now() - before).toBeGreaterThanOrEqual(10 * TICKS_PER_MS);
  t.destroy();
});
