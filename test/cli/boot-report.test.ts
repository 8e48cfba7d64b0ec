import fs from 'node:fs';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { boot, Command, testFolder, unpin } from './command.js';

/** What a run tells: consoles on stdout, people's table on stderr, JSON and trace in files. */

const folder = testFolder('report');
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));
const json = path.join(folder, 'report.json');

function report() {
  return JSON.parse(fs.readFileSync(json, 'utf8'));
}

const VERIFIED = /memhog: 7 MiB in \d+ pages: verified \d+ words, 0 errors, checksum (0x\w+)/;

test('three guests in less memory than they believe: prefixed consoles, the whole report', async () => {
  const trace = path.join(folder, 'trace.json');
  const args = ['--guests', '3', '--ram', '8M', '--frames', '6M', '--json', json, '--trace', trace];
  const { code, stdout, stderr } = await boot(args);
  expect(code).toBe(0);
  for (const line of stdout.trimEnd().split('\n')) expect(line).toMatch(/^\[guest[012]\] memhog: /);
  expect(stderr).toMatch(/24 MiB of guest RAM in 6 MiB of frames; swapped out \d+ pages/);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: there must be none.
  expect(stdout + stderr).not.toMatch(/[\x00-\x09\x0b-\x1f]/);
  const { guests, host } = report();
  expect(guests).toHaveLength(3);
  for (const guest of guests) {
    expect(guest).toMatchObject({ exit: 'poweroff', reason: '', ramBytes: 8 * 2 ** 20 });
    for (const key of ['wallMs', 'bootMs', 'instructions', 'residentPeakBytes']) expect(guest[key]).toBeGreaterThan(0);
    for (const key of ['minor', 'major']) expect(guest.faults[key]).toBeGreaterThan(0);
    expect(guest.smaps_rollup.Rss + guest.smaps_rollup.Swap).toBeGreaterThan(7 * 1024);
    expect(guest.smaps_rollup.Rss * 1024).toBeLessThanOrEqual(guest.residentPeakBytes);
  }
  expect(host).toMatchObject({ frames: 1536, pinnedFrames: 0, refusals: 0, poisoned: 0 });
  expect(host.vmstat).toMatchObject({ pswpout: host.swapOutPages, pswpin: host.swapInPages, oom_kill: 0 });
  for (const key of ['pgfault', 'pgscan_kswapd', 'pgsteal_kswapd']) expect(host.vmstat[key]).toBeGreaterThan(0);
  expect(host.framesPeak).toBeGreaterThan(1000);
  expect(host.framesPeak).toBeLessThanOrEqual(1536);
  for (const key of ['swapOutPages', 'swapInPages', 'shootdowns']) expect(host[key]).toBeGreaterThan(100);
  // A bracket without a frame of the guest in it flushes nothing.
  expect(host.shootdowns).toBeLessThanOrEqual(host.notifierCalls.invalidateRangeStart);
  expect(host.notifierCalls.invalidateRangeStart).toBe(host.notifierCalls.invalidateRangeEnd);
  const { traceEvents } = JSON.parse(fs.readFileSync(trace, 'utf8'));
  expect(new Set(traceEvents.map((e: { name: string }) => e.name))).toEqual(
    new Set(['thread_name', 'invalidate', 'fault', 'frames', 'swap']),
  );
});

test('--pin that fits counts the locked frames, and the guest says the same as without', async () => {
  const pinned = await boot(['--ram', '8M', '--frames', '10M', '--pin', '--json', json]);
  expect(pinned.code).toBe(0);
  expect(report().host).toMatchObject({ pinnedFrames: 2048, swapOutPages: 0, swapInPages: 0, shootdowns: 0 });
  const swapped = await boot(['--ram', '8M', '--frames', '2M']);
  expect(VERIFIED.exec(swapped.stdout)![1]).toBe(VERIFIED.exec(pinned.stdout)![1]);
  expect(pinned.stdout).toMatch(/^memhog: /);
});

test('a guest that finds an error fails the command', async () => {
  const { code, stderr } = await boot(['--ram', '8M', '--append', 'passes=1 flip=3']);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^unpin: guest0: reset: the guest reported a system failure$/m);
});

test('what comes in on stdin does not keep a finished run alive', async () => {
  const { code } = await unpin(['boot', '--ram', '8M', '--append', 'passes=1'], { stdin: 'hello\n' }).done;
  expect(code).toBe(0);
});

test('npx unpin works in the checkout', async () => {
  const cwd = path.resolve(import.meta.dirname, '../..');
  const command = new Command('npx', ['--no-install', 'unpin', 'boot', '--ram', '8M', '--append', 'passes=1'], { cwd });
  const { code, stdout, stderr } = await command.done;
  expect(stderr).not.toMatch(/npm error/);
  expect(stdout).toMatch(VERIFIED);
  expect(code).toBe(0);
});
