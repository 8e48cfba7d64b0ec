import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

/**
 * Debian's riscv64 kernel with `unpin boot`, in a folder that UNPIN_DEBIAN_GUEST names, made as guests/README.md says:
 *
 *     guests/build --linux overlay/usr/local/bin
 *     scripts/debian-guest --overlay overlay debian-guest
 *     UNPIN_DEBIAN_GUEST=debian-guest npm run test:long
 */

const folder = process.env.UNPIN_DEBIAN_GUEST ?? 'debian-guest';
const present = existsSync(join(folder, 'Image'));
if (!present) console.warn(`SKIPPED: Debian (no ${folder}/Image; set UNPIN_DEBIAN_GUEST)`);

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const GUEST = ['--kernel', join(folder, 'Image'), '--initrd', join(folder, 'initrd.gz'), '--ram', '128M'];
const TIMEOUT_SECONDS = '900';
const VERDICT = /memverify: (\d+) MiB in \d+ pages: verified \d+ words, 0 errors, checksum 0x[0-9a-f]+/;

interface Run {
  code: number | null;
  stdout: string;
  stderr: string;
  report?: { guests: { exit: string; reason: string }[]; host: Record<string, number> };
}

const work = mkdtempSync(join(tmpdir(), 'unpin-debian-'));
afterAll(() => rmSync(work, { recursive: true }));

/** `unpin boot`. `type` is called with the console so far whenever it grows, and returns what to type, if anything. */
function boot(args: string[], type?: (console: string) => string | undefined): Promise<Run> {
  const json = join(work, 'report.json');
  rmSync(json, { force: true });
  const child = spawn(process.execPath, [
    MAIN,
    'boot',
    ...GUEST,
    '--timeout',
    TIMEOUT_SECONDS,
    '--json',
    json,
    ...args,
  ]);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (bytes: Buffer) => {
    stdout += bytes.toString();
    const typed = type?.(stdout);
    if (typed !== undefined) child.stdin.write(typed);
  });
  child.stderr.on('data', (bytes: Buffer) => (stderr += bytes.toString()));
  return new Promise((resolve) => {
    child.on('close', (code) => {
      const report = existsSync(json) ? JSON.parse(readFileSync(json, 'utf8')) : undefined;
      resolve({ code, stdout, stderr, ...(report && { report }) });
    });
  });
}

function command(text: string): string[] {
  return ['--append', `console=ttyS0 quiet unpin.run="${text}"`];
}

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
    const run = await boot(['--frames', '144M', '--pin', ...command('memverify')]);
    expect(run).toMatchObject({ code: 0, report: { host: { pinnedFrames: 32768, swapOutPages: 0 } } });
    const match = VERDICT.exec(run.stdout);
    expect(match, run.stdout + run.stderr).not.toBeNull();
    [verdict, mib] = match as unknown as [string, string];
  });

  test('S9 S10: boots with 128 MiB of RAM in 64 MiB of frames to a shell, and verifies as a pinned run does', async () => {
    const args = ['--frames', '64M', '--append', 'console=ttyS0 quiet'];
    const run = await boot(args, shell([`memverify --mib ${mib}\n`, 'exit\n']));
    expect(VERDICT.exec(run.stdout)?.[0], run.stdout + run.stderr).toBe(verdict);
    expect(run.code).toBe(0);
    expect(run.report).toMatchObject({ guests: [{ exit: 'poweroff' }], host: { pinnedFrames: 0 } });
    expect(run.report!.host.swapInPages).toBeGreaterThan(0);
  });

  test('S9 S10: three guests in 160 MiB of frames verify and power off, and pages went out and came back', async () => {
    const run = await boot(['--guests', '3', '--frames', '160M', ...command(`memverify --mib ${mib}`)]);
    for (let i = 0; i < 3; i++) {
      const own = run.stdout.split('\n').filter((line) => line.startsWith(`[guest${i}]`));
      expect(VERDICT.exec(own.join('\n'))?.[0], run.stdout + run.stderr).toBe(verdict);
      expect(own.join('\n')).toContain('unpin: exit status 0');
    }
    expect(run.code).toBe(0);
    expect(run.report!.guests.map((guest) => guest.exit)).toEqual(['poweroff', 'poweroff', 'poweroff']);
    expect(run.report!.host.pinnedFrames).toBe(0);
    expect(run.report!.host.swapOutPages).toBeGreaterThan(0);
    expect(run.report!.host.swapInPages).toBeGreaterThan(0);
  });

  test('three guests with --pin in the same frames are refused with ENOMEM, in one line', async () => {
    const run = await boot(['--guests', '3', '--frames', '160M', '--pin', ...command('memverify')]);
    expect(run.code).toBe(2);
    expect(run.stderr.trim()).toMatch(/^unpin: .*ENOMEM.*$/);
    expect(run.stderr).not.toContain('    at ');
    expect(run.stdout).toBe('');
  });
});
