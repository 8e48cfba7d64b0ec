import { RDMAP_ATOMIC_REQUEST, RDMAP_READ_REQUEST } from './codes.js';
import { putUntagged, UNTAGGED_HEADER_BYTES } from './ddp.js';
import type { StreamOwner } from './owner.js';
import { ATOMIC_REQUEST_BYTES, putReadRequest, Quote, READ_REQUEST_BYTES } from './rdmap.js';
import { type InboundRead, InboundReads, OutstandingReads } from './requests.js';
import { terminateText } from './terminatetext.js';

/** What the receiving and the sending half of a stream share: the reads in flight both ways, and its end. */

/** Both ways in operation. */
const OPEN = 0;
/** We have ended it: the Terminate message is still to be sent. */
const TERMINATING = 1;
const DONE = 2;

export class StreamCore {
  readonly owner: StreamOwner;
  /** Ours, by the order in which they were sent. */
  readonly outstanding: OutstandingReads;
  /** The peer's, by the order in which they came. */
  readonly inbound: InboundReads;
  /** Whether this side may send: the responder may not before it has heard of the initiator. */
  maySend: boolean;
  /** Of the WRITE message that came last, if no message of queue 0 has come since. */
  lastWriteBytes = 0;
  /** Of the Terminate message that is sent, or will be. */
  code = 0;
  readonly quote = new Quote();
  private phase = OPEN;

  constructor(owner: StreamOwner, ird: number, ord: number, maySend: boolean) {
    this.owner = owner;
    this.inbound = new InboundReads(ird);
    this.outstanding = new OutstandingReads(ord);
    this.maySend = maySend;
  }

  get isOpen(): boolean {
    return this.phase === OPEN;
  }

  get isTerminating(): boolean {
    return this.phase === TERMINATING;
  }

  /** The Terminate message will quote a READ that cannot be carried out, and the header that it came with. */
  quoteRequest(request: InboundRead): void {
    const { quote } = this;
    putUntagged(quote.header, 0, request.isAtomic ? RDMAP_ATOMIC_REQUEST : RDMAP_READ_REQUEST, true, 0, request.msn, 0);
    putReadRequest(quote.request, 0, request);
    quote.headerBytes = UNTAGGED_HEADER_BYTES;
    quote.segmentBytes = UNTAGGED_HEADER_BYTES + (request.isAtomic ? ATOMIC_REQUEST_BYTES : READ_REQUEST_BYTES);
    quote.hasRequest = !request.isAtomic;
  }

  /** This side ends the stream; what `quote` holds goes with it. Returns -1, for those who give it on as a result. */
  fail(code: number, why: string): number {
    if (this.phase !== OPEN) return -1;
    this.phase = TERMINATING;
    this.code = code;
    const reason = why === '' ? terminateText(code) : `${terminateText(code)}: ${why}`;
    this.owner.ended({ code, byPeer: false, failedId: -1, reason });
    return -1;
  }

  /** The peer's Terminate message has come: nothing is sent any more. */
  endedByPeer(code: number, failedId: number): void {
    if (this.phase !== OPEN) return;
    this.phase = DONE;
    this.owner.ended({ code, byPeer: true, failedId, reason: terminateText(code) });
  }

  terminateSent(): void {
    this.phase = DONE;
  }
}
