import { once } from 'node:events';
import net from 'node:net';
import {
  createCrc32c,
  type MpaAgreed,
  type MpaFrame,
  MpaFrameReader,
  type MpaOffer,
  mpaAccept,
  mpaFinish,
  mpaRequest,
  RdmaStream,
  TX_DONE,
} from '../../../src/rdma/wire/index.js';
import { Feeder } from './feeder.js';
import { FlatNic } from './flatnic.js';

/** A stream over a socket of Node, with a FlatNic behind it: the least that talks iWARP over TCP. */
export class Connection {
  readonly nic = new FlatNic();
  readonly agreed: MpaAgreed;
  /** What the other side's frame of the set-up held. */
  readonly peer: MpaFrame;
  readonly closed: Promise<void>;
  private readonly socket: net.Socket;
  private readonly stream: RdmaStream;
  private readonly feeder: Feeder;
  private wake: () => void = () => {};

  constructor(socket: net.Socket, agreed: MpaAgreed, peer: MpaFrame, initiator: boolean, rest: Uint8Array) {
    this.socket = socket;
    this.agreed = agreed;
    this.peer = peer;
    const crc = agreed.crc ? createCrc32c() : undefined;
    this.stream = new RdmaStream(this.nic, { ...agreed, crc, initiator });
    this.feeder = new Feeder(this.stream);
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.on('close', () => this.wake());
    socket.on('error', () => {});
    socket.on('data', (bytes) => this.take(bytes));
    this.take(rest);
    socket.resume();
  }

  private take(bytes: Uint8Array): void {
    this.feeder.give(bytes);
    this.flush();
    this.wake();
  }

  /** Sends what there is: after something was put on the queue. */
  flush(): void {
    for (;;) {
      const out = new Uint8Array(65536);
      const end = this.stream.transmit(out, 0, out.length);
      if (end > 0) this.socket.write(out.subarray(0, end));
      else break;
    }
    if (this.stream.txState === TX_DONE) this.socket.end();
  }

  /** Resolves when `done` says so; it is asked whenever bytes have come. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) {
      if (this.nic.end !== undefined) throw new Error(this.nic.end.reason);
      if (this.socket.destroyed) throw new Error('the connection was closed');
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
  }

  end(): void {
    this.socket.end();
  }
}

/** As initiator; tries again until somebody answers. */
export async function connect(port: number, offer: MpaOffer): Promise<Connection> {
  for (;;) {
    const connection = await tryConnect(port, offer);
    if (connection !== undefined) return connection;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function tryConnect(port: number, offer: MpaOffer): Promise<Connection | undefined> {
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
  socket.on('error', () => {});
  socket.write(mpaRequest(offer));
  const { frame, rest } = await readFrame(socket, 'reply').catch((error) => {
    // QEMU takes the connection, and finds that nobody listens in its guest.
    if (error.code === 'ECONNRESET') return { frame: undefined, rest: new Uint8Array(0) };
    throw error;
  });
  if (frame === undefined) return undefined;
  const outcome = mpaFinish(offer, frame);
  // Rejected by an rping that has had its connection and is about to end.
  if (outcome.kind === 'rejected') return undefined;
  if (outcome.kind !== 'agreed') throw new Error(`the set-up ${outcome.kind}`);
  return new Connection(socket, outcome.agreed, frame, true, rest);
}

/** As responder, of one connection; `port` of the server is the system's to choose. */
export async function listen(offer: MpaOffer): Promise<{ port: number; accepted: Promise<Connection> }> {
  const server = net.createServer({ noDelay: true, pauseOnConnect: false });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection').then(async ([socket]: net.Socket[]) => {
    server.close();
    const { frame, rest } = await readFrame(socket, 'request');
    if (frame === undefined) throw new Error('no request frame came');
    const { reply, agreed } = mpaAccept(frame, offer);
    socket.write(reply);
    if (agreed === undefined) throw new Error('the request cannot be accepted');
    return new Connection(socket, agreed, frame, false, rest);
  });
  return { port: (server.address() as net.AddressInfo).port, accepted };
}

async function readFrame(socket: net.Socket, kind: MpaFrame['kind']): Promise<{ frame?: MpaFrame; rest: Uint8Array }> {
  const reader = new MpaFrameReader(kind);
  for await (const bytes of socket.iterator({ destroyOnReturn: false })) {
    const end = reader.receive(bytes, 0, bytes.length);
    if (reader.error !== undefined) throw new Error(reader.error);
    if (reader.frame !== undefined) return { frame: reader.frame, rest: bytes.subarray(end) };
  }
  return { rest: new Uint8Array(0) };
}
