import { describe, expect, test } from 'vitest';
import {
  LGUEST_IRQ_VECTOR,
  LGUEST_REG_PC,
  LGUEST_STATUS_PIE,
  LGUEST_STATUS_PP,
  LHCALL_HALT,
  LHCALL_SEND_INTERRUPTS,
  LHCALL_SET_CLOCKEVENT,
  LHCALL_TS,
} from '../../src/lguest/index.js';
import { addi, EBREAK, ECALL, fmvDX, ld, sd, sw } from '../isa/assemble.js';
import { LOOP } from '../kvm/guestcode.js';
import {
  A0,
  A1,
  A2,
  FIRST_DATA_PAGE as DATA,
  DONE,
  endedAfterEach,
  KERNEL,
  KERNEL_RWX,
  notify,
  PAGE,
  RETURN,
  SP,
  STACK_PAGE,
  TestGuest,
  type TestGuestOptions,
  USER,
  USER_RWX,
  ZERO,
} from './testguest.js';

/** How traps come out of a guest, reach its kernel, and how the kernel returns from them. */

const made = endedAfterEach();
const paged = (options: TestGuestOptions = {}) => made(TestGuest.paged(options));

const STACK_TOP = KERNEL + BigInt((STACK_PAGE + 1) * PAGE);
const TIMER = LGUEST_IRQ_VECTOR;
const INTERRUPT = 1n << 63n;
const T3 = 28;
/** The first handlers are the causes' own; what a process notifies would not come out. */
const IRQ = (n: number) => LGUEST_IRQ_VECTOR + n;

describe('an exception of a process', () => {
  test('its ecall is the kernel’s system call: frame, stack, mode, registers', async () => {
    const t = await paged();
    await t.process(DATA, [8], addi(A0, ZERO, 55), addi(A2, ZERO, 66), ECALL, addi(A2, A2, 1), ECALL);
    await t.must(t.sret(USER, LGUEST_STATUS_PIE, 0x1234n), 8);
    expect(await t.frame()).toEqual({
      epc: USER + 8n,
      sp: 0x1234n,
      a0: 55n,
      status: BigInt(LGUEST_STATUS_PIE),
      cause: 8n,
      tval: 0n,
    });
    expect(t.lg.getreg(SP)).toBe(BigInt.asUintN(64, STACK_TOP - 64n));
    expect(t.lg.getreg(A2)).toBe(66n);
    expect(await t.read32(t.data('irqEnabled'))).toBe(0);
    expect(t.lg.cpu.hart.mode).toBe(1);
    t.check();

    // It goes on behind its ecall, with a0 as the kernel has put it into the frame.
    const frame = (STACK_PAGE + 1) * PAGE - 64;
    await t.write64(frame, USER + 12n);
    await t.write64(frame + 16, 99n);
    await t.must(t.resume(), 8);
    expect(await t.frame()).toMatchObject({ epc: USER + 16n, sp: 0x1234n, a0: 99n });
    expect(t.lg.getreg(A2)).toBe(67n);
    expect(t.lg.stats.traps).toBe(2);
  });

  const AT_DATA = KERNEL + BigInt(DATA * PAGE);
  test.each([
    ['a load of what is not mapped', 13, ld(A1, 0, A0), 0x7000n, 0x7000n],
    ['a store to what is not mapped', 15, sd(A1, 0, A0), 0x7008n, 0x7008n],
    ['a load of the kernel’s', 13, ld(A1, 0, A0), AT_DATA, AT_DATA],
    ['a store to the kernel’s', 15, sd(A1, 0, A0), AT_DATA, AT_DATA],
    ['a load from a non-canonical address', 13, ld(A1, 0, A0), 1n << 50n, 1n << 50n],
    ['a jump to what is not mapped', 12, 0x67 | (A0 << 15), 0x7000n, 0x7000n],
    ['a jump into the kernel', 12, 0x67 | (A0 << 15), KERNEL, KERNEL],
    ['ebreak', 3, EBREAK, 0n, USER],
    ['an illegal instruction', 2, 0, 0n, 0n],
    ['sret', 2, 0x10200073, 0n, 0x10200073n],
    ['csrr a1, satp', 2, 0x180025f3, 0n, 0x180025f3n],
  ])('%s has cause %i', async (_name, cause, instruction, a0, tval) => {
    const t = await paged();
    await t.process(DATA, [cause], instruction);
    await t.must(t.sret(USER, 0, 0n, a0), cause);
    const epc = cause === 12 ? a0 : USER;
    const unsigned = (value: bigint) => BigInt.asUintN(64, value);
    expect(await t.frame()).toMatchObject({
      epc: unsigned(epc),
      cause: BigInt(cause),
      tval: unsigned(tval),
      status: 0n,
    });
    t.check();
  });

  test('floating point is the process’s own, until the kernel takes it: LHCALL_TS', async () => {
    const t = await paged();
    await t.process(DATA, [2, 8], fmvDX(1, A0), ECALL);
    await t.must(t.sret(USER, 0), 8);
    await t.hcall(LHCALL_TS, 1n);
    await t.must(t.sret(USER, 0), 2);
    await t.hcall(LHCALL_TS, 0n);
    await t.must(t.sret(USER, 0), 8);
  });
});

describe('an exception of the kernel', () => {
  test('is pushed below its own sp, and returns there', async () => {
    const t = await paged();
    await t.handler(3, 3);
    const at = await t.code(EBREAK, ...notify(44));
    const sp = t.va(STACK_PAGE * PAGE + 0x808);
    t.lg.setreg(SP, sp);
    await t.write32(t.data('irqEnabled'), 1);
    await t.must(t.call(at, 7n), 3);
    const status = BigInt(LGUEST_STATUS_PIE | LGUEST_STATUS_PP);
    expect(await t.frame()).toEqual({ epc: t.va(at), sp, a0: 7n, status, cause: 3n, tval: t.va(at) });
    expect(t.lg.getreg(SP)).toBe(t.va(STACK_PAGE * PAGE + 0x7c0));
    expect(await t.read32(t.data('irqEnabled'))).toBe(0);
    await t.write64(STACK_PAGE * PAGE + 0x7c0, t.va(at + 4));
    await t.must(t.resume(), 44);
    expect(t.lg.getreg(SP)).toBe(sp);
    expect(await t.read32(t.data('irqEnabled'))).toBe(1);
  });

  test('a frame on a page that is swapped out is waited for', async () => {
    const t = await paged();
    await t.process(DATA, [8], ECALL);
    await t.write64(0x3000, 1n);
    t.evict();
    await t.must(t.sret(USER, 0), 8);
    expect(await t.frame()).toMatchObject({ epc: USER, cause: 8n });
    expect(t.lg.stats.faults.major).toBeGreaterThan(0);
    t.check();
  });

  test('LHREQ_TRAP: the launcher gives it one', async () => {
    const t = await paged();
    await t.handler(5, 5);
    t.lg.setreg(SP, t.va((STACK_PAGE + 1) * PAGE));
    const at = await t.code(LOOP);
    t.lg.trap(5, 0x123456789abcdef0n);
    await t.must(t.call(at), 5);
    expect(await t.frame()).toMatchObject({ cause: 5n, tval: 0x123456789abcdef0n, epc: t.va(at) });
    expect(() => t.lg.trap(32)).toThrow('EINVAL: trap: trap 32 must be an integer from 0 to 31');
  });
});

describe('interrupts', () => {
  test('come to a process, the lowest number first, when irqEnabled says so', async () => {
    const t = await paged();
    await t.process(DATA, [IRQ(3), IRQ(5)], LOOP);
    t.lg.irq(5);
    t.lg.irq(3);
    await t.must(t.sret(USER, LGUEST_STATUS_PIE), IRQ(3));
    expect(await t.frame()).toMatchObject({
      epc: USER,
      cause: INTERRUPT | 3n,
      tval: 0n,
      status: BigInt(LGUEST_STATUS_PIE),
    });
    await t.must(t.resume(), IRQ(5));
    expect(await t.frame()).toMatchObject({ epc: USER, cause: INTERRUPT | 5n });
    expect(t.lg.stats.interrupts).toBe(2);
    expect(() => t.lg.irq(32)).toThrow('EINVAL: irq: irq 32 must be an integer from 0 to 31');
  });

  test('while irqEnabled is 0 word is left in irqPending; LHCALL_SEND_INTERRUPTS asks for them', async () => {
    const t = await paged();
    await t.handler(IRQ(4), IRQ(4));
    const stack = t.va((STACK_PAGE + 1) * PAGE);
    t.lg.setreg(SP, stack);
    t.lg.irq(4);
    await t.hcall(LHCALL_SEND_INTERRUPTS);
    expect(await t.read32(t.data('irqPending'))).toBe(1);
    // The guest enables them, and asks.
    const enable = await t.code(sw(A1, 0, A0), addi(A0, ZERO, LHCALL_SEND_INTERRUPTS), ECALL, ...notify(55));
    await t.must(t.call(enable, t.va(t.data('irqEnabled')), 1n), IRQ(4));
    expect(await t.read32(t.data('irqPending'))).toBe(0);
    // Behind the ecall, whose result it has.
    expect(await t.frame()).toMatchObject({ epc: t.va(enable + 12), a0: 0n, cause: INTERRUPT | 4n });
    await t.must(t.resume(), 55);
  });

  test('blocked ones stay pending', async () => {
    const t = await paged();
    await t.process(DATA, [IRQ(1), IRQ(2), 8], ECALL);
    await t.write32(t.data('blockedInterrupts'), 1 << 1);
    t.lg.irq(1);
    await t.must(t.sret(USER, LGUEST_STATUS_PIE), 8);
    t.lg.irq(2);
    await t.must(t.sret(USER, LGUEST_STATUS_PIE), IRQ(2));
    await t.write32(t.data('blockedInterrupts'), 0);
    await t.must(t.resume(), IRQ(1));
  });

  test('the timer comes once, and tells the time of day', async () => {
    let unixMs = 1_700_000_000_250.5;
    const t = await paged({ options: { unixMs: () => unixMs } });
    expect(await t.read64(t.data('timeSec'))).toBe(1_700_000_000n);
    expect(await t.read64(t.data('timebaseHz'))).toBe(10_000_000n);
    expect(await t.read64(t.data('memBytes'))).toBe(64n * 4096n);
    await t.process(DATA, [TIMER, 8], LOOP);
    await t.hcall(LHCALL_SET_CLOCKEVENT, 2_000_000n);
    unixMs += 1000;
    await t.must(t.sret(USER, LGUEST_STATUS_PIE), TIMER);
    expect(await t.frame()).toMatchObject({ epc: USER, cause: INTERRUPT });
    expect([await t.read64(t.data('timeSec')), await t.read64(t.data('timeNsec'))]).toEqual([
      1_700_000_001n,
      250_500_000n,
    ]);
    expect(await t.read64(t.data('timeTicks'))).toBeGreaterThan(0n);

    await t.hcall(LHCALL_SET_CLOCKEVENT, 1n);
    await t.hcall(LHCALL_SET_CLOCKEVENT, 0n);
    await t.write(DATA * PAGE + 64, new Uint8Array(new Uint32Array([ECALL]).buffer));
    await t.must(t.sret(USER + 64n, LGUEST_STATUS_PIE), 8);
  });

  test('LHCALL_HALT waits for one, which it enables', async () => {
    const t = await paged();
    await t.handler(TIMER, TIMER);
    await t.handler(IRQ(7), IRQ(7));
    t.lg.setreg(SP, t.va((STACK_PAGE + 1) * PAGE));
    await t.hcall(LHCALL_SET_CLOCKEVENT, 1_000_000n);
    await t.must(t.call(0x80, BigInt(LHCALL_HALT)), TIMER);
    expect(await t.frame()).toMatchObject({ epc: t.va(0x84), status: BigInt(LGUEST_STATUS_PIE | LGUEST_STATUS_PP) });
    await t.must(t.resume());
    setTimeout(() => t.lg.irq(7), 2);
    await t.must(t.call(0x80, BigInt(LHCALL_HALT)), IRQ(7));
    // One that is pending already ends it at once.
    t.lg.irq(7);
    await t.must(t.call(0x80, BigInt(LHCALL_HALT)), IRQ(7));
    // It halts with interrupts blocked: nobody but the launcher can end that.
    await t.write32(t.data('blockedInterrupts'), -1);
    const halted = t.call(0x80, BigInt(LHCALL_HALT));
    setTimeout(() => t.lg.irq(7), 1);
    setTimeout(() => t.lg.signal(), 5);
    await expect(halted).rejects.toThrow('EINTR: run: a signal came');
  });

  test('LHCALL_HALT with a timer years away sleeps, and wakes for another interrupt', async () => {
    const t = await paged();
    await t.handler(IRQ(7), IRQ(7));
    t.lg.setreg(SP, t.va((STACK_PAGE + 1) * PAGE));
    const warnings: string[] = [];
    const listen = ({ name }: Error) => warnings.push(name);
    process.on('warning', listen);
    await t.hcall(LHCALL_SET_CLOCKEVENT, 2n ** 63n);
    const halted = t.must(t.call(0x80, BigInt(LHCALL_HALT)), IRQ(7));
    setTimeout(() => t.lg.irq(7), 5);
    await halted;
    process.off('warning', listen);
    // Node's, of a timer that is too long for it, and that it has made a short one.
    expect(warnings).toEqual([]);
  });

  test('a whole kernel’s way: interrupted process, handler, return', async () => {
    const t = await paged();
    await t.process(DATA, [], addi(A2, A2, 1), 0xffdff06f);
    const handler = await t.code(addi(T3, T3, 1), ...RETURN);
    await t.hcall(6, BigInt(TIMER), t.va(handler));
    await t.hcall(LHCALL_SET_CLOCKEVENT, 1000n);
    const running = expect(t.sret(USER, LGUEST_STATUS_PIE)).rejects.toThrow('EINTR');
    // Until it has been in the handler, and in the process again.
    while (t.lg.getreg(T3) === 0n) await new Promise((resolve) => setTimeout(resolve, 1));
    const count = t.lg.getreg(A2);
    while (t.lg.getreg(A2) === count) await new Promise((resolve) => setTimeout(resolve, 1));
    t.lg.signal();
    await running;
    expect(t.lg.getreg(T3)).toBe(1n);
    expect(t.lg.getreg(A2)).toBeGreaterThan(1n);
    expect(t.lg.getreg(LGUEST_REG_PC) & ~4n).toBe(USER);
    t.check();
  });
});

test('what is mapped for a process is the kernel’s too, but not to execute', async () => {
  const t = await paged();
  await t.process(DATA, [12, 8], ECALL);
  await t.must(t.sret(USER, 0), 8);
  await t.write64(DATA * PAGE + 8, 42n);
  expect(await t.load(USER + 8n)).toBe(42n);
  await t.store(USER + 8n, 43n);
  expect(await t.read64(DATA * PAGE + 8)).toBe(43n);
  t.lg.cpu.hart.setMode(1);
  t.lg.setreg(LGUEST_REG_PC, USER);
  t.lg.setreg(SP, t.va((STACK_PAGE + 1) * PAGE));
  await t.must(t.lg.run(), 12);
  expect(DONE).not.toBe(12);
  expect(USER_RWX).not.toBe(KERNEL_RWX);
});
