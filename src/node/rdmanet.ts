import { createServer, type Server, Socket, type SocketConstructorOpts } from 'node:net';
import { KernelError, systemErrno, systemReason } from '../base/index.js';
import type { Stream, StreamAddr, StreamHandler, StreamListener, StreamNet } from '../rdma/index.js';

/**
 * TCP for a NIC, by node:net. A socket reads straight into its handler's buffer, which lies in the host's memory: from there a copy to a frame is one of WebAssembly's. One that a server has
 * accepted does so where Node lets it be taken over, and else brings chunks, which are copied to that buffer.
 *
 * A stream that is paused is not read: the kernel's buffer fills, and TCP's window holds the peer back.
 */
export function nodeStreamNet(): StreamNet {
  return {
    connect(addr, handler) {
      const stream = new NodeStream();
      stream.setHandler(handler);
      const socket = new Socket(stream.options());
      stream.use(socket);
      socket.on('connect', () => stream.connected());
      socket.connect({ host: addr.host, port: addr.port });
      return stream;
    },
    listen: (addr, backlog, onStream) => listen(addr, backlog, onStream),
  };
}

class NodeStream implements Stream {
  private handler: StreamHandler | undefined;
  private socket!: Socket;
  private paused = false;
  private error: Error | undefined;

  /** WHY `onread`: without it each chunk is a buffer of its own, and copied once more. */
  options(): SocketConstructorOpts {
    const buffer = (): Uint8Array => this.handler!.readBuffer;
    return { allowHalfOpen: true, onread: { buffer, callback: (n: number) => this.read(n) } } as SocketConstructorOpts;
  }

  use(socket: Socket): void {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('end', () => this.handler?.ended());
    socket.on('error', (error) => {
      this.error = plain(error);
    });
    socket.on('close', () => this.handler?.closed(this.error));
  }

  /** Until it has a handler. */
  accepted(socket: Socket): void {
    this.socket = socket;
  }

  /** With a socket that has no `options`. */
  useChunks(socket: Socket): void {
    this.use(socket);
    socket.on('data', (chunk: Uint8Array) => this.readChunk(chunk));
    socket.resume();
  }

  /** What a handler that has paused does not take is the first that comes when it resumes. */
  private readChunk(chunk: Uint8Array): void {
    const handler = this.handler!;
    for (let at = 0; at < chunk.length; ) {
      if (this.paused) return this.socket.unshift(chunk.subarray(at));
      const { readBuffer } = handler;
      const nrBytes = Math.min(readBuffer.length, chunk.length - at);
      readBuffer.set(chunk.subarray(at, at + nrBytes));
      at += nrBytes;
      handler.data(nrBytes);
    }
  }

  setHandler(handler: StreamHandler): void {
    this.handler = handler;
  }

  connected(): void {
    this.handler!.connected();
  }

  /** False: the socket is not to be read on. */
  private read(nrBytes: number): boolean {
    this.handler!.data(nrBytes);
    return !this.paused;
  }

  get localAddr(): StreamAddr {
    return { host: this.socket.localAddress ?? '', port: this.socket.localPort ?? 0 };
  }

  get peerAddr(): StreamAddr {
    return { host: this.socket.remoteAddress ?? '', port: this.socket.remotePort ?? 0 };
  }

  write(bytes: Uint8Array, done: () => void): boolean {
    const { socket } = this;
    let isTaken = false;
    socket.write(bytes, () => {
      if (!isTaken) done();
    });
    // The kernel had room for all of it, which node:net tells its callback later.
    isTaken = socket.writableLength === 0 && !socket.destroyed;
    return isTaken;
  }

  pause(): void {
    this.paused = true;
    this.socket.pause();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.socket.resume();
  }

  end(): void {
    this.socket.end();
  }

  destroy(): void {
    this.socket.destroy();
  }
}

/** What net.Socket calls of a handle, to read into memory of ours, to write and to end. */
const HANDLE_METHODS = ['useUserBuffer', 'readStart', 'readStop', 'writeBuffer', 'shutdown', 'close'];

/**
 * The connection of `accepted`, in a socket of ours. WHY: only such a one reads into our own memory, and a server makes its own; their chunks would be copied once more, into shared
 * memory, at 1 to 2 GB/s (copyops.ts). Node has no documented way; this is how it gives a server's and a child's sockets their handles itself. Undefined: this Node does otherwise.
 */
function takeOver(accepted: Socket, options: SocketConstructorOpts): Socket | undefined {
  const { _handle: handle } = accepted as unknown as { _handle?: Record<string, unknown> | null };
  if (HANDLE_METHODS.some((name) => typeof handle?.[name] !== 'function')) return undefined;
  Object.assign(accepted, { _handle: null });
  accepted.destroy();
  return new Socket({ ...options, handle } as SocketConstructorOpts);
}

async function listen(
  addr: StreamAddr,
  backlog: number,
  onStream: (stream: Stream) => StreamHandler,
): Promise<StreamListener> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (accepted) => {
    const stream = new NodeStream();
    stream.accepted(accepted);
    stream.setHandler(onStream(stream));
    if (accepted.destroyed) return;
    const own = takeOver(accepted, stream.options());
    if (own === undefined) stream.useChunks(accepted);
    else stream.use(own);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(new KernelError(systemErrno(error), 'listen', systemReason(error))));
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

/** What the system says, in plain words; where it was is the connection manager's to say. */
function plain(error: Error): Error & { code: string } {
  return Object.assign(new Error(systemReason(error), { cause: error }), { code: systemErrno(error) });
}
