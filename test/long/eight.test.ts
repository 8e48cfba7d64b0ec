import { describe, expect, test } from 'vitest';
import { boot, command, consoleOf, present, VERDICT } from './debianguest.js';

/** Eight Debian guests of 256 MiB in 384 MiB of frames: 2 GiB of RAM in less than a fifth of it. */

const NR_GUESTS = 8;
const SIZES = ['--guests', String(NR_GUESTS), '--ram', '256M', '--frames', '384M', '--swap-size', '4G'];
/** Commands of a shell, processes with their pages, and memory that is verified. */
const LOAD = 'ls -lR /sys/kernel | md5sum | wc -c; ps | wc -l; memverify --mib 40';
/** What a guest has that nobody reclaims from. */
const ALONE = ['--ram', '256M', '--frames', '320M'];

describe.skipIf(!present)('Debian', () => {
  test('S9 S10: eight guests of 256 MiB boot, work and power off in 384 MiB of frames', async () => {
    const alone = await boot([...ALONE, ...command(LOAD)]);
    expect(alone.report, alone.stdout + alone.stderr).toMatchObject({ host: { swapOutPages: 0 } });
    const verdict = VERDICT.exec(alone.stdout)![0];
    const run = await boot([...SIZES, ...command(LOAD)]);
    for (let i = 0; i < NR_GUESTS; i++) {
      expect(VERDICT.exec(consoleOf(run, i))?.[0], run.stdout + run.stderr).toBe(verdict);
      expect(consoleOf(run, i)).toContain('unpin: exit status 0');
    }
    expect(run.code).toBe(0);
    expect(run.report!.guests.map((guest) => guest.exit)).toEqual(Array(NR_GUESTS).fill('poweroff'));
    expect(run.report!.host).toMatchObject({ frames: 98304, pinnedFrames: 0, poisoned: 0 });
    expect(run.report!.host.swapInPages).toBeGreaterThan(0);
    const slowest = Math.max(...run.report!.guests.map((guest) => guest.wallMs));
    console.log(
      `eight guests: ${(slowest / 1000).toFixed(0)} s; one alone: ${(alone.report!.guests[0]!.wallMs / 1000).toFixed(0)} s`,
    );
  });

  test('with --pin they are refused with ENOMEM, in one line', async () => {
    const run = await boot([...SIZES, '--pin', ...command('true')]);
    expect([run.code, run.stdout]).toEqual([2, '']);
    expect(run.stderr.trim()).toMatch(/^unpin: .*ENOMEM.*$/);
  });
});
