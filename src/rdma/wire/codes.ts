/**
 * The numbers of iWARP: RDMAP's opcodes, DDP's queues, and the codes of Terminate messages.
 *
 * Source: RFC 5040 (RDMAP) figure 4 and section 4.8, RFC 5041 (DDP) section 8.2, RFC 5044 (MPA) section 8, RFC 6581 section 9.2,
 * RFC 7306 sections 4, 5, 7 and 8.2 (atomics and immediate data).
 */

/** RDMAP opcodes (RFC 5040 section 4.3, RFC 7306 section 4.1). */
export const RDMAP_WRITE = 0;
export const RDMAP_READ_REQUEST = 1;
export const RDMAP_READ_RESPONSE = 2;
export const RDMAP_SEND = 3;
export const RDMAP_SEND_INVALIDATE = 4;
export const RDMAP_SEND_SE = 5;
export const RDMAP_SEND_SE_INVALIDATE = 6;
export const RDMAP_TERMINATE = 7;
export const RDMAP_IMMEDIATE = 8;
export const RDMAP_IMMEDIATE_SE = 9;
export const RDMAP_ATOMIC_REQUEST = 10;
export const RDMAP_ATOMIC_RESPONSE = 11;

/** DDP queue numbers of untagged messages (RFC 5040 section 4.2, RFC 7306 section 4.2). */
export const QN_SEND = 0;
export const QN_READ_REQUEST = 1;
export const QN_TERMINATE = 2;
export const QN_ATOMIC_RESPONSE = 3;

/**
 * Codes of a Terminate message: layer (4 bits), error type (4 bits) and error code (8 bits), as the first half of its control field.
 * TERM_RDMAP_* are for read requests, atomics and invalidations, which RDMAP checks; TERM_DDP_* for what DDP places.
 */
export const TERM_RDMAP_LOCAL_CATASTROPHIC = 0x0000;
export const TERM_RDMAP_INVALID_STAG = 0x0100;
export const TERM_RDMAP_BASE_BOUNDS = 0x0101;
export const TERM_RDMAP_ACCESS = 0x0102;
export const TERM_RDMAP_NOT_ASSOCIATED = 0x0103;
export const TERM_RDMAP_TO_WRAP = 0x0104;
/** A STag that is another protection domain's, or not for remote use; that nobody has given out: TERM_RDMAP_CANNOT_INVALIDATE. */
export const TERM_RDMAP_MAY_NOT_INVALIDATE = 0x0109;
export const TERM_RDMAP_VERSION = 0x0205;
export const TERM_RDMAP_OPCODE = 0x0206;
/** Also of an atomic whose address is not a multiple of 8 (RFC 7306 section 8.2). */
export const TERM_RDMAP_CATASTROPHIC_STREAM = 0x0207;
export const TERM_RDMAP_CANNOT_INVALIDATE = 0x0209;
export const TERM_RDMAP_UNSPECIFIED = 0x02ff;
export const TERM_DDP_LOCAL_CATASTROPHIC = 0x1000;
export const TERM_DDP_INVALID_STAG = 0x1100;
export const TERM_DDP_BASE_BOUNDS = 0x1101;
export const TERM_DDP_NOT_ASSOCIATED = 0x1102;
export const TERM_DDP_TO_WRAP = 0x1103;
export const TERM_DDP_TAGGED_VERSION = 0x1104;
export const TERM_DDP_INVALID_QN = 0x1201;
export const TERM_DDP_NO_BUFFER = 0x1202;
export const TERM_DDP_MSN_RANGE = 0x1203;
export const TERM_DDP_INVALID_MO = 0x1204;
export const TERM_DDP_TOO_LONG = 0x1205;
export const TERM_DDP_UNTAGGED_VERSION = 0x1206;
export const TERM_MPA_CONNECTION_LOST = 0x2001;
export const TERM_MPA_CRC = 0x2002;
export const TERM_MPA_FRAMING = 0x2003;
export const TERM_MPA_INVALID_FRAME = 0x2004;
export const TERM_MPA_LOCAL_CATASTROPHIC = 0x2005;
export const TERM_MPA_INSUFFICIENT_IRD = 0x2006;
export const TERM_MPA_NO_MATCHING_RTR = 0x2007;

/** How a callback of a stream's owner says that the stream must be terminated with `code`; `refusedCode` is its inverse. */
export function refuse(code: number): number {
  return ~code;
}

export function refusedCode(result: number): number {
  return ~result;
}
