import {
  RDMAP_READ_RESPONSE,
  refusedCode,
  TERM_DDP_BASE_BOUNDS,
  TERM_DDP_INVALID_STAG,
  TERM_DDP_TO_WRAP,
  TERM_RDMAP_OPCODE,
} from './codes.js';
import type { StreamCore } from './core.js';
import type { DdpHeader } from './ddp.js';
import type { MessageReceiver } from './receiver.js';
import { joined, TWO_32, wraps } from './uint64.js';

/**
 * Tagged messages that arrive: WRITEs, and responses to our READs.
 *
 * Segments of one message lie side by side and do not mix with those of another tagged message, as siw has it too. A response goes
 * where the oldest of our READs wants it, is as long as that, and comes only if there is one.
 *
 * Source: RFC 5041 sections 5.1 and 7.1 (what is checked), RFC 5040 section 5.
 */
export class TaggedReceiver implements MessageReceiver {
  private readonly core: StreamCore;
  private opcode = 0;
  private isOpen = false;
  private last = false;
  private stag = 0;
  /** Where the next segment must begin. */
  private nextHigh = 0;
  private nextLow = 0;
  /** Of this segment: where its next byte goes. */
  private to = 0;
  /** Of this message, up to and with this segment. */
  private messageBytes = 0;

  constructor(core: StreamCore) {
    this.core = core;
  }

  begin(header: DdpHeader, lenBytes: number): number {
    const { core } = this;
    const { opcode } = header;
    if (this.isOpen && opcode !== this.opcode)
      return core.fail(TERM_RDMAP_OPCODE, `${opcode} within a message of ${this.opcode}`);
    const isResponse = opcode === RDMAP_READ_RESPONSE;
    if (!this.isOpen) {
      if (isResponse && (core.outstanding.nr === 0 || core.outstanding.head.isAtomic))
        return core.fail(TERM_RDMAP_OPCODE, 'a READ response that nobody asked for');
      this.openMessage(header, isResponse);
    }
    if (header.stag !== this.stag) return core.fail(TERM_DDP_INVALID_STAG, `STag ${header.stag}, not ${this.stag}`);
    if (header.toHigh !== this.nextHigh || header.toLow !== this.nextLow)
      return core.fail(TERM_DDP_BASE_BOUNDS, 'the segment does not begin where the message goes on');
    if (wraps(header.toHigh, header.toLow, lenBytes)) return core.fail(TERM_DDP_TO_WRAP, '');
    return this.measure(header, lenBytes, isResponse);
  }

  private openMessage(header: DdpHeader, isResponse: boolean): void {
    const read = this.core.outstanding.head;
    this.isOpen = true;
    this.opcode = header.opcode;
    this.messageBytes = 0;
    this.stag = isResponse ? read.stag : header.stag;
    this.nextHigh = isResponse ? Math.floor(read.to / TWO_32) : header.toHigh;
    this.nextLow = isResponse ? read.to % TWO_32 : header.toLow;
  }

  private measure(header: DdpHeader, lenBytes: number, isResponse: boolean): number {
    this.messageBytes += lenBytes;
    if (isResponse) {
      const wanted = this.core.outstanding.head.lenBytes;
      if (this.messageBytes > wanted || (header.last && this.messageBytes < wanted))
        return this.core.fail(TERM_DDP_BASE_BOUNDS, `${this.messageBytes} bytes came for a READ of ${wanted}`);
    }
    this.last = header.last;
    this.to = joined(header.toHigh, header.toLow);
    const low = header.toLow + lenBytes;
    this.nextHigh = low >= TWO_32 ? (header.toHigh + 1) % TWO_32 : header.toHigh;
    this.nextLow = low % TWO_32;
    if (lenBytes === 0) return 0;
    const result = this.core.owner.checkPlacement(this.opcode, this.stag, this.to, lenBytes);
    return result < 0 ? this.core.fail(refusedCode(result), '') : 0;
  }

  payload(bytes: Uint8Array, start: number, end: number): number {
    const placed = this.core.owner.place(this.opcode, this.stag, this.to, bytes, start, end);
    if (placed < 0) return this.core.fail(refusedCode(placed), '');
    this.to += placed;
    return placed;
  }

  finish(): number {
    if (!this.last) return 1;
    this.isOpen = false;
    if (this.opcode !== RDMAP_READ_RESPONSE) {
      this.core.lastWriteBytes = this.messageBytes;
      return 1;
    }
    const { id } = this.core.outstanding.head;
    this.core.outstanding.shift();
    if (id >= 0) this.core.owner.readDone(id);
    return 1;
  }
}
