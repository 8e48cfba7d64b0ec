import { KernelError } from '../../src/base/index.js';
import type { Stream, StreamAddr, StreamHandler, StreamListener, StreamNet } from '../../src/rdma/index.js';

/**
 * Streams inside one thread, for tests: bytes come in chunks of at most `chunkBytes`, each in a turn of its own, and what a paused stream has not read holds its peer back once it is
 * more than `windowBytes`.
 */
export function memoryNet(
  options: { chunkBytes?: number; windowBytes?: number; defer?: (fn: () => void) => void } = {},
): StreamNet {
  const { chunkBytes = 65536, windowBytes = 131072, defer = (fn) => void setImmediate(fn) } = options;
  const listeners = new Map<number, { onStream: (stream: Stream) => StreamHandler }>();
  let nextPort = 1024;
  const make = (): MemoryStream => new MemoryStream(chunkBytes, windowBytes, defer);
  return {
    connect(addr: StreamAddr, handler: StreamHandler): Stream {
      const stream = make();
      stream.handler = handler;
      const listener = listeners.get(addr.port);
      defer(() => {
        if (listener === undefined)
          return stream.close(Object.assign(new Error('nobody listens there'), { code: 'ECONNREFUSED' }));
        const other = make();
        stream.peer = other;
        other.peer = stream;
        stream.peerAddr = other.localAddr = { host: '127.0.0.1', port: addr.port };
        stream.localAddr = other.peerAddr = { host: '127.0.0.1', port: nextPort++ };
        other.handler = listener.onStream(other);
        handler.connected();
        other.pump();
      });
      return stream;
    },
    async listen(addr: StreamAddr, _backlog: number, onStream): Promise<StreamListener> {
      const port = addr.port === 0 ? nextPort++ : addr.port;
      if (listeners.has(port)) throw new KernelError('EADDRINUSE', 'listen', 'somebody listens there');
      listeners.set(port, { onStream });
      return { localAddr: { host: '127.0.0.1', port }, close: () => void listeners.delete(port) };
    },
  };
}

class MemoryStream implements Stream {
  handler: StreamHandler | undefined;
  peer: MemoryStream | undefined;
  localAddr: StreamAddr = { host: '127.0.0.1', port: 0 };
  peerAddr: StreamAddr = { host: '127.0.0.1', port: 0 };
  private readonly chunkBytes: number;
  private readonly windowBytes: number;
  private readonly defer: (fn: () => void) => void;
  private readonly inbox: Uint8Array[] = [];
  private nrInbox = 0;
  private readonly waiting: { bytes: Uint8Array; done: () => void }[] = [];
  private paused = false;
  private ending = false;
  private peerEnds = false;
  private toldEnd = false;
  private closed = false;
  private isPumping = false;

  constructor(chunkBytes: number, windowBytes: number, defer: (fn: () => void) => void) {
    this.chunkBytes = chunkBytes;
    this.windowBytes = windowBytes;
    this.defer = defer;
  }

  write(bytes: Uint8Array, done: () => void): boolean {
    if (this.closed) return false;
    this.waiting.push({ bytes, done });
    this.pushSoon();
    return false;
  }

  private pushSoon(): void {
    this.defer(() => this.push());
  }

  private push(): void {
    const { peer } = this;
    if (peer === undefined || this.closed) return;
    while (this.waiting.length > 0 && peer.nrInbox < this.windowBytes) {
      const { bytes, done } = this.waiting.shift()!;
      if (bytes.length > 0) peer.inbox.push(Uint8Array.from(bytes));
      peer.nrInbox += bytes.length;
      done();
    }
    if (this.ending && this.waiting.length === 0) {
      peer.peerEnds = true;
      if (this.toldEnd) this.close(undefined);
    }
    peer.pump();
  }

  pump(): void {
    if (this.isPumping) return;
    this.isPumping = true;
    this.defer(() => {
      this.isPumping = false;
      this.deliver();
    });
  }

  private deliver(): void {
    if (this.closed || this.paused || this.handler === undefined) return;
    const chunk = this.inbox[0];
    if (chunk !== undefined) {
      const { readBuffer } = this.handler;
      const n = Math.min(chunk.length, readBuffer.length, this.chunkBytes);
      readBuffer.set(chunk.subarray(0, n));
      if (n === chunk.length) this.inbox.shift();
      else this.inbox[0] = chunk.subarray(n);
      this.nrInbox -= n;
      this.handler.data(n);
      this.peer?.pushSoon();
      this.pump();
    } else if (this.peerEnds && !this.toldEnd) {
      this.toldEnd = true;
      this.handler.ended();
      if (this.ending) this.pushSoon();
    }
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    this.pump();
  }

  end(): void {
    this.ending = true;
    this.pushSoon();
  }

  destroy(): void {
    const { peer } = this;
    if (this.closed) return;
    const cut = this.waiting.length > 0;
    this.close(undefined);
    if (peer !== undefined && !peer.closed) {
      if (cut) peer.close(new KernelError('ECONNRESET', 'read', 'the peer is gone'));
      else {
        peer.peerEnds = true;
        peer.pump();
      }
    }
  }

  close(error: Error | undefined): void {
    if (this.closed) return;
    this.closed = true;
    for (const { done } of this.waiting.splice(0)) done();
    this.handler?.closed(error);
  }
}
