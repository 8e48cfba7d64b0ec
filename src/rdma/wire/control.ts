import { get32, get64 } from '../../base/index.js';
import {
  QN_ATOMIC_RESPONSE,
  QN_READ_REQUEST,
  RDMAP_ATOMIC_REQUEST,
  RDMAP_ATOMIC_RESPONSE,
  RDMAP_READ_REQUEST,
  RDMAP_TERMINATE,
  refusedCode,
  TERM_DDP_INVALID_MO,
  TERM_DDP_MSN_RANGE,
  TERM_DDP_NO_BUFFER,
  TERM_DDP_TOO_LONG,
  TERM_RDMAP_CATASTROPHIC_STREAM,
  TERM_RDMAP_OPCODE,
  TERM_RDMAP_TO_WRAP,
  TERM_RDMAP_UNSPECIFIED,
} from './codes.js';
import type { StreamCore } from './core.js';
import type { DdpHeader } from './ddp.js';
import {
  ATOMIC_CMP_SWAP,
  ATOMIC_REQUEST_BYTES,
  ATOMIC_RESPONSE_BYTES,
  getAtomicOperands,
  getReadRequest,
  getTerminate,
  READ_REQUEST_BYTES,
  TERMINATE_BYTES_MAX,
} from './rdmap.js';
import type { MessageReceiver } from './receiver.js';
import type { InboundRead } from './requests.js';
import { wraps } from './uint64.js';

/**
 * RDMAP's own messages, on queues 1 to 3: READ requests, atomics and their responses, Terminate. Each is one segment of a fixed size;
 * it is gathered here and then taken as a whole.
 *
 * Source: RFC 5040 sections 4.4, 4.8 and 5.2, RFC 7306 sections 4 and 5.
 */
export class ControlReceiver implements MessageReceiver {
  private readonly core: StreamCore;
  private readonly body = new Uint8Array(TERMINATE_BYTES_MAX);
  private nrBody = 0;
  private opcode = 0;
  /** Next MSN of queues 1 to 3. */
  private readonly msns = Uint32Array.of(1, 1, 1, 1);
  private qn = 0;

  constructor(core: StreamCore) {
    this.core = core;
  }

  begin(header: DdpHeader, lenBytes: number): number {
    const { core } = this;
    this.opcode = header.opcode;
    this.qn = header.qn;
    this.nrBody = 0;
    // The peer's end: whatever is wrong with the message, it is not answered.
    if (header.opcode === RDMAP_TERMINATE) return 0;
    const msn = this.msns[header.qn];
    if (header.msn !== msn) return core.fail(TERM_DDP_MSN_RANGE, `MSN ${header.msn}, not ${msn}`);
    if (header.mo !== 0) return core.fail(TERM_DDP_INVALID_MO, `MO ${header.mo}, not 0`);
    const size = bodyBytes(header.opcode);
    if (lenBytes > size) return core.fail(TERM_DDP_TOO_LONG, `${lenBytes} bytes, not ${size}`);
    if (lenBytes < size || !header.last)
      return core.fail(TERM_RDMAP_UNSPECIFIED, `${lenBytes} bytes, not ${size} in one segment`);
    return this.isExpected() ? 0 : -1;
  }

  /** Is there room for a request, or does somebody wait for a response? If not it has failed. */
  private isExpected(): boolean {
    const { inbound, outstanding } = this.core;
    if (this.qn === QN_READ_REQUEST && inbound.isFull) {
      this.core.fail(TERM_DDP_NO_BUFFER, `more than ${inbound.nr} READs and atomics in flight`);
      return false;
    }
    if (this.qn === QN_ATOMIC_RESPONSE && (outstanding.nr === 0 || !outstanding.head.isAtomic)) {
      this.core.fail(TERM_RDMAP_OPCODE, 'an atomic response that nobody asked for');
      return false;
    }
    return true;
  }

  payload(bytes: Uint8Array, start: number, end: number): number {
    for (let at = start; at < end && this.nrBody < TERMINATE_BYTES_MAX; at++) this.body[this.nrBody++] = bytes[at];
    return end - start;
  }

  finish(): number {
    switch (this.opcode) {
      case RDMAP_READ_REQUEST:
        return this.takeReadRequest();
      case RDMAP_ATOMIC_REQUEST:
        return this.takeAtomicRequest();
      case RDMAP_ATOMIC_RESPONSE:
        return this.takeAtomicResponse();
      default:
        return this.takeTerminate();
    }
  }

  private takeReadRequest(): number {
    const entry = this.pushInbound(false);
    getReadRequest(this.body, 0, entry);
    if (
      !wraps(entry.sourceHigh, entry.sourceLow, entry.lenBytes) &&
      !wraps(entry.sinkHigh, entry.sinkLow, entry.lenBytes)
    )
      return 1;
    this.core.quoteRequest(entry);
    return this.core.fail(TERM_RDMAP_TO_WRAP, '');
  }

  /** Regions keep their offset in the page, so the TO is aligned as the address is. The code is RFC 7306's, section 8.2. */
  private takeAtomicRequest(): number {
    const { body } = this;
    const entry = this.pushInbound(true);
    entry.requestId = get32(body, 4);
    entry.sourceStag = get32(body, 8);
    entry.sourceHigh = get32(body, 12);
    entry.sourceLow = get32(body, 16);
    entry.opcode = getAtomicOperands(body, 0, entry);
    if (entry.opcode > ATOMIC_CMP_SWAP) return this.core.fail(TERM_RDMAP_OPCODE, `atomic operation ${entry.opcode}`);
    if ((entry.sourceLow & 7) !== 0)
      return this.core.fail(TERM_RDMAP_CATASTROPHIC_STREAM, 'the TO of an atomic must be a multiple of 8');
    return 1;
  }

  private pushInbound(isAtomic: boolean): InboundRead {
    const entry = this.core.inbound.push();
    entry.isAtomic = isAtomic;
    entry.msn = this.msns[QN_READ_REQUEST]++;
    return entry;
  }

  private takeAtomicResponse(): number {
    const { outstanding, owner } = this.core;
    const { id, msn } = outstanding.head;
    if (get32(this.body, 0) !== msn) return this.core.fail(TERM_RDMAP_UNSPECIFIED, 'the response to another atomic');
    const result = owner.completeAtomic(id, get64(this.body, 4));
    if (result < 0) return this.core.fail(refusedCode(result), '');
    if (result === 0) return 0;
    this.msns[QN_ATOMIC_RESPONSE]++;
    outstanding.shift();
    return 1;
  }

  private takeTerminate(): number {
    const { code, requestMsn } = getTerminate(this.body, this.nrBody, QN_READ_REQUEST);
    this.core.endedByPeer(code, requestMsn === 0 ? -1 : this.core.outstanding.idOf(requestMsn));
    return -1;
  }
}

function bodyBytes(opcode: number): number {
  if (opcode === RDMAP_READ_REQUEST) return READ_REQUEST_BYTES;
  return opcode === RDMAP_ATOMIC_REQUEST ? ATOMIC_REQUEST_BYTES : ATOMIC_RESPONSE_BYTES;
}
