import * as codes from './codes.js';

/** What the codes of Terminate messages mean, in words (RFC 5040 section 4.8, RFC 5041 section 8.2, RFC 5044 section 8, RFC 6581). */
const TEXTS = new Map<number, string>([
  [codes.TERM_RDMAP_LOCAL_CATASTROPHIC, 'RDMAP: local catastrophic error'],
  [codes.TERM_RDMAP_INVALID_STAG, 'RDMAP: invalid STag'],
  [codes.TERM_RDMAP_BASE_BOUNDS, 'RDMAP: base or bounds violation'],
  [codes.TERM_RDMAP_ACCESS, 'RDMAP: access rights violation'],
  [codes.TERM_RDMAP_NOT_ASSOCIATED, 'RDMAP: STag not associated with the stream'],
  [codes.TERM_RDMAP_TO_WRAP, 'RDMAP: TO wrap'],
  [codes.TERM_RDMAP_MAY_NOT_INVALIDATE, 'RDMAP: STag may not be invalidated by the peer'],
  [codes.TERM_RDMAP_VERSION, 'RDMAP: invalid version'],
  [codes.TERM_RDMAP_OPCODE, 'RDMAP: unexpected opcode'],
  [codes.TERM_RDMAP_CATASTROPHIC_STREAM, 'RDMAP: catastrophic error of the stream'],
  [codes.TERM_RDMAP_CANNOT_INVALIDATE, 'RDMAP: STag cannot be invalidated'],
  [codes.TERM_RDMAP_UNSPECIFIED, 'RDMAP: unspecified error'],
  [codes.TERM_DDP_LOCAL_CATASTROPHIC, 'DDP: local catastrophic error'],
  [codes.TERM_DDP_INVALID_STAG, 'DDP: invalid STag'],
  [codes.TERM_DDP_BASE_BOUNDS, 'DDP: base or bounds violation'],
  [codes.TERM_DDP_NOT_ASSOCIATED, 'DDP: STag not associated with the stream'],
  [codes.TERM_DDP_TO_WRAP, 'DDP: TO wrap'],
  [codes.TERM_DDP_TAGGED_VERSION, 'DDP: invalid version of a tagged segment'],
  [codes.TERM_DDP_INVALID_QN, 'DDP: invalid queue number'],
  [codes.TERM_DDP_NO_BUFFER, 'DDP: no buffer for the message'],
  [codes.TERM_DDP_MSN_RANGE, 'DDP: message sequence number out of range'],
  [codes.TERM_DDP_INVALID_MO, 'DDP: invalid message offset'],
  [codes.TERM_DDP_TOO_LONG, 'DDP: message too long for its buffer'],
  [codes.TERM_DDP_UNTAGGED_VERSION, 'DDP: invalid version of an untagged segment'],
  [codes.TERM_MPA_CONNECTION_LOST, 'MPA: connection lost'],
  [codes.TERM_MPA_CRC, 'MPA: wrong CRC'],
  [codes.TERM_MPA_FRAMING, 'MPA: wrong framing'],
  [codes.TERM_MPA_INVALID_FRAME, 'MPA: invalid request or reply frame'],
  [codes.TERM_MPA_LOCAL_CATASTROPHIC, 'MPA: local catastrophic error'],
  [codes.TERM_MPA_INSUFFICIENT_IRD, 'MPA: insufficient IRD'],
  [codes.TERM_MPA_NO_MATCHING_RTR, 'MPA: no matching RTR option'],
]);

export function terminateText(code: number): string {
  const hex = `0x${code.toString(16).padStart(4, '0')}`;
  return `${TEXTS.get(code) ?? 'unknown error'} (${hex})`;
}
