import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { type CommandOptions, expectRefused, NOBODY, type Result, testFolder, unpin } from './command.js';

/** `unpin lguest`: what it refuses, what it tells, and that it locks nothing, whoever runs it. */

const folder = testFolder('lguest');
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

function lguest(args: readonly string[], options: CommandOptions = {}): Promise<Result> {
  return unpin(['lguest', ...args], options).done;
}

/** Small and short. */
const SMALL = ['--ram', '8M', '--append', 'passes=1 mib=2'];
const VERIFIED = /forkhog: 2 MiB in 512 pages: verified \d+ words and 96 blocks, 0 errors, checksum (0x\w+)/;

test('two guests in less memory than they believe: prefixed consoles, the whole report', async () => {
  const json = path.join(folder, 'report.json');
  const { code, stdout, stderr } = await lguest([...SMALL, '--frames', '4M', '--json', json]);
  expect(stderr).toMatch(/16 MiB of guest RAM in 4 MiB of frames; swapped out \d+ pages, in \d+; pinned 0/);
  expect(code).toBe(0);
  const lines = stdout.trimEnd().split('\n');
  for (const line of lines) expect(line).toMatch(/^\[guest[01]\] forkhog: /);
  expect(lines.filter((line) => VERIFIED.test(line))).toHaveLength(2);
  const { guests, host } = JSON.parse(fs.readFileSync(json, 'utf8'));
  expect(guests).toHaveLength(2);
  for (const guest of guests) {
    expect(guest).toMatchObject({ exit: 'poweroff', reason: '', ramBytes: 8 * 2 ** 20 });
    for (const key of ['wallMs', 'bootMs', 'instructions', 'residentPeakBytes']) expect(guest[key]).toBeGreaterThan(0);
    for (const key of ['minor', 'major']) expect(guest.faults[key]).toBeGreaterThan(0);
    for (const key of ['hypercalls', 'traps', 'interrupts', 'switches', 'victims', 'zapped'])
      expect(guest.lguest[key]).toBeGreaterThan(0);
    expect(guest.smaps_rollup.Locked).toBe(0);
  }
  expect(host).toMatchObject({ frames: 1024, pinnedFrames: 0, refusals: 0, poisoned: 0 });
});

test('--disk is written', async () => {
  const disk = path.join(folder, 'disk.img');
  fs.writeFileSync(disk, new Uint8Array(2 ** 20));
  const args = [...SMALL, '--guests', '1', '--disk', disk];
  const { code, stdout } = await lguest(args);
  expect(code).toBe(0);
  expect(stdout).toMatch(VERIFIED);
  const bytes = fs.readFileSync(disk);
  expect(bytes.subarray(0, 96 * 4096).includes(Buffer.alloc(4096))).toBe(false);
  expect(bytes.subarray(96 * 4096).every((byte) => byte === 0)).toBe(true);
});

test('--pin within its limit locks all of it', async () => {
  const json = path.join(folder, 'pinned.json');
  const pinned = await lguest([
    ...SMALL,
    '--guests',
    '1',
    '--pin',
    '--memlock',
    '9M',
    '--frames',
    '12M',
    '--json',
    json,
  ]);
  expect(pinned.code).toBe(0);
  const { guests, host } = JSON.parse(fs.readFileSync(json, 'utf8'));
  expect(host.pinnedFrames).toBeGreaterThanOrEqual(2048);
  expect(host).toMatchObject({ swapOutPages: 0, swapInPages: 0 });
  expect(guests[0].lguest.zapped).toBe(0);
  expect(pinned.stdout).toMatch(VERIFIED);
});

describe.concurrent('how it ends', () => {
  test('a guest that finds an error fails the command', async () => {
    const { code, stderr } = await lguest(['--ram', '8M', '--guests', '1', '--append', 'passes=1 mib=1 flip=3']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^unpin: guest0: reset: the guest reported a failure$/m);
  });

  test('a kernel that takes itself for the owner of a hart is killed, with its first privileged instruction', async () => {
    const kernel = fileURLToPath(new URL('../../guests/images/memhog.img', import.meta.url));
    const { code, stderr } = await lguest(['--ram', '8M', '--guests', '1', '--kernel', kernel]);
    expect(stderr).toMatch(
      /^unpin: guest0: killed: privileged instruction csrrw zero,sie,zero at pc 0x\w+: a guest asks by/m,
    );
    expect(code).toBe(1);
  });

  test('--timeout', async () => {
    const { code, stderr } = await lguest(['--ram', '8M', '--append', 'passes=100000 mib=1', '--timeout', '0.5']);
    expect(stderr.match(/^unpin: guest[01]: timeout: still running after 0.5 s$/gm)).toHaveLength(2);
    expect(code).toBe(1);
  });
});

describe.concurrent('refusals', () => {
  const cases: [string, string[], RegExp][] = [
    ['a limit that is no size', ['--memlock', 'many'], /^unpin: EINVAL: option '--memlock <size>' argument 'many'/],
    ['--pin beyond the limit of a user', ['--pin', '--frames', '256M'], /^unpin: ENOMEM: mlock: .*64 KiB/],
    [
      '--pin where nothing may be locked',
      ['--pin', '--memlock', '0'],
      /^unpin: EPERM: mlock: RLIMIT_MEMLOCK of guest0/,
    ],
    [
      '--pin that does not fit',
      ['--pin', '--memlock', '1G'],
      /^unpin: ENOMEM: mlock: .*of the host's 32768 KiB of frames/,
    ],
    ['N26: too few frames', ['--frames', '256K'], /^unpin: EINVAL: lguest: --frames 256 KiB must be at least 320 KiB/],
    [
      'a disk that two would write',
      ['--disk', path.join(import.meta.dirname, 'lguest.test.ts')],
      /^unpin: EINVAL: lguest: --disk .* would be written by all guests/,
    ],
  ];
  test.each(cases)('%s', async (_name, args, line) => {
    expectRefused(await lguest(args), line);
  });
});

/** VmLck of /proc/PID/status, in KiB. */
function lockedKiB(pid: number): number {
  return Number(/^VmLck:\s*(\d+) kB$/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);
}

test('S10: the process of a user who may lock nothing runs guests, and locks nothing', async (context) => {
  if (process.platform !== 'linux') context.skip('it looks at /proc');
  // The checkout may be root's alone; then it is root whose process is looked at.
  const user = process.getuid!() === 0 && (await unpin(['--help'], { uid: NOBODY }).done).code === 0;
  const command = unpin(['lguest', '--ram', '8M', '--append', 'passes=1000 mib=2', '--frames', '4M'], {
    ...(user && { uid: NOBODY }),
    killMs: 50_000,
  });
  await command.until(/pass 1\/1000 ok/);
  const pid = command.process.pid!;
  expect(lockedKiB(pid)).toBe(0);
  if (user) expect(fs.statSync(`/proc/${pid}`).uid).toBe(NOBODY);
  command.process.kill('SIGINT');
  expect(await command.done).toMatchObject({ code: 130, hung: false });
});
