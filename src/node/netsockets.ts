import dgram from 'node:dgram';
import dns from 'node:dns';
import net from 'node:net';
import { ERRNO, type ErrnoName, KernelError } from '../base/index.js';
import type { HostDatagrams, HostListener, HostStream, HostStreamEvents, NetBackend } from '../machine/index.js';

/**
 * The sockets of a user-mode network, over node:net and node:dgram.
 *
 * Listeners are on 127.0.0.1 alone.
 *
 * Use: `new UserNetwork({ backend: nodeNetBackend(), ... })`.
 */

export function nodeNetBackend(): NetBackend {
  return { tcpConnect, tcpListen, udpOpen, nameServer };
}

const LOOPBACK = '127.0.0.1';
const DNS_PORT_SUFFIX = /:\d+$/;

function tcpConnect(address: string, port: number, events: HostStreamEvents): HostStream {
  const socket = net.connect({ host: address, port, family: 4, allowHalfOpen: true, noDelay: true });
  socket.once('connect', () => events.connected());
  return new NodeStream(socket, events);
}

/** node:net tells of an error in an event only: which is why this waits. */
function tcpListen(port: number, accept: (stream: HostStream) => HostStreamEvents | undefined): Promise<HostListener> {
  const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
    const stream = new NodeStream(socket);
    const events = accept(stream);
    if (events === undefined) stream.reset();
    else stream.events = events;
  });
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(port, error)));
    server.listen({ host: LOOPBACK, port, exclusive: true }, () => {
      server.on('error', () => {});
      resolve({ close: () => server.close() });
    });
  });
}

function listenError(port: number, error: NodeJS.ErrnoException): KernelError {
  const known = error.code !== undefined && error.code in ERRNO ? (error.code as ErrnoName) : 'EIO';
  const why =
    { EADDRINUSE: 'is in use by another program', EACCES: 'needs rights that this user has not' }[error.code ?? ''] ??
    `cannot be listened on: ${error.message}`;
  return new KernelError(known, 'listen', `port ${port} of ${LOOPBACK} ${why}`, { cause: error });
}

class NodeStream implements HostStream {
  events: HostStreamEvents | undefined;
  private readonly socket: net.Socket;
  private failed = false;

  constructor(socket: net.Socket, events?: HostStreamEvents) {
    this.socket = socket;
    this.events = events;
    socket.on('data', (bytes: Buffer) => this.events?.data(bytes));
    socket.on('end', () => this.events?.ended());
    socket.on('error', () => (this.failed = true));
    socket.on('close', () => {
      this.events?.closed(this.failed);
      this.events = undefined;
    });
  }

  get pendingBytes(): number {
    return this.socket.writableLength;
  }

  write(bytes: Uint8Array): void {
    if (this.socket.writable) this.socket.write(bytes, this.drained);
  }

  private readonly drained = (): void => this.events?.drained();

  end(): void {
    this.socket.end();
  }

  reset(): void {
    this.events = undefined;
    this.socket.resetAndDestroy();
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }
}

/** A connected socket, so that the kernel lets through what comes from that address alone, and tells that nobody is there. */
function udpOpen(
  address: string,
  port: number,
  events: { data(bytes: Uint8Array): void; refused(): void },
): HostDatagrams {
  const socket = dgram.createSocket('udp4');
  let open = true;
  let waiting: Uint8Array[] | undefined = [];
  // The kernel tells of a refusal at the next call, whichever that is.
  const failed = (error: NodeJS.ErrnoException | null) => {
    if (open && error?.code === 'ECONNREFUSED') events.refused();
  };
  socket.on('message', (bytes) => {
    if (open) events.data(bytes);
  });
  socket.on('error', failed);
  socket.connect(port, address, (error?: Error | null) => {
    const kept = waiting ?? [];
    waiting = undefined;
    if (open && !error) for (const bytes of kept) socket.send(bytes, failed);
  });
  return {
    send: (bytes) => {
      if (waiting === undefined) socket.send(bytes.slice(), failed);
      else if (waiting.length < MAX_WAITING) waiting.push(bytes.slice());
    },
    close: () => {
      open = false;
      socket.close();
    },
  };
}

/** Datagrams kept while the socket is being connected. */
const MAX_WAITING = 16;

/** The first one that is IPv4, on the usual port. */
function nameServer(): string | undefined {
  return dns
    .getServers()
    .find((server) => net.isIPv4(server.replace(DNS_PORT_SUFFIX, '')))
    ?.replace(DNS_PORT_SUFFIX, '');
}
