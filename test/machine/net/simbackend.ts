import type { HostListener, HostStream, HostStreamEvents, NetBackend } from '../../../src/machine/index.js';
import type { SimClock } from './simclock.js';

/**
 * Sockets of a simulated host, with its clock: streams that take a limited number of bytes a millisecond, so that pressure
 * comes back.
 */

export class SimStream implements HostStream {
  readonly received: number[] = [];
  ended = false;
  wasReset = false;
  paused = false;
  pendingBytes = 0;
  events: HostStreamEvents | undefined;
  private toSend: Uint8Array = new Uint8Array(0);
  private endAfter = false;
  private finished = false;
  private pumping = false;
  private readonly clock: SimClock;
  private readonly chunk: number;
  private readonly takeBytes: number;

  /** Sends in pieces of `chunk` bytes; takes `takeBytes` a millisecond. */
  constructor(clock: SimClock, events?: HostStreamEvents, chunk = 4000, takeBytes = 20_000) {
    this.clock = clock;
    this.events = events;
    this.chunk = chunk;
    this.takeBytes = takeBytes;
  }

  write(bytes: Uint8Array): void {
    if (this.ended || this.wasReset) throw new Error('write after end');
    this.received.push(...bytes);
    this.pendingBytes += bytes.length;
    this.clock.setTimer(
      () => {
        this.pendingBytes -= bytes.length;
        this.events?.drained();
      },
      Math.ceil(this.pendingBytes / this.takeBytes),
    );
  }

  end(): void {
    this.ended = true;
    this.finish();
  }

  reset(): void {
    this.wasReset = true;
    this.events = undefined;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    this.pump();
  }

  /** The host's program sends this. */
  send(bytes: Uint8Array): void {
    this.toSend = Uint8Array.from([...this.toSend, ...bytes]);
    this.pump();
  }

  /** The host's program sends no more. */
  sendEnd(): void {
    this.endAfter = true;
    this.pump();
  }

  private pump(): void {
    if (this.pumping) return;
    this.pumping = true;
    this.clock.setTimer(() => {
      this.pumping = false;
      if (this.paused || this.events === undefined) return;
      const bytes = this.toSend.slice(0, this.chunk);
      this.toSend = this.toSend.slice(this.chunk);
      if (bytes.length > 0) this.events.data(bytes);
      if (this.toSend.length > 0) this.pump();
      else if (this.endAfter && !this.finished) {
        this.finished = true;
        this.events?.ended();
        this.finish();
      }
    }, 1);
  }

  private finish(): void {
    if (!this.ended || !this.finished) return;
    this.clock.setTimer(() => this.events?.closed(false), 1);
  }
}

export interface SimBackend extends NetBackend {
  readonly streams: SimStream[];
  readonly connects: string[];
  readonly datagrams: { to: string; bytes: number[]; reply(bytes: Uint8Array): void; refuse(): void }[];
  udpOpen_: number;
  /** Connects to a forwarded port; undefined where it was refused. */
  dial(port: number): SimStream | undefined;
}

/** `answer`: whether connections are accepted, after a millisecond; false leaves them on their way. */
export function simBackend(
  clock: SimClock,
  { answer = 'accept' as 'accept' | 'refuse' | 'never', chunk = 4000, takeBytes = 20_000 } = {},
): SimBackend {
  const listeners = new Map<number, (stream: HostStream) => HostStreamEvents | undefined>();
  const backend: SimBackend = {
    streams: [],
    connects: [],
    datagrams: [],
    udpOpen_: 0,
    tcpConnect(address, port, events) {
      const stream = new SimStream(clock, events, chunk, takeBytes);
      backend.streams.push(stream);
      backend.connects.push(`${address}:${port}`);
      if (answer === 'accept') clock.setTimer(() => stream.events?.connected(), 1);
      if (answer === 'refuse') clock.setTimer(() => stream.events?.closed(true), 1);
      return stream;
    },
    async tcpListen(port, accept): Promise<HostListener> {
      listeners.set(port, accept);
      return { close: () => listeners.delete(port) };
    },
    udpOpen(address, port, events) {
      backend.udpOpen_++;
      return {
        send: (bytes) =>
          backend.datagrams.push({
            to: `${address}:${port}`,
            bytes: [...bytes],
            reply: (answerBytes) => events.data(answerBytes),
            refuse: () => events.refused(),
          }),
        close: () => {
          backend.udpOpen_--;
        },
      };
    },
    nameServer: () => '192.0.2.53',
    dial(port) {
      const stream = new SimStream(clock, undefined, chunk, takeBytes);
      stream.paused = true;
      stream.events = listeners.get(port)?.(stream);
      backend.streams.push(stream);
      return stream.events === undefined ? undefined : stream;
    },
  };
  return backend;
}
