import { put32, put64 } from '../../base/index.js';
import {
  RDMAP_ATOMIC_REQUEST,
  RDMAP_ATOMIC_RESPONSE,
  RDMAP_IMMEDIATE,
  RDMAP_IMMEDIATE_SE,
  RDMAP_READ_REQUEST,
  RDMAP_READ_RESPONSE,
  RDMAP_TERMINATE,
  RDMAP_WRITE,
  refusedCode,
} from './codes.js';
import type { StreamCore } from './core.js';
import type { Crc32c } from './crc32c.js';
import { putTagged, putUntagged, QUEUE_OF, TAGGED_HEADER_BYTES, UNTAGGED_HEADER_BYTES } from './ddp.js';
import { fpduBytes, LENGTH_BYTES, sealFpdu } from './fpdu.js';
import type { Rtr } from './mpasetup.js';
import type { AtomicRequest } from './owner.js';
import {
  ATOMIC_REQUEST_BYTES,
  ATOMIC_RESPONSE_BYTES,
  IMMEDIATE_BYTES,
  putAtomicOperands,
  putReadRequest,
  putTerminate,
  READ_REQUEST_BYTES,
  TERMINATE_BYTES_MAX,
} from './rdmap.js';
import { type InboundRead, type OutstandingRead, RTR_ID } from './requests.js';
import { OutgoingMessage } from './txmessage.js';
import { TX_CREDIT, TX_DONE, TX_FULL, TX_HELD, TX_IDLE, TX_MEMORY } from './txstate.js';
import { joined, TWO_32 } from './uint64.js';

/**
 * The sending half of a stream: cuts messages into segments and these into FPDUs, whenever it is asked for bytes.
 *
 * One message at a time, as DDP wants it (RFC 5041 section 5.3): the owner's, in the order in which it gives them out, and responses to
 * the peer's READs and atomics, in theirs; the two take turns. A segment is as long as what could be fetched for it, so that memory
 * that comes page by page is sent page by page, and nothing is fetched twice.
 */
export class Transmitter {
  state = TX_IDLE;
  private readonly core: StreamCore;
  private readonly crc: Crc32c | undefined;
  private readonly segmentBytes: number;
  private readonly message = new OutgoingMessage();
  /** `message` is filled in, and not all of it is sent. */
  private hasMessage = false;
  private rtr: Rtr;
  /** What is being sent, of which a part is out. */
  private begun = NOTHING;
  private messageWasLast = false;
  /** Next MSN of each queue. */
  private readonly msns = Uint32Array.of(1, 1, 1, 1);
  /** Payload of the READ response that has been sent. */
  private responseOffset = 0;
  private readonly atomic: AtomicCall = new AtomicCall();

  constructor(core: StreamCore, crc: Crc32c | undefined, segmentBytes: number, rtr: Rtr) {
    this.core = core;
    this.crc = crc;
    this.segmentBytes = segmentBytes;
    this.rtr = rtr;
  }

  transmit(out: Uint8Array, at: number, end: number): number {
    const { core } = this;
    const first = at;
    for (;;) {
      if (!core.isOpen) return this.sendEnd(out, at, end);
      const what = this.choose();
      if (what === NOTHING) return at;
      const isFirst = at === first;
      const next =
        what === MESSAGE ? this.sendMessage(out, at, end, isFirst) : this.sendResponse(out, at, end, isFirst);
      if (next === at && core.isOpen) return at;
      at = next;
    }
  }

  /** What is sent next; `state` says why nothing. */
  private choose(): number {
    if (this.begun !== NOTHING) return this.begun;
    const { core } = this;
    this.state = TX_HELD;
    if (!core.maySend) return NOTHING;
    if (core.inbound.nr > 0 && this.messageWasLast) return RESPONSE;
    this.hasMessage ||= this.nextMessage();
    const needsCredit = this.message.opcode === RDMAP_READ_REQUEST || this.message.opcode === RDMAP_ATOMIC_REQUEST;
    if (this.hasMessage && !(needsCredit && core.outstanding.isFull)) return MESSAGE;
    this.state = this.hasMessage ? TX_CREDIT : TX_IDLE;
    return core.inbound.nr > 0 ? RESPONSE : NOTHING;
  }

  private nextMessage(): boolean {
    const { message, rtr } = this;
    message.offset = 0;
    if (rtr === 'none') return this.core.owner.nextMessage(message);
    this.rtr = 'none';
    message.id = RTR_ID;
    message.opcode = rtr === 'write' ? RDMAP_WRITE : RDMAP_READ_REQUEST;
    return true;
  }

  private sendMessage(out: Uint8Array, at: number, end: number, isFirst: boolean): number {
    const { opcode } = this.message;
    this.messageWasLast = true;
    if (opcode === RDMAP_READ_REQUEST || opcode === RDMAP_ATOMIC_REQUEST) return this.sendRequest(out, at, end);
    if (opcode === RDMAP_IMMEDIATE || opcode === RDMAP_IMMEDIATE_SE) return this.sendImmediate(out, at, end);
    return this.sendPayload(out, at, end, isFirst);
  }

  /** A segment of a WRITE or SEND. */
  private sendPayload(out: Uint8Array, at: number, end: number, isFirst: boolean): number {
    const { message } = this;
    const isWrite = message.opcode === RDMAP_WRITE;
    const headerBytes = isWrite ? TAGGED_HEADER_BYTES : UNTAGGED_HEADER_BYTES;
    const wanted = this.room(end - at, headerBytes, message.lenBytes - message.offset, isFirst);
    if (wanted < 0) return at;
    const header = at + LENGTH_BYTES;
    const got = wanted === 0 ? 0 : this.core.owner.fetch(message, message.offset, out, header + headerBytes, wanted);
    if (!this.isFetched(got, wanted)) return at;
    const last = message.offset + got === message.lenBytes;
    if (isWrite) this.putRemote(out, header, last);
    else putUntagged(out, header, message.opcode, last, message.invalidateStag, this.msns[0], message.offset);
    message.offset += got;
    this.begun = last ? NOTHING : MESSAGE;
    const after = sealFpdu(out, at, headerBytes + got, this.crc);
    if (last) this.messageSent();
    return after;
  }

  private putRemote(out: Uint8Array, at: number, last: boolean): void {
    const { remoteStag, remoteHigh, remoteLow, offset } = this.message;
    putTaggedAt(out, at, RDMAP_WRITE, last, remoteStag, remoteHigh, remoteLow, offset);
  }

  /** A READ or atomic: in flight from now on. */
  private sendRequest(out: Uint8Array, at: number, end: number): number {
    const { message, core } = this;
    const isAtomic = message.opcode === RDMAP_ATOMIC_REQUEST;
    const bodyBytes = isAtomic ? ATOMIC_REQUEST_BYTES : READ_REQUEST_BYTES;
    if (!this.fits(end - at, bodyBytes)) return at;
    const read = core.outstanding.push();
    const body = at + LENGTH_BYTES + UNTAGGED_HEADER_BYTES;
    read.id = message.id;
    read.isAtomic = isAtomic;
    read.msn = this.msns[1];
    read.stag = message.localStag;
    read.to = message.localTo;
    read.lenBytes = message.lenBytes;
    if (isAtomic) this.putAtomic(out, body, read.msn);
    else this.putRead(out, body, read);
    return this.sealMessage(out, at, bodyBytes);
  }

  private putRead(out: Uint8Array, at: number, { stag, to, lenBytes }: OutstandingRead): void {
    const { message } = this;
    const sinkHigh = Math.floor(to / TWO_32);
    putReadRequest(out, at, {
      sinkStag: stag,
      sinkHigh,
      sinkLow: to - joined(sinkHigh, 0),
      lenBytes,
      sourceStag: message.remoteStag,
      sourceHigh: message.remoteHigh,
      sourceLow: message.remoteLow,
    });
  }

  private putAtomic(out: Uint8Array, at: number, requestId: number): void {
    const { message } = this;
    putAtomicOperands(out, at, message.atomicOpcode, message);
    put32(out, at + 4, requestId);
    put32(out, at + 8, message.remoteStag);
    put32(out, at + 12, message.remoteHigh);
    put32(out, at + 16, message.remoteLow);
  }

  private sendImmediate(out: Uint8Array, at: number, end: number): number {
    if (!this.fits(end - at, IMMEDIATE_BYTES)) return at;
    const body = at + LENGTH_BYTES + UNTAGGED_HEADER_BYTES;
    put32(out, body, this.message.immediateHigh);
    put32(out, body + 4, this.message.immediateLow);
    return this.sealMessage(out, at, IMMEDIATE_BYTES);
  }

  /** The body of an untagged message of one segment is there: header and frame around it. */
  private sealMessage(out: Uint8Array, at: number, bodyBytes: number): number {
    const { opcode } = this.message;
    putUntagged(out, at + LENGTH_BYTES, opcode, true, 0, this.msns[QUEUE_OF[opcode]], 0);
    const after = sealFpdu(out, at, UNTAGGED_HEADER_BYTES + bodyBytes, this.crc);
    this.messageSent();
    return after;
  }

  private messageSent(): void {
    const { message } = this;
    const queue = QUEUE_OF[message.opcode];
    if (queue >= 0) this.msns[queue]++;
    this.hasMessage = false;
    if (message.id !== RTR_ID) this.core.owner.sent(message);
  }

  private sendResponse(out: Uint8Array, at: number, end: number, isFirst: boolean): number {
    const request = this.core.inbound.head;
    this.messageWasLast = false;
    return request.isAtomic
      ? this.sendAtomicResponse(request, out, at, end)
      : this.sendReadResponse(request, out, at, end, isFirst);
  }

  private sendReadResponse(request: InboundRead, out: Uint8Array, at: number, end: number, isFirst: boolean): number {
    const { core, responseOffset } = this;
    const left = request.lenBytes - responseOffset;
    const to = joined(request.sourceHigh, request.sourceLow);
    if (left > 0 && this.begun === NOTHING) {
      const result = core.owner.checkSource(request.sourceStag, to, request.lenBytes);
      if (result < 0) return this.failRequest(request, result, at);
    }
    const wanted = this.room(end - at, TAGGED_HEADER_BYTES, left, isFirst);
    if (wanted < 0) return at;
    const payload = at + LENGTH_BYTES + TAGGED_HEADER_BYTES;
    const got =
      wanted === 0 ? 0 : core.owner.fetchSource(request.sourceStag, to + responseOffset, out, payload, wanted);
    if (got < 0) return this.failRequest(request, got, at);
    if (!this.isFetched(got, wanted)) return at;
    const last = got === left;
    const { sinkStag, sinkHigh, sinkLow } = request;
    putTaggedAt(out, at + LENGTH_BYTES, RDMAP_READ_RESPONSE, last, sinkStag, sinkHigh, sinkLow, responseOffset);
    this.begun = last ? NOTHING : RESPONSE;
    this.responseOffset = last ? 0 : responseOffset + got;
    if (last) core.inbound.shift();
    return sealFpdu(out, at, TAGGED_HEADER_BYTES + got, this.crc);
  }

  /** Carries the operation out when there is room for what it says, so that it is done once. */
  private sendAtomicResponse(request: InboundRead, out: Uint8Array, at: number, end: number): number {
    if (!this.fits(end - at, ATOMIC_RESPONSE_BYTES)) return at;
    const { core, atomic } = this;
    atomic.set(request);
    const result = core.owner.atomic(atomic);
    if (result < 0) return this.failRequest(request, result, at);
    if (!this.isFetched(result, 1)) return at;
    const header = at + LENGTH_BYTES;
    putUntagged(out, header, RDMAP_ATOMIC_RESPONSE, true, 0, this.msns[3]++, 0);
    put32(out, header + UNTAGGED_HEADER_BYTES, request.requestId);
    put64(out, header + UNTAGGED_HEADER_BYTES + 4, atomic.original);
    core.inbound.shift();
    return sealFpdu(out, at, UNTAGGED_HEADER_BYTES + ATOMIC_RESPONSE_BYTES, this.crc);
  }

  private failRequest(request: InboundRead, result: number, at: number): number {
    this.core.quoteRequest(request);
    this.core.fail(refusedCode(result), '');
    return at;
  }

  /** Payload for the next segment, or -1 with TX_FULL. One that does not fit is cut where nothing is in `out` yet. */
  private room(roomBytes: number, headerBytes: number, left: number, isFirst: boolean): number {
    const wanted = Math.min(left, this.segmentBytes);
    if (fpduBytes(headerBytes + wanted) <= roomBytes) return wanted;
    const cut = (roomBytes & ~3) - fpduBytes(headerBytes) - 4;
    if (isFirst && cut >= SHORTEST_CUT_BYTES) return cut;
    this.state = TX_FULL;
    return -1;
  }

  private fits(roomBytes: number, bodyBytes: number): boolean {
    if (fpduBytes(UNTAGGED_HEADER_BYTES + bodyBytes) <= roomBytes) return true;
    this.state = TX_FULL;
    return false;
  }

  /** False: there is nothing to send, since it failed or memory is not there yet. */
  private isFetched(got: number, wanted: number): boolean {
    if (got > 0 || wanted === 0) return got >= 0;
    if (got === 0) this.state = TX_MEMORY;
    else {
      this.core.quote.clear();
      this.core.fail(refusedCode(got), '');
    }
    return false;
  }

  /** The Terminate message, if it is ours to send. */
  private sendEnd(out: Uint8Array, at: number, end: number): number {
    const { core } = this;
    if (core.isTerminating) {
      if (!this.fits(end - at, TERMINATE_BYTES_MAX)) return at;
      const header = at + LENGTH_BYTES;
      putUntagged(out, header, RDMAP_TERMINATE, true, 0, 1, 0);
      const bodyBytes = putTerminate(out, header + UNTAGGED_HEADER_BYTES, core.code, core.quote);
      at = sealFpdu(out, at, UNTAGGED_HEADER_BYTES + bodyBytes, this.crc);
      core.terminateSent();
    }
    this.state = TX_DONE;
    return at;
  }
}

const NOTHING = 0;
const MESSAGE = 1;
const RESPONSE = 2;

/** A shorter segment than this is not worth its header: rather a new buffer. */
const SHORTEST_CUT_BYTES = 64;

/** A tagged header for the segment that begins `offset` bytes into a message. */
function putTaggedAt(
  out: Uint8Array,
  at: number,
  opcode: number,
  last: boolean,
  stag: number,
  high: number,
  low: number,
  offset: number,
): void {
  const sum = low + offset;
  putTagged(out, at, opcode, last, stag, sum >= TWO_32 ? high + 1 : high, sum % TWO_32);
}

class AtomicCall implements AtomicRequest {
  opcode = 0;
  stag = 0;
  to = 0;
  addOrSwap = 0n;
  addOrSwapMask = 0n;
  compare = 0n;
  compareMask = 0n;
  original = 0n;

  set(request: InboundRead): void {
    this.opcode = request.opcode;
    this.stag = request.sourceStag;
    this.to = joined(request.sourceHigh, request.sourceLow);
    this.addOrSwap = request.addOrSwap;
    this.addOrSwapMask = request.addOrSwapMask;
    this.compare = request.compare;
    this.compareMask = request.compareMask;
  }
}
