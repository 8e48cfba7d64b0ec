import { describe, expect, test } from 'vitest';
import { MIB, type SmpGuestOptions, SmpWorld, verdict } from './smpworld.js';

/**
 * Our guest of several harts, in frames for a third of its RAM: atomics, fences, page tables and code that change under all harts, IPIs,
 * timers, harts that stop and start. The checksums are those that the same image prints in QEMU 7.2 with as many harts.
 */

const RAM_BYTES = 16 * MIB;
const FRAMES_BYTES = 5.25 * MIB;
const TIMEOUT_MS = 180_000;
const BOOTARGS = 'mib=3 seed=3';
/** `qemu-system-riscv64 -M virt -smp N -m 32M -kernel smphog.img -append 'mib=3 seed=3'`, by N. */
const QEMU: Record<number, string> = { 2: '0x7916b704c2a65a9b', 4: '0x626bf355be95c342' };
const REMAP = 0x8;
const DIRTY = 0x10;
const CODE = 0x20;
const MEGA = 0x80;

async function run(options: SmpGuestOptions) {
  const world = new SmpWorld({ framesBytes: FRAMES_BYTES, checkFrames: options.nrVcpus === 2 });
  const guest = await world.boot({ ramBytes: RAM_BYTES, bootargs: BOOTARGS, ...options });
  const report = await guest.ended;
  const { swapInPages } = world.host.stats();
  await world.close();
  return { exit: report.exit, console: guest.console(), swapInPages };
}

describe.each([
  [2, true],
  [4, true],
  [2, false],
])('smphog with %i vCPUs, threads: %s', (nrVcpus, threads) => {
  test(
    'N1 N3 N11 N24: says what it says on real harts, with a third of its RAM in frames',
    async () => {
      const { exit, console, swapInPages } = await run({ nrVcpus, threads });
      expect(console).toMatch(new RegExp(`${nrVcpus} harts, 16 MiB, .*: 0 errors, checksum ${QEMU[nrVcpus]}\n`));
      expect(exit).toBe('poweroff');
      expect(swapInPages).toBeGreaterThan(0);
    },
    TIMEOUT_MS,
  );
});

describe('smphog sees what goes wrong', () => {
  test.each([
    ['pages', REMAP],
    ['accessed and dirty bits', DIRTY],
    ['code', CODE],
    ['megapages', MEGA],
  ])(
    '%s that change without a fence',
    async (_what, part) => {
      const { exit, console } = await run({ nrVcpus: 2, threads: true, bootargs: `nofences=1 rounds=4 parts=${part}` });
      expect(console).toContain('FAILED');
      expect(verdict(console)).toBeUndefined();
      expect(exit).toBe('reset');
    },
    TIMEOUT_MS,
  );

  test(
    'a bit that was flipped',
    async () => {
      const { exit, console } = await run({ nrVcpus: 2, threads: true, bootargs: 'mib=2 parts=0x100 flip=5' });
      expect(console).toMatch(/FAILED: hart 0: arena 0, pass 3: 1 of \d+ words wrong/);
      expect(exit).toBe('reset');
    },
    TIMEOUT_MS,
  );
});
