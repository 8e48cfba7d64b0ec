import { expect, test } from 'vitest';
import {
  LGUEST_IRQ_VECTOR,
  LGUEST_REG_PC,
  LGUEST_SHUTDOWN_POWEROFF,
  LGUEST_SHUTDOWN_RESTART,
  LguestDevice,
  type LguestInit,
  LHCALL_NOTIFY,
  LHCALL_SHUTDOWN,
} from '../../src/lguest/index.js';
import { Host } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { addi, ECALL } from '../isa/assemble.js';
import { LOOP } from '../kvm/guestcode.js';
import {
  A0,
  A1,
  FIRST_DATA_PAGE as DATA,
  DONE,
  endedAfterEach,
  newDevice,
  newHost,
  notify,
  PAGE,
  SP,
  STACK_PAGE,
  TestGuest,
  ZERO,
} from './testguest.js';

/** The device's requests, as a launcher makes them. */

const made = endedAfterEach();

test('initialize refuses what cannot be, and a second time', async () => {
  const t = await made(TestGuest.bare());
  const again = { base: t.base, pfnLimit: 64, start: 0 };
  await expect(t.lg.initialize(again)).rejects.toThrow('EEXIST: initialize: the guest is initialized already');
  const other = t.device.open(t.mm);
  const refuses = (change: Partial<LguestInit>, message: string) =>
    expect(other.initialize({ ...again, ...change })).rejects.toThrow(`EINVAL: initialize: ${message}`);
  await refuses({ base: 100 }, 'base 100 must be a multiple of 4096');
  await refuses({ base: 2 ** 39 }, 'base');
  await refuses({ pfnLimit: 0 }, 'pfnLimit 0 must be an integer from 1 to 16777216 pages');
  await refuses({ pfnLimit: 1.5 }, 'pfnLimit 1.5');
  await refuses({ deviceLimit: 63 }, 'deviceLimit 63 must be an integer from pfnLimit 64');
  await refuses({ pgdir: 12 }, "pgdir 12 must be a multiple of 4096 in the guest's memory");
  await refuses({ pgdir: 64 * PAGE }, 'pgdir');
  await refuses({ start: 0.5 }, 'start 0.5 must be an address');
  await refuses({ start: 0x1001n }, 'start 4097 must be even');
  expect(() => other.irq(0)).toThrow('ENOENT: lguest: the guest must be initialized first');
  await expect(other.run()).rejects.toThrow('ENOENT');
  other.close();
});

test('its memory is of an mm that lives, of the same host', async () => {
  const t = await made(TestGuest.bare());
  const host = newHost(64);
  expect(() => t.device.open(host.createMm({ name: 'another' }))).toThrow(
    "EINVAL: open: another must be an mm of the device's own host",
  );
  await host.stop();
  const mm = t.host.createMm({ name: 'gone' });
  mm.exit();
  const init = t.device.open(mm).initialize({ base: 0x10000, pfnLimit: 16, start: 0 });
  await expect(init).rejects.toThrow('gone has exited');
  expect(mm.notifiers.nrSubscriptions).toBe(0);
});

test('no room in the arena is ENOMEM, and leaves nothing behind', async () => {
  const host = new Host({ frames: 64, arenaBytes: 1.2 * 2 ** 20 });
  const device = new LguestDevice(host, nodeEnvironment(), { nrDecodedPages: 16 });
  const filler: number[] = [];
  for (let bytes = 2 ** 18; bytes >= 8; bytes /= 2) {
    try {
      for (;;) filler.push(host.arenaAlloc(bytes, 4), bytes);
    } catch {}
  }
  const mm = host.createMm();
  const lg = device.open(mm);
  await expect(lg.initialize({ base: 0x10000, pfnLimit: 16, start: 0 })).rejects.toThrow('ENOMEM');
  expect(mm.notifiers.nrSubscriptions).toBe(0);
  for (let i = 0; i < filler.length; i += 2) host.arenaFree(filler[i]!, filler[i + 1]!);
  await lg.initialize({ base: 0x10000, pfnLimit: 16, start: 0 });
  lg.close();
});

test('registers: getreg and setreg; all 0 at power on but what the launcher sets', async () => {
  const t = await made(TestGuest.bare({ init: { start: 0x8000 } }));
  expect(t.lg.getreg(LGUEST_REG_PC)).toBe(0x8000n);
  for (let reg = 1; reg < 32; reg++) expect(t.lg.getreg(reg)).toBe(0n);
  t.lg.setreg(31, -1n);
  expect(t.lg.getreg(31)).toBe(2n ** 64n - 1n);
  t.lg.setreg(LGUEST_REG_PC, 0x8003n);
  expect(t.lg.getreg(LGUEST_REG_PC)).toBe(0x8002n);
  expect(() => t.lg.setreg(32, 0n)).toThrow('EINVAL: setreg: setreg 32 must be an integer from 0 to 31');
  expect(() => t.lg.getreg(-1)).toThrow('EINVAL');
});

test('pgdir: a guest whose first tables its launcher has made', async () => {
  const t = await TestGuest.paged();
  t.lg.close();
  const lg = t.device.open(t.mm);
  const code = new Uint8Array(Uint32Array.from([addi(A0, ZERO, 0), LOOP]).buffer);
  await t.mm.write(t.base + DATA * PAGE, code);
  await lg.initialize({ base: t.base, pfnLimit: 64, start: t.va(DATA * PAGE), pgdir: t.root });
  const running = expect(lg.run()).rejects.toThrow('EINTR: run: a signal came');
  while (lg.getreg(LGUEST_REG_PC) !== t.va(DATA * PAGE + 4)) await new Promise((resolve) => setTimeout(resolve, 1));
  lg.signal();
  await running;
  lg.close();
  t.mm.exit();
});

test('run: LHCALL_NOTIFY comes out with its number, from the ring before the ecall itself', async () => {
  const t = await made(TestGuest.create());
  await t.ring(0, [LHCALL_NOTIFY, 0xfedcba9876543210n], [LHCALL_NOTIFY, 2n]);
  const code = await t.code(addi(A0, ZERO, LHCALL_NOTIFY), addi(A1, ZERO, 3), ECALL, ...notify(DONE));
  const handler = await t.code(...notify(88));
  expect(await t.call(code)).toEqual({ trap: 0x1f, addr: 0xfedcba9876543210n, insn: 0 });
  // An interrupt does not come between the ring and the ecall.
  await t.write32(t.data('irqEnabled'), 1);
  t.lg.cpu.traps.setHandler(LGUEST_IRQ_VECTOR + 1, handler);
  t.lg.setreg(SP, BigInt((STACK_PAGE + 1) * PAGE));
  t.lg.irq(1);
  expect((await t.lg.run()).addr).toBe(2n);
  expect(t.lg.getreg(A0)).toBe(BigInt(LHCALL_NOTIFY));
  expect((await t.lg.run()).addr).toBe(3n);
  await t.must(t.lg.run(), 88);
  expect(await t.frame()).toMatchObject({ epc: BigInt(code + 12), a0: 0n });
  await t.must(t.resume());
});

test('a shutdown is the end, in the guest’s own words', async () => {
  for (const [how, reason] of [
    ['poweroff', LGUEST_SHUTDOWN_POWEROFF],
    ['restart', LGUEST_SHUTDOWN_RESTART],
  ] as const) {
    const t = await made(TestGuest.create());
    await t.write(DATA * PAGE + 4090, new TextEncoder().encode('all done\x1b[2J\0secret'));
    const death = t.hcall(LHCALL_SHUTDOWN, BigInt(DATA * PAGE + 4090), BigInt(reason));
    await expect(death).rejects.toMatchObject({ name: 'LguestDeath', how, message: 'all done?[2J' });
    await expect(t.lg.run()).rejects.toMatchObject({ how });
    t.lg.kill('too late');
    await expect(t.lg.run()).rejects.toMatchObject({ how });
  }
});

test('one run at a time; a signal ends it, and it goes on in the next; kill ends the guest', async () => {
  const t = await made(TestGuest.create());
  const spinning = t.call(await t.code(LOOP));
  await expect(t.lg.run()).rejects.toThrow('EBUSY: run: the guest runs already');
  t.lg.signal();
  await expect(spinning).rejects.toThrow('EINTR');
  const again = t.lg.run();
  setTimeout(() => t.lg.kill('its time is up'), 1);
  await expect(again).rejects.toMatchObject({ how: 'killed', message: 'its time is up' });
});

test('guests that compute have their turns, and others’ timers theirs', async () => {
  const t = await made(TestGuest.create());
  const other = await made(TestGuest.create({ host: t.host, device: t.device }));
  const both = [t, other];
  const spinning = both.map(async (g) => g.call(await g.code(addi(A1, A1, 1), 0xffdff06f)));
  const counts = () => both.map((g) => g.lg.getreg(A1));
  for (let nrTimers = 0, before = counts(); nrTimers < 5 || counts().some((n, i) => n === before[i]); nrTimers++)
    await new Promise((resolve) => setTimeout(resolve, 1));
  for (const g of both) g.lg.signal();
  for (const spin of spinning) await expect(spin).rejects.toThrow('EINTR');
});

test('a guest that notifies without end gives way too, whose launcher never waits', async () => {
  const host = newHost(256);
  let now = 0;
  const env = { ...nodeEnvironment(), nowMs: () => now++ };
  const device = new LguestDevice(host, env, { nrDecodedPages: 32 });
  const t = await made(TestGuest.create({ host, device }));
  let others = false;
  setImmediate(() => {
    others = true;
  });
  const again = await t.code(...notify(DONE), 0xff5ff06f);
  await t.must(t.call(again));
  for (let n = 0; n < 100 && !others; n++) await t.must(t.lg.run());
  expect(others).toBe(true);
});

test('a guest gets on in a host so slow that each turn is over when it begins', async () => {
  const host = newHost(256);
  let now = 0;
  const env = { ...nodeEnvironment(), nowMs: () => (now += 10) };
  const device = new LguestDevice(host, env, { nrDecodedPages: 32 });
  const t = await made(TestGuest.paged({ host, device }));
  await t.store(t.va(DATA * PAGE), 9n);
  t.evict();
  expect(await t.load(t.va(DATA * PAGE))).toBe(9n);
});

test('blockWhenAlone: the only guest blocks while its page is read', async () => {
  const t = await made(TestGuest.paged({ options: { blockWhenAlone: true } }));
  await t.store(t.va(DATA * PAGE), 9n);
  t.evict();
  // The way that waits is not taken.
  t.mm.faultIn = () => Promise.reject(new Error('it waited'));
  expect(await t.load(t.va(DATA * PAGE))).toBe(9n);
  expect(t.lg.stats.faults.major).toBeGreaterThan(0);
  const other = await made(TestGuest.create({ host: t.host, device: t.device }));
  t.evict();
  const spinning = other.call(await other.code(LOOP));
  await expect(t.load(t.va(DATA * PAGE))).rejects.toThrow('it waited');
  other.lg.signal();
  await expect(spinning).rejects.toThrow('EINTR');
});

test('the launcher’s devices reach guest memory, over pages, absent ones too; not beyond', async () => {
  const t = await made(TestGuest.create());
  const { memory } = t.lg;
  const bytes = Uint8Array.from({ length: 10000 }, (_, i) => i);
  await memory.write(DATA * PAGE + 100, bytes);
  t.evict();
  const seen = new Uint8Array(10000);
  await memory.read(DATA * PAGE + 100, seen);
  expect(seen).toEqual(bytes);
  await memory.store16(DATA * PAGE, 0xabcd);
  t.evict();
  expect(await memory.load16(DATA * PAGE)).toBe(0xabcd);
  t.evict();
  await memory.store16(DATA * PAGE + 2, 0x1234);
  expect(await t.read32(DATA * PAGE)).toBe(0x1234abcd);
  const beyond = 'EFAULT: guestMemory: guest-physical bytes 0x3ffff to 0x40001 must be below 0x40000';
  expect(() => memory.read(64 * PAGE - 1, new Uint8Array(2))).toThrow(beyond);
  expect(() => memory.write(-1, bytes)).toThrow('EFAULT');
  expect(() => memory.load16(64 * PAGE)).toThrow('EFAULT');
  t.check();
});

test('a device without options makes guests too', async () => {
  const t = await made(TestGuest.create());
  const device = newDevice(t.host, { nrShadowTables: 1 });
  const small = await made(TestGuest.paged({ host: t.host, device }));
  await small.store(small.va(DATA * PAGE), 1n);
  small.check();
});
