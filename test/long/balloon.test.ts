import { describe, expect, test } from 'vitest';
import { boot, command, present } from './debianguest.js';

/** Debian's virtio_balloon: what it reports free, and what it puts into the balloon, comes back to the host. */

interface Guest {
  residentPeakBytes: number;
  smaps_rollup: { Rss: number };
  balloon: { actualBytes: number; inflatedBytes: number; deflatedBytes: number; reportedBytes: number };
}

const MIB = 2 ** 20;
const FILE_MIB = 80;

async function report(args: string[], text: string): Promise<{ guest: Guest; stdout: string }> {
  const run = await boot(['--ram', '256M', '--frames', '256M', ...args, ...command(text)]);
  expect(run.stdout).toContain('unpin: exit status 0');
  return { guest: run.report!.guests[0] as unknown as Guest, stdout: run.stdout };
}

describe.skipIf(!present)('Debian with a balloon', () => {
  test('a file that the guest wrote to memory and removed is given back', async () => {
    const file = `mount -t tmpfs -o size=200m none /tmp; dd if=/dev/zero of=/tmp/x bs=1M count=${FILE_MIB}; rm /tmp/x; sleep 10`;
    const { guest } = await report(['--balloon'], `modprobe virtio_balloon; ${file}`);
    expect(guest.balloon.reportedBytes).toBeGreaterThan(FILE_MIB * MIB);
    expect(guest.residentPeakBytes - guest.smaps_rollup.Rss * 1024).toBeGreaterThan((FILE_MIB / 2) * MIB);
  });

  test('what is asked of the guest is in the balloon, and comes back when the driver goes', async () => {
    const asked = 48 * MIB;
    const { guest, stdout } = await report(
      ['--balloon', '48M'],
      'modprobe virtio_balloon; sleep 15; free -k | grep Mem; modprobe -r virtio_balloon; free -k | grep Mem',
    );
    // Not the total: with VIRTIO_BALLOON_F_DEFLATE_ON_OOM what is in the balloon counts as used.
    const used = [...stdout.matchAll(/Mem: +\d+ +(\d+)/g)].map((match) => Number(match[1]) * 1024);
    // As fast as it can: the last pages may be on their way.
    expect(used[0]! - used[1]!).toBeGreaterThan(0.9 * asked);
    expect(guest.balloon.inflatedBytes).toBeGreaterThan(0.9 * asked);
    expect(guest.balloon).toMatchObject({ actualBytes: 0, deflatedBytes: guest.balloon.inflatedBytes });
  });
});
