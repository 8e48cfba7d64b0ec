import { get16, put16 } from '../../base/index.js';

/**
 * The frames of the MPA set-up, as bytes.
 *
 *     0 key "MPA ID Req Frame" or "MPA ID Rep Frame" | 16 M C R S rsvd(4) | 17 revision | 18 length of what follows (16 bits)
 *     20 with S, revision 2: P2P, Send RTR, IRD (14 bits) | 22 Write RTR, Read RTR, ORD (14 bits)
 *     then private data
 *
 * Source: RFC 5044 section 7.1.1, RFC 6581 section 4 and figures 3 and 4.
 */

/** What follows the first 20 bytes, the words of RFC 6581 among it. */
const FOLLOWING_BYTES_MAX = 512;
const ENHANCED_BYTES = 4;
/** Private data that fits into every frame. */
export const MPA_PRIVATE_DATA_MAX = FOLLOWING_BYTES_MAX - ENHANCED_BYTES;
/** An IRD or ORD that is not negotiated. */
export const MPA_DEPTH_NONE = 0x3fff;

const FIXED_BYTES = 20;
const KEY_BYTES = 16;
const M = 0x80;
const C = 0x40;
const R = 0x20;
const S = 0x10;
/** Of the two words of RFC 6581. */
const FIRST_FLAG = 0x8000;
const SECOND_FLAG = 0x4000;

export type MpaFrameKind = 'request' | 'reply';

/** RFC 6581's words: depth of READs and atomics that are taken (IRD) and made (ORD), and how peer-to-peer connections begin. */
export interface MpaEnhanced {
  /** 0 to 16382, or MPA_DEPTH_NONE. */
  readonly ird: number;
  readonly ord: number;
  readonly peerToPeer: boolean;
  readonly rtrSend: boolean;
  readonly rtrWrite: boolean;
  readonly rtrRead: boolean;
}

export interface MpaFrame {
  readonly kind: MpaFrameKind;
  /** 1, or 2. */
  readonly revision: number;
  readonly markers: boolean;
  readonly crc: boolean;
  readonly reject: boolean;
  readonly enhanced: MpaEnhanced | undefined;
  /** Without the words of RFC 6581. */
  readonly privateData: Uint8Array;
}

const KEYS = { request: asciiBytes('MPA ID Req Frame'), reply: asciiBytes('MPA ID Rep Frame') };

export function encodeMpaFrame(frame: MpaFrame): Uint8Array {
  const { enhanced, privateData } = frame;
  const enhancedBytes = enhanced === undefined ? 0 : ENHANCED_BYTES;
  const out = new Uint8Array(FIXED_BYTES + enhancedBytes + privateData.length);
  out.set(KEYS[frame.kind]);
  out[16] = flag(frame.markers, M) | flag(frame.crc, C) | flag(frame.reject, R) | flag(enhanced !== undefined, S);
  out[17] = frame.revision;
  put16(out, 18, enhancedBytes + privateData.length);
  if (enhanced !== undefined) putEnhanced(out, FIXED_BYTES, enhanced);
  out.set(privateData, FIXED_BYTES + enhancedBytes);
  return out;
}

function putEnhanced(out: Uint8Array, at: number, words: MpaEnhanced): void {
  put16(out, at, flag(words.peerToPeer, FIRST_FLAG) | flag(words.rtrSend, SECOND_FLAG) | words.ird);
  put16(out, at + 2, flag(words.rtrWrite, FIRST_FLAG) | flag(words.rtrRead, SECOND_FLAG) | words.ord);
}

function flag(is: boolean, bit: number): number {
  return is ? bit : 0;
}

/** Takes one frame out of what TCP brings. */
export class MpaFrameReader {
  /** The frame, when it is whole. */
  frame: MpaFrame | undefined;
  /** What is wrong with it: this is no MPA frame of that kind. Nothing is taken any more. */
  error: string | undefined;
  private readonly kind: MpaFrameKind;
  private readonly bytes = new Uint8Array(FIXED_BYTES + FOLLOWING_BYTES_MAX);
  private nrBytes = 0;

  constructor(kind: MpaFrameKind) {
    this.kind = kind;
  }

  /** Takes bytes of [start, end); returns the index up to which: behind the frame, where it is whole. */
  receive(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (at < end && this.frame === undefined && this.error === undefined) {
      this.bytes[this.nrBytes++] = bytes[at++];
      this.error = this.wrongAt(this.nrBytes - 1);
      if (this.error === undefined && this.nrBytes >= FIXED_BYTES && this.nrBytes === this.frameBytes)
        this.frame = this.parse();
    }
    return at;
  }

  private get frameBytes(): number {
    return FIXED_BYTES + get16(this.bytes, 18);
  }

  /** What is wrong as far as byte `last` tells. */
  private wrongAt(last: number): string | undefined {
    const { bytes } = this;
    if (last < KEY_BYTES) return bytes[last] === KEYS[this.kind][last] ? undefined : `no MPA ${this.kind} frame`;
    if (last === 17 && bytes[17] !== 1 && bytes[17] !== 2) return `MPA revision ${bytes[17]}, not 1 or 2`;
    if (last !== FIXED_BYTES - 1) return undefined;
    const following = get16(bytes, 18);
    if (following > FOLLOWING_BYTES_MAX)
      return `${following} bytes of private data, not at most ${FOLLOWING_BYTES_MAX}`;
    return this.isEnhanced && following < ENHANCED_BYTES ? 'no IRD and ORD in an enhanced frame' : undefined;
  }

  private get isEnhanced(): boolean {
    return this.bytes[17] === 2 && (this.bytes[16] & S) !== 0;
  }

  private parse(): MpaFrame {
    const { bytes, isEnhanced } = this;
    const flags = bytes[16];
    return {
      kind: this.kind,
      revision: bytes[17],
      markers: (flags & M) !== 0,
      crc: (flags & C) !== 0,
      reject: (flags & R) !== 0,
      enhanced: isEnhanced ? getEnhanced(bytes, FIXED_BYTES) : undefined,
      privateData: bytes.slice(FIXED_BYTES + (isEnhanced ? ENHANCED_BYTES : 0), this.nrBytes),
    };
  }
}

function getEnhanced(bytes: Uint8Array, at: number): MpaEnhanced {
  const [first, second] = [get16(bytes, at), get16(bytes, at + 2)];
  return {
    ird: first & MPA_DEPTH_NONE,
    ord: second & MPA_DEPTH_NONE,
    peerToPeer: (first & FIRST_FLAG) !== 0,
    rtrSend: (first & SECOND_FLAG) !== 0,
    rtrWrite: (second & FIRST_FLAG) !== 0,
    rtrRead: (second & SECOND_FLAG) !== 0,
  };
}

function asciiBytes(text: string): Uint8Array {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}
