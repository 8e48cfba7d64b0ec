import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { addi, ECALL, sd } from '../isa/assemble.js';
import {
  boot,
  Command,
  type CommandOptions,
  expectRefused,
  MAIN,
  NOBODY,
  type Result,
  testFolder,
  unpin,
} from './command.js';
import { elfOf } from './kernels.js';

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

test('the report has the shape of that of `unpin boot`, and what the driver counted', async () => {
  const [ours, boots] = [path.join(folder, 'ours.json'), path.join(folder, 'boots.json')];
  await lguest([...SMALL, '--guests', '1', '--frames', '4M', '--json', ours]);
  await boot(['--ram', '8M', '--append', 'passes=1 mib=2', '--frames', '4M', '--json', boots]);
  const [{ lguest: counted, ...guest }, other] = [ours, boots].map(
    (file) => JSON.parse(fs.readFileSync(file, 'utf8')).guests[0],
  );
  expect(Object.keys(guest)).toEqual(Object.keys(other));
  expect(Object.keys(guest.smaps_rollup)).toEqual(Object.keys(other.smaps_rollup));
  expect(counted).toBeDefined();
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

  test('a guest that notifies without end is stopped as any other: the loop of its launcher never waits', async () => {
    const [T0, A0, A1] = [5, 10, 11];
    const kernel = path.join(folder, 'notify.elf');
    // lui a1, 10; t0 = -1 << 38; kernel_address; LHCALL_LGUEST_INIT; LHCALL_NOTIFY of address 0, where no text is, for ever.
    const init = [0x0000a5b7, addi(T0, 0, -1), 0x02629293, sd(T0, 48, A1), addi(A0, 0, 1), ECALL];
    fs.writeFileSync(kernel, elfOf([...init, addi(A0, 0, 17), addi(A1, 0, 0), ECALL, 0xff5ff06f], {}, 0x8000));
    const args = ['--ram', '8M', '--guests', '1', '--kernel', kernel, '--timeout', '0.5'];
    const { code, stderr, hung } = await lguest(args);
    expect(stderr).toMatch(/^unpin: guest0: timeout: still running after 0.5 s$/m);
    expect([code, hung]).toEqual([1, false]);
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
    ['no guest', ['--guests', '0'], /^unpin: EINVAL: .*'0' must be a whole number from 1 to 64/],
    ['RAM below its least', ['--ram', '4K'], /^unpin: EINVAL: .*'4K' must be from 1 MiB to 1 GiB/],
    ['RAM too small for the kernel', ['--ram', '2M'], /^unpin: ENOMEM: .*RAM of 2 MiB is too small/],
    ['no time', ['--timeout', '0'], /^unpin: EINVAL: .*'0' must be a number of seconds above 0/],
    [
      'an absent kernel',
      ['--kernel', path.join(folder, 'none')],
      /^unpin: ENOENT: open: kernel '.*none' must be a file/,
    ],
    ['a kernel that is none', ['--kernel', import.meta.filename], /^unpin: ENOEXEC: .*it must be/],
    ['a report in no folder', ['--json', path.join(folder, 'no', 'r')], /^unpin: ENOENT: open: report '.*' must be a/],
    ['a swap file that is in use', ['--swap', import.meta.filename], /^unpin: EEXIST: .*it must be new or empty/],
    ['an option of boot', ['--smp', '2'], /^unpin: EINVAL: unknown option '--smp'/],
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

/** Of /proc/PID/status: numbers as they are written there. */
function statusOf(pid: number): Map<string, string> {
  const lines = fs.readFileSync(`/proc/${pid}/status`, 'utf8').trim().split('\n');
  return new Map(lines.map((line) => line.split(/:\s*/, 2) as [string, string]));
}

test('S10: the process of a user who may lock nothing runs guests, and locks nothing', async (context) => {
  context.skip(process.platform !== 'linux', 'it looks at /proc');
  const root = process.getuid!() === 0;
  const user = root ? { uid: NOBODY } : {};
  context.skip(root && (await unpin(['--help'], user).done).code !== 0, 'nobody but root may read this checkout');
  const args = ['lguest', '--ram', '8M', '--append', 'passes=1000 mib=2', '--frames', '4M'];
  const shell = ['-c', 'ulimit -l 0 && exec "$0" "$@"', process.execPath, MAIN, ...args];
  const command = new Command('/bin/sh', shell, { ...user, killMs: 50_000 });
  const pid = command.process.pid!;
  // While it swaps, again and again.
  for (const pass of [1, 2, 3]) {
    await command.until(new RegExp(`pass ${pass}/1000 ok`));
    const status = statusOf(pid);
    expect([status.get('VmLck'), status.get('VmPin')]).toEqual(['0 kB', '0 kB']);
    expect(status.get('CapEff')).toBe('0000000000000000');
    expect(status.get('Uid')).not.toMatch(/\b0\b/);
  }
  expect(fs.readFileSync(`/proc/${pid}/limits`, 'utf8')).toMatch(/^Max locked memory +0 +0 +bytes/m);
  command.process.kill('SIGINT');
  expect(await command.done).toMatchObject({ code: 130, hung: false });
});
