import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * `unpin boot` with Debian's riscv64 kernel, in a folder that UNPIN_DEBIAN_GUEST names, made as guests/README.md says:
 *
 *     guests/build --linux overlay/usr/local/bin
 *     scripts/debian-guest --overlay overlay debian-guest
 *     UNPIN_DEBIAN_GUEST=debian-guest npm run test:long
 */

export const folder = process.env.UNPIN_DEBIAN_GUEST ?? 'debian-guest';
export const present = existsSync(join(folder, 'Image'));
if (!present) console.warn(`SKIPPED: Debian (no ${folder}/Image; set UNPIN_DEBIAN_GUEST)`);

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const GUEST = ['--kernel', join(folder, 'Image'), '--initrd', join(folder, 'initrd.gz')];
const TIMEOUT_SECONDS = '900';
/** The line of guests/linux/memverify that all was as it must be. */
export const VERDICT = /memverify: (\d+) MiB in \d+ pages: verified \d+ words, 0 errors, checksum 0x[0-9a-f]+/;

export interface Run {
  code: number | null;
  stdout: string;
  stderr: string;
  report?: { guests: { exit: string; reason: string; wallMs: number }[]; host: Record<string, number> };
}

/** `type` is called with the console so far whenever it grows, and returns what to type, if anything. */
export async function boot(args: string[], type?: (console: string) => string | undefined): Promise<Run> {
  const work = mkdtempSync(join(tmpdir(), 'unpin-debian-'));
  const json = join(work, 'report.json');
  try {
    const run = await start(['--timeout', TIMEOUT_SECONDS, '--json', json, ...args], type);
    const report = existsSync(json) ? JSON.parse(readFileSync(json, 'utf8')) : undefined;
    return { ...run, ...(report && { report }) };
  } finally {
    rmSync(work, { recursive: true });
  }
}

function start(args: string[], type?: (console: string) => string | undefined): Promise<Run> {
  const child = spawn(process.execPath, [MAIN, 'boot', ...GUEST, ...args]);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (bytes: Buffer) => {
    stdout += bytes.toString();
    const typed = type?.(stdout);
    if (typed !== undefined) child.stdin.write(typed);
  });
  child.stderr.on('data', (bytes: Buffer) => (stderr += bytes.toString()));
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })));
}

/** The command that the guest runs before it powers off. */
export function command(text: string): string[] {
  return ['--append', `console=ttyS0 quiet unpin.run="${text}"`];
}

/** What guest `i` of several wrote on its console. */
export function consoleOf(run: Run, i: number): string {
  const lines = run.stdout.split('\n').filter((line) => line.startsWith(`[guest${i}]`));
  return lines.join('\n');
}
