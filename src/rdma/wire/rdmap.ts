import { get32, get64, put16, put32, put64 } from '../../base/index.js';
import { UNTAGGED_HEADER_BYTES } from './ddp.js';

/**
 * Bodies of RDMAP's own messages, which follow the DDP header.
 *
 *     read request     0 sink STag | 4 sink TO | 12 size | 16 source STag | 20 source TO                              28 bytes
 *     atomic request   0 rsvd(28) opcode(4) | 4 request id | 8 STag | 12 TO | 20 add or swap | 28 its mask
 *                      | 36 compare | 44 its mask                                                                   52 bytes
 *     atomic response  0 request id | 4 original value                                                              12 bytes
 *     immediate data   0 data (64 bits)                                                                              8 bytes
 *     terminate        0 layer(4) type(4) code(8) M D R rsvd(13) | with M: segment length (16 bits) | with D: DDP header
 *                      | with R: read request                                                                  4 to 52 bytes
 *
 * Source: RFC 5040 sections 4.4 and 4.8, RFC 7306 sections 5.2 and 6.
 */

export const READ_REQUEST_BYTES = 28;
export const ATOMIC_REQUEST_BYTES = 52;
export const ATOMIC_RESPONSE_BYTES = 12;
export const IMMEDIATE_BYTES = 8;
export const TERMINATE_CONTROL_BYTES = 4;
export const TERMINATE_BYTES_MAX = TERMINATE_CONTROL_BYTES + 2 + UNTAGGED_HEADER_BYTES + READ_REQUEST_BYTES;

/** Codes of atomic operations (RFC 7306 section 5.2.1). */
export const ATOMIC_FETCH_ADD = 0;
export const ATOMIC_SWAP = 1;
export const ATOMIC_CMP_SWAP = 2;

const M = 0x8000;
const D = 0x4000;
const R = 0x2000;

/** A request of queue 1, as received or as it will be quoted: a READ, or an atomic. */
export interface ReadRequest {
  sinkStag: number;
  sinkHigh: number;
  sinkLow: number;
  lenBytes: number;
  sourceStag: number;
  sourceHigh: number;
  sourceLow: number;
}

export function putReadRequest(out: Uint8Array, at: number, request: ReadRequest): void {
  put32(out, at, request.sinkStag);
  put32(out, at + 4, request.sinkHigh);
  put32(out, at + 8, request.sinkLow);
  put32(out, at + 12, request.lenBytes);
  put32(out, at + 16, request.sourceStag);
  put32(out, at + 20, request.sourceHigh);
  put32(out, at + 24, request.sourceLow);
}

export function getReadRequest(bytes: Uint8Array, at: number, request: ReadRequest): void {
  request.sinkStag = get32(bytes, at);
  request.sinkHigh = get32(bytes, at + 4);
  request.sinkLow = get32(bytes, at + 8);
  request.lenBytes = get32(bytes, at + 12);
  request.sourceStag = get32(bytes, at + 16);
  request.sourceHigh = get32(bytes, at + 20);
  request.sourceLow = get32(bytes, at + 24);
}

export interface AtomicOperands {
  addOrSwap: bigint;
  addOrSwapMask: bigint;
  compare: bigint;
  compareMask: bigint;
}

/** All but the request id and the address, which lie at 4 to 20. */
export function putAtomicOperands(out: Uint8Array, at: number, opcode: number, operands: AtomicOperands): void {
  put32(out, at, opcode);
  put64(out, at + 20, operands.addOrSwap);
  put64(out, at + 28, operands.addOrSwapMask);
  put64(out, at + 36, operands.compare);
  put64(out, at + 44, operands.compareMask);
}

/** Fills `operands`; returns the operation's code. */
export function getAtomicOperands(bytes: Uint8Array, at: number, operands: AtomicOperands): number {
  operands.addOrSwap = get64(bytes, at + 20);
  operands.addOrSwapMask = get64(bytes, at + 28);
  operands.compare = get64(bytes, at + 36);
  operands.compareMask = get64(bytes, at + 44);
  return bytes[at + 3] & 15;
}

/** What a Terminate message quotes: the header of the segment that was wrong, and the read request that could not be carried out. */
export class Quote {
  /** Length of the DDP segment; 0: nothing is quoted. */
  segmentBytes = 0;
  headerBytes = 0;
  readonly header = new Uint8Array(UNTAGGED_HEADER_BYTES);
  hasRequest = false;
  readonly request = new Uint8Array(READ_REQUEST_BYTES);

  clear(): void {
    this.segmentBytes = 0;
    this.hasRequest = false;
  }

  setHeader(bytes: Uint8Array, at: number, headerBytes: number, segmentBytes: number): void {
    for (let i = 0; i < headerBytes; i++) this.header[i] = bytes[at + i];
    this.headerBytes = headerBytes;
    this.segmentBytes = segmentBytes;
    this.hasRequest = false;
  }
}

/** Writes the body of a Terminate message; returns its length. */
export function putTerminate(out: Uint8Array, at: number, code: number, quote: Quote): number {
  const quotes = quote.segmentBytes > 0;
  put16(out, at, code);
  put16(out, at + 2, (quotes ? M | D : 0) | (quotes && quote.hasRequest ? R : 0));
  if (!quotes) return TERMINATE_CONTROL_BYTES;
  put16(out, at + 4, quote.segmentBytes);
  let end = at + 6;
  for (let i = 0; i < quote.headerBytes; i++) out[end++] = quote.header[i];
  if (quote.hasRequest) for (let i = 0; i < READ_REQUEST_BYTES; i++) out[end++] = quote.request[i];
  return end - at;
}

/** What a received Terminate message says. */
export interface Terminated {
  code: number;
  /** MSN of the request on queue 1 that it quotes, or 0. */
  requestMsn: number;
}

/** Believes nothing: a message that is cut short still says its code, or TERM_RDMAP_LOCAL_CATASTROPHIC. */
export function getTerminate(bytes: Uint8Array, lenBytes: number, queueOfRequests: number): Terminated {
  if (lenBytes < TERMINATE_CONTROL_BYTES) return { code: 0, requestMsn: 0 };
  const code = (bytes[0] << 8) | bytes[1];
  const quotesHeader = (bytes[2] & (M >>> 8)) !== 0 && (bytes[2] & (D >>> 8)) !== 0;
  const untagged = lenBytes >= 6 + UNTAGGED_HEADER_BYTES && (bytes[6] & 0x80) === 0;
  if (!quotesHeader || !untagged || get32(bytes, 12) !== queueOfRequests) return { code, requestMsn: 0 };
  return { code, requestMsn: get32(bytes, 16) };
}
