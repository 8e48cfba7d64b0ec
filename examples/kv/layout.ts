/**
 * A hash table in the memory of a server that never looks at it: clients read and write its slots by RDMA, as in Pilaf and FaRM.
 *
 *   slot (256 bytes):  0 version u64 (odd: a writer has it)  8 check u32  12 key length u16  14 value length u16  16 key, value
 *
 * PUT  reads the slot; compare-and-swap takes its version from even to odd; WRITE of all behind the version; compare-and-swap to the next even version
 * GET  reads the slot; an odd version, or a check that does not fit, is a writer in between: again
 *
 * A key's slot is found by its hash, then the ones behind it (linear probing); nothing is deleted.
 */

export const SLOT_BYTES = 256;
const HEADER_BYTES = 16;
export const MAX_ENTRY_BYTES = SLOT_BYTES - HEADER_BYTES;

export interface Slot {
  readonly version: bigint;
  readonly key: string;
  readonly value: Uint8Array;
  /** False where a writer was in between. */
  readonly whole: boolean;
}

export function decodeSlot(bytes: Buffer): Slot {
  const version = bytes.readBigUInt64LE(0);
  const [keyLength, valueLength] = [bytes.readUInt16LE(12), bytes.readUInt16LE(14)];
  const end = HEADER_BYTES + keyLength + valueLength;
  const isEmpty = version === 0n;
  const whole =
    isEmpty || (version % 2n === 0n && end <= SLOT_BYTES && bytes.readUInt32LE(8) === hash(bytes.subarray(12, end)));
  const key = isEmpty ? '' : bytes.toString('utf8', HEADER_BYTES, HEADER_BYTES + keyLength);
  return { version, key, value: bytes.subarray(HEADER_BYTES + keyLength, Math.min(end, SLOT_BYTES)), whole };
}

/** All of a slot but its version: what a writer writes from byte 8. */
export function encodeEntry(key: string, value: Uint8Array): Buffer {
  const name = Buffer.from(key);
  if (name.length + value.length > MAX_ENTRY_BYTES)
    throw new RangeError(`key and value of ${name.length + value.length} bytes must be at most ${MAX_ENTRY_BYTES}`);
  const bytes = Buffer.alloc(HEADER_BYTES - 8 + name.length + value.length);
  bytes.writeUInt16LE(name.length, 4);
  bytes.writeUInt16LE(value.length, 6);
  bytes.set(name, 8);
  bytes.set(value, 8 + name.length);
  bytes.writeUInt32LE(hash(bytes.subarray(4)), 0);
  return bytes;
}

/** FNV-1a. */
export function hash(bytes: Uint8Array): number {
  let h = 0x811c9dc5;
  for (const byte of bytes) h = Math.imul(h ^ byte, 0x01000193);
  return h >>> 0;
}
