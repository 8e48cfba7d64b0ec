import { expect } from 'vitest';

/** What several tests of the wire need: patterns, hex, and a CRC of the definition. */

export function pattern(lenBytes: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length: lenBytes }, (_, i) => (i * 31 + seed * 7) & 255);
}

/** Bytes of hexadecimal digits, with any spaces between them. */
export function hex(text: string): Uint8Array {
  return Uint8Array.from(text.replace(/\s/g, '').match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

/** As `toEqual`, which is slow for long arrays. */
export function expectSame(actual: Uint8Array, wanted: Uint8Array): void {
  if (Buffer.compare(actual, wanted) !== 0) expect(actual).toEqual(wanted);
}

/** CRC32C bit by bit, as its definition has it (RFC 3720 section 12.1). */
export function slowCrc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0x82f6_3b78 : 0);
  }
  return ~crc >>> 0;
}

/** An FPDU around a DDP segment, made without the sources under test; with a CRC of 0 where `crc` is false. */
export function fpdu(segment: Uint8Array, crc = true): Uint8Array {
  const crcAt = (2 + segment.length + 3) & ~3;
  const out = new Uint8Array(crcAt + 4);
  const view = new DataView(out.buffer);
  view.setUint16(0, segment.length);
  out.set(segment, 2);
  if (crc) view.setUint32(crcAt, slowCrc32c(out.subarray(0, crcAt)), true);
  return out;
}

export function concat(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
