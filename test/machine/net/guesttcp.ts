import type { NetClock } from '../../../src/machine/index.js';
import { GATEWAY, readTcp, type TcpFromNet, tcpFrame } from './frame.js';

/**
 * A guest's TCP, as simple as can be: sends its stream in segments of `mss` bytes within the window, goes back to the oldest on a timeout,
 * takes data in order, tells a window that follows a reader of its own pace. Both ends of the stream are recorded.
 */

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const ACK = 16;

export interface GuestTcpOptions {
  clock: NetClock;
  send: (frame: Uint8Array) => void;
  srcPort: number;
  dstPort: number;
  data: Uint8Array;
  mss?: number;
  windowScale?: number;
  /** Bytes that its buffer holds, and that its reader takes a millisecond. */
  bufferBytes?: number;
  readBytes?: number;
  dst?: number[];
  passive?: boolean;
}

export class GuestTcp {
  readonly received: number[] = [];
  established = false;
  reset = false;
  finReceived = false;
  private readonly options: Required<GuestTcpOptions>;
  private readonly iss = 0xffff_f000; // wraps soon
  private acked = 0; // of SYN, data, FIN, from iss
  private sent = 0;
  private rcvNxt = 0;
  private window = 0;
  private peerScale = 0;
  private unread = 0;
  private cancel: (() => void) | undefined;

  constructor(options: GuestTcpOptions) {
    this.options = {
      mss: 1460,
      windowScale: 7,
      bufferBytes: 65535,
      readBytes: 1e9,
      dst: GATEWAY,
      passive: false,
      ...options,
    };
    if (!this.options.passive) this.retransmit();
  }

  get finAcked(): boolean {
    return this.acked === this.options.data.length + 2;
  }

  get done(): boolean {
    return this.finAcked && this.finReceived;
  }

  /** Sends from the oldest on again, now and after a while, until all is acknowledged. */
  private retransmit(): void {
    this.cancel?.();
    if (this.reset) return;
    this.sent = this.acked;
    this.output();
    this.cancel = this.options.clock.setTimer(() => {
      this.cancel = undefined;
      if (!this.finAcked) this.retransmit();
    }, 300);
  }

  private output(): void {
    const { data, mss } = this.options;
    if (this.acked === 0) return this.syn();
    if (!this.established) return;
    while (this.sent <= data.length + 1) {
      const from = this.sent - 1;
      const room = Math.max(this.window, 1) - (this.sent - this.acked);
      const bytes = data.subarray(from, from + Math.min(mss, Math.max(room, 0)));
      const fin = from + bytes.length === data.length;
      if (bytes.length === 0 && !fin) return;
      this.emit(this.sent, ACK | (fin ? FIN : 0), bytes);
      this.sent += bytes.length + (fin ? 1 : 0);
    }
  }

  private syn(): void {
    const { windowScale } = this.options;
    const scale = windowScale < 0 ? [] : [1, 3, 3, windowScale];
    this.emit(0, this.options.passive ? SYN | ACK : SYN, new Uint8Array(0), [2, 4, 5, 180, ...scale]);
    this.sent = 1;
  }

  private emit(offset: number, flags: number, data: Uint8Array, options: number[] = []): void {
    const { srcPort, dstPort, bufferBytes, windowScale, dst } = this.options;
    const scale = (flags & SYN) !== 0 ? 0 : Math.max(windowScale, 0);
    const window = Math.min((bufferBytes - this.unread) >> scale, 65535);
    const seq = (this.iss + offset) >>> 0;
    this.options.send(tcpFrame({ srcPort, dstPort, seq, ack: this.rcvNxt, flags, window, options, data, dst }));
  }

  receive(frame: Uint8Array): void {
    const segment = readTcp(frame);
    if (segment.dstPort !== this.options.srcPort) return;
    if ((segment.flags & RST) !== 0) {
      if (this.done) return; // to a late acknowledgement, of a connection that is over
      if (this.established && segment.seq !== this.rcvNxt) throw new Error('RST out of sequence');
      this.reset = true;
      return;
    }
    if ((segment.flags & SYN) !== 0) this.takeSyn(segment);
    if (this.rcvNxt === 0) return;
    this.takeAck(segment);
    this.takeData(segment);
    this.output();
  }

  private takeSyn(segment: TcpFromNet): void {
    const at = segment.options.indexOf(3);
    this.peerScale = at > 3 && this.options.windowScale >= 0 ? segment.options[at + 2] : 0;
    if (this.rcvNxt === 0) this.rcvNxt = (segment.seq + 1) >>> 0;
    if (this.options.passive && this.acked === 0) return this.retransmit();
    if (this.established) this.emit(this.sent, ACK, new Uint8Array(0));
  }

  private takeAck(segment: TcpFromNet): void {
    if ((segment.flags & ACK) === 0) return;
    const ack = (segment.ack - this.iss) | 0;
    if (ack > this.options.data.length + 2) throw new Error(`acknowledged ${ack}, which was never sent`);
    if (ack < this.acked) return;
    if (ack > 0) this.established = true;
    this.window = segment.window << ((segment.flags & SYN) !== 0 ? 0 : this.peerScale);
    if (ack > this.acked) {
      this.acked = ack;
      this.sent = Math.max(this.sent, ack);
    }
  }

  private takeData(segment: TcpFromNet): void {
    const { data, flags } = segment;
    const syn = (flags & SYN) !== 0;
    if (data.length === 0 && (flags & FIN) === 0 && !syn) return;
    const skip = (this.rcvNxt - segment.seq) | 0;
    const room = this.options.bufferBytes - this.unread;
    if (!syn && skip >= 0 && skip <= data.length) {
      const fresh = data.subarray(skip, skip + room);
      this.received.push(...fresh);
      this.unread += fresh.length;
      this.rcvNxt = (this.rcvNxt + fresh.length) >>> 0;
      if (fresh.length > 0) this.read();
      if ((flags & FIN) !== 0 && skip + fresh.length === data.length && !this.finReceived) {
        this.finReceived = true;
        this.rcvNxt = (this.rcvNxt + 1) >>> 0;
      }
    }
    this.emit(this.sent, ACK, new Uint8Array(0));
  }

  /** The reader empties the buffer in its own time; a window that was closed is told when half is free. */
  private read(): void {
    const { clock, readBytes, bufferBytes } = this.options;
    clock.setTimer(
      () => {
        const before = this.unread;
        this.unread = 0;
        if (before > bufferBytes / 2) this.emit(this.sent, ACK, new Uint8Array(0));
      },
      Math.ceil(this.unread / readBytes),
    );
  }
}
