import { get16, put16 } from '../../base/index.js';
import type { Crc32c } from './crc32c.js';
import { headerBytesOf } from './ddp.js';

/**
 * FPDUs: how MPA cuts DDP segments out of TCP's stream of bytes. No markers.
 *
 *     0 length of the ULPDU (16 bits) | 2 ULPDU: a DDP segment | pad to 4 bytes | CRC32C of all before it, low byte first
 *
 * With CRC, nothing of an FPDU is looked at before all of it is there and its CRC is known to be right. Without, payload is handed on piece by piece as it comes, once the header
 * is there. What is not all there is left to the caller, who gives it again with what comes behind it. In both cases the sink sees: `begin` with the whole header, `payload` for each
 * piece, `finish`.
 *
 * Source: RFC 5044 section 4.
 */

export const LENGTH_BYTES = 2;
const CRC_BYTES = 4;
const ULPDU_BYTES_MAX = 65535;
/** The longest FPDU. */
export const FPDU_BYTES_MAX = fpduBytes(ULPDU_BYTES_MAX);

/** Bytes of an FPDU with a ULPDU of `ulpduBytes`. */
export function fpduBytes(ulpduBytes: number): number {
  return ((LENGTH_BYTES + ulpduBytes + 3) & ~3) + CRC_BYTES;
}

/** Makes an FPDU of the ULPDU that lies at out[at + 2]; returns the index after it. */
export function sealFpdu(out: Uint8Array, at: number, ulpduBytes: number, crc: Crc32c | undefined): number {
  put16(out, at, ulpduBytes);
  const crcAt = at + fpduBytes(ulpduBytes) - CRC_BYTES;
  for (let i = at + LENGTH_BYTES + ulpduBytes; i < crcAt; i++) out[i] = 0;
  const value = crc === undefined ? 0 : crc.update(0, out, at, crcAt);
  for (let i = 0; i < CRC_BYTES; i++) out[crcAt + i] = value >>> (8 * i);
  return crcAt + CRC_BYTES;
}

/** Who takes the segments. Negative results end the receiver: it takes everything from then on, and ignores it. */
export interface SegmentSink {
  /** [at, at + segmentBytes) is a segment of which at least the header is there; the length of its header. */
  begin(bytes: Uint8Array, at: number, segmentBytes: number): number;
  /** Payload: the number of bytes taken, fewer where it must wait. */
  payload(bytes: Uint8Array, start: number, end: number): number;
  /** The segment is complete: 1, or 0 where it must wait, to be called again. */
  finish(): number;
  badCrc(): void;
  /** The segment is too short for its header. */
  badLength(): void;
}

/** Waiting for an FPDU: with CRC for all of it, without for its header. */
const HEAD = 0;
const PAYLOAD = 1;
const FINISH = 2;
/** Pad and CRC, which are skipped: they were looked at before, or do not matter. */
const TRAILER = 3;
const ENDED = 4;

/** Every FPDU has as many, and they tell which header it has. */
const SHORTEST_HEAD_BYTES = LENGTH_BYTES + 1;

export class FpduReceiver {
  /** The sink said that it must wait. */
  stalled = false;
  private readonly sink: SegmentSink;
  private readonly crc: Crc32c | undefined;
  private state = HEAD;
  /** What is left is less than a head. */
  private cut = false;
  private payloadLeft = 0;
  private trailerLeft = 0;

  constructor(sink: SegmentSink, crc: Crc32c | undefined) {
    this.sink = sink;
    this.crc = crc;
  }

  /** What was taken ends with an FPDU. */
  get atBoundary(): boolean {
    return this.state === HEAD;
  }

  /**
   * Takes bytes; returns up to where. What is left is to be given again, at the beginning: where `stalled`, when there may be memory, even if nothing is left; otherwise with more
   * behind it.
   */
  receive(bytes: Uint8Array, start: number, end: number): number {
    this.stalled = false;
    this.cut = false;
    let at = start;
    while (!this.stalled && !this.cut && this.state !== ENDED && (at < end || this.state === FINISH))
      at = this.step(bytes, at, end);
    return this.state === ENDED ? end : at;
  }

  private step(bytes: Uint8Array, at: number, end: number): number {
    switch (this.state) {
      case HEAD:
        return this.takeHead(bytes, at, end);
      case PAYLOAD:
        return this.takePayload(bytes, at, end);
      case FINISH:
        this.finish();
        return at;
      default:
        return this.takeTrailer(at, end);
    }
  }

  private takeHead(bytes: Uint8Array, at: number, end: number): number {
    this.cut = end - at < this.headBytes(bytes, at, end - at);
    return this.cut ? at : this.open(bytes, at);
  }

  /** How many bytes there must be, of which `have` are there, before the FPDU can be looked at. */
  private headBytes(bytes: Uint8Array, at: number, have: number): number {
    if (have < SHORTEST_HEAD_BYTES) return SHORTEST_HEAD_BYTES;
    const ulpduBytes = get16(bytes, at);
    if (this.crc !== undefined) return fpduBytes(ulpduBytes);
    return LENGTH_BYTES + Math.max(1, Math.min(ulpduBytes, headerBytesOf(bytes[at + LENGTH_BYTES])));
  }

  /** The head is there: its segment begins. Returns where the payload is. */
  private open(bytes: Uint8Array, at: number): number {
    const ulpduBytes = get16(bytes, at);
    const totalBytes = fpduBytes(ulpduBytes);
    if (!this.isIntact(bytes, at, totalBytes)) return this.fail('badCrc', at);
    if (ulpduBytes === 0 || ulpduBytes < headerBytesOf(bytes[at + LENGTH_BYTES])) return this.fail('badLength', at);
    const headerBytes = this.sink.begin(bytes, at + LENGTH_BYTES, ulpduBytes);
    if (headerBytes < 0) return this.ended(at);
    this.payloadLeft = ulpduBytes - headerBytes;
    this.trailerLeft = totalBytes - LENGTH_BYTES - ulpduBytes;
    this.state = this.payloadLeft > 0 ? PAYLOAD : FINISH;
    return at + LENGTH_BYTES + headerBytes;
  }

  private isIntact(bytes: Uint8Array, at: number, totalBytes: number): boolean {
    if (this.crc === undefined) return true;
    const crcAt = at + totalBytes - CRC_BYTES;
    const value = this.crc.update(0, bytes, at, crcAt);
    const said = bytes[crcAt] | (bytes[crcAt + 1] << 8) | (bytes[crcAt + 2] << 16) | (bytes[crcAt + 3] << 24);
    return value === said >>> 0;
  }

  private takePayload(bytes: Uint8Array, at: number, end: number): number {
    const offered = Math.min(this.payloadLeft, end - at);
    const taken = this.sink.payload(bytes, at, at + offered);
    if (taken < 0) return this.ended(at);
    this.payloadLeft -= taken;
    if (taken < offered) this.stalled = true;
    else if (this.payloadLeft === 0) this.state = FINISH;
    return at + taken;
  }

  private finish(): void {
    const result = this.sink.finish();
    if (result < 0) this.state = ENDED;
    else if (result === 0) this.stalled = true;
    else this.state = TRAILER;
  }

  private takeTrailer(at: number, end: number): number {
    const skipped = Math.min(this.trailerLeft, end - at);
    this.trailerLeft -= skipped;
    if (this.trailerLeft === 0) this.state = HEAD;
    return at + skipped;
  }

  private fail(what: 'badCrc' | 'badLength', at: number): number {
    this.sink[what]();
    return this.ended(at);
  }

  private ended(at: number): number {
    this.state = ENDED;
    return at;
  }
}
