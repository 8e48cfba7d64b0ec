import { put16, put32 } from '../../base/index.js';
import { ETH_HEADER_BYTES } from './ethernet.js';
import { type FrameWriter, IPPROTO_ICMP, type Ipv4Packet, PAYLOAD_AT } from './frames.js';
import { foldChecksum, sum16 } from './wire.js';

/**
 * ICMP: the echo of the network's own addresses, and the message that nobody is at a port.
 *
 * Source: RFC 792; RFC 1122 section 3.2.2 for when no message is sent (for ICMP itself, and for broadcasts).
 */

const ECHO_REPLY = 0;
const UNREACHABLE = 3;
const ECHO_REQUEST = 8;
const HEADER_BYTES = 8;

export const ICMP_PORT_UNREACHABLE = 3;
/** Communication administratively prohibited (RFC 1812). */
export const ICMP_PROHIBITED = 13;

/** Answers an echo request with what it holds. */
export function handleEcho(packet: Ipv4Packet, out: FrameWriter): void {
  const { bytes, start, end } = packet;
  if (end - start < HEADER_BYTES || bytes[start] !== ECHO_REQUEST || bytes[start + 1] !== 0) return;
  if (foldChecksum(sum16(bytes, start, end)) !== 0) return;
  out.bytes.set(bytes.subarray(start, end), PAYLOAD_AT);
  out.bytes[PAYLOAD_AT] = ECHO_REPLY;
  send(packet.dst, packet.src, end - start, out);
}

/** Tells the sender of `packet` that it cannot be delivered; the message quotes its header and first 8 bytes. */
export function sendUnreachable(packet: Ipv4Packet, code: number, out: FrameWriter): void {
  const quote = packet.bytes.slice(ETH_HEADER_BYTES, Math.min(packet.start + 8, packet.end));
  unreachable(quote, packet.dst, packet.src, code, out);
}

/** The same where the packet is gone, and its header and first 8 bytes were kept. */
export function unreachable(quote: Uint8Array, src: number, dst: number, code: number, out: FrameWriter): void {
  put32(out.bytes, PAYLOAD_AT, (UNREACHABLE << 24) | (code << 16));
  put32(out.bytes, PAYLOAD_AT + 4, 0);
  out.bytes.set(quote, PAYLOAD_AT + HEADER_BYTES);
  send(src, dst, HEADER_BYTES + quote.length, out);
}

function send(src: number, dst: number, lenBytes: number, out: FrameWriter): void {
  put16(out.bytes, PAYLOAD_AT + 2, 0);
  put16(out.bytes, PAYLOAD_AT + 2, foldChecksum(sum16(out.bytes, PAYLOAD_AT, PAYLOAD_AT + lenBytes)));
  out.ipv4(IPPROTO_ICMP, src, dst, lenBytes);
}
