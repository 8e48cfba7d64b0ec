import { get32, put16, put32 } from '../../base/index.js';
import { QN_ATOMIC_RESPONSE, QN_READ_REQUEST, QN_SEND, QN_TERMINATE } from './codes.js';

/**
 * Headers of DDP segments, with the control byte of RDMAP in them.
 *
 *     tagged      0 T L rsvd(4) DV(2) | 1 RV(2) rsvd(2) opcode(4) | 2 STag | 6 TO (64 bits)                        14 bytes
 *     untagged    0 T L rsvd(4) DV(2) | 1 RV(2) rsvd(2) opcode(4) | 2 Invalidate STag | 6 QN | 10 MSN | 14 MO      18 bytes
 *
 * Both versions are 1. Reserved bits are sent as 0 and not looked at.
 *
 * Source: RFC 5041 section 4, RFC 5040 section 4.1.
 */

export const TAGGED_HEADER_BYTES = 14;
export const UNTAGGED_HEADER_BYTES = 18;

const TAGGED = 0x80;
const LAST = 0x40;
const DDP_VERSION = 1;
const RDMAP_VERSION = 1;

/** A header that was received; `parse` sets it to the next one. */
export class DdpHeader {
  tagged = false;
  last = false;
  ddpVersion = 0;
  rdmapVersion = 0;
  opcode = 0;
  /** Of tagged segments; of untagged ones the STag to invalidate. */
  stag = 0;
  toHigh = 0;
  toLow = 0;
  qn = 0;
  msn = 0;
  mo = 0;
  headerBytes = 0;

  /** The segment is as long as `headerBytesOf` its first byte. */
  parse(bytes: Uint8Array, at: number): void {
    this.headerBytes = headerBytesOf(bytes[at]);
    this.tagged = this.headerBytes === TAGGED_HEADER_BYTES;
    this.last = (bytes[at] & LAST) !== 0;
    this.ddpVersion = bytes[at] & 3;
    this.rdmapVersion = bytes[at + 1] >>> 6;
    this.opcode = bytes[at + 1] & 15;
    this.stag = get32(bytes, at + 2);
    if (this.tagged) this.parseTagged(bytes, at);
    else this.parseUntagged(bytes, at);
  }

  private parseTagged(bytes: Uint8Array, at: number): void {
    this.toHigh = get32(bytes, at + 6);
    this.toLow = get32(bytes, at + 10);
  }

  private parseUntagged(bytes: Uint8Array, at: number): void {
    this.qn = get32(bytes, at + 6);
    this.msn = get32(bytes, at + 10);
    this.mo = get32(bytes, at + 14);
  }
}

/** Which header a segment has, by its first byte. */
export function headerBytesOf(firstByte: number): number {
  return (firstByte & TAGGED) !== 0 ? TAGGED_HEADER_BYTES : UNTAGGED_HEADER_BYTES;
}

export function putTagged(
  out: Uint8Array,
  at: number,
  opcode: number,
  last: boolean,
  stag: number,
  toHigh: number,
  toLow: number,
): void {
  out[at] = TAGGED | (last ? LAST : 0) | DDP_VERSION;
  out[at + 1] = (RDMAP_VERSION << 6) | opcode;
  put32(out, at + 2, stag);
  put32(out, at + 6, toHigh);
  put32(out, at + 10, toLow);
}

export function putUntagged(
  out: Uint8Array,
  at: number,
  opcode: number,
  last: boolean,
  invalidateStag: number,
  msn: number,
  mo: number,
): void {
  put16(out, at, ((last ? LAST : 0) << 8) | (DDP_VERSION << 8) | (RDMAP_VERSION << 6) | opcode);
  put32(out, at + 2, invalidateStag);
  put32(out, at + 6, QUEUE_OF[opcode]);
  put32(out, at + 10, msn);
  put32(out, at + 14, mo);
}

/** Not on a queue: opcodes of tagged messages. */
export const TAGGED_MESSAGE = -1;
/** Not an opcode that we know. */
export const UNKNOWN_MESSAGE = -2;

/** The queue of each opcode (RFC 5040 figure 4, RFC 7306 section 4). */
export const QUEUE_OF: readonly number[] = [
  TAGGED_MESSAGE,
  QN_READ_REQUEST,
  TAGGED_MESSAGE,
  QN_SEND,
  QN_SEND,
  QN_SEND,
  QN_SEND,
  QN_TERMINATE,
  QN_SEND,
  QN_SEND,
  QN_READ_REQUEST,
  QN_ATOMIC_RESPONSE,
  UNKNOWN_MESSAGE,
  UNKNOWN_MESSAGE,
  UNKNOWN_MESSAGE,
  UNKNOWN_MESSAGE,
];
