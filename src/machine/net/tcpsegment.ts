import { get16, get32 } from '../../base/index.js';
import { IPPROTO_TCP, type Ipv4Packet } from './frames.js';
import { foldChecksum, pseudoSum, sum16 } from './wire.js';

/**
 * A view of one TCP segment that a guest sent; `parse` sets it to the next one.
 *
 * Source: RFC 9293 section 3.1; RFC 7323 for window scale.
 */

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;
export const TCP_HEADER_BYTES = 20;

const OPTION_END = 0;
const OPTION_NOP = 1;
export const OPTION_MSS = 2;
export const OPTION_WINDOW_SCALE = 3;
const MAX_WINDOW_SCALE = 14;

/** The signed distance from sequence number `b` to `a`. */
export function seqDiff(a: number, b: number): number {
  return (a - b) | 0;
}

export class TcpSegment {
  bytes: Uint8Array = new Uint8Array(0);
  srcPort = 0;
  dstPort = 0;
  /** Sequence numbers are int32 that wrap. */
  seq = 0;
  ack = 0;
  flags = 0;
  /** As it stands in the header, unscaled. */
  window = 0;
  /** The data is [start, end) of `bytes`. */
  start = 0;
  end = 0;
  /** Of a SYN's options: 0 and -1 where there is none. */
  mss = 0;
  windowScale = -1;

  /** False for what is no whole segment, or has a wrong checksum. Options that lie about their lengths are left out. */
  parse(packet: Ipv4Packet): boolean {
    const { bytes, start, end } = packet;
    if (end - start < TCP_HEADER_BYTES) return false;
    const headerBytes = (bytes[start + 12] >>> 4) * 4;
    if (headerBytes < TCP_HEADER_BYTES || headerBytes > end - start) return false;
    const pseudo = pseudoSum(packet.src, packet.dst, IPPROTO_TCP, end - start);
    if (foldChecksum(sum16(bytes, start, end, pseudo)) !== 0) return false;
    this.bytes = bytes;
    this.srcPort = get16(bytes, start);
    this.dstPort = get16(bytes, start + 2);
    this.seq = get32(bytes, start + 4) | 0;
    this.ack = get32(bytes, start + 8) | 0;
    this.flags = bytes[start + 13] & 0x1f;
    this.window = get16(bytes, start + 14);
    this.start = start + headerBytes;
    this.end = end;
    this.mss = 0;
    this.windowScale = -1;
    if ((this.flags & TCP_SYN) !== 0) this.parseOptions(start + TCP_HEADER_BYTES);
    return true;
  }

  private parseOptions(at: number): void {
    const { bytes, start } = this;
    while (at < start && bytes[at] !== OPTION_END) {
      if (bytes[at] === OPTION_NOP) {
        at++;
        continue;
      }
      const lenBytes = at + 1 < start ? bytes[at + 1] : 0;
      if (lenBytes < 2 || at + lenBytes > start) return;
      if (bytes[at] === OPTION_MSS && lenBytes === 4) this.mss = get16(bytes, at + 2);
      if (bytes[at] === OPTION_WINDOW_SCALE && lenBytes === 3)
        this.windowScale = Math.min(bytes[at + 2], MAX_WINDOW_SCALE);
      at += lenBytes;
    }
  }

  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  /** What it takes of the sequence space: its data, and one each for SYN and FIN. */
  get seqLen(): number {
    return this.end - this.start + (this.has(TCP_SYN) ? 1 : 0) + (this.has(TCP_FIN) ? 1 : 0);
  }
}
