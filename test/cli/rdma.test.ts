import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { CmId } from '../../src/rdma/index.js';
import { RdmaWorld } from '../rdma/rdmaworld.js';
import { type Command, expectRefused, type Result, testFolder, unpin } from './command.js';

/** `unpin rdma`: two processes, and what is refused. */

const folder = testFolder('rdma');
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

const rdma = (...args: string[]): Promise<Result> => unpin(['rdma', ...args]).done;
const file = (name: string) => path.join(folder, name);
const read = (name: string) => JSON.parse(fs.readFileSync(file(name), 'utf8'));

async function startServer(...args: string[]): Promise<{ server: Command; port: string }> {
  const server = unpin(['rdma', 'server', '--port', '0', ...args]);
  await server.until(/port \d+\n/);
  return { server, port: /port (\d+)\n/.exec(server.stdout)![1]! };
}

describe('server and client', () => {
  test('S11: a region four times the memory that serves it is written and read back, and nothing is pinned', async () => {
    const sizes = ['--region', '16M', '--frames', '4M', '--swap-size', '64M'];
    const { server, port } = await startServer('--once', '--json', file('server.json'), ...sizes);
    const client = await rdma('client', '--port', port, '--verify', '--json', file('client.json'));
    expect([client.stderr, client.code]).toEqual(['', 0]);
    expect(client.stdout).toMatch(/10 pings: [\s\S]*verified 16 MiB: 0 bytes wrong/);
    const { code, stderr } = await server.done;
    expect(code).toBe(0);
    expect(stderr).toMatch(/1 connections; received 16[.\d]* MiB[\s\S]*faults \d+ minor, \d+ major[\s\S]*pinned 0/);
    expect(read('client.json')).toMatchObject({ bytesVerified: 2 ** 24, mismatches: 0, ping: { count: 10 } });
    const report = read('server.json');
    expect(report).toMatchObject({
      server: { regionBytes: 2 ** 24, connections: [{ end: 'disconnected', pings: 10 }], device: { pinnedPages: 0 } },
      host: { frames: 1024, pinnedFrames: 0, poisoned: 0 },
    });
    expect(report.host.swapInPages).toBeGreaterThan(1000);
    expect(report.server.device.majorFaults).toBeGreaterThan(0);
  });

  test('the bench measures; a second client finds what the first one left; SIGTERM ends the server with its report', async () => {
    const { server, port } = await startServer(
      '--no-crc',
      '--region',
      '1M',
      '--frames',
      '4M',
      '--json',
      file('two.json'),
    );
    const bench = ['--no-crc', '--bench', '--seconds', '1', '--count', '1', '--json', file('bench.json')];
    const client = await rdma('client', '--port', port, ...bench);
    expect([client.stderr, client.code]).toEqual(['', 0]);
    expect(client.stdout).toMatch(/atomic +\d+ µs +\d+ µs[\s\S]*write +\d+ MB\/s/);
    expect(read('bench.json').bench.bytesPerSecond.read).toBeGreaterThan(0);
    expect((await rdma('client', '--port', port, '--count', '2')).code).toBe(0);
    server.process.kill('SIGTERM');
    expect((await server.done).code).toBe(143);
    expect(read('two.json').server.connections).toHaveLength(2);
  });

  test('--pin pins where --memlock allows it', async () => {
    const { server, port } = await startServer(
      '--once',
      '--pin',
      '--region',
      '1M',
      '--memlock',
      '1M',
      '--frames',
      '4M',
      '--json',
      file('pin.json'),
    );
    expect((await rdma('client', '--port', port, '--verify')).code).toBe(0);
    expect((await server.done).code).toBe(0);
    expect(read('pin.json').server).toMatchObject({ pinned: true, device: { pinnedPages: 256, majorFaults: 0 } });
  });

  test('a server that is stopped says so to its clients; a client that is stopped leaves no report', async () => {
    const { server, port } = await startServer('--region', '64M', '--frames', '8M', '--json', file('stopped.json'));
    const client = () =>
      unpin(['rdma', 'client', '--port', port, '--count', '1', '--verify', '--json', file('none.json')]);
    const first = client();
    await first.until(/1 pings/);
    first.process.kill('SIGINT');
    expect((await first.done).code).toBe(130);
    expect(fs.existsSync(file('none.json'))).toBe(false);
    const second = client();
    await second.until(/1 pings/);
    server.process.kill('SIGINT');
    const [{ code, stderr }, stopped] = await Promise.all([second.done, server.done]);
    expect([code, stopped.code]).toEqual([2, 130]);
    expect(stderr).toMatch(/^unpin: EIO: pollCq: request \d+: .*disconnected/);
    expect(stopped.stderr).not.toMatch(/unpin: /);
    const { connections } = read('stopped.json').server;
    expect(connections.map(({ end }: { end: string }) => end)).toEqual(['disconnected', 'disconnected']);
  });

  test('a server without room rejects, and says why; when somebody goes there is room again', async () => {
    const { server, port } = await startServer('--region', '4K', '--frames', '4M');
    const w = await RdmaWorld.create({ transport: 'tcp', host: { arenaBytes: 64 * 2 ** 20 } });
    const connect = async (): Promise<CmId | Error> => {
      const id = w.a.context.createId();
      await id.resolveAddr({ port: Number(port) });
      id.createQp(w.a.pd, { sendCq: w.a.cq, recvCq: w.a.cq });
      return id.connect().then(
        () => id,
        (error: Error) => error,
      );
    };
    const first = (await connect()) as CmId;
    let last: CmId | Error = first;
    for (let n = 0; n < 200 && !(last instanceof Error); n++) last = await connect();
    expect(last).toMatchObject({
      message: expect.stringMatching(/^ECONNREFUSED: .* rejected the connection: 'no room for another connection'$/),
    });
    await first.disconnect();
    // Its room is free a moment after it has gone.
    for (let n = 0; n < 200 && last instanceof Error; n++) last = await connect();
    expect(last).not.toBeInstanceOf(Error);
    await w.stop();
    server.process.kill('SIGINT');
    expect((await server.done).stderr).toMatch(/^unpin: 127\.0\.0\.1 port \d+: ENOMEM: /);
  });

  test('a peer that speaks another protocol ends alone', async () => {
    const { server, port } = await startServer('--region', '1M', '--frames', '4M');
    const socket = net.connect(Number(port), '127.0.0.1');
    socket.write('GET / HTTP/1.1\r\n\r\n'.repeat(10));
    await new Promise((resolve) => socket.on('close', resolve).resume());
    expect((await rdma('client', '--port', port, '--verify')).code).toBe(0);
    server.process.kill('SIGINT');
    expect((await server.done).code).toBe(130);
  });
});

describe('what is refused', () => {
  const REFUSALS: [string, string[], RegExp][] = [
    [
      'a region that may not be pinned',
      ['server', '--port', '0', '--pin', '--region', '1M'],
      /^unpin: ENOMEM: .*memlock/i,
    ],
    ['a port that is none', ['server', '--port', '70000'], /'70000' must be a whole number from 0 to 65535/],
    ['a region that is no size', ['server', '--region', 'big'], /'big' must be a size such as 128M/],
    [
      'a report that cannot be written',
      ['server', '--port', '0', '--json', '/nowhere/x'],
      /report '\/nowhere\/x' must be a file/,
    ],
    [
      'an address that is not ours',
      ['server', '--host', '192.0.2.1', '--port', '0'],
      /^unpin: EADDRNOTAVAIL: rdma_cm: 192\.0\.2\.1 port 0: it is no address of this machine$/m,
    ],
    [
      'a server that is not there',
      ['client', '--port', '1'],
      /^unpin: ECONNREFUSED: rdma_cm: 127\.0\.0\.1 port 1: nobody listens there; it must be where a server listens$/m,
    ],
    [
      'a host that has no such name',
      ['client', '--host', 'no.such.name.invalid'],
      /^unpin: EHOSTUNREACH: rdma_cm: no\.such\.name\.invalid port 7174: .*; it must be a host that can be reached/,
    ],
    ['a verb that is none', ['serve'], /unknown command/],
  ];

  test.each(REFUSALS)('%s', async (_, args, message) => {
    expectRefused(await rdma(...args), message);
  });

  test('a port that is in use', async () => {
    const holder = net.createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => holder.once('listening', resolve));
    const { port } = holder.address() as net.AddressInfo;
    const result = await rdma('server', '--port', String(port));
    holder.close();
    expectRefused(result, /^unpin: EADDRINUSE: rdma_cm: 127\.0\.0\.1 port \d+: somebody listens there$/m);
  });

  test('a peer that is no unpin rdma server', async () => {
    const other = net.createServer((socket) => socket.end('220 hello\r\n')).listen(0, '127.0.0.1');
    await new Promise((resolve) => other.once('listening', resolve));
    const { port } = other.address() as net.AddressInfo;
    const result = await rdma('client', '--port', String(port));
    other.close();
    expectRefused(
      result,
      /^unpin: (EPROTO|ECONNRESET): rdma_cm: .* port \d+: .*; it must be a peer that speaks iWARP$/m,
    );
  });
});
