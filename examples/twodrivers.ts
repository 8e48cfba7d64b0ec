import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { Kvm } from 'unpin/kvm';
import { LguestDevice } from 'unpin/lguest';
import { Host, MemorySwap } from 'unpin/mm';
import { nodeEnvironment } from 'unpin/node';
import { BoardGuest, type Guest, LguestGuest } from 'unpin/vmm';

/** Guests of two hypervisors in one host memory, which is an eighth of what they believe they have: neither driver knows of the other. */

const MIB = 2 ** 20;
const swap = new MemorySwap({ sizeBytes: 64 * MIB });
const host = new Host({ frames: (3 * MIB) / 4096, arenaBytes: 80 * MIB, swap });

/** What a guest is, whichever driver it has. */
function guest(name: string, kernel: string, bootargs: string) {
  const image = readFileSync(new URL(`../guests/images/${kernel}.img`, import.meta.url));
  const console = (bytes: Uint8Array) => process.stdout.write(bytes);
  return { name, kernel: new Uint8Array(image), bootargs, ramBytes: 8 * MIB, gunzip: gunzipSync, console };
}

const lguest = new LguestDevice(host, nodeEnvironment());
const kvm = new Kvm(host, nodeEnvironment());
const guests: Guest[] = [
  await LguestGuest.create({ ...guest('first', 'forkhog', 'passes=1 mib=1'), lguest }),
  await LguestGuest.create({ ...guest('second', 'forkhog', 'passes=1 mib=1 seed=2'), lguest }),
  await BoardGuest.create({ ...guest('third', 'memhog', 'passes=1 mib=2'), host, kvm, pin: false }),
];
const reports = await Promise.all(guests.map((each) => each.run()));

for (const { name, exit, faults } of reports) console.log(`${name}: ${exit}, waited for ${faults.major} pages`);
const { swapInPages, pinnedFrames } = host.stats();
console.log(`${swapInPages} pages came back from swap, ${pinnedFrames} pinned`);
await host.stop();
