import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { expectedOutput } from '../../examples/rp2040/run.js';

/** The examples, run as their users run them: against what `npm run build` made. */

const root = new URL('../../', import.meta.url);

function run(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/run-ts.mjs', ...args], {
    cwd: root,
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

test('guestram.ts: 96 MiB in 16 MiB, nothing pinned, nothing wrong, no file left', () => {
  const { status, stdout, stderr } = run('examples/guestram.ts');
  expect(stderr).toBe('');
  expect(stdout).toMatch(/^96 MiB in 16 MiB: \d{5} pages came back, 0 pinned, 0 words wrong\n$/);
  expect([status, existsSync(new URL('guestram.swap', root))]).toEqual([0, false]);
});

test('guestram.ts is about twenty lines', () => {
  const lines = readFileSync(new URL('examples/guestram.ts', root), 'utf8').split('\n');
  expect(lines.filter((line) => line.trim() !== '').length).toBeLessThanOrEqual(22);
});

test('kvm.ts: a guest and a device that doubles, from 1 to 1024', () => {
  const { status, stdout, stderr } = run('examples/kvm.ts');
  const said = Array.from({ length: 11 }, (_, i) => `KVM_EXIT_MMIO at 0x40000000: ${2 ** i}\n`);
  expect([status, stdout, stderr]).toEqual([0, said.join(''), '']);
});

test('twodrivers.ts: guests by lguest and by kvm in one host memory verify all they wrote, nothing pinned', () => {
  const { status, stdout, stderr } = run('examples/twodrivers.ts');
  expect(stderr).toBe('');
  expect(stdout.match(/verified \d+ words.*, 0 errors/g)).toHaveLength(3);
  for (const name of ['first', 'second', 'third'])
    expect(stdout).toMatch(new RegExp(`^${name}: poweroff, waited for [1-9]\\d* pages$`, 'm'));
  expect(stdout).toMatch(/^[1-9]\d* pages came back from swap, 0 pinned\n$/m);
  expect(status).toBe(0);
});

test('pico.ts: rp2040js sorts 3 MiB in 1 MiB of memory, as JavaScript does', () => {
  const { status, stdout, stderr } = run('examples/pico.ts');
  expect(stderr).toBe('');
  expect(stdout).toContain(expectedOutput((3 * 2 ** 20) / 4));
  expect(stdout).toMatch(
    /256 frames for 1024 pages;\n[1-9]\d+ pages went to the file, [1-9]\d+ came back, 0 were pinned/,
  );
  expect([status, existsSync(new URL('pico.swap', root))]).toEqual([0, false]);
});

test('sort.bin comes bit for bit from sort.c', (context) => {
  const { status, stdout, stderr } = spawnSync('examples/rp2040/build', ['--check'], { cwd: root, encoding: 'utf8' });
  if (status === 3) context.skip(stderr.trim());
  expect([status, stdout + stderr]).toEqual([0, '']);
});

test('kv.ts: a table four times the memory of its server, filled and read by RDMA, nothing pinned, nothing wrong', () => {
  const { status, stdout, stderr } = run('examples/kv.ts');
  expect(stderr).toBe('');
  expect(stdout).toMatch(/^8192 keys put, 2000 read by whom did not put them: 0 wrong; \d+ retries\n/);
  expect(stdout).toMatch(/server: 4 MiB: at most \d+ of 256 frames; .* [1-9]\d{3,} came back, 0 were pinned\n$/);
  expect(status).toBe(0);
});
