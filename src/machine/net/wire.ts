/**
 * The Internet checksum, and addresses of IPv4, which are uint32 numbers.
 *
 * Nothing here checks bounds: who reads has looked at the length first.
 *
 * Source: RFC 1071 (checksum).
 */

/** The sum of the 16-bit words of [start, end), not yet folded, added to `sum`. An odd last byte counts as a high one. */
export function sum16(bytes: Uint8Array, start: number, end: number, sum = 0): number {
  const even = end - ((end - start) & 1);
  for (let at = start; at < even; at += 2) sum += (bytes[at] << 8) | bytes[at + 1];
  return even === end ? sum : sum + (bytes[even] << 8);
}

/** The checksum that a sum makes: folded to 16 bits and complemented. 0 over data that has its right checksum in it. */
export function foldChecksum(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** The sum of TCP's and UDP's pseudo header. */
export function pseudoSum(src: number, dst: number, protocol: number, lenBytes: number): number {
  return (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff) + protocol + lenBytes;
}

/** The address of `10.0.2.2`. */
export function ipv4(text: string): number {
  const [a, b, c, d] = text.split('.').map(Number);
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}

export function ipv4Text(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}
