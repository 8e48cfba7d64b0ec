import { get16, get32, put16, put32 } from '../../base/index.js';
import { ETH_FRAME_BYTES, ETH_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, type FrameSink } from './ethernet.js';
import { foldChecksum, sum16 } from './wire.js';

/**
 * IPv4 packets in Ethernet frames: `Ipv4Packet` reads one that a guest sent, and believes nothing; `FrameWriter` makes those that a
 * guest gets, in one buffer that is used again and again.
 *
 * Source: RFC 791.
 */

export const IPPROTO_ICMP = 1;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPV4_HEADER_BYTES = 20;
/** Where the payload of a frame that we write begins. */
export const PAYLOAD_AT = ETH_HEADER_BYTES + IPV4_HEADER_BYTES;

const TTL = 64;
const DONT_FRAGMENT = 0x4000;
const FRAGMENTED = 0x3fff;

/** A view of one received packet; `parse` sets it to the next one. */
export class Ipv4Packet {
  bytes: Uint8Array = new Uint8Array(0);
  protocol = 0;
  src = 0;
  dst = 0;
  /** The payload is [start, end) of `bytes`. */
  start = 0;
  end = 0;

  /** False for what is no whole, correct, unfragmented packet: too short, a wrong length or checksum. Options are skipped. */
  parse(frame: Uint8Array): boolean {
    const at = ETH_HEADER_BYTES;
    if (frame.length < at + IPV4_HEADER_BYTES || frame[at] >>> 4 !== 4) return false;
    const headerBytes = (frame[at] & 15) * 4;
    const totalBytes = get16(frame, at + 2);
    if (headerBytes < IPV4_HEADER_BYTES || totalBytes < headerBytes || frame.length < at + totalBytes) return false;
    if ((get16(frame, at + 6) & FRAGMENTED) !== 0) return false;
    if (foldChecksum(sum16(frame, at, at + headerBytes)) !== 0) return false;
    this.bytes = frame;
    this.protocol = frame[at + 9];
    this.src = get32(frame, at + 12);
    this.dst = get32(frame, at + 16);
    this.start = at + headerBytes;
    this.end = at + totalBytes;
    return true;
  }
}

export class FrameWriter {
  /** What is to be sent is put here from PAYLOAD_AT on, before `ipv4` sends it. */
  readonly bytes = new Uint8Array(ETH_FRAME_BYTES);
  /** Of the guest's card: the destination of all but broadcasts. */
  readonly guestMac: Uint8Array;
  private readonly mac: Uint8Array;
  private readonly sink: FrameSink;
  private identification = 0;

  constructor(mac: Uint8Array, guestMac: Uint8Array, sink: FrameSink) {
    this.mac = mac;
    this.guestMac = guestMac.slice();
    this.sink = sink;
  }

  /** Sends the `payloadBytes` that lie at PAYLOAD_AT. */
  ipv4(protocol: number, src: number, dst: number, payloadBytes: number): void {
    const { bytes } = this;
    const at = ETH_HEADER_BYTES;
    this.ethernet(this.guestMac, ETHERTYPE_IPV4);
    this.identification = (this.identification + 1) & 0xffff;
    put16(bytes, at, 0x4500);
    put16(bytes, at + 2, IPV4_HEADER_BYTES + payloadBytes);
    put16(bytes, at + 4, this.identification);
    put16(bytes, at + 6, DONT_FRAGMENT);
    bytes[at + 8] = TTL;
    bytes[at + 9] = protocol;
    put16(bytes, at + 10, 0);
    put32(bytes, at + 12, src);
    put32(bytes, at + 16, dst);
    put16(bytes, at + 10, foldChecksum(sum16(bytes, at, PAYLOAD_AT)));
    this.sink(bytes.subarray(0, PAYLOAD_AT + payloadBytes));
  }

  /** Sends the `payloadBytes` that lie at ETH_HEADER_BYTES to one card as ARP. */
  arp(to: Uint8Array, payloadBytes: number): void {
    this.ethernet(to, ETHERTYPE_ARP);
    this.sink(this.bytes.subarray(0, ETH_HEADER_BYTES + payloadBytes));
  }

  private ethernet(to: Uint8Array, type: number): void {
    this.bytes.set(to, 0);
    this.bytes.set(this.mac, 6);
    put16(this.bytes, 12, type);
  }
}
