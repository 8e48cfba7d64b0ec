import type { Words } from '../../base/index.js';
import type { WcOpcode, WcStatus } from '../constants.js';
import type { WorkCompletion } from '../verbs.js';

/**
 * Rings in shared memory between the user's thread and the NIC: completions (NIC to user), and work (user to NIC). One writes, one reads; positions count
 * up for ever (32 bits), HEAD by the writer, TAIL by the reader. What an entry says is written before HEAD moves, and read before TAIL does.
 */

const HEAD = 0;
const TAIL = 1;
const NR_SLOTS = 2;
const STRIDE = 3;
/** CQ: what the user waits for. SRQ: the limit. QP's rings: whether the NIC has a doorbell under way. */
const ARMED = 4;
/** CQ: a completion was lost. */
const OVERRUN = 5;
export const RING_HEADER_WORDS = 16;

/** A power of two, so that positions may wrap. */
export function ringSlots(nrEntries: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(nrEntries, 1)));
}

export function ringBytes(nrEntries: number, strideWords: number): number {
  return (RING_HEADER_WORDS + ringSlots(nrEntries) * strideWords) * 4;
}

export class Ring {
  readonly words: Words;
  readonly base: number;

  /** `address` of `ringBytes`, of which the first words are zero until `init`. */
  constructor(words: Words, address: number) {
    this.words = words;
    this.base = address >>> 2;
  }

  init(nrEntries: number, strideWords: number): this {
    const { words, base } = this;
    for (let i = 0; i < RING_HEADER_WORDS; i++) words.writeOnce(base + i, 0);
    words.writeOnce(base + NR_SLOTS, ringSlots(nrEntries));
    words.writeOnce(base + STRIDE, strideWords);
    return this;
  }

  nrSlots(): number {
    return this.words.readOnce(this.base + NR_SLOTS);
  }

  head(): number {
    return this.words.load(this.base + HEAD);
  }

  tail(): number {
    return this.words.load(this.base + TAIL);
  }

  setHead(head: number): void {
    this.words.store(this.base + HEAD, head | 0);
  }

  setTail(tail: number): void {
    this.words.store(this.base + TAIL, tail | 0);
  }

  /** Entries that were written and not given back. */
  used(): number {
    return (this.head() - this.tail()) | 0;
  }

  /** Index of the first word of the entry at `position`. */
  entryOf(position: number): number {
    const { words, base } = this;
    const slot = position & (words.readOnce(base + NR_SLOTS) - 1);
    return base + RING_HEADER_WORDS + slot * words.readOnce(base + STRIDE);
  }

  arm(value: number): void {
    this.words.store(this.base + ARMED, value);
  }

  armed(): number {
    return this.words.load(this.base + ARMED);
  }

  /** Puts `value` there; what was there. */
  exchangeArmed(value: number): number {
    return this.words.exchange(this.base + ARMED, value);
  }

  setOverrun(): void {
    this.words.store(this.base + OVERRUN, 1);
  }

  overrun(): boolean {
    return this.words.load(this.base + OVERRUN) !== 0;
  }
}

export function writeWide(words: Words, i: number, value: number): void {
  words.writeOnce(i, value | 0);
  words.writeOnce(i + 1, Math.floor(value / 2 ** 32) | 0);
}

export function readWide(words: Words, i: number): number {
  return (words.readOnce(i) >>> 0) + (words.readOnce(i + 1) >>> 0) * 2 ** 32;
}

// Completions.

export const CQE_WORDS = 16;
const CQE_WR_ID = 0;
const CQE_STATUS = 2;
const CQE_OPCODE = 3;
const CQE_LEN = 4;
const CQE_IMM = 5;
const CQE_FLAGS = 6;
const CQE_QP = 7;
const CQE_VENDOR = 8;
const CQE_RKEY = 9;

/** ARMED of a completion queue. */
export const NOTIFY_SOLICITED = 1;
export const NOTIFY_ANY = 2;

/** What the NIC says of a piece of work; one object serves many. */
export interface Cqe {
  wrId: number;
  status: WcStatus;
  opcode: WcOpcode;
  byteLen: number;
  immData: number;
  wcFlags: number;
  qpNum: number;
  vendorErr: number;
  invalidatedRkey: number;
}

export class CqRing extends Ring {
  /** By the NIC: false when there is no room, and the completion is lost. */
  push(cqe: Cqe): boolean {
    const head = this.head();
    if (((head - this.tail()) | 0) >= this.nrSlots()) {
      this.setOverrun();
      return false;
    }
    const { words } = this;
    const i = this.entryOf(head);
    writeWide(words, i + CQE_WR_ID, cqe.wrId);
    words.writeOnce(i + CQE_STATUS, cqe.status);
    words.writeOnce(i + CQE_OPCODE, cqe.opcode);
    words.writeOnce(i + CQE_LEN, cqe.byteLen | 0);
    words.writeOnce(i + CQE_IMM, cqe.immData | 0);
    words.writeOnce(i + CQE_FLAGS, cqe.wcFlags);
    words.writeOnce(i + CQE_QP, cqe.qpNum);
    words.writeOnce(i + CQE_VENDOR, cqe.vendorErr);
    words.writeOnce(i + CQE_RKEY, cqe.invalidatedRkey | 0);
    this.setHead(head + 1);
    return true;
  }

  /** By the user: the oldest completion, or undefined. */
  poll(): WorkCompletion | undefined {
    const tail = this.tail();
    if (tail === this.head()) return undefined;
    const { words } = this;
    const i = this.entryOf(tail);
    const wc: WorkCompletion = {
      wrId: readWide(words, i + CQE_WR_ID),
      status: words.readOnce(i + CQE_STATUS) as WcStatus,
      opcode: words.readOnce(i + CQE_OPCODE) as WcOpcode,
      byteLen: words.readOnce(i + CQE_LEN) >>> 0,
      immData: words.readOnce(i + CQE_IMM) >>> 0,
      invalidatedRkey: words.readOnce(i + CQE_RKEY) >>> 0,
      wcFlags: words.readOnce(i + CQE_FLAGS),
      qpNum: words.readOnce(i + CQE_QP),
      vendorErr: words.readOnce(i + CQE_VENDOR),
    };
    this.setTail(tail + 1);
    return wc;
  }
}

// Work requests: a header, then pieces of four words each, or inline data.

export const WQE_HEADER_WORDS = 16;
export const SGE_WORDS = 4;
const WQE_WR_ID = 0;
const WQE_OPCODE = 2;
const WQE_FLAGS = 3;
const WQE_NR_SGES = 4;
/** Bytes in all, inline ones too. */
const WQE_LEN = 5;
const WQE_REMOTE_ADDR = 6;
const WQE_RKEY = 8;
/** Immediate data, or the key to invalidate. */
const WQE_IMM = 9;
const WQE_COMPARE_ADD = 10;
const WQE_SWAP = 12;

export function wqeStrideWords(maxSge: number, maxInlineBytes = 0): number {
  return WQE_HEADER_WORDS + Math.max(maxSge * SGE_WORDS, Math.ceil(maxInlineBytes / 4));
}

/** A work queue: send, receive, or shared receive. */
export class WorkRing extends Ring {
  /** Index of the first word of the piece `k` of the entry at word `i`. */
  sge(i: number, k: number): number {
    return i + WQE_HEADER_WORDS + k * SGE_WORDS;
  }

  writeSge(i: number, k: number, addr: number, length: number, lkey: number): void {
    const at = this.sge(i, k);
    writeWide(this.words, at, addr);
    this.words.writeOnce(at + 2, length | 0);
    this.words.writeOnce(at + 3, lkey | 0);
  }

  sgeAddr(i: number, k: number): number {
    return readWide(this.words, this.sge(i, k));
  }

  sgeLength(i: number, k: number): number {
    return this.words.readOnce(this.sge(i, k) + 2) >>> 0;
  }

  sgeKey(i: number, k: number): number {
    return this.words.readOnce(this.sge(i, k) + 3) >>> 0;
  }

  writeHeader(i: number, wrId: number, opcode: number, flags: number, nrSges: number, lenBytes: number): void {
    const { words } = this;
    writeWide(words, i + WQE_WR_ID, wrId);
    words.writeOnce(i + WQE_OPCODE, opcode);
    words.writeOnce(i + WQE_FLAGS, flags);
    words.writeOnce(i + WQE_NR_SGES, nrSges);
    words.writeOnce(i + WQE_LEN, lenBytes | 0);
  }

  writeRemote(i: number, remoteAddr: number, rkey: number, imm: number, compareAdd: bigint, swap: bigint): void {
    const { words } = this;
    writeWide(words, i + WQE_REMOTE_ADDR, remoteAddr);
    words.writeOnce(i + WQE_RKEY, rkey | 0);
    words.writeOnce(i + WQE_IMM, imm | 0);
    writeBig(words, i + WQE_COMPARE_ADD, compareAdd);
    writeBig(words, i + WQE_SWAP, swap);
  }

  wrId(i: number): number {
    return readWide(this.words, i + WQE_WR_ID);
  }

  opcode(i: number): number {
    return this.words.readOnce(i + WQE_OPCODE);
  }

  flags(i: number): number {
    return this.words.readOnce(i + WQE_FLAGS);
  }

  nrSges(i: number): number {
    return this.words.readOnce(i + WQE_NR_SGES);
  }

  lenBytes(i: number): number {
    return this.words.readOnce(i + WQE_LEN) >>> 0;
  }

  remoteAddr(i: number): number {
    return readWide(this.words, i + WQE_REMOTE_ADDR);
  }

  rkey(i: number): number {
    return this.words.readOnce(i + WQE_RKEY) >>> 0;
  }

  imm(i: number): number {
    return this.words.readOnce(i + WQE_IMM) >>> 0;
  }

  compareAdd(i: number): bigint {
    return readBig(this.words, i + WQE_COMPARE_ADD);
  }

  swap(i: number): bigint {
    return readBig(this.words, i + WQE_SWAP);
  }

  /** Byte address of inline data. */
  inlineAddr(i: number): number {
    return (i + WQE_HEADER_WORDS) * 4;
  }
}

function writeBig(words: Words, i: number, value: bigint): void {
  words.writeOnce(i, Number(BigInt.asIntN(32, value)));
  words.writeOnce(i + 1, Number(BigInt.asIntN(32, value >> 32n)));
}

function readBig(words: Words, i: number): bigint {
  return (BigInt(words.readOnce(i + 1) >>> 0) << 32n) | BigInt(words.readOnce(i) >>> 0);
}
