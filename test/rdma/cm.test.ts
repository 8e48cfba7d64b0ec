import { once } from 'node:events';
import { createServer, type Socket, connect as tcpConnect } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { checkHost } from '../../src/mm/index.js';
import type { DeviceImpl } from '../../src/rdma/device.js';
import {
  IBV_EVENT_DEVICE_FATAL,
  IBV_QPS_ERR,
  IBV_SEND_INLINE,
  IBV_WC_SUCCESS,
  IBV_WC_WR_FLUSH_ERR,
  IBV_WR_RDMA_WRITE,
  IBV_WR_SEND,
  RDMA_CM_EVENT_DEVICE_REMOVAL,
  RDMA_CM_EVENT_DISCONNECTED,
} from '../../src/rdma/index.js';
import { mpaRequest } from '../../src/rdma/wire/index.js';
import { Clock } from './hostile/clock.js';
import { memoryNet } from './memorynet.js';
import { pattern, RdmaWorld, sge, type Transport } from './rdmaworld.js';

/** Connections: how they begin and end, in order and not. */

let w: RdmaWorld;
afterEach(() => w.stop());

const text = (bytes: unknown): string => Buffer.from(bytes as Uint8Array).toString();

describe.each(['memory', 'tcp'] satisfies Transport[])('over %s', (transport) => {
  test('private data and depths go both ways, and the lower depth counts', async () => {
    w = await RdmaWorld.create({ transport });
    const listener = w.b.context.createId();
    await listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await listener.listen();
    const id = w.a.context.createId();
    await id.resolveAddr({ host: '127.0.0.1', port: listener.localAddr!.port });
    id.createQp(w.a.pd, { sendCq: w.a.cq, recvCq: w.a.cq });
    const connecting = id.connect({ privateData: Buffer.from('ping'), responderResources: 5, initiatorDepth: 9 });
    for await (const event of listener.events) {
      expect([text(event.privateData), event.responderResources, event.initiatorDepth]).toEqual(['ping', 5, 9]);
      event.id.createQp(w.b.pd, { sendCq: w.b.cq, recvCq: w.b.cq });
      await event.id.accept({ privateData: Buffer.from('pong'), responderResources: 4, initiatorDepth: 30 });
      break;
    }
    const event = await connecting;
    expect([text(event.privateData), event.responderResources, event.initiatorDepth]).toEqual(['pong', 5, 4]);
    expect(id.peerAddr!.port).toBe(listener.localAddr!.port);
  });

  test('a rejected request tells why; where nobody listens it is refused', async () => {
    w = await RdmaWorld.create({ transport });
    const listener = w.b.context.createId();
    await listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await listener.listen();
    const { port } = listener.localAddr!;
    const ask = async (): Promise<unknown> => {
      const id = w.a.context.createId();
      await id.resolveAddr({ host: '127.0.0.1', port });
      id.createQp(w.a.pd, { sendCq: w.a.cq, recvCq: w.a.cq });
      return id.connect().then(
        () => undefined,
        (error: unknown) => error,
      );
    };
    const asking = ask();
    for await (const event of listener.events) {
      await event.id.reject(Buffer.from('no room'));
      break;
    }
    const error = (await asking) as Error & { cause: Uint8Array };
    expect([error.message, text(error.cause)]).toEqual([
      `ECONNREFUSED: rdma_cm: 127.0.0.1 port ${port}: the peer has rejected the connection: 'no room'`,
      'no room',
    ]);
    // A server that gives a request up has answered it.
    const given = ask();
    for await (const event of listener.events) {
      event.id.destroyId();
      break;
    }
    expect(await given).toMatchObject({
      code: 'ECONNREFUSED',
      message: expect.stringMatching(/ the peer has rejected the connection$/),
    });
    listener.destroyId();
    await new Promise((resolve) => setTimeout(resolve, 20));
    const refused = `ECONNREFUSED: rdma_cm: 127.0.0.1 port ${port}: nobody listens there; it must be where a server listens`;
    expect(await ask()).toMatchObject({ code: 'ECONNREFUSED', message: refused });
  });

  test('disconnect: what was sent before arrives, what is posted is flushed, both sides hear of it', async () => {
    w = await RdmaWorld.create({ transport });
    const there = await w.region(w.b, 64);
    const here = await w.region(w.a, 64);
    await w.fill(w.a, here.va, pattern(200_000, 5));
    const waiting = w.recv(w.b, []);
    w.a.qp.postSend({
      wrId: 1,
      opcode: IBV_WR_RDMA_WRITE,
      sendFlags: 2,
      sgList: [sge(here.mr, here.va, 200_000)],
      remoteAddr: there.va,
      rkey: there.mr.rkey,
    });
    const told = (async () => {
      for await (const event of w.b.id.events) return event.event;
      return undefined;
    })();
    await w.a.id.disconnect();
    expect(await told).toBe(RDMA_CM_EVENT_DISCONNECTED);
    expect(await w.next(w.a)).toMatchObject({ wrId: 1, status: IBV_WC_SUCCESS });
    expect(await w.next(w.b)).toMatchObject({ wrId: waiting, status: IBV_WC_WR_FLUSH_ERR });
    expect(Buffer.compare(await w.bytes(w.b, there.va, 200_000), pattern(200_000, 5))).toBe(0);
    expect([w.a.qp.state, w.b.qp.state]).toEqual([IBV_QPS_ERR, IBV_QPS_ERR]);
    // What is posted now is flushed too.
    w.a.qp.postSend({ wrId: 7, opcode: IBV_WR_SEND, sendFlags: IBV_SEND_INLINE, inlineData: new Uint8Array(1) });
    expect(await w.next(w.a)).toMatchObject({ wrId: 7, status: IBV_WC_WR_FLUSH_ERR });
    w.b.qp.postRecv({ wrId: 8, sgList: [] });
    expect(await w.next(w.b)).toMatchObject({ wrId: 8, status: IBV_WC_WR_FLUSH_ERR });
  });
});

test('N25: a NIC whose thread is killed costs its connections, and nothing of the host', async () => {
  w = await RdmaWorld.create({ transport: 'tcp' });
  const there = await w.region(w.b, 64);
  const here = await w.region(w.a, 64);
  const events: number[] = [];
  w.a.context.onAsyncEvent = ({ eventType }) => void events.push(eventType);
  await w.fill(w.a, here.va, pattern(100_000, 5));
  for (let k = 0; k < 8; k++)
    w.a.qp.postSend({
      wrId: k,
      opcode: IBV_WR_RDMA_WRITE,
      sgList: [sge(here.mr, here.va, 100_000)],
      remoteAddr: there.va,
      rkey: there.mr.rkey,
    });
  const told = (async () => {
    for await (const event of w.a.id.events) return event.event;
    return undefined;
  })();
  await (w.device as DeviceImpl).link.kill();
  expect(await told).toBe(RDMA_CM_EVENT_DEVICE_REMOVAL);
  expect(events).toContain(IBV_EVENT_DEVICE_FATAL);
  expect(w.a.qp.state).toBe(IBV_QPS_ERR);
  expect(() => w.a.context.allocPd()).toThrow(/ENODEV/);
  // Its regions go like any others.
  w.b.mm.munmap(there.va, 64 * 4096);
  await there.mr.deregMr();
  await w.device.close();
  checkHost(w.host);
});

test('where somebody listens that is no RDMA peer, and never answers', async () => {
  const clock = new Clock();
  const net = memoryNet();
  const silent = { readBuffer: new Uint8Array(64), connected() {}, data() {}, ended() {}, closed() {} };
  const { localAddr } = await net.listen({ host: '', port: 0 }, 1, () => silent);
  w = await RdmaWorld.create({ net, setTimer: clock.setTimer });
  const id = w.a.context.createId();
  await id.resolveAddr(localAddr);
  id.createQp(w.a.pd, { sendCq: w.a.cq, recvCq: w.a.cq });
  const connecting = id.connect();
  await w.turns(10);
  clock.advance(10_000);
  await expect(connecting).rejects.toThrow(
    `ETIMEDOUT: rdma_cm: 127.0.0.1 port ${localAddr.port}: no answer within 10 s; it must be a peer that speaks iWARP`,
  );
});

test('a stranger who is no MPA peer is cut off, and the listener goes on', async () => {
  w = await RdmaWorld.create({ transport: 'tcp' });
  const listener = w.b.context.createId();
  await listener.bindAddr({ host: '127.0.0.1', port: 0 });
  await listener.listen();
  const closed = await new Promise<boolean>((resolve) => {
    const socket = tcpConnect(listener.localAddr!.port, '127.0.0.1', () => socket.write('GET / HTTP/1.0\r\n\r\n'));
    socket.on('error', () => {});
    socket.on('close', () => resolve(true));
    socket.resume();
  });
  expect(closed).toBe(true);
  listener.destroyId();
  await w.connect();
});

test('connections that never begin, and requests that nobody looks at, are held within the backlog', async () => {
  w = await RdmaWorld.create({ transport: 'tcp' });
  const listener = w.b.context.createId();
  await listener.bindAddr({ host: '127.0.0.1', port: 0 });
  await listener.listen(2);
  const { port } = listener.localAddr!;
  let nrClosed = 0;
  const sockets = Array.from({ length: 20 }, () => {
    const socket = tcpConnect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.on('close', () => nrClosed++);
    return socket.resume();
  });
  for (let n = 0; n < 400 && nrClosed < 15; n++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(nrClosed).toBeGreaterThanOrEqual(15);
  for (const socket of sockets) socket.destroy();
  // Requests: two wait for an answer, all others are rejected at once; who goes away frees its place.
  const ask = async () => {
    const id = w.a.context.createId();
    await id.resolveAddr({ port });
    id.createQp(w.a.pd, { sendCq: w.a.cq, recvCq: w.a.cq });
    const asked = id.connect().then(
      () => 'connected',
      (error: { code: string }) => error.code,
    );
    return { id, asked };
  };
  await new Promise((resolve) => setTimeout(resolve, 50));
  const waiting = [await ask(), await ask()];
  let nrAsked = 0;
  const looking = (async () => {
    for await (const { id } of listener.events) {
      if (++nrAsked === 3) await id.reject();
      if (nrAsked === 3) return;
    }
  })();
  for (let n = 0; n < 400 && nrAsked < 2; n++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(await (await ask()).asked).toBe('ECONNREFUSED');
  expect(nrAsked).toBe(2);
  for (const { id } of waiting) id.destroyId();
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(await (await ask()).asked).toBe('ECONNREFUSED');
  await looking;
  expect(nrAsked).toBe(3);
});

describe('the CRC of MPA (RFC 5044, 7.1)', () => {
  /** The bit C of the first frame that comes. */
  const asksForCrc = async (socket: Socket): Promise<boolean> => {
    const [bytes] = (await once(socket, 'data')) as [Buffer];
    socket.destroy();
    return (bytes[16]! & 0x40) !== 0;
  };

  test.each([
    [{}, true],
    [{ crc: false }, false],
  ])('who connects with %o asks for it: %s', async (param, asked) => {
    w = await RdmaWorld.create({ transport: 'tcp' });
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const id = w.a.context.createId();
    await id.resolveAddr({ port: (server.address() as { port: number }).port });
    id.createQp(w.a.pd, { sendCq: w.a.cq, recvCq: w.a.cq });
    const connecting = id.connect(param).catch((error: { code: string }) => error.code);
    const [socket] = (await once(server, 'connection')) as [Socket];
    expect(await asksForCrc(socket)).toBe(asked);
    expect(await connecting).toBe('ECONNRESET');
    server.close();
  });

  test.each([
    [{}, false, true],
    [{ crc: false }, true, true],
    [{ crc: false }, false, false],
  ])('who accepts with %o, asked for it: %s, answers %s', async (param, asked, answered) => {
    w = await RdmaWorld.create({ transport: 'tcp' });
    const listener = w.b.context.createId();
    await listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await listener.listen();
    const socket = tcpConnect(listener.localAddr!.port, '127.0.0.1');
    socket.write(mpaRequest({ ird: 1, ord: 1, crc: asked, privateData: new Uint8Array(0) }));
    for await (const { id } of listener.events) {
      id.createQp(w.b.pd, { sendCq: w.b.cq, recvCq: w.b.cq });
      const accepting = id.accept(param).catch(() => {});
      expect(await asksForCrc(socket)).toBe(answered);
      await accepting;
      break;
    }
  });
});
