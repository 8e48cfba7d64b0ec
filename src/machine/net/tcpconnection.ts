import type { HostStream, HostStreamEvents } from './netbackend.js';
import { seqDiff, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, type TcpSegment } from './tcpsegment.js';
import { TcpSender } from './tcpsender.js';

/**
 * One TCP connection between a guest and a socket of the host: our end of the guest's half, joined to the socket.
 *
 * What the guest sends goes to the socket in order, once, and is acknowledged when the socket has taken it; the window is what the
 * socket has room for. What the socket brings is kept until the guest acknowledges it, and the socket pauses while there is much of
 * it. Ends and resets are handed on each way. Segments out of order are not kept: the guest sends them again.
 *
 * States: a guest's SYN makes `connecting` (the host's socket is on its way), then `synReceived`, `established`; a forwarded
 * connection begins in `synSent`. `timeWait` answers a repeated FIN for a while. `closed` is final.
 *
 * Source: RFC 9293 section 3.10; RFC 5961 for RST and SYN in a connection that stands.
 */

/** Bytes a guest may have under way to the host. */
export const RECEIVE_WINDOW = 128 * 1024;
/** Our window's scale, where the guest has the option. */
export const RECEIVE_SCALE = 2;
/** The socket pauses above the first and goes on below the second. */
const SEND_HIGH = 128 * 1024;
const SEND_LOW = 64 * 1024;
const MAX_SYN_RETRIES = 6;
const TIME_WAIT_MS = 2000;
/** What a guest may ask for at least and at most (RFC 9293: 536 where it says nothing). */
const MSS_DEFAULT = 536;
const MSS_MIN = 64;
const MSS_MAX = 1460;

export type TcpState = 'connecting' | 'synSent' | 'synReceived' | 'established' | 'timeWait' | 'closed';

/** What a connection needs of the NAT it is in. */
export interface TcpLink {
  nowMs(): number;
  /** Sends a segment with `lenBytes` of the sender's buffer from `offset`. */
  emit(connection: TcpConnection, seq: number, flags: number, window: number, offset: number, lenBytes: number): void;
  /** Calls `flushAck` once what the guest sent so far has been looked at. */
  deferAck(connection: TcpConnection): void;
  /** The connection is over. */
  remove(connection: TcpConnection): void;
  /** A deadline has moved. */
  arm(): void;
}

export class TcpConnection implements HostStreamEvents {
  state: TcpState = 'closed';
  readonly guestPort: number;
  /** The other end as the guest sees it. */
  readonly remote: number;
  readonly remotePort: number;
  readonly sender: TcpSender;
  /** Both sides scale their windows, or neither does. */
  scaling = true;
  host: HostStream | undefined;
  private readonly link: TcpLink;
  private rcvNxt = 0;
  /** The right edge of the window that the guest was told. */
  private rcvAdv = 0;
  private mss = MSS_DEFAULT;
  private ackNeeded = false;
  private paused = false;
  private finReceived = false;
  /** We closed first, so that the last acknowledgement is ours, and may be lost. */
  private closedFirst = false;

  constructor(guestPort: number, remote: number, remotePort: number, iss: number, link: TcpLink) {
    this.guestPort = guestPort;
    this.remote = remote;
    this.remotePort = remotePort;
    this.link = link;
    this.sender = new TcpSender(iss, MSS_DEFAULT, (seq, flags, offset, lenBytes) => {
      this.ackNeeded = false;
      link.emit(this, seq, flags, this.advertise(), offset, lenBytes);
    });
  }

  /** A guest's SYN; the host's socket is on its way, and its events come here. */
  openFromGuest(syn: TcpSegment): void {
    this.state = 'connecting';
    this.takeSyn(syn);
  }

  /** A connection that the host has accepted for the guest; `host` is paused. */
  openToGuest(host: HostStream): void {
    this.host = host;
    this.paused = true;
    this.state = 'synSent';
    this.sendSyn();
  }

  private takeSyn(syn: TcpSegment): void {
    this.mss = Math.min(Math.max(syn.mss || MSS_DEFAULT, MSS_MIN), MSS_MAX);
    this.scaling &&= syn.windowScale >= 0;
    this.sender.setPeer(this.mss, syn.windowScale);
    this.rcvNxt = (syn.seq + 1) | 0;
    this.rcvAdv = this.rcvNxt;
  }

  /** SYN where we begin, SYN and ACK where the guest did. A SYN's window is not scaled. */
  private sendSyn(): void {
    const again = this.sender.sentSyn(this.link.nowMs(), MAX_SYN_RETRIES);
    if (!again) return this.abort();
    const flags = this.state === 'synSent' ? TCP_SYN : TCP_SYN | TCP_ACK;
    this.rcvAdv = (this.rcvNxt + 0xffff) | 0;
    this.link.emit(this, this.sender.una, flags, 0xffff, 0, 0);
    this.link.arm();
  }

  /** A segment of the guest. */
  receive(segment: TcpSegment): void {
    if (this.state === 'connecting') {
      if (segment.has(TCP_RST)) this.resetByGuest();
    } else if (this.state === 'synSent') this.receiveSynSent(segment);
    else if (this.state !== 'closed') this.receiveSynchronised(segment);
  }

  private receiveSynSent(segment: TcpSegment): void {
    const expected = segment.has(TCP_ACK) && seqDiff(segment.ack, this.sender.nxt) === 0;
    if (segment.has(TCP_RST)) {
      if (expected) this.resetByGuest();
      return;
    }
    if (!expected) {
      if (segment.has(TCP_ACK)) this.link.emit(this, segment.ack, TCP_RST, 0, 0, 0);
      return;
    }
    if (!segment.has(TCP_SYN)) return;
    this.takeSyn(segment);
    this.establish(segment, false);
    this.sendAck();
    this.resume();
  }

  private establish(segment: TcpSegment, scaled: boolean): void {
    this.state = 'established';
    this.sender.established(segment, scaled && this.scaling);
  }

  private receiveSynchronised(segment: TcpSegment): void {
    const offset = seqDiff(segment.seq, this.rcvNxt);
    const window = seqDiff(this.rcvAdv, this.rcvNxt);
    if (!acceptable(offset, segment.seqLen, window)) {
      if (!segment.has(TCP_RST) && this.state !== 'synReceived') this.sendAck();
      return;
    }
    if (segment.has(TCP_RST)) {
      if (offset === 0) this.resetByGuest();
      else this.sendAck();
    } else if (segment.has(TCP_SYN)) this.sendAck();
    else if (segment.has(TCP_ACK) && this.takeAck(segment)) {
      this.takeData(segment, offset, window);
      this.output();
      this.settle();
    }
  }

  /** False where nothing more of the segment is looked at. */
  private takeAck(segment: TcpSegment): boolean {
    if (this.state === 'synReceived') {
      if (seqDiff(segment.ack, this.sender.nxt) !== 0) {
        this.link.emit(this, segment.ack, TCP_RST, 0, 0, 0);
        return false;
      }
      this.establish(segment, true);
    } else if (!this.sender.acknowledge(segment, this.link.nowMs())) {
      this.sendAck();
      return false;
    }
    if (this.paused && this.sender.buffer.lenBytes <= SEND_LOW) this.resume();
    return true;
  }

  private takeData(segment: TcpSegment, offset: number, window: number): void {
    const { bytes, end } = segment;
    const start = segment.start + Math.max(-offset, 0);
    if (offset > 0) {
      if (segment.seqLen > 0) this.sendAck();
      return;
    }
    if (offset < 0 && segment.seqLen > 0) this.ackSoon();
    const take = Math.min(end - start, window);
    if (take > 0 && !this.finReceived) {
      this.rcvNxt = (this.rcvNxt + take) | 0;
      this.host?.write(bytes.slice(start, start + take));
      this.ackSoon();
    }
    if (take < end - start) this.sendAck();
    else if (segment.has(TCP_FIN) && !this.finReceived) this.takeFin();
  }

  private takeFin(): void {
    this.rcvNxt = (this.rcvNxt + 1) | 0;
    this.finReceived = true;
    this.closedFirst = this.sender.finSent;
    this.sendAck();
    this.host?.end();
  }

  private ackSoon(): void {
    if (this.ackNeeded) return;
    this.ackNeeded = true;
    this.link.deferAck(this);
  }

  /** Sends the acknowledgement that nothing has carried since. */
  flushAck(): void {
    if (this.ackNeeded && this.state !== 'closed') this.sendAck();
  }

  private sendAck(): void {
    this.ackNeeded = false;
    this.link.emit(this, this.sender.nxt, TCP_ACK, this.advertise(), 0, 0);
  }

  /** The window to tell, in the header's units. Its right edge never moves back, nor by less than a segment (silly window syndrome). */
  private advertise(): number {
    const scale = this.scaling ? RECEIVE_SCALE : 0;
    const told = Math.max(seqDiff(this.rcvAdv, this.rcvNxt), 0);
    const free = this.free();
    const window = free - told >= this.mss ? free : told;
    const field = (window + (1 << scale) - 1) >>> scale;
    this.rcvAdv = (this.rcvNxt + (field << scale)) | 0;
    return Math.min(field, 0xffff);
  }

  /** What the socket has room for, as far as a window can tell it. */
  private free(): number {
    const room = Math.max(RECEIVE_WINDOW - (this.host?.pendingBytes ?? 0), 0);
    return this.scaling ? room : Math.min(room, 0xffff);
  }

  /** Sends what may be sent, once the handshake is done. */
  private output(): void {
    if (this.state !== 'established') return;
    this.sender.output(this.link.nowMs());
    this.link.arm();
  }

  /** Both ways are closed: over, or over after a while. */
  private settle(): void {
    if (this.state !== 'established' || !this.finReceived || !this.sender.finAcked) return;
    if (!this.closedFirst) return this.close();
    this.state = 'timeWait';
    this.sender.deadline = this.link.nowMs() + TIME_WAIT_MS;
    this.link.arm();
  }

  get deadline(): number {
    return this.sender.deadline;
  }

  /** The deadline has come. */
  timeout(): void {
    if (this.state === 'timeWait') this.close();
    else if (this.state === 'synSent' || this.state === 'synReceived') this.sendSyn();
    else if (this.state === 'established' && !this.sender.timeout(this.link.nowMs())) this.abort();
  }

  private resume(): void {
    this.paused = false;
    this.host?.resume();
  }

  connected(): void {
    if (this.state !== 'connecting') return;
    this.state = 'synReceived';
    this.sendSyn();
  }

  data(bytes: Uint8Array): void {
    if (this.state === 'closed') return;
    this.sender.buffer.push(bytes);
    if (!this.paused && this.sender.buffer.lenBytes >= SEND_HIGH) {
      this.paused = true;
      this.host?.pause();
    }
    this.output();
  }

  /** The socket has room again: the guest is told when it is worth a segment, and at once when it waits for it. */
  drained(): void {
    if (this.state !== 'established' || this.finReceived) return;
    const told = seqDiff(this.rcvAdv, this.rcvNxt);
    if (this.free() - told >= (told < this.mss ? this.mss : RECEIVE_WINDOW / 2)) this.sendAck();
  }

  ended(): void {
    this.sender.finQueued = true;
    this.output();
  }

  closed(failed: boolean): void {
    this.host = undefined;
    if (failed || !this.sender.finQueued) this.abort();
  }

  private resetByGuest(): void {
    this.host?.reset();
    this.close();
  }

  /** Ends both halves at once: the guest is told by a RST, the host's side by one too. A refused connection is told so as well. */
  abort(): void {
    if (this.state === 'closed') return;
    const seq = this.state === 'connecting' ? 0 : this.sender.nxt;
    this.link.emit(this, seq, this.state === 'synSent' ? TCP_RST : TCP_RST | TCP_ACK, 0, 0, 0);
    this.host?.reset();
    this.close();
  }

  private close(): void {
    this.state = 'closed';
    this.host = undefined;
    this.sender.deadline = Infinity;
    this.link.remove(this);
  }

  /** The acknowledgement number of what is sent now. */
  get ackNumber(): number {
    return this.rcvNxt;
  }
}

/** RFC 9293's four cases; a closed window takes nothing, but what else such a segment says is heard. */
function acceptable(offset: number, seqLen: number, window: number): boolean {
  if (offset === 0) return true;
  if (seqLen === 0) return offset > 0 && offset < window;
  return offset < window && offset + seqLen > 0;
}
