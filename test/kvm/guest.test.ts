import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { Kvm } from '../../src/kvm/index.js';
import { checkHost, Host, MemorySwap, RLIMIT_MEMLOCK } from '../../src/mm/index.js';
import { nodeEnvironment } from '../../src/node/index.js';
import { BoardGuest } from '../../src/vmm/index.js';

/** Our bundled guest under kvm: RAM that is demand paged says the same as RAM that is locked. */

const kernel = new Uint8Array(readFileSync(new URL('../../guests/images/memhog.img', import.meta.url)));
const MIB = 2 ** 20;
const RAM_BYTES = 16 * MIB;

async function boot(options: { nrGuests: number; framesBytes: number; pin: boolean }) {
  const swap = new MemorySwap({ sizeBytes: 64 * MIB });
  const host = new Host({
    frames: options.framesBytes / 4096,
    arenaBytes: (32 + options.nrGuests * 16) * MIB,
    swap,
    defer: (fn) => setImmediate(fn),
  });
  const kvm = new Kvm(host, nodeEnvironment());
  const consoles: string[] = [];
  const guests: BoardGuest[] = [];
  for (let i = 0; i < options.nrGuests; i++) {
    consoles.push('');
    guests.push(
      await BoardGuest.create({
        name: `guest${i}`,
        kvm,
        host,
        ramBytes: RAM_BYTES,
        kernel,
        bootargs: 'mib=8 seed=3 passes=1',
        pin: options.pin,
        gunzip: gunzipSync,
        console: (bytes) => (consoles[i] += Buffer.from(bytes).toString('latin1')),
      }),
    );
  }
  const pinned = host.stats().pinnedFrames;
  const limits = guests.map((guest) => guest.mm.getrlimit(RLIMIT_MEMLOCK));
  const reports = await Promise.all(guests.map((guest) => guest.run()));
  checkHost(host);
  const stats = host.stats();
  await host.stop();
  return { reports, consoles, stats, pinned, limits };
}

const verdict = (console: string) =>
  /8 MiB in \d+ pages: verified \d+ words, 0 errors, checksum 0x[0-9a-f]+/.exec(console)?.[0];

test('S9 S10: two guests in less memory than one believes it has say what a locked one says, and nothing is pinned', async () => {
  const locked = await boot({ nrGuests: 1, framesBytes: 20 * MIB, pin: true });
  expect(verdict(locked.consoles[0]!)).toBeDefined();
  expect(locked.pinned).toBe(RAM_BYTES / 4096);
  expect(locked.stats.swapOutPages).toBe(0);

  const paged = await boot({ nrGuests: 2, framesBytes: 7 * MIB, pin: false });
  expect(paged.reports.map((r) => r.exit)).toEqual(['poweroff', 'poweroff']);
  expect(paged.consoles.map(verdict)).toEqual([verdict(locked.consoles[0]!), verdict(locked.consoles[0]!)]);
  expect([paged.pinned, paged.stats.pinnedFrames, ...paged.limits]).toEqual([0, 0, 0, 0]);
  expect(paged.stats.swapOutPages).toBeGreaterThan(0);
  expect(paged.stats.swapInPages).toBeGreaterThan(0);
});
