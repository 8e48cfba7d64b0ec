import { createServer, type Server, Socket, type SocketConstructorOpts } from 'node:net';
import { KernelError, systemErrno, systemReason } from '../base/index.js';
import type { Stream, StreamAddr, StreamHandler, StreamListener, StreamNet } from '../rdma/index.js';

/**
 * TCP for a NIC, by node:net. A socket reads straight into its handler's buffer, which lies in the host's memory: from there a copy to a frame is one of WebAssembly's.
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
    this.socket.resume();
  }

  end(): void {
    this.socket.end();
  }

  destroy(): void {
    this.socket.destroy();
  }
}

/**
 * The connection of `accepted`, in a socket of ours. WHY: only such a one reads into our own memory, and a server makes its own; their chunks would be copied once more, into shared
 * memory, at 1 to 2 GB/s (copyops.ts). Node has no documented way; this is how it gives a server's and a child's sockets their handles itself.
 */
function takeOver(accepted: Socket, options: SocketConstructorOpts): Socket {
  const { _handle: handle } = accepted as unknown as { _handle: object | null };
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
    if (!accepted.destroyed) stream.use(takeOver(accepted, stream.options()));
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
