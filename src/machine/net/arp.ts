import { get16, get32, put16, put32 } from '../../base/index.js';
import { ETH_HEADER_BYTES } from './ethernet.js';
import type { FrameWriter } from './frames.js';

/**
 * ARP for the addresses that the network itself has.
 *
 * Source: RFC 826, and RFC 5227 for probes (sender 0.0.0.0): they are answered, for an address of ours is taken.
 */

const ARP_BYTES = 28;
const REQUEST = 1;
const REPLY = 2;

/** Answers a request for one of `ours`; all else is ignored. */
export function handleArp(frame: Uint8Array, mac: Uint8Array, ours: readonly number[], out: FrameWriter): void {
  const at = ETH_HEADER_BYTES;
  if (frame.length < at + ARP_BYTES) return;
  if (get16(frame, at) !== 1 || get32(frame, at + 2) !== 0x0800_0604 || get16(frame, at + 6) !== REQUEST) return;
  const wanted = get32(frame, at + 24);
  if (!ours.includes(wanted)) return;
  const { bytes } = out;
  put16(bytes, at, 1);
  put32(bytes, at + 2, 0x0800_0604);
  put16(bytes, at + 6, REPLY);
  bytes.set(mac, at + 8);
  put32(bytes, at + 14, wanted);
  bytes.set(frame.subarray(at + 8, at + 18), at + 18);
  out.arp(frame.subarray(at + 8, at + 14), ARP_BYTES);
}
