import { get32 } from '../../base/index.js';
import {
  RDMAP_IMMEDIATE,
  RDMAP_IMMEDIATE_SE,
  RDMAP_SEND_INVALIDATE,
  RDMAP_SEND_SE,
  RDMAP_SEND_SE_INVALIDATE,
  refusedCode,
  TERM_DDP_INVALID_MO,
  TERM_DDP_MSN_RANGE,
  TERM_DDP_TOO_LONG,
  TERM_RDMAP_OPCODE,
  TERM_RDMAP_UNSPECIFIED,
} from './codes.js';
import type { StreamCore } from './core.js';
import type { DdpHeader } from './ddp.js';
import type { RxMessage } from './owner.js';
import { IMMEDIATE_BYTES } from './rdmap.js';
import type { MessageReceiver } from './receiver.js';

/**
 * Messages of queue 0: SENDs of all kinds, and immediate data. Each takes one posted receive of the owner, in the order of their MSNs.
 *
 * Source: RFC 5041 sections 5.2 and 7.2, RFC 5040 section 5.3, RFC 7306 section 6.
 */
export class SendReceiver implements MessageReceiver {
  private readonly core: StreamCore;
  private readonly message: ReceivedMessage = new ReceivedMessage();
  private readonly immediate = new Uint8Array(IMMEDIATE_BYTES);
  private nrImmediate = 0;
  private isOpen = false;
  private isImmediate = false;
  private last = false;
  private msn = 1;
  private capacity = 0;
  /** Of this message, before this segment, and with it. */
  private offset = 0;
  private endOffset = 0;

  constructor(core: StreamCore) {
    this.core = core;
  }

  begin(header: DdpHeader, lenBytes: number): number {
    const { core } = this;
    if (header.msn !== this.msn) return core.fail(TERM_DDP_MSN_RANGE, `MSN ${header.msn}, not ${this.msn}`);
    if (header.mo !== (this.isOpen ? this.endOffset : 0))
      return core.fail(TERM_DDP_INVALID_MO, `MO ${header.mo}, not ${this.isOpen ? this.endOffset : 0}`);
    const result = this.isOpen ? this.goOn(header) : this.openMessage(header, lenBytes);
    if (result < 0) return result;
    this.offset = this.endOffset;
    this.endOffset += lenBytes;
    this.last = header.last;
    this.message.invalidateStag = header.stag;
    if (!this.isImmediate && this.endOffset > this.capacity)
      return core.fail(TERM_DDP_TOO_LONG, `${this.endOffset} bytes for a receive of ${this.capacity}`);
    return 0;
  }

  private goOn(header: DdpHeader): number {
    const { opcode } = this.message;
    if (header.opcode === opcode) return 0;
    return this.core.fail(TERM_RDMAP_OPCODE, `${header.opcode} within a message of ${opcode}`);
  }

  private openMessage(header: DdpHeader, lenBytes: number): number {
    this.isImmediate = header.opcode === RDMAP_IMMEDIATE || header.opcode === RDMAP_IMMEDIATE_SE;
    if (this.isImmediate) {
      if (lenBytes > IMMEDIATE_BYTES) return this.core.fail(TERM_DDP_TOO_LONG, `${lenBytes} bytes of immediate data`);
      if (lenBytes < IMMEDIATE_BYTES || !header.last)
        return this.core.fail(TERM_RDMAP_UNSPECIFIED, 'immediate data is 8 bytes in one segment');
    }
    const capacity = this.core.owner.beginReceive(header.opcode);
    if (capacity < 0) return this.core.fail(refusedCode(capacity), '');
    this.capacity = capacity;
    this.message.setOpcode(header.opcode);
    this.isOpen = true;
    this.endOffset = 0;
    this.nrImmediate = 0;
    return 0;
  }

  payload(bytes: Uint8Array, start: number, end: number): number {
    if (this.isImmediate) {
      for (let at = start; at < end; at++) this.immediate[this.nrImmediate++] = bytes[at];
      return end - start;
    }
    const placed = this.core.owner.placeReceive(this.offset, bytes, start, end);
    if (placed < 0) return this.core.fail(refusedCode(placed), '');
    this.offset += placed;
    return placed;
  }

  finish(): number {
    if (!this.last) return 1;
    const { message, core } = this;
    message.lenBytes = this.isImmediate ? core.lastWriteBytes : this.endOffset;
    message.immediateHigh = this.isImmediate ? get32(this.immediate, 0) : 0;
    message.immediateLow = this.isImmediate ? get32(this.immediate, 4) : 0;
    core.lastWriteBytes = 0;
    this.isOpen = false;
    this.msn = (this.msn + 1) >>> 0;
    const result = core.owner.endReceive(message);
    return result < 0 ? core.fail(refusedCode(result), '') : 1;
  }
}

class ReceivedMessage implements RxMessage {
  opcode = 0;
  lenBytes = 0;
  solicited = false;
  invalidate = false;
  invalidateStag = 0;
  immediateHigh = 0;
  immediateLow = 0;

  setOpcode(opcode: number): void {
    this.opcode = opcode;
    this.invalidate = opcode === RDMAP_SEND_INVALIDATE || opcode === RDMAP_SEND_SE_INVALIDATE;
    this.solicited = opcode === RDMAP_SEND_SE || opcode === RDMAP_SEND_SE_INVALIDATE || opcode === RDMAP_IMMEDIATE_SE;
  }
}
