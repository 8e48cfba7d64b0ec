import { get16, put16 } from '../../base/index.js';
import { IPPROTO_UDP, type Ipv4Packet, PAYLOAD_AT } from './frames.js';
import { foldChecksum, pseudoSum, sum16 } from './wire.js';

/** UDP's header. Source: RFC 768. */

export const UDP_HEADER_BYTES = 8;

/** The length of the datagram's payload; -1 for what is no whole datagram, or has a wrong checksum (0 is none). */
export function udpPayloadBytes(packet: Ipv4Packet): number {
  const { bytes, start, end } = packet;
  if (end - start < UDP_HEADER_BYTES) return -1;
  const lenBytes = get16(bytes, start + 4);
  if (lenBytes < UDP_HEADER_BYTES || lenBytes > end - start) return -1;
  if (get16(bytes, start + 6) !== 0) {
    const pseudo = pseudoSum(packet.src, packet.dst, IPPROTO_UDP, lenBytes);
    if (foldChecksum(sum16(bytes, start, start + lenBytes, pseudo)) !== 0) return -1;
  }
  return lenBytes - UDP_HEADER_BYTES;
}

/** Writes the header at PAYLOAD_AT for the `payloadBytes` that stand behind it already. */
export function putUdpHeader(
  bytes: Uint8Array,
  srcPort: number,
  dstPort: number,
  src: number,
  dst: number,
  payloadBytes: number,
): void {
  const lenBytes = UDP_HEADER_BYTES + payloadBytes;
  put16(bytes, PAYLOAD_AT, srcPort);
  put16(bytes, PAYLOAD_AT + 2, dstPort);
  put16(bytes, PAYLOAD_AT + 4, lenBytes);
  put16(bytes, PAYLOAD_AT + 6, 0);
  const pseudo = pseudoSum(src, dst, IPPROTO_UDP, lenBytes);
  put16(bytes, PAYLOAD_AT + 6, foldChecksum(sum16(bytes, PAYLOAD_AT, PAYLOAD_AT + lenBytes, pseudo)) || 0xffff);
}
