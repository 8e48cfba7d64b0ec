import { describe, expect, test } from 'vitest';
import { boot, command, present, VERDICT } from './debianguest.js';

/** Debian's kernel on four vCPUs, each in a thread of its own, in less memory than it believes it has. */

const NR_VCPUS = 4;
/** Debian's kernel keeps half of 128 MiB for itself. */
const SMP = ['--smp', String(NR_VCPUS), '--ram', '192M', '--frames', '80M'];
const VERIFY = 'memverify --mib 12';
/** One of these for each vCPU, all at once; each says what it found in a file of its own, for lines of several would mix. */
const VERIFY_ALL = `for i in 1 2 3 4; do ${VERIFY} >/tmp/$i & done`;
const VERDICTS = 'wait; cat /tmp/[1-4]';
const CPU = '/sys/devices/system/cpu';

describe.skipIf(!present)('Debian with --smp 4', () => {
  test('S9: userspace keeps all four busy, and each process verifies what one alone does', async () => {
    const alone = await boot(['--ram', '192M', '--frames', '208M', ...command(VERIFY)]);
    const verdict = VERDICT.exec(alone.stdout)![0];
    const run = await boot([...SMP, ...command(`nproc; ${VERIFY_ALL}; ${VERDICTS}; grep ^cpu[0-9] /proc/stat`)]);
    expect(run.code, run.stdout + run.stderr).toBe(0);
    expect(run.stdout).toMatch(/userspace is up\s+4\s/);
    expect(run.stdout.split(verdict)).toHaveLength(NR_VCPUS + 1);
    // Ticks in user mode, of each.
    const ticks = [...run.stdout.matchAll(/^cpu\d (\d+) /gm)].map(([, user]) => Number(user));
    expect(ticks).toHaveLength(NR_VCPUS);
    for (const user of ticks) expect(user).toBeGreaterThan(0);
    expect(run.report).toMatchObject({ guests: [{ exit: 'poweroff' }], host: { pinnedFrames: 0 } });
    expect(run.report!.host.swapInPages).toBeGreaterThan(0);
  });

  test('S9: CPUs that are taken offline and brought back by HSM, while all work', async () => {
    const online = `cat ${CPU}/online`;
    const hotplug = `for n in 1 2 3; do echo 0 >${CPU}/cpu$n/online; ${online}; echo 1 >${CPU}/cpu$n/online; done`;
    const text = `set -e; ${VERIFY_ALL}; ${hotplug}; ${hotplug}; ${online}; ${VERDICTS}`;
    const run = await boot([...SMP, ...command(text)]);
    expect(run.code, run.stdout + run.stderr).toBe(0);
    const said = [...run.stdout.matchAll(/^(\d(?:[-,]\d)*)\r?$/gm)].map(([, cpus]) => cpus);
    const round = ['0,2-3', '0-1,3', '0-2'];
    expect(said).toEqual([...round, ...round, '0-3']);
    expect([...run.stdout.matchAll(new RegExp(VERDICT, 'g'))]).toHaveLength(NR_VCPUS);
    expect(run.stdout).toContain('unpin: exit status 0');
  });
});
