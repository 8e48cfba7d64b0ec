import { beforeAll, describe, expect, test } from 'vitest';
import { boot, command, consoleOf, present, VERDICT } from './debianguest.js';

/** Debian's kernel in less memory than it believes it has. */

const RAM = ['--ram', '128M'];

/** Types each line when the shell asks for it. */
function shell(lines: string[]): (console: string) => string | undefined {
  let prompts = 0;
  return (console) => {
    const nr = console.slice(console.indexOf('unpin: userspace is up')).split('# ').length - 1;
    if (!console.includes('unpin: userspace is up') || nr <= prompts) return undefined;
    prompts = nr;
    return lines.shift();
  };
}

describe.skipIf(!present)('Debian', () => {
  /** What a guest says whose RAM is locked; the guest chose how much memory it works on. */
  let verdict: string;
  let mib: string;

  beforeAll(async () => {
    const run = await boot([...RAM, '--frames', '144M', '--pin', ...command('memverify')]);
    expect(run).toMatchObject({ code: 0, report: { host: { pinnedFrames: 32768, swapOutPages: 0 } } });
    const match = VERDICT.exec(run.stdout);
    expect(match, run.stdout + run.stderr).not.toBeNull();
    [verdict, mib] = match as unknown as [string, string];
  });

  test('S9 S10: boots with 128 MiB of RAM in 64 MiB of frames to a shell, and verifies as a pinned run does', async () => {
    const args = [...RAM, '--frames', '64M', '--append', 'console=ttyS0 quiet'];
    const run = await boot(args, shell([`memverify --mib ${mib}\n`, 'exit\n']));
    expect(VERDICT.exec(run.stdout)?.[0], run.stdout + run.stderr).toBe(verdict);
    expect(run.code).toBe(0);
    expect(run.report).toMatchObject({ guests: [{ exit: 'poweroff' }], host: { pinnedFrames: 0 } });
    expect(run.report!.host.swapInPages).toBeGreaterThan(0);
  });

  test('S9 S10: three guests in 160 MiB of frames verify and power off, and pages went out and came back', async () => {
    const run = await boot([...RAM, '--guests', '3', '--frames', '160M', ...command(`memverify --mib ${mib}`)]);
    for (let i = 0; i < 3; i++) {
      const own = consoleOf(run, i);
      expect(VERDICT.exec(own)?.[0], run.stdout + run.stderr).toBe(verdict);
      expect(own).toContain('unpin: exit status 0');
    }
    expect(run.code).toBe(0);
    expect(run.report!.guests.map((guest) => guest.exit)).toEqual(['poweroff', 'poweroff', 'poweroff']);
    expect(run.report!.host.pinnedFrames).toBe(0);
    expect(run.report!.host.swapOutPages).toBeGreaterThan(0);
    expect(run.report!.host.swapInPages).toBeGreaterThan(0);
  });

  test('three guests with --pin in the same frames are refused with ENOMEM, in one line', async () => {
    const run = await boot([...RAM, '--guests', '3', '--frames', '160M', '--pin', ...command('memverify')]);
    expect(run.code).toBe(2);
    expect(run.stderr.trim()).toMatch(/^unpin: .*ENOMEM.*$/);
    expect(run.stderr).not.toContain('    at ');
    expect(run.stdout).toBe('');
  });
});
