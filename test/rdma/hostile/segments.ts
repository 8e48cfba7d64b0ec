import { concat, fpdu, slowCrc32c } from '../wire/bytes.js';

/**
 * What a peer may put on the wire, byte by byte, made without the sources under test: DDP segments (RFC 5041 section 4), RDMAP's messages (RFC 5040 section 4, RFC 7306
 * section 5), MPA's frames (RFC 6581); and what comes back, taken apart.
 */

export const WRITE = 0;
export const READ_REQUEST = 1;
export const READ_RESPONSE = 2;
export const SEND = 3;
export const SEND_INVALIDATE = 4;
export const TERMINATE = 7;
export const IMMEDIATE = 8;
export const ATOMIC_REQUEST = 10;
export const ATOMIC_RESPONSE = 11;

export interface Tagged {
  opcode?: number;
  last?: boolean;
  ddpVersion?: number;
  rdmapVersion?: number;
  stag: number;
  to: bigint;
  payload?: Uint8Array;
}

export interface Untagged {
  opcode?: number;
  last?: boolean;
  ddpVersion?: number;
  rdmapVersion?: number;
  invalidate?: number;
  qn?: number;
  msn: number;
  mo?: number;
  payload?: Uint8Array;
}

const NOTHING = new Uint8Array(0);
export const TAGGED_BYTES = 14;
export const UNTAGGED_BYTES = 18;

function control(out: DataView, tagged: boolean, { last = true, ddpVersion = 1, rdmapVersion = 1, opcode = 0 }): void {
  out.setUint8(0, (tagged ? 0x80 : 0) | (last ? 0x40 : 0) | ddpVersion);
  out.setUint8(1, (rdmapVersion << 6) | opcode);
}

export function tagged(segment: Tagged): Uint8Array {
  const head = new DataView(new ArrayBuffer(TAGGED_BYTES));
  control(head, true, { opcode: WRITE, ...segment });
  head.setUint32(2, segment.stag);
  head.setBigUint64(6, segment.to);
  return concat(new Uint8Array(head.buffer), segment.payload ?? NOTHING);
}

export function untagged(segment: Untagged): Uint8Array {
  const head = new DataView(new ArrayBuffer(UNTAGGED_BYTES));
  control(head, false, { opcode: SEND, ...segment });
  head.setUint32(2, segment.invalidate ?? 0);
  head.setUint32(6, segment.qn ?? 0);
  head.setUint32(10, segment.msn);
  head.setUint32(14, segment.mo ?? 0);
  return concat(new Uint8Array(head.buffer), segment.payload ?? NOTHING);
}

export interface Source {
  stag: number;
  to: bigint;
}

/** The body of a READ request: the peer's sink is 1:0. */
export function readBody({ stag, to }: Source, lenBytes: number, sinkTo = 0n): Uint8Array {
  const body = new DataView(new ArrayBuffer(28));
  body.setUint32(0, 1);
  body.setBigUint64(4, sinkTo);
  body.setUint32(12, lenBytes);
  body.setUint32(16, stag);
  body.setBigUint64(20, to);
  return new Uint8Array(body.buffer);
}

export function readRequest(msn: number, source: Source, lenBytes: number, sinkTo = 0n): Uint8Array {
  return untagged({ opcode: READ_REQUEST, qn: 1, msn, payload: readBody(source, lenBytes, sinkTo) });
}

/** FetchAdd (0) of `add`, or what `operation` says. */
export function atomicRequest(msn: number, { stag, to }: Source, add: bigint, operation = 0): Uint8Array {
  const body = new DataView(new ArrayBuffer(52));
  body.setUint32(0, operation);
  body.setUint32(4, msn);
  body.setUint32(8, stag);
  body.setBigUint64(12, to);
  body.setBigUint64(20, add);
  return untagged({ opcode: ATOMIC_REQUEST, qn: 1, msn, payload: new Uint8Array(body.buffer) });
}

/** An enhanced request (revision 2, CRC) of a peer that takes no READs and makes up to `ord`. */
export function mpaRequestFrame(ord: number, privateData = NOTHING): Uint8Array {
  const frame = new DataView(new ArrayBuffer(24));
  Buffer.from('MPA ID Req Frame').forEach((byte, i) => void frame.setUint8(i, byte));
  frame.setUint8(16, 0x50);
  frame.setUint8(17, 2);
  frame.setUint16(18, 4 + privateData.length);
  frame.setUint16(22, ord);
  return concat(new Uint8Array(frame.buffer), privateData);
}

/** Segments of the FPDUs that `bytes` begins with, as long as they are whole and their CRCs are right. */
export function segmentsOf(bytes: Uint8Array): Uint8Array[] {
  const segments: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 2 <= bytes.length; ) {
    const lenBytes = view.getUint16(at);
    const crcAt = at + ((2 + lenBytes + 3) & ~3);
    if (crcAt + 4 > bytes.length || slowCrc32c(bytes.subarray(at, crcAt)) !== view.getUint32(crcAt, true)) break;
    segments.push(bytes.subarray(at + 2, at + 2 + lenBytes));
    at = crcAt + 4;
  }
  return segments;
}

export const opcodeOf = (segment: Uint8Array): number => segment[1]! & 15;

export interface Terminate {
  readonly code: number;
  /** The header that it quotes, without the request; empty: none. */
  readonly header: Uint8Array;
  readonly request: Uint8Array;
}

export function terminateOf(segment: Uint8Array): Terminate {
  const body = segment.subarray(UNTAGGED_BYTES);
  const [quotesLength, quotesHeader, quotesRequest] = [0x80, 0x40, 0x20].map((bit) => (body[2]! & bit) !== 0);
  const code = (body[0]! << 8) | body[1]!;
  if (!quotesLength || !quotesHeader) return { code, header: NOTHING, request: NOTHING };
  const end = 6 + ((body[6]! & 0x80) !== 0 ? TAGGED_BYTES : UNTAGGED_BYTES);
  return { code, header: body.slice(6, end), request: quotesRequest ? body.slice(end, end + 28) : NOTHING };
}

export { concat, fpdu };
