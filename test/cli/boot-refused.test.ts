import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { OutputFile } from '../../src/cli/files.js';
import { openFileStore, openFileSwap } from '../../src/node/index.js';
import { boot, Command, expectRefused, MAIN, NOBODY, testFolder, unpin } from './command.js';
import { elfOf, imageOf, POWEROFF, truncatedImage } from './kernels.js';

/** What cannot be is refused before a guest runs: one line, which begins with the errno and names the value; exit code 2. */

const folder = testFolder('refused');
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

function file(name: string, bytes: Uint8Array | string): string {
  const where = path.join(folder, name);
  fs.writeFileSync(where, bytes);
  return where;
}

describe.concurrent('kernels', () => {
  const cases: [string, string, RegExp][] = [
    ['absent', path.join(folder, 'none'), /^unpin: ENOENT: open: kernel '.*none' must be a file/],
    ['a folder', folder, /^unpin: EISDIR: open: kernel '.*' must be a file .*: it is a folder/],
    ['empty', file('empty', ''), /^unpin: ENOEXEC: .*0 bytes/],
    ['text', file('text', 'root:x:0:0'.repeat(20)), /^unpin: ENOEXEC: .*begins with 72 6f 6f 74; it must be/],
    [
      'truncated Image',
      file('cut', truncatedImage(8192)),
      /^unpin: ENOEXEC: .*truncated: it has 1024 bytes and must have 8192/,
    ],
    [
      'damaged gzip',
      file('gz', new Uint8Array([0x1f, 0x8b, 8, 0, 1, 2, 3])),
      /^unpin: ENOEXEC: .*gzip kernel is damaged/,
    ],
    [
      'truncated ELF',
      file('elfcut', elfOf(POWEROFF).subarray(0, 124)),
      /^unpin: ENOEXEC: .*truncated: it has 124 bytes/,
    ],
    [
      'ELF of another machine',
      file('elfx86', elfOf(POWEROFF, { 18: 62 })),
      /^unpin: ENOEXEC: .*machine 62; it must be 243/,
    ],
    ['ELF of 32 bits', file('elf32', elfOf(POWEROFF, { 4: 1 })), /^unpin: ENOEXEC: .*must be 64-bit/],
    [
      'ELF beyond RAM',
      file('elffar', elfOf(POWEROFF, {}, 0x9000_0000)),
      /^unpin: ENOMEM: .*RAM of 128 MiB is too small/,
    ],
    [
      'Image larger than RAM',
      file('big', imageOf(POWEROFF, 2 ** 30)),
      /^unpin: ENOMEM: .*128 MiB is too small: .* need \d+ MiB/,
    ],
  ];
  test.each(cases)('%s', async (_name, kernel, line) => {
    expectRefused(await boot(['--kernel', kernel]), line);
  });

  test('an absent initrd', async () => {
    expectRefused(await boot(['--initrd', path.join(folder, 'no.gz')]), /^unpin: ENOENT: open: initrd '.*no.gz'/);
  });

  test('these Images and ELFs are none of that when whole', async () => {
    for (const kernel of [file('ok.img', imageOf(POWEROFF)), file('ok.elf', elfOf(POWEROFF))]) {
      expect((await boot(['--kernel', kernel, '--ram', '8M'])).code).toBe(0);
    }
  });
});

describe.concurrent('sizes and counts', () => {
  const cases: [string, string[], RegExp][] = [
    ['no size', ['--ram', '1X'], /^unpin: EINVAL: option '--ram <size>' argument '1X' is invalid. .*such as 128M/],
    ['RAM too small for the kernel', ['--ram', '2M'], /^unpin: ENOMEM: .*RAM of 2 MiB is too small: .* need 4 MiB/],
    ['frames beyond 4 GiB', ['--frames', '3G', '--guests', '64'], /^unpin: EINVAL: .*all must fit in 4096 MiB/],
    [
      'N26: too few frames for four',
      ['--guests', '4', '--frames', '444K'],
      /^unpin: EINVAL: .*at least 448 KiB for 4 guests/,
    ],
    [
      '--pin that does not fit',
      ['--pin'],
      /^unpin: ENOMEM: mlock: 131072 KiB .*64640 KiB of the host's 65536 KiB of frames/,
    ],
    [
      'a balloon of all RAM',
      ['--balloon', '8M', '--ram', '8M'],
      /^unpin: EINVAL: boot: --balloon 8 MiB must be less than the 8 MiB of RAM/,
    ],
    [
      '--pin of the third guest',
      ['--pin', '--guests', '3', '--ram', '24M'],
      /^unpin: ENOMEM: mlock: 24576 KiB cannot be locked beside the 49152 KiB/,
    ],
  ];
  test.each(cases)('%s', async (_name, args, line) => {
    expectRefused(await boot(args), line);
  });

  test('an unknown command', async () => {
    expectRefused(await unpin(['boott']).done, /^unpin: EINVAL: unknown command 'boott'/);
  });

  test.skipIf(!fs.existsSync('/dev/full'))('a standard output that takes nothing', async () => {
    const { done } = new Command('sh', ['-c', `exec '${process.execPath}' '${MAIN}' boot --help >/dev/full`]);
    expectRefused(await done, /^unpin: ENOSPC: write: standard output must be .*: the disk is full$/m);
  });
});

describe.concurrent('networks and folders', () => {
  const cases: [string, string[], RegExp][] = [
    [
      'a port beyond the last one, of a later guest',
      ['--guests', '3', '--net', 'user,hostfwd=tcp:65534:22'],
      /^unpin: EINVAL: boot: --net hostfwd=tcp:65534:22: guest2's port would be 65536; it must be at most 65535/,
    ],
    [
      'a port that another guest has',
      ['--guests', '2', '--net', 'user,hostfwd=tcp:8022:22,hostfwd=tcp:8023:80'],
      /^unpin: EINVAL: boot: --net hostfwd=tcp:8023:80: guest0's port 8023 must be another: guest1 by .*:8022:22 has it/,
    ],
    [
      'an absent folder',
      ['--share', `${folder}/none`],
      /^unpin: ENOENT: openFolder: folder '.*none' must be a folder .*: no such file or folder$/m,
    ],
    ['a file as folder', ['--share', file('f', '')], /^unpin: ENOTDIR: openFolder: folder '.*f' must be a folder/],
  ];
  test.each(cases)('%s', async (_, args, line) => {
    expectRefused(await boot(args), line);
  });

  test('a port that is in use', async () => {
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    const forward = `user,hostfwd=tcp:${port}:22`;
    expectRefused(await boot(['--net', forward]), new RegExp(`^unpin: EADDRINUSE: listen: port ${port} of 127.0.0.1`));
    server.close();
  });
});

describe.concurrent('disks', () => {
  const disk = file('disk.img', new Uint8Array(4096));
  const link = path.join(folder, 'link.img');
  fs.symlinkSync(disk, link);
  const cases: [string, string[], RegExp][] = [
    [
      'absent',
      ['--disk', `${folder}/no.img`],
      /^unpin: ENOENT: open: disk '.*no.img' must be a file that can be read and/,
    ],
    ['absent overlay', ['--disk', `${folder}/no.img,overlay`], /^unpin: ENOENT: open: disk '.*no.img' must be a file/],
    ['a folder', ['--disk', folder], /^unpin: EISDIR: open: disk '.*' must be .*: it is a folder/],
    [
      'a device',
      ['--disk', '/dev/zero,ro'],
      /^unpin: ENODEV: open: disk '\/dev\/zero' must be .*: it is no regular file/,
    ],
    [
      'less than a sector',
      ['--disk', file('tiny.img', 'x')],
      /^unpin: EINVAL: disk: .*tiny.img has 1 bytes; .* a multiple of 512/,
    ],
    [
      'half a sector too much',
      ['--disk', file('half.img', new Uint8Array(512 + 256))],
      /^unpin: EINVAL: disk: .*half.img has 768 bytes; .* a multiple of 512/,
    ],
    [
      'of QEMU',
      ['--disk', file('cloud.qcow2', new Uint8Array([0x51, 0x46, 0x49, 0xfb, ...Array(508).fill(0)]))],
      /^unpin: EINVAL: boot: disk '.*cloud.qcow2' is a qcow2 image; it must be raw: qemu-img convert/,
    ],
    [
      'one file by two names',
      ['--disk', disk, '--disk', link],
      /^unpin: EINVAL: open: --disk \(1\) and --disk \(2\) name one/,
    ],
    [
      'one that two guests would write',
      ['--guests', '2', '--disk', disk],
      /^unpin: EINVAL: boot: --disk .*disk.img would be written by all .* must be '.*,overlay' or '.*,ro' for 2 guests/,
    ],
    [
      'one file twice',
      ['--disk', disk, '--disk', disk],
      /^unpin: EINVAL: open: --disk \(1\) and --disk \(2\) name one/,
    ],
    [
      'that is the swap file',
      ['--disk', disk, '--swap', disk],
      /^unpin: EINVAL: open: --disk and --swap name one file/,
    ],
  ];
  test.each(cases)('%s', async (_name, args, line) => {
    expectRefused(await boot(args), line);
  });

  test('one that another process writes, or that another reads and this would write', async () => {
    const [written, read] = await Promise.all(
      ['written.img', 'read.img'].map((name) => openFileStore(file(name, new Uint8Array(512)))),
    );
    expect([written!.tryLock('exclusive'), read!.tryLock('shared')]).toEqual(['taken', 'taken']);
    const asked = [`${folder}/written.img,overlay`, `${folder}/read.img`];
    const results = await Promise.all(asked.map((disk) => boot(['--disk', disk])));
    expectRefused(results[0]!, /^unpin: EBUSY: open: disk '.*written.img' is in use; no other process may write it$/m);
    expectRefused(
      results[1]!,
      /^unpin: EBUSY: open: disk '.*read.img' is in use; no other process may have a disk that/,
    );
    await Promise.all([written!.close(), read!.close()]);
  });
});

describe.concurrent('files that are written', () => {
  const none = path.join(folder, 'no', 'file');
  const cases: [string, string[], RegExp][] = [
    ['swap in no folder', ['--swap', none], /^unpin: ENOENT: openFileSwap: swap file .*: no such file or folder$/m],
    ['swap that is a folder', ['--swap', folder], /^unpin: EISDIR: openFileSwap: swap file .*: it is a folder/],
    [
      'swap that is a device',
      ['--swap', '/dev/zero'],
      /^unpin: EINVAL: .*swap path \/dev\/zero must be a regular file/,
    ],
    ['report in no folder', ['--json', none], /^unpin: ENOENT: open: report '.*' must be a file that can be written/],
    ['report that is a folder', ['--json', folder], /^unpin: EISDIR: open: report/],
    ['trace in no folder', ['--trace', none], /^unpin: ENOENT: open: trace/],
    [
      'one file twice',
      ['--json', `${folder}/a`, '--trace', `${folder}/./a`],
      /^unpin: EINVAL: open: --json and --trace name one/,
    ],
  ];
  test.each(cases)('%s', async (_name, args, line) => {
    expectRefused(await boot(args), line);
  });

  test('swap that exists already is left alone', async () => {
    const swap = file('precious', 'precious');
    expectRefused(
      await boot(['--swap', swap]),
      /^unpin: EEXIST: .*8 bytes that would be lost; it must be new or empty/,
    );
    expect(fs.readFileSync(swap, 'utf8')).toBe('precious');
  });

  test('a refused run leaves no report and no swap file behind, and keeps an old report', async () => {
    const [json, old, swap] = [path.join(folder, 'new.json'), file('old.json', 'old'), path.join(folder, 'newswap')];
    await boot(['--pin', '--json', json, '--trace', old, '--swap', swap]);
    expect([fs.existsSync(json), fs.existsSync(swap), fs.readFileSync(old, 'utf8')]).toEqual([false, false, 'old']);
  });

  test('a folder that may not be written', async () => {
    const readonly = path.join(folder, 'readonly');
    fs.mkdirSync(readonly, { mode: 0o555 });
    fs.chmodSync(folder, 0o755);
    const root = process.getuid!() === 0;
    if ((await unpin(['--help'], root ? { uid: NOBODY } : {}).done).code === 0) await refusedByCommand(readonly, root);
    // The checkout is root's alone: the same calls in this process.
    else await refusedHere(readonly);
  });
});

async function refusedByCommand(readonly: string, root: boolean): Promise<void> {
  const nobody = root ? { uid: NOBODY } : {};
  expectRefused(
    await boot(['--swap', `${readonly}/swap`], nobody),
    /^unpin: EACCES: openFileSwap: swap file .*: no permission$/m,
  );
  expectRefused(await boot(['--json', `${readonly}/json`], nobody), /^unpin: EACCES: open: report .*no permission/);
}

async function refusedHere(readonly: string): Promise<void> {
  process.seteuid!(NOBODY);
  try {
    expect(() => new OutputFile('report', `${readonly}/json`)).toThrow(/^EACCES: open: report .*no permission/);
    await expect(openFileSwap(`${readonly}/swap`, { sizeBytes: 4096 })).rejects.toThrow(/^EACCES: .*no permission$/);
  } finally {
    process.seteuid!(0);
  }
}
