import { SendBuffer } from './sendbuffer.js';
import { seqDiff, TCP_ACK, TCP_FIN, TCP_PSH, type TcpSegment } from './tcpsegment.js';

/**
 * The sending half of one TCP connection to a guest: what was sent and not acknowledged, the guest's window, and when to send again.
 *
 * Nothing is given up before it is acknowledged. A guest that stays silent for MAX_RETRIES retransmissions is given up; one that
 * answers with a closed window is asked again for as long as it answers.
 *
 * Source: RFC 9293 section 3.8 (window, probes), RFC 5681 and 6582 (congestion, fast retransmit), RFC 6298 (timeout).
 * Use: `established` with the segment that ends the handshake, `buffer.push` and `output`, `acknowledge` for each segment,
 * `timeout` when `deadline` has come.
 */

const RTO_INITIAL_MS = 1000;
const RTO_MIN_MS = 200;
const RTO_MAX_MS = 60_000;
const MAX_RETRIES = 12;
const INITIAL_WINDOW_SEGMENTS = 10;
const MAX_CWND = 2 ** 20;
const DUPLICATE_ACKS = 3;

/** Sends [offset, offset + lenBytes) of the buffer with sequence number `seq`. */
export type SegmentSink = (seq: number, flags: number, offset: number, lenBytes: number) => void;

export class TcpSender {
  readonly buffer = new SendBuffer();
  /** Nothing is pushed any more: a FIN follows what is in the buffer. */
  finQueued = false;
  finAcked = false;
  /** Oldest not acknowledged, next to send, and the end of all that was ever sent. */
  una: number;
  nxt: number;
  max: number;
  /** Milliseconds of the clock; Infinity where nothing is waited for. */
  deadline = Infinity;
  retries = 0;
  private readonly emit: SegmentSink;
  private mss: number;
  private window = 0;
  private windowScale = 0;
  /** Sequence and acknowledgement number of the segment that last set the window. */
  private wl1 = 0;
  private wl2 = 0;
  private cwnd = 0;
  private ssthresh = MAX_CWND;
  private dupAcks = 0;
  private recovering = false;
  private recover = 0;
  private rto = RTO_INITIAL_MS;
  private srtt = 0;
  private rttvar = 0;
  /** One segment at a time is timed, and none that was sent twice (Karn). */
  private timing = false;
  private timedSeq = 0;
  private timedAt = 0;

  constructor(iss: number, mss: number, emit: SegmentSink) {
    this.una = iss;
    this.nxt = iss;
    this.max = iss;
    this.mss = mss;
    this.emit = emit;
  }

  /** The guest's own limits, from its SYN; `windowScale` below 0: none. */
  setPeer(mss: number, windowScale: number): void {
    this.mss = mss;
    this.windowScale = Math.max(windowScale, 0);
  }

  /** The guest has acknowledged our SYN with this segment; a SYN's window is never scaled. */
  established(segment: TcpSegment, scaled: boolean): void {
    this.una = segment.ack;
    this.nxt = segment.ack;
    this.max = segment.ack;
    this.window = segment.window << (scaled ? this.windowScale : 0);
    this.wl1 = segment.seq;
    this.wl2 = segment.ack;
    this.cwnd = INITIAL_WINDOW_SEGMENTS * this.mss;
    this.settle();
  }

  /** A SYN of ours is under way: it is sent again at `deadline`, which goes further each time. False: often enough. */
  sentSyn(now: number, limit: number): boolean {
    this.nxt = this.max = (this.una + 1) | 0;
    if (this.retries++ > 0) this.rto *= 2;
    this.deadline = now + this.rto;
    return this.retries <= limit;
  }

  get finSent(): boolean {
    return this.finAcked || seqDiff(this.max, this.una) > this.buffer.lenBytes;
  }

  /** False for an acknowledgement of what was never sent. */
  acknowledge(segment: TcpSegment, now: number): boolean {
    const acked = seqDiff(segment.ack, this.una);
    if (seqDiff(segment.ack, this.max) > 0) return false;
    if (acked < 0) return true;
    const before = this.window;
    this.updateWindow(segment);
    if (acked > 0) this.advance(acked, now);
    else if (before === 0 || this.window === 0) this.answered(before);
    else if (this.inFlight > 0 && segment.seqLen === 0 && this.window === before) this.duplicate();
    return true;
  }

  private get inFlight(): number {
    return seqDiff(this.nxt, this.una);
  }

  private updateWindow(segment: TcpSegment): void {
    const newer = seqDiff(segment.seq, this.wl1);
    if (newer < 0 || (newer === 0 && seqDiff(segment.ack, this.wl2) < 0)) return;
    this.window = segment.window << this.windowScale;
    this.wl1 = segment.seq;
    this.wl2 = segment.ack;
  }

  private advance(acked: number, now: number): void {
    const ack = (this.una + acked) | 0;
    if (this.timing && seqDiff(ack, this.timedSeq) >= 0) this.measured(now - this.timedAt);
    const data = Math.min(acked, this.buffer.lenBytes);
    this.buffer.drop(data);
    if (acked > data) this.finAcked = true;
    this.una = ack;
    if (seqDiff(this.nxt, ack) < 0) this.nxt = ack;
    this.settle();
    this.deadline = this.inFlight > 0 ? now + this.rto : Infinity;
    if (this.recovering && seqDiff(ack, this.recover) < 0) this.resendFirst();
    else this.grow(data);
  }

  /** What was waited for has come: the timeout is what was measured, without the doublings. */
  private settle(): void {
    this.retries = 0;
    this.dupAcks = 0;
    this.deadline = Infinity;
    if (this.srtt > 0) this.rto = Math.min(Math.max(this.srtt + 4 * this.rttvar, RTO_MIN_MS), RTO_MAX_MS);
    else this.rto = RTO_INITIAL_MS;
  }

  private grow(acked: number): void {
    if (this.recovering) {
      this.recovering = false;
      this.cwnd = this.ssthresh;
      return;
    }
    const step = this.cwnd < this.ssthresh ? acked : Math.ceil((this.mss * acked) / this.cwnd);
    this.cwnd = Math.min(this.cwnd + step, MAX_CWND);
  }

  /** An answer about a closed window: the guest lives. Open again, what a probe carried is sent anew. */
  private answered(before: number): void {
    this.retries = 0;
    if (before > 0 || this.window === 0) return;
    this.settle();
    this.nxt = this.una;
  }

  private duplicate(): void {
    if (++this.dupAcks !== DUPLICATE_ACKS || this.recovering) return;
    this.ssthresh = Math.max(this.inFlight >> 1, 2 * this.mss);
    this.cwnd = this.ssthresh;
    this.recovering = true;
    this.recover = this.max;
    this.resendFirst();
  }

  private resendFirst(): void {
    this.timing = false;
    const lenBytes = Math.min(this.buffer.lenBytes, this.mss);
    const fin = this.finQueued && lenBytes === this.buffer.lenBytes;
    this.emit(this.una, TCP_ACK | (fin ? TCP_FIN : 0), 0, lenBytes);
  }

  private measured(rtt: number): void {
    this.timing = false;
    if (this.srtt === 0) {
      this.srtt = rtt;
      this.rttvar = rtt / 2;
    } else {
      this.rttvar += (Math.abs(this.srtt - rtt) - this.rttvar) / 4;
      this.srtt += (rtt - this.srtt) / 8;
    }
  }

  /**
   * Sends what the windows allow. A segment that is small because the window is stays back while others are under way (silly window
   * syndrome); a closed window with nothing under way starts the timer of its probes.
   */
  output(now: number): void {
    while (!this.finAcked) {
      const offset = this.inFlight;
      const left = this.buffer.lenBytes - offset;
      if (left < 0) return;
      const room = Math.min(this.window, this.cwnd) - offset;
      const lenBytes = Math.max(Math.min(left, this.mss, room), 0);
      const last = lenBytes === left;
      if (lenBytes === 0 && !(last && this.finQueued)) break;
      if (lenBytes < this.mss && !last && offset > 0) break;
      this.send(offset, lenBytes, now);
    }
    if (this.buffer.lenBytes > 0 && this.deadline === Infinity) this.deadline = now + this.rto;
  }

  private send(offset: number, lenBytes: number, now: number): void {
    const last = offset + lenBytes === this.buffer.lenBytes;
    const fin = last && this.finQueued;
    const flags = TCP_ACK | (last && lenBytes > 0 ? TCP_PSH : 0) | (fin ? TCP_FIN : 0);
    const seq = this.nxt;
    this.nxt = (seq + lenBytes + (fin ? 1 : 0)) | 0;
    if (seqDiff(this.nxt, this.max) > 0) {
      if (!this.timing && seq === this.max) this.startTiming(now);
      this.max = this.nxt;
    }
    if (this.deadline === Infinity) this.deadline = now + this.rto;
    this.emit(seq, flags, offset, lenBytes);
  }

  private startTiming(now: number): void {
    this.timing = true;
    this.timedSeq = this.nxt;
    this.timedAt = now;
  }

  /** Nothing came until `deadline`: sends from the oldest on again, or one byte into a closed window. False: given up. */
  timeout(now: number): boolean {
    if (++this.retries > MAX_RETRIES) return false;
    this.timing = false;
    this.recovering = false;
    this.dupAcks = 0;
    this.rto = Math.min(this.rto * 2, RTO_MAX_MS);
    this.deadline = now + this.rto;
    const flight = seqDiff(this.max, this.una);
    this.nxt = this.una;
    if (this.window === 0 && this.buffer.lenBytes > 0) {
      this.send(0, 1, now);
      return true;
    }
    if (flight > 0) {
      this.ssthresh = Math.max(flight >> 1, 2 * this.mss);
      this.cwnd = this.mss;
    }
    this.output(now);
    return true;
  }
}
