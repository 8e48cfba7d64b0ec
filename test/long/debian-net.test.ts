import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

/**
 * Network and shared folders with Debian's riscv64 kernel and busybox, in less memory than the guest has (debian.test.ts tells how to make it).
 * What a guest does is a script in a folder that it is shown; what it finds out it writes there.
 */

const folder = process.env.UNPIN_DEBIAN_GUEST ?? 'debian-guest';
const present = fs.existsSync(join(folder, 'Image'));
if (!present) console.warn(`SKIPPED: Debian's network and folders (no ${folder}/Image; set UNPIN_DEBIAN_GUEST)`);

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const MIB = 2 ** 20;
const COMMAND = 'console=ttyS0 quiet unpin.run="mkdir -p /s; mount -t virtiofs share /s && sh /s/run.sh"';

let share: string;
let child: ChildProcess | undefined;
const closers: (() => void)[] = [];

beforeEach(() => {
  share = fs.mkdtempSync(join(tmpdir(), 'unpin-net-'));
});

afterEach(() => {
  child?.kill('SIGKILL');
  for (const close of closers.splice(0)) close();
  fs.rmSync(share, { recursive: true });
});

interface Run {
  code: number | null;
  output: string;
  report: { guests: { exit: string }[]; host: Record<string, number> };
}

function boot(script: string, args: string[]): Promise<Run> {
  fs.writeFileSync(join(share, 'run.sh'), `exec 2>&1\n${script}`);
  const json = join(share, 'report.json');
  const guest = ['--kernel', join(folder, 'Image'), '--initrd', join(folder, 'initrd.gz'), '--ram', '128M'];
  const common = ['--timeout', '1200', '--json', json, '--append', COMMAND, '--share', share];
  const started = spawn(process.execPath, [MAIN, 'boot', ...guest, ...common, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child = started;
  let output = '';
  for (const stream of [started.stdout!, started.stderr!])
    stream.on('data', (bytes: Buffer) => (output += bytes.toString()));
  return new Promise((resolve) => {
    started.on('close', (code) => {
      const report = fs.existsSync(json) ? JSON.parse(fs.readFileSync(json, 'utf8')) : undefined;
      resolve({ code, output, report });
    });
  });
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

async function listen(server: net.Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => server.close());
  return (server.address() as net.AddressInfo).port;
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  const port = await listen(server);
  closers.pop()!();
  return port;
}

async function appears(name: string, run: Promise<Run>): Promise<void> {
  let over = false;
  void run.then(() => (over = true));
  while (!fs.existsSync(join(share, name)) && !over) await new Promise((resolve) => setTimeout(resolve, 100));
}

function expectPoweroff({ code, output, report }: Run): void {
  expect(output).toContain('unpin: exit status 0');
  expect(report.guests.every(({ exit }) => exit === 'poweroff')).toBe(true);
  expect(code).toBe(0);
}

describe.skipIf(!present)('Debian', () => {
  test('DHCP, ping, and 10 MiB each way under reclaim, by connections from either side', async () => {
    const down = randomBytes(10 * MIB);
    const server = http.createServer((_, response) => response.end(down));
    const web = await listen(server);
    const uploads: Promise<string>[] = [];
    const sink = await listen(
      net.createServer((socket) => {
        const hash = createHash('sha256');
        socket.on('data', (bytes) => hash.update(bytes));
        uploads.push(once(socket, 'end').then(() => hash.digest('hex')));
      }),
    );
    const hostPort = await freePort();
    const run = boot(
      `
udhcpc -i eth0 -n -q -f || exit 1
ip addr show eth0
ping -c 3 10.0.2.2 || exit 2
! nc -w 5 10.0.2.2 1 </dev/null || exit 3
wget -q -O /tmp/down http://10.0.2.2:${web}/ || exit 4
sha256sum /tmp/down >/s/down.sum
nc 10.0.2.2 ${sink} </tmp/down || exit 5
httpd -p 80 -h /tmp || exit 6
touch /s/ready
while [ ! -f /s/done ]; do sleep 1; done
`,
      ['--frames', '56M', '--net', `user,hostfwd=tcp:${hostPort}:80`],
    );
    await appears('ready', run);
    let fetched = new Uint8Array(0);
    if (fs.existsSync(join(share, 'ready'))) {
      const answer = await fetch(`http://127.0.0.1:${hostPort}/down`);
      fetched = new Uint8Array(await answer.arrayBuffer());
    }
    fs.writeFileSync(join(share, 'done'), '');
    const ended = await run;
    expect(ended.output).toContain('inet 10.0.2.15/24');
    expect(ended.output).toContain('3 packets received');
    expectPoweroff(ended);
    expect(fs.readFileSync(join(share, 'down.sum'), 'utf8').split(' ')[0]).toBe(sha256(down));
    expect(await Promise.all(uploads)).toEqual([sha256(down)]);
    expect(sha256(fetched)).toBe(sha256(down));
    expect(ended.report.host.swapOutPages).toBeGreaterThan(0);
  });

  test('a shared folder: read, written, listed, changed on both sides, and not written where it is read-only', async () => {
    const files: Record<string, Buffer> = {
      'tree/a': Buffer.from('a'),
      'tree/deep/er/b': randomBytes(3 * MIB + 17),
      'tree/ümlaut and space': randomBytes(4096),
      'tree/empty': Buffer.alloc(0),
    };
    for (let i = 0; i < 300; i++) files[`tree/many/${i}`] = Buffer.from(`file ${i}`);
    for (const [name, bytes] of Object.entries(files)) {
      fs.mkdirSync(join(share, name, '..'), { recursive: true });
      fs.writeFileSync(join(share, name), bytes);
    }
    fs.symlinkSync('deep/er/b', join(share, 'tree/link'));
    fs.symlinkSync('/etc/passwd', join(share, 'tree/out'));
    const ended = await boot(
      `
cd /s && find tree -type f -print0 | xargs -0 sha256sum >/s/sums || exit 1
cp -a tree /tmp/tree && cp -a /tmp/tree /s/back || exit 2
! cat tree/out || exit 3
[ "$(sha256sum <tree/link)" = "$(sha256sum <tree/deep/er/b)" ] || exit 4
echo grown >>back/a && mv back/a back/moved && rm back/empty && rmdir nowhere 2>/dev/null
chmod 600 back/moved && truncate -s 5 back/moved && ln back/moved back/hard
mkdir /r && mount -t virtiofs fixed /r || exit 5
! touch /r/tree/new 2>/dev/null || exit 6
! rm -f /r/tree/a 2>/dev/null || exit 7
cmp /r/tree/a /s/tree/a || exit 8
df /s
cd / && umount /r
`,
      ['--frames', '48M', '--share', `${share},fixed,ro`],
    );
    expectPoweroff(ended);
    const sums = fs.readFileSync(join(share, 'sums'), 'utf8').trim().split('\n');
    const expected = Object.entries(files).map(([name, bytes]) => `${sha256(bytes)}  ${name}`);
    expect(sums.sort()).toEqual(expected.sort());
    for (const [name, bytes] of Object.entries(files)) {
      if (name === 'tree/a' || name === 'tree/empty') continue;
      expect(fs.readFileSync(join(share, name.replace('tree', 'back'))).equals(bytes), name).toBe(true);
    }
    expect(fs.readFileSync(join(share, 'back/hard'), 'utf8')).toBe('agrow');
    expect(fs.statSync(join(share, 'back/moved'))).toMatchObject({ nlink: 2, size: 5 });
    expect(fs.statSync(join(share, 'back/moved')).mode & 0o777).toBe(0o600);
    expect(fs.readlinkSync(join(share, 'back/link'))).toBe('deep/er/b');
    expect(fs.existsSync(join(share, 'back/empty'))).toBe(false);
    expect(fs.readFileSync(join(share, 'tree/a'), 'utf8')).toBe('a');
  });

  test('two guests on one link: the card tells who is who, and 4 MiB go from one to the other', async () => {
    const ended = await boot(
      `
mac=$(cat /sys/class/net/eth0/address)
me=$((0x\${mac##*:} - 0x56))
ip link set eth0 up
ip addr add 192.168.7.$((me + 1))/24 dev eth0
if [ $me = 0 ]; then
  nc -l -p 7777 >/tmp/got || exit 1
  sha256sum </tmp/got >/s/got.sum
else
  dd if=/dev/urandom of=/tmp/sent bs=1M count=4 2>/dev/null
  sha256sum </tmp/sent >/s/sent.sum
  until ping -c 1 -w 2 192.168.7.1; do sleep 1; done
  sleep 2
  nc 192.168.7.1 7777 </tmp/sent || exit 2
fi
`,
      ['--frames', '104M', '--guests', '2', '--net', 'link:lab'],
    );
    expectPoweroff(ended);
    expect(fs.readFileSync(join(share, 'got.sum'), 'utf8')).toBe(fs.readFileSync(join(share, 'sent.sum'), 'utf8'));
    expect(fs.readFileSync(join(share, 'sent.sum'), 'utf8')).toMatch(/^[0-9a-f]{64} /);
  });
});
