import { expect, test } from 'vitest';
import { Kvm } from '../../src/kvm/index.js';
import { Host, MemorySwap } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { BoardGuest } from '../../src/vmm/index.js';
import { ENDLESS, imageOf, POWEROFF } from '../cli/kernels.js';

/** A guest's end, from inside and from outside. */

const MIB = 2 ** 20;
const ARENA_BYTES = 64 * MIB;

function createHost(): Host {
  return new Host({ frames: 512, arenaBytes: ARENA_BYTES, swap: new MemorySwap({ sizeBytes: MIB }) });
}

function createGuest(host: Host, words: readonly number[]): Promise<BoardGuest> {
  return BoardGuest.create({
    name: 'guest',
    kvm: new Kvm(host, nodeEnvironment()),
    host,
    ramBytes: 8 * MIB,
    kernel: imageOf(words),
    bootargs: '',
    pin: false,
    gunzip: (bytes) => bytes,
    console: () => {},
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
