import { TERM_MPA_INSUFFICIENT_IRD, TERM_MPA_INVALID_FRAME, TERM_MPA_NO_MATCHING_RTR } from './codes.js';
import { encodeMpaFrame, MPA_DEPTH_NONE, type MpaEnhanced, type MpaFrame } from './mpaframe.js';

/**
 * The MPA set-up: one request frame of the initiator, one reply of the responder, then FPDUs.
 *
 * Initiator: send `mpaRequest(offer)`; feed what TCP brings to a `MpaFrameReader('reply')`; `mpaFinish(offer, reply)`. Where that fails
 * with a code, a stream with `terminate(code)` tells the peer.
 * Responder: feed a `MpaFrameReader('request')`; look at its private data; `mpaAccept(request, offer)`, or `mpaReject(request, ...)`.
 * What follows the frame in a chunk belongs to the stream.
 *
 * Markers are neither sent nor asked for; a peer that needs them is refused, as siw does. CRC is used if either side wants it. Revision
 * 2 with the enhanced set-up is spoken unless the peer does not: then revision 1, with both sides' own limits.
 *
 * Source: RFC 5044 section 7.1, RFC 6581 sections 4 to 9.
 */

/** How the initiator shows the responder that it may send: with a message of no bytes (RFC 6581's ready to receive). */
export type Rtr = 'none' | 'write' | 'read';

/** What one side brings. */
export interface MpaOffer {
  /** READs and atomics of the peer that this side takes, and that it would make: 0 to 16382. */
  readonly ird: number;
  readonly ord: number;
  /** Whether it wants CRC. */
  readonly crc: boolean;
  /** At most MPA_PRIVATE_DATA_MAX bytes; siw takes no more than 252. */
  readonly privateData?: Uint8Array;
  /**
   * Of the initiator: ask for the peer-to-peer model, in which either side may send first, begun with one of these. Default write and
   * read; empty: the initiator's first message must come before the responder sends.
   */
  readonly rtr?: readonly ('write' | 'read')[];
  /** Of the initiator. Default 2. */
  readonly revision?: 1 | 2;
}

export interface MpaAgreed {
  readonly crc: boolean;
  readonly ird: number;
  readonly ord: number;
  readonly rtr: Rtr;
}

const NO_BYTES = new Uint8Array(0);
const RTR_DEFAULT = ['write', 'read'] as const;

export function mpaRequest(offer: MpaOffer): Uint8Array {
  const { revision = 2, rtr = RTR_DEFAULT } = offer;
  const enhanced =
    revision === 2 ? enhancedOf(offer.ird, offer.ord, rtr.includes('write'), rtr.includes('read')) : undefined;
  return encodeMpaFrame(frameOf('request', revision, offer.crc, enhanced, offer.privateData));
}

function enhancedOf(ird: number, ord: number, rtrWrite: boolean, rtrRead: boolean): MpaEnhanced {
  return { ird, ord, peerToPeer: rtrWrite || rtrRead, rtrSend: false, rtrWrite, rtrRead };
}

function frameOf(
  kind: MpaFrame['kind'],
  revision: number,
  crc: boolean,
  enhanced: MpaEnhanced | undefined,
  privateData: Uint8Array = NO_BYTES,
): MpaFrame {
  return { kind, revision, markers: false, crc, reject: false, enhanced, privateData };
}

/** The responder's answer; without `agreed` it is a refusal, after which the connection is closed. */
export interface MpaAnswer {
  readonly reply: Uint8Array;
  readonly agreed: MpaAgreed | undefined;
}

export function mpaAccept(request: MpaFrame, offer: MpaOffer): MpaAnswer {
  if (request.markers) return { reply: mpaReject(request), agreed: undefined };
  const crc = request.crc || offer.crc;
  const theirs = request.enhanced;
  if (theirs === undefined) {
    const reply = encodeMpaFrame(frameOf('reply', request.revision, crc, undefined, offer.privateData));
    return { reply, agreed: { crc, ird: offer.ird, ord: offer.ord, rtr: 'none' } };
  }
  const ird = theirs.ord === MPA_DEPTH_NONE ? offer.ird : Math.min(offer.ird, theirs.ord);
  const ord = theirs.ird === MPA_DEPTH_NONE ? offer.ord : Math.min(offer.ord, theirs.ird);
  const rtr = chooseRtr(theirs, ird);
  const enhanced = enhancedOf(ird, ord, rtr === 'write', rtr === 'read');
  const reply = encodeMpaFrame(frameOf('reply', request.revision, crc, enhanced, offer.privateData));
  return { reply, agreed: { crc, ird, ord, rtr } };
}

/** A message of queue 0 would need a receive: not offered. Who offers that alone is offered a WRITE instead. */
function chooseRtr(theirs: MpaEnhanced, ird: number): Rtr {
  if (!theirs.peerToPeer) return 'none';
  return !theirs.rtrWrite && theirs.rtrRead && ird > 0 ? 'read' : 'write';
}

/** The reply that says no, with private data that says why. */
export function mpaReject(request: MpaFrame, privateData: Uint8Array = NO_BYTES): Uint8Array {
  const enhanced = request.enhanced === undefined ? undefined : enhancedOf(0, 0, false, false);
  return encodeMpaFrame({ ...frameOf('reply', request.revision, request.crc, enhanced, privateData), reject: true });
}

/** What the initiator makes of the reply. */
export type MpaOutcome =
  | { readonly kind: 'agreed'; readonly agreed: MpaAgreed }
  | { readonly kind: 'rejected'; readonly privateData: Uint8Array }
  | { readonly kind: 'failed'; readonly code: number; readonly reason: string };

export function mpaFinish(offer: MpaOffer, reply: MpaFrame): MpaOutcome {
  if (reply.reject) return { kind: 'rejected', privateData: reply.privateData };
  if (reply.markers) return failed(TERM_MPA_INVALID_FRAME, 'the responder wants markers');
  if (offer.crc && !reply.crc)
    return failed(TERM_MPA_INVALID_FRAME, 'the responder does without the CRC that was asked for');
  const { ird, ord } = offer;
  const theirs = offer.revision === 1 ? undefined : reply.enhanced;
  if (theirs === undefined) return { kind: 'agreed', agreed: { crc: reply.crc, ird, ord, rtr: 'none' } };
  return finishEnhanced(offer, reply.crc, theirs);
}

function finishEnhanced(offer: MpaOffer, crc: boolean, theirs: MpaEnhanced): MpaOutcome {
  const { rtr = RTR_DEFAULT } = offer;
  const ird = theirs.ord === MPA_DEPTH_NONE ? offer.ird : theirs.ord;
  if (ird > offer.ird)
    return failed(TERM_MPA_INSUFFICIENT_IRD, `the responder wants an IRD of ${ird}, not ${offer.ird}`);
  const ord = theirs.ird === MPA_DEPTH_NONE ? offer.ord : Math.min(offer.ord, theirs.ird);
  if (rtr.length === 0) return { kind: 'agreed', agreed: { crc, ird, ord, rtr: 'none' } };
  const chosen = rtr.find((one) => (one === 'write' ? theirs.rtrWrite : theirs.rtrRead && ord > 0));
  if (chosen === undefined)
    return failed(TERM_MPA_NO_MATCHING_RTR, 'the responder offers no RTR message that was asked for');
  return { kind: 'agreed', agreed: { crc, ird, ord, rtr: chosen } };
}

function failed(code: number, reason: string): MpaOutcome {
  return { kind: 'failed', code, reason };
}
