import net from 'node:net';
import type { PeerLink } from './link.js';
import { connectReader } from './peer.js';

/**
 * TCP by node:net alone, between this process and the peer, in writes of 64 KiB: what the NIC is held against. In two ways of reading:
 *
 *   chunks       'data' events, as node:net is mostly used: each chunk is a buffer of its own, and reading costs what the allocator and the collection of garbage make of it in that process
 *   one buffer   `onread`, which takes the same memory again and again; who reads is then who has connected
 */

const BLOCK_BYTES = 65536;

export class Tcp {
  private readonly sink: net.Socket;
  private readonly source: net.Socket;
  private onBytes: (nrBytes: number) => void = () => {};

  private constructor(sink: net.Socket, source: net.Socket) {
    this.sink = sink;
    this.source = source;
  }

  static async chunks(peer: PeerLink): Promise<Tcp> {
    const tcp = new Tcp(await dial(await peer.ask<number>('sink')), await dial(await peer.ask<number>('source')));
    tcp.source.on('data', (bytes) => tcp.onBytes(bytes.length));
    return tcp;
  }

  static async oneBuffer(peer: PeerLink): Promise<Tcp> {
    const server = net.createServer({ noDelay: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
    await peer.ask('sinkOf', String((server.address() as net.AddressInfo).port));
    const sink = await accepted;
    server.close();
    const source = await connectReader(await peer.ask<number>('source'), (bytes) => tcp.onBytes(bytes.length));
    const tcp: Tcp = new Tcp(sink, source);
    return tcp;
  }

  move(what: 'WRITE' | 'READ', lenBytes: number): Promise<void> {
    return what === 'WRITE' ? this.write(lenBytes) : this.read(lenBytes);
  }

  private async write(lenBytes: number): Promise<void> {
    const { sink } = this;
    const block = Buffer.alloc(BLOCK_BYTES, 1);
    sink.write(lengthOf(lenBytes));
    const answered = new Promise((resolve) => sink.once('data', resolve));
    for (let left = lenBytes; left > 0; left -= BLOCK_BYTES)
      if (!sink.write(block)) await new Promise((resolve) => sink.once('drain', resolve));
    await answered;
  }

  private async read(lenBytes: number): Promise<void> {
    let left = lenBytes;
    await new Promise<void>((resolve) => {
      this.onBytes = (nrBytes) => {
        left -= nrBytes;
        if (left === 0) resolve();
      };
      this.source.write(lengthOf(lenBytes));
    });
  }

  close(): void {
    this.sink.destroy();
    this.source.destroy();
  }
}

async function dial(port: number): Promise<net.Socket> {
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
  await new Promise((resolve) => socket.once('connect', resolve));
  return socket;
}

function lengthOf(bytes: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(bytes));
  return buffer;
}
