import { expect, test } from 'vitest';
import { Kvm } from '../../src/kvm/index.js';
import { Host, MemorySwap } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { BoardGuest, type BoardGuestOptions } from '../../src/vmm/index.js';
import { ENDLESS, imageOf, POWEROFF } from '../cli/kernels.js';
import { bundleWorker } from '../worker.js';

/** A guest's end, from inside and from outside, and its stops. */

const env = nodeEnvironment({ vcpuWorker: bundleWorker(new URL('../../src/node/vcpuworker.ts', import.meta.url)) });

const MIB = 2 ** 20;
const ARENA_BYTES = 64 * MIB;

function createHost(): Host {
  return new Host({ frames: 512, arenaBytes: ARENA_BYTES, swap: new MemorySwap({ sizeBytes: MIB }) });
}

function createGuest(
  host: Host,
  words: readonly number[],
  options: Partial<BoardGuestOptions> = {},
): Promise<BoardGuest> {
  return BoardGuest.create({
    name: 'guest',
    kvm: new Kvm(host, env),
    host,
    ramBytes: 8 * MIB,
    kernel: imageOf(words),
    bootargs: '',
    pin: false,
    gunzip: (bytes) => bytes,
    console: () => {},
    ...options,
  });
}

test('kill after the end touches nothing: what the guest had may be another guest’s by then', async () => {
  const host = createHost();
  const guest = await createGuest(host, POWEROFF);
  expect(await guest.run()).toMatchObject({ exit: 'poweroff', reason: '' });
  const free = new Int32Array(host.memory.buffer, 4096, ARENA_BYTES / 4).fill(0x5a5a5a5a);
  guest.kill('killed', 'late');
  expect(free.findIndex((word) => word !== 0x5a5a5a5a)).toBe(-1);
  await host.stop();
});

test('the first reason to end a guest is the one that is told', async () => {
  const host = createHost();
  const guest = await createGuest(host, ENDLESS['a tight loop']!);
  setTimeout(() => {
    guest.kill('timeout', 'first');
    guest.kill('killed', 'second');
  }, 50);
  expect(await guest.run()).toMatchObject({ exit: 'timeout', reason: 'first' });
  await host.stop();
});

test.each([false, true])(
  'a guest that is paused runs nothing and sees no time go by (threads: %s)',
  async (threads) => {
    const host = createHost();
    const guest = await createGuest(host, ENDLESS['a tight loop']!, { threads });
    const done = guest.run();
    const [vcpu] = guest.vcpus;
    const { clock } = vcpu!.vm;
    const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    await wait(20);
    // Twice at once is once.
    await Promise.all([guest.pause(), guest.pause()]);
    expect(guest.state).toBe('paused');
    const [instret, ticks] = [vcpu!.instret, clock.now()];
    expect(ticks).toBeGreaterThan(0);
    await wait(50);
    expect([vcpu!.instret, clock.now()]).toEqual([instret, ticks]);
    do {
      guest.resume();
      expect(guest.state).toBe('running');
      await wait(20);
      await guest.pause();
    } while (vcpu!.instret === instret || clock.now() === ticks);
    guest.kill('killed', 'while it was paused');
    expect(await done).toMatchObject({ exit: 'killed', reason: 'while it was paused' });
    await guest.pause();
    await host.stop();
  },
);
