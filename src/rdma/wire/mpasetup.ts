/**
 * The MPA set-up: one request frame of the initiator, one reply of the responder, then FPDUs.
 *
 * Initiator: send `mpaRequest(offer)`; feed what TCP brings to a `MpaFrameReader('reply')`; `finishInitiator(offer, reply)`.
 * Responder: feed a `MpaFrameReader('request')`; look at the request's private data; `acceptRequest(request, offer)` gives the reply to
 * send and what was agreed, or send `rejectRequest(request, privateData)` and close. What follows the frame belongs to the stream.
 *
 * Markers are neither sent nor asked for; a peer that needs them is refused. CRC is used if either side wants it (RFC 5044 section
 * 7.1.1). Revision 2 with the enhanced set-up (RFC 6581) is spoken unless the peer does not: then revision 1 and both sides' own limits.
 *
 * Source: RFC 5044 section 7.1, RFC 6581 sections 4 to 9.
 */

export const MPA_PRIVATE_DATA_MAX = 512;

/** RFC 6581's words: depth of READs and atomics that are taken (IRD) and made (ORD), and how peer-to-peer connections begin. */
export interface MpaEnhanced {
  /** 0 to 16382; 16383 says that it is not negotiated. */
  readonly ird: number;
  readonly ord: number;
  readonly peerToPeer: boolean;
  readonly rtrSend: boolean;
  readonly rtrWrite: boolean;
  readonly rtrRead: boolean;
}

export interface MpaFrame {
  readonly kind: 'request' | 'reply';
  /** 1, or 2. */
  readonly revision: number;
  readonly markers: boolean;
  readonly crc: boolean;
  readonly reject: boolean;
  readonly enhanced: MpaEnhanced | undefined;
  /** Without the words of RFC 6581. */
  readonly privateData: Uint8Array;
}

/** What one side brings. */
export interface MpaOffer {
  readonly ird: number;
  readonly ord: number;
  readonly crc: boolean;
  readonly privateData?: Uint8Array;
  /** Of the initiator: ask for the peer-to-peer model, begun with one of these in this order. */
  readonly rtr?: readonly ('write' | 'read')[];
  /** Of the initiator. Default 2. */
  readonly revision?: 1 | 2;
}

export interface MpaAgreed {
  readonly crc: boolean;
  readonly ird: number;
  readonly ord: number;
  readonly rtr: 'none' | 'write' | 'read';
}
