/**
 * CRC32C (Castagnoli), as MPA has it at the end of each FPDU.
 *
 * Source: RFC 5044 section 4.4 (which refers to RFC 3720 appendix B.4).
 */

export interface Crc32c {
  /** The CRC of [start, end) of `bytes` behind what gave `crc`; 0 begins. A uint32. */
  update(crc: number, bytes: Uint8Array, start: number, end: number): number;
}
