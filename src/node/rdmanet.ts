import { createServer, type Server, Socket, type SocketConstructorOpts } from 'node:net';
import { KernelError } from '../base/index.js';
import type { Stream, StreamAddr, StreamHandler, StreamListener, StreamNet } from '../rdma/index.js';

/**
 * TCP for a NIC, by node:net. A socket reads straight into its handler's buffer, which lies in the host's memory: from there a copy to a frame is one of WebAssembly's.
 *
 * A stream that is paused is not read: the kernel's buffer fills, and TCP's window holds the peer back.
 */
export function nodeStreamNet(): StreamNet {
  return {
    connect(addr, handler) {
      const stream = new NodeStream(handler);
      const socket = new Socket(onread(stream, handler.readBuffer));
      stream.use(socket);
      socket.on('connect', () => stream.connected());
      socket.connect({ host: addr.host, port: addr.port });
      return stream;
    },
    listen: (addr, backlog, onStream) => listen(addr, backlog, onStream),
  };
}

/** WHY `onread`: without it each chunk is a buffer of its own, and copied once more. */
function onread(stream: NodeStream, buffer: Uint8Array): SocketConstructorOpts {
  return {
    allowHalfOpen: true,
    onread: { buffer, callback: (nrBytes: number) => stream.read(nrBytes) },
  } as SocketConstructorOpts;
}

class NodeStream implements Stream {
  private handler: StreamHandler | undefined;
  private socket!: Socket;
  private paused = false;
  private error: Error | undefined;

  constructor(handler: StreamHandler | undefined) {
    this.handler = handler;
  }

  use(socket: Socket): void {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('end', () => this.handler?.ended());
    socket.on('error', (error) => {
      this.error = error;
    });
    socket.on('close', () => this.handler?.closed(this.error));
  }

  setHandler(handler: StreamHandler): void {
    this.handler = handler;
  }

  connected(): void {
    this.handler!.connected();
  }

  /** False: the socket is not to be read on. */
  read(nrBytes: number): boolean {
    this.handler!.data(nrBytes);
    return !this.paused;
  }

  /** A chunk of a socket that does not read into the handler's buffer: an accepted one. */
  chunk(bytes: Uint8Array): void {
    this.pending = bytes;
    this.feed();
  }

  private pending: Uint8Array | undefined;
  private at = 0;

  private feed(): void {
    while (this.pending !== undefined && !this.paused) {
      const { readBuffer } = this.handler!;
      const n = Math.min(readBuffer.length, this.pending.length - this.at);
      readBuffer.set(this.pending.subarray(this.at, this.at + n));
      this.at += n;
      if (this.at === this.pending.length) {
        this.pending = undefined;
        this.at = 0;
      }
      this.handler!.data(n);
    }
  }

  get localAddr(): StreamAddr {
    return { host: this.socket.localAddress ?? '', port: this.socket.localPort ?? 0 };
  }

  get peerAddr(): StreamAddr {
    return { host: this.socket.remoteAddress ?? '', port: this.socket.remotePort ?? 0 };
  }

  write(bytes: Uint8Array, done: () => void): void {
    this.socket.write(bytes, () => done());
  }

  pause(): void {
    this.paused = true;
    this.socket.pause();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.feed();
    if (!this.paused) this.socket.resume();
  }

  end(): void {
    this.socket.end();
  }

  destroy(): void {
    this.socket.destroy();
  }
}

async function listen(
  addr: StreamAddr,
  backlog: number,
  onStream: (stream: Stream) => StreamHandler,
): Promise<StreamListener> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const stream = new NodeStream(undefined);
    stream.use(socket);
    stream.setHandler(onStream(stream));
    socket.on('data', (bytes) => stream.chunk(bytes));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(refused(error, addr)));
    server.listen({ port: addr.port, ...(addr.host === '' ? {} : { host: addr.host }), backlog }, () => resolve());
  });
  server.on('error', () => {});
  return { localAddr: addressOf(server), close: () => void server.close() };
}

function addressOf(server: Server): StreamAddr {
  const address = server.address();
  if (address === null || typeof address === 'string') return { host: '', port: 0 };
  return { host: address.address, port: address.port };
}

function refused(error: Error & { code?: string }, { host, port }: StreamAddr): KernelError {
  const { code } = error;
  const known = code === 'EADDRINUSE' || code === 'EACCES' || code === 'EADDRNOTAVAIL' ? code : 'EINVAL';
  return new KernelError(known, 'listen', `${host === '' ? 'port' : host} ${port}: ${error.message}`);
}
