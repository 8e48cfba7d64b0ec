import { connect as tcpConnect } from 'node:net';
import type { StreamNet } from '../../../src/rdma/index.js';
import { concat, mpaRequestFrame, opcodeOf, segmentsOf, TERMINATE, type Terminate, terminateOf } from './segments.js';

/** A peer that sends whatever bytes it likes, over the memory of this thread or over TCP, and keeps what comes back. */

interface Wire {
  send(bytes: Uint8Array): void;
  pause(): void;
  end(): void;
  destroy(): void;
}

export class RawPeer {
  private wire!: Wire;
  private received: Uint8Array = new Uint8Array(0);
  /** The NIC has sent its end, or the stream is gone. */
  isOver = false;
  private wake: () => void = () => {};

  /** To `port`, over `net`, or TCP where there is none. */
  static async connect(port: number, net?: StreamNet): Promise<RawPeer> {
    const peer = new RawPeer();
    peer.wire = await (net === undefined ? overTcp(peer, port) : overMemory(peer, net, port));
    return peer;
  }

  take(bytes: Uint8Array): void {
    this.received = concat(this.received, bytes);
    this.wake();
  }

  over(): void {
    this.isOver = true;
    this.wake();
  }

  send(bytes: Uint8Array): void {
    this.wire.send(bytes);
  }

  /** Reads no more: TCP's window fills. */
  pause(): void {
    this.wire.pause();
  }

  end(): void {
    this.wire.end();
  }

  destroy(): void {
    this.wire.destroy();
  }

  /** Waits until `done`, asked whenever something has come. Throws where the stream is over first. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) {
      if (this.isOver) throw new Error('the stream is over');
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  async untilOver(): Promise<void> {
    while (!this.isOver)
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
  }

  /** MPA's set-up as initiator, which makes up to `ord` READs. The reply's flags (M C R S). */
  async setUp(ord: number): Promise<number> {
    this.send(mpaRequestFrame(ord));
    return await this.reply();
  }

  async reply(): Promise<number> {
    await this.until(() => this.replyBytes > 0 && this.received.length >= this.replyBytes);
    return this.received[16]!;
  }

  private get replyBytes(): number {
    return this.received.length < 20 ? 0 : 20 + ((this.received[18]! << 8) | this.received[19]!);
  }

  /** Whole segments after the reply. */
  segments(): Uint8Array[] {
    return this.replyBytes === 0 ? [] : segmentsOf(this.received.subarray(this.replyBytes));
  }

  terminate(): Terminate | undefined {
    const segment = this.segments().find((one) => opcodeOf(one) === TERMINATE);
    return segment && terminateOf(segment);
  }
}

async function overTcp(peer: RawPeer, port: number): Promise<Wire> {
  const socket = tcpConnect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
  socket.on('data', (bytes) => peer.take(bytes));
  socket.on('end', () => peer.over());
  socket.on('error', () => {});
  socket.on('close', () => peer.over());
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  return {
    send: (bytes) => void (socket.writable && socket.write(bytes)),
    pause: () => void socket.pause(),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  };
}

async function overMemory(peer: RawPeer, net: StreamNet, port: number): Promise<Wire> {
  const readBuffer = new Uint8Array(65536);
  let [connected, failed] = [() => {}, (_error: Error) => {}];
  const isConnected = new Promise<void>((resolve, reject) => {
    [connected, failed] = [resolve, reject];
  });
  const stream = net.connect(
    { host: '127.0.0.1', port },
    {
      readBuffer,
      connected: () => connected(),
      data: (nrBytes) => peer.take(readBuffer.slice(0, nrBytes)),
      ended: () => peer.over(),
      closed: (error) => {
        peer.over();
        failed(error ?? new Error('closed'));
      },
    },
  );
  await isConnected;
  return {
    send: (bytes) => stream.write(Uint8Array.from(bytes), () => {}),
    pause: () => stream.pause(),
    end: () => stream.end(),
    destroy: () => stream.destroy(),
  };
}
