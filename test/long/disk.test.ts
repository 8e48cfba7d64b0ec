import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasScript, inTerminal, type } from '../cli/pty.js';
import { boot, folder, present, type Run } from './debianguest.js';

/**
 * Debian's own userland from a disk, as scripts/debian-disk makes it; and the guest's console on a terminal. UNPIN_DEBIAN_DISK may name an
 * image that was made before; it is not written.
 */

const work = mkdtempSync(join(tmpdir(), 'unpin-disk-'));
afterAll(() => rmSync(work, { recursive: true, force: true }));

const image = process.env.UNPIN_DEBIAN_DISK ?? join(work, 'disk.img');
const GUEST = `--kernel ${join(folder, 'Image')} --initrd ${join(folder, 'initrd.gz')}`;

/** Boots from the disk, of which nothing is written, and runs a command there. */
function onDisk(command: string, args: string[] = ['--ram', '512M', '--frames', '256M']) {
  const append = `console=ttyS0 quiet rw root=/dev/vda unpin.run="${command}"`;
  return boot([...args, '--disk', `${image},overlay`, '--append', append]);
}

/** What came from userspace: the kernel has its say on a busy machine, where it finds that time went by. */
function userspace({ stdout }: Run): string {
  return stdout
    .split(/\r*\n/)
    .filter((line) => !/^\[ *\d+\.\d+\]/.test(line))
    .join('\n');
}

describe.skipIf(!present)("Debian's userland", () => {
  beforeAll(() => {
    if (existsSync(image)) return;
    const made = spawnSync('scripts/debian-disk', ['--guest', folder, '--configure', image], { encoding: 'utf8' });
    expect(made.status, made.stderr).toBe(0);
  });

  test('its packages are configured, and the file system is clean', async () => {
    const run = await onDisk('dpkg --audit; dpkg --get-selections | wc -l; dpkg -l | grep -c ^ii');
    expect(userspace(run)).toMatch(/userspace is up\s+(\d{3})\s+\1\s+unpin: exit status 0/);
    const check = spawnSync('e2fsck', ['-fn', image], {
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    });
    expect(check.status, String(check.stdout)).toBe(0);
  });

  test('redis-server answers, and keeps what it was given in less memory than it believes to have', async () => {
    const run = await onDisk(
      'redis-server --daemonize yes --enable-debug-command yes >/dev/null; sleep 2; redis-cli ping; redis-cli debug populate 20000 key 1000 >/dev/null; redis-cli get key:19999 | head -c 11; echo; redis-cli dbsize',
      ['--ram', '512M', '--frames', '128M'],
    );
    expect(userspace(run)).toMatch(/PONG\s+value:19999\s+\(integer\) 20000\s+unpin: exit status 0/);
  });

  test('stress-ng verifies its memory', async () => {
    const run = await onDisk(
      'stress-ng --vm 2 --vm-bytes 64M --vm-ops 20000 --verify --metrics-brief --timeout 60 2>&1',
      [...['--ram', '512M', '--frames', '160M']],
    );
    expect(run.stdout).toMatch(/stress-ng: info: .*passed: 2: vm \(2\)/);
    expect(run.stdout).toContain('unpin: exit status 0');
    expect(run.report!.host.swapOutPages).toBeGreaterThan(0);
  });

  test.skipIf(!hasScript)('it boots to a login on a terminal, and powers off', async () => {
    const args = `--disk ${image},overlay --ram 512M --frames 256M --append 'console=ttyS0 quiet root=/dev/vda'`;
    const command = inTerminal(`exec "$NODE" "$MAIN" boot ${GUEST} ${args}`, {}, 900_000);
    await command.until(/debian login: /);
    type(command, 'root\n');
    await command.until(/root@debian:~# /);
    type(command, 'redis-cli ping; id -un | rev\n');
    await command.until(/PONG\s+toor/);
    type(command, 'poweroff\n');
    const { code, stdout } = await command.done;
    expect(stdout).toMatch(/Power down[\s\S]*guest0 +poweroff/);
    expect(code).toBe(0);
  });
});

describe.skipIf(!present || !hasScript)('Debian on a terminal', () => {
  test('Ctrl-C ends a program of the guest, and the guest knows the size of the terminal', async () => {
    const trigger = join(work, 'resize');
    const shell = `
      stty cols 100 rows 40
      (until [ -e ${trigger} ]; do sleep 0.1; done; stty cols 90 rows 30 < /dev/tty) &
      exec "$NODE" "$MAIN" boot ${GUEST} --console hvc0 --frames 128M --append 'console=hvc0 quiet'`;
    const command = inTerminal(shell, {}, 300_000);
    await command.until(/# /);
    type(command, 'stty size\n');
    await command.until(/40 100\r+\n/);
    writeFileSync(trigger, '');
    type(command, 'until stty size | grep "30 90"; do sleep 1; done\n');
    await command.until(/\n30 90\r+\n[\s\S]*# /);
    type(command, 'echo begun | tr a-z A-Z; sleep 1000\n');
    await command.until(/BEGUN/);
    await new Promise((resolve) => setTimeout(resolve, 2000));
    type(command, '\x03echo still | tr a-z A-Z\n');
    await command.until(/STILL/);
    type(command, '\x01x');
    expect((await command.done).stdout).toContain('ended from the keyboard');
  });
});
