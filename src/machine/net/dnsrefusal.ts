/**
 * The answer of a name server that serves nobody: for a guest whose packets may not leave the host, so that it hears at once that
 * there are no names, instead of waiting.
 *
 * Source: RFC 1035 section 4.1.1.
 */

const HEADER_BYTES = 12;
const QR = 0x80;
const RCODE_REFUSED = 5;

/** The refusal of a query, or undefined for what is none: the query's header without its records. */
export function refuseQuery(query: Uint8Array): Uint8Array | undefined {
  if (query.length < HEADER_BYTES || (query[2] & QR) !== 0) return undefined;
  const answer = new Uint8Array(HEADER_BYTES);
  answer.set(query.subarray(0, 2));
  // Operation code and "recursion desired" are the query's.
  answer[2] = QR | (query[2] & 0x79);
  answer[3] = RCODE_REFUSED;
  return answer;
}
