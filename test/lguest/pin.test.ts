import { expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/mm/index.js';
import { FIRST_DATA_PAGE as DATA, endedAfterEach, TestGuest, type TestGuestOptions } from './testguest.js';

/** S10: nothing of a guest is locked, whatever its launcher may lock; and what locking it, as in 2007, takes and leaves. */

const made = endedAfterEach();

test('S10: nothing is locked: a guest of any size runs under a memlock limit of 64 KiB, and of 0', async () => {
  for (const rlimitMemlock of [65536, 0]) {
    const t = await made(TestGuest.paged({ rlimitMemlock, ramPages: 128 }));
    for (let page = DATA; page < 128; page++) await t.store(t.va(page * PAGE_SIZE), BigInt(page));
    expect(t.mm.procStatus().VmLck).toBe(0);
    expect(t.host.stats().pinnedFrames).toBe(0);
    t.check();
    t.evict();
    expect(t.mm.residentPages).toBe(0);
    expect(await t.load(t.va(DATA * PAGE_SIZE))).toBe(BigInt(DATA));
  }
});

const pin = (rlimitMemlock: number) => TestGuest.bare({ rlimitMemlock, init: { pin: true } });

test('S10: pinning, as in 2007, is for those who may: EPERM, ENOMEM, or locked until it is closed', async () => {
  await expect(pin(0)).rejects.toThrow('EPERM: mlock: RLIMIT_MEMLOCK');
  await expect(pin(65536)).rejects.toThrow('ENOMEM: mlock: 256 KiB cannot be locked');
  const t = await made(pin(256 * 1024));
  expect(t.mm.procStatus().VmLck).toBe(256);
  expect(t.host.stats().pinnedFrames).toBe(64);
  t.check();
  t.evict();
  expect(t.mm.residentPages).toBe(64);
  t.lg.close();
  expect(t.mm.procStatus().VmLck).toBe(0);
  t.evict();
  expect(t.mm.residentPages).toBe(0);
});

/** A launcher with room for a second guest over the memory of its first, which is gone; all of that is in swap. */
async function launcher(options: TestGuestOptions = {}) {
  const t = await made(TestGuest.bare({ rlimitMemlock: 2 ** 20, ...options }));
  t.lg.close();
  t.evict();
  return { t, lg: t.device.open(t.mm), init: { base: t.base, pfnLimit: t.ramPages, start: 0, pin: true } };
}

test('a launcher that closes while its guest is being pinned: no guest is made, and nothing stays locked', async () => {
  const { t, lg, init } = await launcher();
  const initializing = lg.initialize(init);
  expect(t.mm.procStatus().VmLck).toBe(256);
  lg.close();
  await expect(initializing).rejects.toThrow('EBADF: initialize: the device is closed');
  expect(lg.isInitialized).toBe(false);
  expect(t.mm.procStatus().VmLck).toBe(0);
  expect(t.mm.notifiers.nrSubscriptions).toBe(0);
});

test('pinning that is refused when it has begun leaves nothing locked; what the launcher has locked itself stays', async () => {
  const { t, lg, init } = await launcher();
  t.mm.munmap(t.base + 40 * PAGE_SIZE, PAGE_SIZE);
  await expect(lg.initialize(init)).rejects.toThrow('ENOMEM: mlock');
  expect(t.mm.procStatus().VmLck).toBe(0);
  const small = await launcher({ rlimitMemlock: 128 * 1024 });
  await small.t.mm.mlock(small.t.base, 16 * PAGE_SIZE);
  await expect(small.lg.initialize(small.init)).rejects.toThrow(
    'ENOMEM: mlock: 192 KiB cannot be locked beside the 64',
  );
  expect(small.t.mm.procStatus().VmLck).toBe(64);
});

test('a pinned guest whose launcher unmaps a part of it is closed as any other', async () => {
  const { t, lg, init } = await launcher();
  await lg.initialize(init);
  expect(t.mm.procStatus().VmLck).toBe(256);
  t.mm.munmap(t.base + 40 * PAGE_SIZE, PAGE_SIZE);
  const running = expect(lg.run()).rejects.toThrow('the device was closed');
  lg.close();
  await running;
  expect(t.mm.procStatus().VmLck).toBe(0);
});
