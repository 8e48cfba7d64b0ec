/**
 * Numbers in network byte order. Nothing here checks bounds: who reads has looked at the length first.
 */

export function get16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

export function get32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

export function get64(bytes: Uint8Array, at: number): bigint {
  return (BigInt(get32(bytes, at)) << 32n) | BigInt(get32(bytes, at + 4));
}

export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** The low 64 bits of `value`. */
export function put64(bytes: Uint8Array, at: number, value: bigint): void {
  put32(bytes, at, Number((value >> 32n) & 0xffff_ffffn));
  put32(bytes, at + 4, Number(value & 0xffff_ffffn));
}
