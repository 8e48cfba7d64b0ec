import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { UserNetwork } from '../../src/machine/index.js';
import { nodeEnvironment, nodeNetBackend } from '../../src/node/index.js';
import { GUEST_MAC, readIp, readUdp, udpFrame } from '../machine/net/frame.js';
import { GuestTcp, type GuestTcpOptions } from '../machine/net/guesttcp.js';

/** A scripted guest on a network over real sockets of this machine. */

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

function world() {
  const clock = nodeEnvironment();
  const guestMac = Uint8Array.from(GUEST_MAC);
  const network = new UserNetwork({ backend: nodeNetBackend(), clock, guestMac, random: () => 7 });
  closers.push(() => network.close());
  const guests: GuestTcp[] = [];
  const frames: Uint8Array[] = [];
  network.attach((frame) => {
    const kept = frame.slice();
    setImmediate(() => {
      frames.push(kept);
      if (kept[23] === 6) for (const guest of guests) guest.receive(kept);
    });
  });
  const send = (frame: Uint8Array) => setImmediate(() => network.transmit(frame));
  const guest = (options: Partial<GuestTcpOptions> & { dstPort: number; data: Uint8Array }) => {
    const made = new GuestTcp({ clock, send, srcPort: 40000, ...options });
    guests.push(made);
    return made;
  };
  return { network, guest, frames, send };
}

async function serve(onSocket: (socket: net.Socket) => void): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, onSocket);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => server.close());
  return (server.address() as net.AddressInfo).port;
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

function bytes(lenBytes: number): Uint8Array {
  return Uint8Array.from({ length: lenBytes }, (_, i) => (i * 7 + (i >>> 9)) & 255);
}

const until = async (done: () => boolean) => {
  while (!done()) await new Promise((resolve) => setTimeout(resolve, 2));
};

describe('sockets of the host', () => {
  it('echo what a guest sends, to the last byte, through half closes', async () => {
    const port = await serve((socket) => socket.pipe(socket));
    const { network, guest } = world();
    const data = bytes(300_000);
    const g = guest({ dstPort: port, data });
    await until(() => g.done && network.tcp.nrConnections === 0);
    expect(Buffer.from(g.received).equals(Buffer.from(data))).toBe(true);
    expect(g.reset).toBe(false);
  });

  it('a program that does not read closes the window, and nothing is lost', async () => {
    let slow: net.Socket | undefined;
    const port = await serve((socket) => (slow = socket.pause()));
    const { guest } = world();
    const data = bytes(8_000_000);
    const g = guest({ dstPort: port, data });
    await until(() => slow !== undefined);
    const got: Buffer[] = [];
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(g.finAcked).toBe(false);
    slow!.on('data', (chunk) => got.push(chunk)).on('end', () => slow!.end());
    slow!.resume();
    await until(() => g.done);
    expect(Buffer.concat(got).equals(Buffer.from(data))).toBe(true);
  });

  it('a refused and a reset connection are told to the guest as resets', async () => {
    const { guest, network } = world();
    const refused = guest({ dstPort: await freePort(), data: bytes(10) });
    await until(() => refused.reset);
    const port = await serve((socket) => socket.once('data', () => socket.resetAndDestroy()));
    const cut = guest({ dstPort: port, srcPort: 40001, data: bytes(10) });
    await until(() => cut.reset);
    expect(network.tcp.nrConnections).toBe(0);
  });

  it('a port of the loopback leads into the guest', async () => {
    const { network, guest } = world();
    const port = await freePort();
    await network.forward(port, 22);
    const data = bytes(50_000);
    const g = guest({ passive: true, srcPort: 22, dstPort: 49152, data });
    const client = net.connect(port, '127.0.0.1');
    const closed = once(client, 'close');
    const got: Buffer[] = [];
    client.on('data', (chunk) => got.push(chunk));
    client.end(Buffer.from(data));
    await until(() => g.done);
    await closed;
    expect(Buffer.concat(got).equals(Buffer.from(data))).toBe(true);
    expect(Buffer.from(g.received).equals(Buffer.from(data))).toBe(true);
  });

  it('a port that is taken is refused with EADDRINUSE, naming it', async () => {
    const { network } = world();
    const port = await serve(() => {});
    await expect(network.forward(port, 22)).rejects.toThrow(`EADDRINUSE: listen: port ${port} of 127.0.0.1 is in use`);
  });

  it('datagrams go and come back, and a port where nobody is says so', async () => {
    const server = dgram.createSocket('udp4');
    server.on('message', (message, { port }) => server.send(Buffer.concat([message, message]), port, '127.0.0.1'));
    server.bind(0, '127.0.0.1');
    await once(server, 'listening');
    closers.push(() => server.close());
    const { send, frames } = world();
    const { port } = server.address();
    send(udpFrame(5000, port, [1, 2, 3]));
    await until(() => frames.length === 1);
    expect(readUdp(frames[0])).toMatchObject({ srcPort: port, dstPort: 5000, data: Uint8Array.of(1, 2, 3, 1, 2, 3) });
    send(udpFrame(5000, await freePort(), [1]));
    await until(() => frames.length === 2);
    expect(readIp(frames[1])).toMatchObject({ protocol: 1 });
    expect([...readIp(frames[1]).payload.slice(0, 2)]).toEqual([3, 3]);
  });
});
