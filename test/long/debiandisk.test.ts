import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { boot, consoleOf, present } from './debianguest.js';

/**
 * Debian with a virtio disk, in a third of the memory that it believes it has: what it writes to a file system is there after a remount, and to the
 * eyes of the host's own tools. Needs e2fsprogs.
 */

const MIB = 2 ** 20;
const MODULES = 'set -e; modprobe -a crc32c_generic ext4';
/** Reads every block of the disk anew. */
const REMOUNT = 'cd /; umount /mnt; echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 /dev/vda /mnt; cd /mnt';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

function command(console: string, text: string): string[] {
  return ['--append', `console=${console} quiet unpin.run="${MODULES}; ${text}"`];
}

describe.skipIf(!present)('Debian on a disk', () => {
  let work: string;
  let disk: string;

  beforeAll(() => {
    work = mkdtempSync(join(tmpdir(), 'unpin-disk-'));
    disk = join(work, 'disk.img');
    writeFileSync(disk, '');
    truncateSync(disk, 96 * MIB);
  });
  afterAll(() => rmSync(work, { recursive: true }));

  /** A file of the image, by the host's tools. */
  function fileOf(path: string): Uint8Array {
    const { status, stdout } = spawnSync('debugfs', ['-R', `cat ${path}`, disk], { maxBuffer: 64 * MIB });
    expect(status).toBe(0);
    return stdout;
  }

  test('S9: makes a file system, writes, syncs and reads back while its memory comes and goes; the host reads the same', async () => {
    const write = 'dd if=/dev/urandom of=a bs=1M count=16; cp a b; sha256sum a b >sums; cat sums';
    const text = `mke2fs -F /dev/vda >/dev/null; mount -t ext4 /dev/vda /mnt; cd /mnt; ${write}; ${REMOUNT}; sha256sum -c sums; cd /; umount /mnt`;
    const run = await boot(['--ram', '128M', '--frames', '44M', '--disk', disk, ...command('ttyS0', text)]);
    expect(run.code, run.stdout + run.stderr).toBe(0);
    expect(run.stdout).toMatch(/a: OK\r?\nb: OK\r?\nunpin: exit status 0/);
    expect(run.report!.host.swapInPages).toBeGreaterThan(1000);
    expect(run.report!.host.pinnedFrames).toBe(0);
    const check = spawnSync('e2fsck', ['-fn', disk], { encoding: 'utf8' });
    expect([check.status, check.stdout]).toEqual([0, expect.stringContaining('14/')]);
    const a = fileOf('a');
    expect(a.length).toBe(16 * MIB);
    expect(run.stdout).toContain(sha256(a));
    expect(sha256(fileOf('b'))).toBe(sha256(a));
  });

  test('two guests share the image by overlays, on virtio consoles: each sees what it wrote, and the image stays as it is', async () => {
    const image = sha256(readFileSync(disk));
    const own = 'head -c 3000000 /dev/urandom >own; sha256sum own >ownsum; rm b; cp own b';
    const text = `mount -t ext4 /dev/vda /mnt; cd /mnt; sha256sum -c sums; ${own}; ${REMOUNT}; sha256sum -c ownsum; cmp own b; cat ownsum; fstrim /mnt`;
    const args = ['--guests', '2', '--ram', '112M', '--frames', '128M', '--console', 'hvc0'];
    const run = await boot([...args, '--disk', `${disk},overlay`, ...command('hvc0', text)]);
    expect(run.code, run.stdout + run.stderr).toBe(0);
    const sums = [0, 1].map((i) => {
      expect(consoleOf(run, i)).toMatch(/own: OK[\s\S]*unpin: exit status 0/);
      return /([0-9a-f]{64}) {2}own/.exec(consoleOf(run, i))?.[1];
    });
    expect(sums[0]).toMatch(/^[0-9a-f]{64}$/);
    expect(sums[1]).not.toBe(sums[0]);
    expect(run.report!.host.swapOutPages).toBeGreaterThan(0);
    expect(sha256(readFileSync(disk))).toBe(image);
  });
});
