import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkHost } from '../../src/mm/index.js';
import {
  available,
  createDevice,
  type Descriptor,
  descriptors,
  driverIsReady,
  type FoundDevice,
  findDevices,
  NotifyGuest,
  RAM_BYTES,
} from './lguestworld.js';

/** lguest's bus, from a guest whose rings are the test's: what it can do right, and that whatever else it does is its own end and nobody else's. */

const TEXT = 0x20_0000;
const CONSOLE = 3;
const TRANSMIT = 1;

async function createGuest(addresses: (devices: readonly FoundDevice[]) => readonly bigint[]) {
  const device = createDevice();
  // The places of devices are the same in each guest.
  const probe = await NotifyGuest.create(device, []);
  const devices = await findDevices(probe);
  expect(await probe.run()).toMatchObject({ exit: 'poweroff', reason: '' });
  const guest = await NotifyGuest.create(device, addresses(devices));
  return { device, devices, guest };
}

/** The guest starts the console and notifies its transmit queue. */
async function transmitGuest() {
  const made = await createGuest((devices) => {
    const console = devices.find(({ type }) => type === CONSOLE)!;
    return [BigInt(console.gpa), BigInt(console.rings[TRANSMIT]!.desc)];
  });
  const console = made.devices.find(({ type }) => type === CONSOLE)!;
  await driverIsReady(made.guest, console);
  return { ...made, ring: console.rings[TRANSMIT]! };
}

const HELLO: Descriptor = { addr: BigInt(TEXT), len: 6, flags: 0, next: 0 };

test('what is in a ring that makes sense is done, and told by an interrupt', async () => {
  const { device, guest, ring } = await transmitGuest();
  await guest.write(TEXT, Buffer.from('hello\n'));
  await guest.write(ring.desc, descriptors([HELLO]));
  await guest.write(ring.avail, available(1, [0]));
  expect(await guest.run()).toMatchObject({ exit: 'poweroff', reason: '' });
  expect(guest.console()).toBe('hello\n');
  await device.host.stop();
});

test('an address in RAM is an early line', async () => {
  const { device, guest } = await createGuest(() => [BigInt(TEXT), BigInt(RAM_BYTES - 3)]);
  await guest.write(TEXT, Buffer.from('early\n\0never'));
  await guest.write(RAM_BYTES - 3, Buffer.from('end'));
  expect(await guest.run()).toMatchObject({ exit: 'poweroff', reason: '' });
  expect(guest.console()).toBe('early\nend');
  await device.host.stop();
});

describe('a guest that makes no sense is killed, with the reason', () => {
  const cases: [string, Descriptor[], Uint8Array, RegExp][] = [
    ['an index that runs ahead', [HELLO], available(65, [0]), /queue 1: available index 65 is 65 ahead/],
    ['a head beyond the queue', [HELLO], available(1, [64]), /queue 1: available ring entry 64 must be below/],
    [
      'a next one beyond the queue',
      [{ ...HELLO, flags: 1, next: 999 }],
      available(1, [0]),
      /next descriptor 999 must be/,
    ],
    ['a cycle', [{ ...HELLO, flags: 1, next: 0 }], available(1, [0]), /the chain at descriptor 0 is cyclic/],
    ['a wild address', [{ ...HELLO, addr: 1n << 62n }], available(1, [0]), /queue 1: .*/],
    ['beyond memory', [{ ...HELLO, addr: BigInt(RAM_BYTES + 2 ** 20) }], available(1, [0]), /queue 1: .*0x900000/],
    ['a table that was not agreed on', [{ ...HELLO, flags: 4 }], available(1, [0]), /indirect descriptors were not/],
  ];
  test.each(cases)('%s', async (_, list, avail, reason) => {
    const { device, guest, ring } = await transmitGuest();
    await guest.write(ring.desc, descriptors(list));
    await guest.write(ring.avail, avail);
    // The device is served while the guest goes on: it has to be there still.
    const report = await guest.run();
    expect(report.reason).toMatch(reason);
    expect(report.reason).toMatch(/^virtio-console: /);
    expect(report.exit).toBe('killed');
    checkHost(device.host);
    await device.host.stop();
  });

  test('a notification of nothing', async () => {
    const { device, guest } = await createGuest(() => [BigInt(RAM_BYTES + 1)]);
    expect(await guest.run()).toMatchObject({ exit: 'killed', reason: 'notified 0x800001, where nothing is' });
    await device.host.stop();
  });
});

/** Bytes that look like rings often enough to get far. */
const ringBytes = fc.oneof(
  fc.uint8Array({ maxLength: 4096 }),
  fc
    .array(
      fc.record({
        addr: fc.oneof(fc.bigInt(0n, 0xffff_ffffn), fc.bigInt(0n, (1n << 64n) - 1n), fc.constant(BigInt(TEXT))),
        len: fc.oneof(fc.nat(8192), fc.nat(0xffff_ffff)),
        flags: fc.nat(7),
        next: fc.nat(70),
      }),
      { maxLength: 64 },
    )
    .map(descriptors),
);
const availBytes = fc
  .tuple(fc.nat(70), fc.array(fc.oneof(fc.nat(63), fc.nat(0xffff)), { maxLength: 64 }))
  .map(([idx, entries]) => available(idx, entries));

test('whatever is in descriptors and rings, the host and another guest go on', async () => {
  const device = createDevice();
  const probe = await NotifyGuest.create(device, []);
  const devices = await findDevices(probe);
  await probe.run();
  const rings = devices.flatMap((found) => found.rings);
  const bystander = await NotifyGuest.create(device, [BigInt(TEXT)]);
  await bystander.write(TEXT, Buffer.from('still here\0'));
  const exits = new Set<string>();
  const places = [...devices.map(({ gpa }) => gpa), ...rings.map(({ desc }) => desc)].map(BigInt);
  const address = fc.oneof(fc.constantFrom(...places), fc.bigInt(0n, (1n << 64n) - 1n));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...places), { minLength: 1, maxLength: 6 }),
      fc.option(address, { freq: 8 }),
      fc.array(fc.tuple(ringBytes, availBytes), { minLength: rings.length, maxLength: rings.length }),
      fc.option(fc.uint8Array({ maxLength: 100 }), { freq: 5 }),
      async (addresses, last, contents, page) => {
        const guest = await NotifyGuest.create(device, [
          ...devices.map(({ gpa }) => BigInt(gpa)),
          ...addresses,
          last ?? 1n,
        ]);
        for (const found of devices) await driverIsReady(guest, found);
        if (page !== null) await guest.write(RAM_BYTES, page);
        for (const [i, { desc, avail }] of rings.entries()) {
          await guest.write(desc, contents[i]![0].subarray(0, avail - desc));
          await guest.write(avail, contents[i]![1]);
        }
        const { exit, reason } = await guest.run();
        exits.add(exit);
        expect(exit === 'poweroff' ? reason === '' : exit === 'killed' && reason.length > 0).toBe(true);
      },
    ),
    { numRuns: 150 },
  );
  expect(exits).toEqual(new Set(['poweroff', 'killed']));
  checkHost(device.host);
  expect(await bystander.run()).toMatchObject({ exit: 'poweroff', reason: '' });
  expect(bystander.console()).toBe('still here');
  checkHost(device.host);
  const { frames, framesFree } = device.host.stats();
  expect(framesFree).toBe(frames);
  await device.host.stop();
});
