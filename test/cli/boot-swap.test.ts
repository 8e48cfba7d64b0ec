import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { boot, Command, MAIN, type Result, testFolder, unpin } from './command.js';
import { isKernelPageOf } from './memhogpages.js';

/** What goes wrong with swap while guests run costs the guest whose page it is, with one line; the others go on. Never a hang. */

const PAGE = 4096;
const folder = testFolder('swap');
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

interface Guest {
  exit: string;
  reason: string;
}

function exits(json: string): string[] {
  return JSON.parse(fs.readFileSync(json, 'utf8')).guests.map((g: Guest) => g.exit);
}

/** A guest died, and of each there is one line. */
function expectDeath({ code, stderr, hung }: Result, nrDeaths: number, reason: RegExp): void {
  expect([code, hung]).toEqual([1, false]);
  const lines = stderr.split('\n').filter((line) => /^unpin: guest\d: killed: /.test(line));
  expect(lines).toHaveLength(nrDeaths);
  for (const line of lines) expect(line).toMatch(reason);
  expect(stderr).not.toMatch(/\bat .*:\d+:\d+/);
}

function expectVerified(stdout: string, guest: string): void {
  expect(stdout).toMatch(new RegExp(`\\[${guest}\\] memhog: .* verified \\d+ words, 0 errors`));
}

test('with swap and frames full the largest guest dies, the other verifies all of its own', async () => {
  const json = path.join(folder, 'full.json');
  const args = ['--guests', '2', '--ram', '8M', '--frames', '7M', '--swap-size', '2M', '--json', json];
  const result = await boot(args);
  expectDeath(
    result,
    1,
    /: out of memory: guest\d needs .*of 1792 frames 0 are pinned, of 512 swap slots \d+ are free, and nothing can be reclaimed; chosen with/,
  );
  expect(exits(json).sort()).toEqual(['killed', 'poweroff']);
  expectVerified(result.stdout, exits(json)[0] === 'poweroff' ? 'guest0' : 'guest1');
});

test('N26: the smallest --frames let each guest make progress', async () => {
  const args = ['--guests', '3', '--ram', '8M', '--frames', '384K', '--append', 'mib=2 passes=1'];
  const { code, stdout } = await boot(args);
  for (const guest of ['guest0', 'guest1', 'guest2']) expectVerified(stdout, guest);
  expect(code).toBe(0);
});

describe('a swap file spoilt from outside', () => {
  /** Two guests whose memory is mostly in the swap file; stopped. Their kernels look at all of theirs several times yet. */
  async function stoppedRun(name: string): Promise<{ command: Command; swap: string; json: string }> {
    const [swap, json] = [path.join(folder, name), path.join(folder, `${name}.json`)];
    const args = '--guests 2 --ram 8M --frames 3M --append passes=4'.split(' ');
    const command = unpin(['boot', ...args, '--swap', swap, '--json', json]);
    for (const guest of ['guest0', 'guest1']) await command.until(new RegExp(`${guest}\\] memhog: kernel: .* pass 2`));
    command.process.kill('SIGSTOP');
    return { command, swap, json };
  }

  async function goOn(command: Command): Promise<Result> {
    command.process.kill('SIGCONT');
    return command.done;
  }

  test('a damaged page is a machine check for the guest that owns it', async () => {
    const { command, swap, json } = await stoppedRun('damaged');
    const fd = fs.openSync(swap, 'r+');
    const page = new Uint8Array(PAGE);
    let nrDamaged = 0;
    for (let at = 0; at < 40 * 2 ** 20; at += PAGE) {
      fs.readSync(fd, page, 0, PAGE, at);
      if (!isKernelPageOf(2, page)) continue;
      page[1234]! ^= 4;
      fs.writeSync(fd, page, 0, PAGE, at);
      nrDamaged++;
    }
    fs.closeSync(fd);
    expect(nrDamaged).toBeGreaterThan(100);
    const result = await goOn(command);
    expectDeath(
      result,
      1,
      /guest1: killed: machine check at guest-physical page 0x8\w+: EHWPOISON: .* damaged in swap/,
    );
    expect(exits(json)).toEqual(['poweroff', 'killed']);
    expectVerified(result.stdout, 'guest0');
    expect(fs.existsSync(swap)).toBe(false);
  });

  test('a truncated file is a machine check for everybody in it', async () => {
    const { command, swap, json } = await stoppedRun('truncated');
    fs.truncateSync(swap, 3 * PAGE);
    const result = await goOn(command);
    expectDeath(result, 2, /machine check at guest-physical page 0x8\w+: EHWPOISON/);
    expect(result.stderr).toMatch(
      /^unpin: EIO: read: swap file .*truncated: the file ends before byte \d+; it was changed/m,
    );
    expect(exits(json)).toEqual(['killed', 'killed']);
  });

  test('a file that is removed goes on to serve', async () => {
    const { command, swap } = await stoppedRun('removed');
    fs.unlinkSync(swap);
    const { code, stdout } = await goOn(command);
    expect(code).toBe(0);
    for (const guest of ['guest0', 'guest1']) expectVerified(stdout, guest);
  });
});

/** Where the full disk comes from: a small tmpfs, mounted as root or in a user namespace of the command's own. */
describe('a full disk', () => {
  const small = path.join(folder, 'small');
  fs.mkdirSync(small);
  const mount = `mount -t tmpfs -o size=2m none ${small}`;
  const wrap = ['unshare', process.getuid!() === 0 ? '-m' : '-rm', 'sh', '-c'];
  const WHY = 'SKIPPED: no file system can be mounted here';
  const can = spawnSync(wrap[0]!, [...wrap.slice(1), mount]).status === 0;

  async function onSmallDisk(script: string): Promise<Result> {
    const env = { NODE: process.execPath, MAIN };
    return new Command(wrap[0]!, [...wrap.slice(1), `${mount} && ${script}`], { env }).done;
  }

  test('that fills while guests run costs guests, and says so', async (context) => {
    context.skip(!can, WHY);
    const result = await onSmallDisk(`exec "$NODE" "$MAIN" boot --guests 2 --ram 8M --frames 3M --swap ${small}/swap`);
    expect(result.stderr).toMatch(/^unpin: ENOSPC: write: swap file .*: the disk is full$/m);
    expectDeath(result, 2, /killed: (no memory for|out of memory:) .* nothing can be reclaimed/);
  });

  test('that is full already is refused', async (context) => {
    context.skip(!can, WHY);
    const fill = `head -c 4M /dev/zero > ${small}/all 2>/dev/null; exec "$NODE" "$MAIN" boot --swap ${small}/swap`;
    const { code, stderr } = await onSmallDisk(fill);
    expect(stderr).toMatch(/^unpin: ENOSPC: openFileSwap: swap file .*: the disk is full\n$/);
    expect(code).toBe(2);
  });

  test('a report that cannot be written in the end is told, after the guests ran', async () => {
    const { code, stderr, stdout } = await boot(['--ram', '8M', '--json', '/dev/full']);
    expect(stderr).toMatch(
      /^unpin: ENOSPC: open: report '\/dev\/full' must be a file that can be written: the disk is full$/m,
    );
    expect(stdout).toMatch(/verified/);
    expect(code).toBe(2);
  });
});
