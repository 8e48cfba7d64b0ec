import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { Kvm } from '../../src/kvm/index.js';
import { LguestDevice } from '../../src/lguest/index.js';
import { MemoryDisk, VirtioBlk } from '../../src/machine/index.js';
import { checkHost, Host, MemorySwap, RLIMIT_MEMLOCK } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { BoardGuest, type Guest, type GuestReport, LguestGuest, type LguestGuestOptions } from '../../src/vmm/index.js';

/**
 * forkhog without privilege: on lguest, with its console and its disk, in less memory than it believes it has, alone, beside another, and beside a guest of kvm. It says
 * what it says where it has a hart of its own (forkhog.test.ts).
 */

const MIB = 2 ** 20;
const RAM_BYTES = 8 * MIB;
const NATIVE = /3 MiB in 768 pages: verified 8331300 words and 0 blocks, 0 errors, checksum 0xf4fab17bd18f4e20/;
const WITH_DISK = /1 MiB in 256 pages: verified \d+ words and 288 blocks, 0 errors, checksum (0x\w+)/;

function image(name: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(`../../guests/images/${name}.img`, import.meta.url)));
}

function createHost(framesBytes: number): Host {
  const swap = new MemorySwap({ sizeBytes: 64 * MIB });
  return new Host({ frames: framesBytes / 4096, arenaBytes: 80 * MIB, swap, defer: (fn) => setImmediate(fn) });
}

class World {
  readonly host: Host;
  readonly guests: Guest[] = [];
  readonly consoles: string[] = [];
  private readonly lguest: LguestDevice;
  private readonly kvm: Kvm;

  constructor(framesBytes: number) {
    this.host = createHost(framesBytes);
    this.lguest = new LguestDevice(this.host, nodeEnvironment());
    this.kvm = new Kvm(this.host, nodeEnvironment());
  }

  private common(bootargs: string) {
    const i = this.consoles.push('') - 1;
    const console = (bytes: Uint8Array) => (this.consoles[i] += Buffer.from(bytes).toString('latin1'));
    return { name: `guest${i}`, ramBytes: RAM_BYTES, bootargs, gunzip: gunzipSync, console };
  }

  async addLguest(bootargs: string, options: Partial<LguestGuestOptions> = {}): Promise<LguestGuest> {
    const { lguest } = this;
    const guest = await LguestGuest.create({ ...this.common(bootargs), kernel: image('forkhog'), lguest, ...options });
    this.guests.push(guest);
    return guest;
  }

  async addKvm(bootargs: string): Promise<void> {
    const { host, kvm } = this;
    const common = this.common(bootargs);
    this.guests.push(await BoardGuest.create({ ...common, host, kvm, kernel: image('memhog'), pin: false }));
  }

  async run(): Promise<GuestReport[]> {
    const reports = await Promise.all(this.guests.map((guest) => guest.run()));
    checkHost(this.host);
    return reports;
  }
}

function disk(): VirtioBlk {
  return new VirtioBlk({ backend: new MemoryDisk(MIB) });
}

test('S10: with memory enough it says what it says on a hart of its own', async () => {
  const world = new World(12 * MIB);
  await world.addLguest('passes=1 mib=3');
  const [report] = await world.run();
  expect(world.consoles[0]).toMatch(NATIVE);
  expect(report).toMatchObject({ exit: 'poweroff', reason: '', faults: { major: 0 } });
  expect(report!.bootMs).toBeGreaterThan(0);
  // Six children take turns on four page directories.
  expect(report!.lguest!.victims).toBeGreaterThan(0);
  expect(world.host.stats().framesFree).toBe(world.host.stats().frames);
  await world.host.stop();
});

test('S10: two guests and one of kvm in an eighth of their memory verify every word, and nothing is pinned', async () => {
  const world = new World(3 * MIB);
  for (const seed of [1, 1]) await world.addLguest(`passes=2 mib=1 seed=${seed}`, { devices: [disk()] });
  await world.addKvm('passes=1 mib=2');
  const limits = world.guests.map(({ mm }) => mm.getrlimit(RLIMIT_MEMLOCK));
  const before = world.host.stats().pinnedFrames;
  const reports = await world.run();
  const stats = world.host.stats();
  expect(reports.map(({ exit, reason }) => [exit, reason])).toEqual(reports.map(() => ['poweroff', '']));
  const [first, second] = world.consoles.map((console) => WITH_DISK.exec(console)?.[1]);
  expect(first).toBeDefined();
  expect(second).toBe(first);
  expect(world.consoles[2]).toMatch(/2 MiB in \d+ pages: verified \d+ words, 0 errors/);
  expect([before, stats.pinnedFrames, stats.poisoned, stats.refusals]).toEqual([0, 0, 0, 0]);
  expect(limits).toEqual([65536, 65536, 0]);
  for (const { lguest, faults } of reports.slice(0, 2)) {
    expect(lguest!.zapped).toBeGreaterThan(100);
    expect(faults.major).toBeGreaterThan(100);
  }
  await world.host.stop();
});

test('S10: pinned as in 2007 only where the limit allows it', async () => {
  const world = new World(12 * MIB);
  const pin = true;
  await expect(world.addLguest('', { pin, rlimitMemlock: 0 })).rejects.toThrow(/^EPERM: mlock: .*RLIMIT_MEMLOCK/);
  await expect(world.addLguest('', { pin })).rejects.toThrow(/^ENOMEM: mlock: /);
  await world.addLguest('passes=1 mib=3', { pin, rlimitMemlock: 9 * MIB });
  expect(world.host.stats().pinnedFrames * 4096).toBeGreaterThanOrEqual(RAM_BYTES);
  expect(await world.run()).toMatchObject([{ exit: 'poweroff', lguest: { zapped: 0 } }]);
  expect(world.consoles.at(-1)).toMatch(NATIVE);
  expect(world.host.stats()).toMatchObject({ pinnedFrames: 0, framesFree: world.host.stats().frames });
  await world.host.stop();
});

test('a bit spoilt behind its back is a failure that the guest reports', async () => {
  const world = new World(12 * MIB);
  await world.addLguest('passes=1 mib=1 children=1 flip=33');
  expect(await world.run()).toMatchObject([{ exit: 'reset', reason: 'the guest reported a failure' }]);
  expect(world.consoles[0]).toMatch(/FAILED: all processes: 1 of \d+ words wrong, the first at va 0x400/);
  await world.host.stop();
});

test('killed and paused from outside, at whatever point, it costs nobody else anything', async () => {
  const world = new World(3 * MIB);
  for (let i = 0; i < 3; i++) await world.addLguest('passes=1 mib=1', { devices: [disk()] });
  const [first, second] = world.guests;
  const done = world.run();
  const waitForPasses = async () => {
    while (world.host.stats().swapOutPages < 500) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  await waitForPasses();
  await second!.pause();
  expect(second!.state).toBe('paused');
  const { pc, instructions } = second!.vcpuStates()[0]!;
  first!.kill('killed', 'by the test');
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(second!.vcpuStates()).toMatchObject([{ pc, instructions }]);
  second!.resume();
  const reports = await done;
  expect(reports.map(({ exit }) => exit)).toEqual(['killed', 'poweroff', 'poweroff']);
  expect(reports[0]!.reason).toBe('by the test');
  expect(world.host.stats().framesFree).toBe(world.host.stats().frames);
  await world.host.stop();
});
