import type { Decoded } from './decode.js';
import { decode, isCompressed } from './decode.js';
import { HANDLER_CROSSING, HANDLER_DECODE, HANDLER_ILLEGAL, HANDLER_PAGE_END, handlerOf, pairOf } from './handlers.js';
import * as L from './layout.js';

/**
 * Decoded code: for each host page that code was fetched from, a page of records, one for every two bytes. A record is
 * decoded when it is first executed, with what follows it.
 *
 * The number of pages is bounded; a new one takes the place of the one made longest ago. Whoever drops a page must make every
 * hart forget its records: `onDrop`.
 *
 * Records are those of one thread. A page that has some is never writable in a TLB of the thread's own harts, so they follow its own
 * stores at once. What others do to the page (harts in other threads, devices, a host that gives the frame to somebody else) shows
 * after `doubt`, as fetches must see it after `fence.i`: records are decoded from a copy of the page, and in doubt they are
 * used again only where the page still equals its copy (N3). `doubt` comes with a flush of the fetch TLBs, so that every page is asked for.
 */

/** What records need of the generated module: `memory.fill`, `memory.copy`, and a comparison of two pages. */
export interface PageOps {
  fill(address: number, byte: number, lenBytes: number): void;
  copy(to: number, from: number, lenBytes: number): void;
  samePage(a: number, b: number): number;
}

/** Instructions decoded at once. */
const DECODE_AHEAD = 16;

export class DecodedPages {
  private readonly i32: Int32Array;
  private readonly u16: Uint16Array;
  private readonly u8: Uint8Array;
  private readonly base: number;
  private readonly nrPages: number;
  private readonly copies: number;
  /** Address of a bitmap of all host pages: those that have records. */
  readonly codeMap: number;
  private readonly ops: PageOps;
  private readonly onDrop: () => void;
  /** Host page to page of records + 1. */
  private readonly slotOf: Map<number, number> = new Map();
  private readonly hostPageOf: Int32Array;
  /** The doubts that the page has been cleared of. */
  private readonly sureAt: Int32Array;
  private doubts = 0;
  private stamp = 0;
  private next = 0;

  constructor(buffer: SharedArrayBuffer, base: number, nrPages: number, ops: PageOps, onDrop: () => void) {
    this.i32 = new Int32Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.u8 = new Uint8Array(buffer);
    this.base = base;
    this.nrPages = nrPages;
    this.copies = base + nrPages * L.DECODED_PAGE_BYTES;
    this.codeMap = this.copies + nrPages * 4096;
    ops.fill(this.codeMap, 0, mapBytes(buffer.byteLength));
    this.ops = ops;
    this.onDrop = onDrop;
    this.hostPageOf = new Int32Array(nrPages).fill(-1);
    this.sureAt = new Int32Array(nrPages);
  }

  /** Bytes that `nrPages` of them take in a memory of `memoryBytes`. */
  static lenBytes(nrPages: number, memoryBytes: number): number {
    return nrPages * (L.DECODED_PAGE_BYTES + 4096) + mapBytes(memoryBytes);
  }

  /** Others may have written pages since: none is used again before it has been compared. The caller flushes the fetch TLBs. */
  doubt(): void {
    this.doubts = (this.doubts + 1) | 0;
  }

  has(hostPage: number): boolean {
    return ((this.u8[this.codeMap + (hostPage >>> 3)]! >>> (hostPage & 7)) & 1) === 1;
  }

  /** Address of the page's records; makes them, undecoded, where there are none: then `created` is true. */
  get(hostPage: number): number {
    const slot = this.slotOf.get(hostPage);
    if (slot === undefined) return this.create(hostPage);
    if (this.sureAt[slot] !== this.doubts && !this.stillSame(slot, hostPage)) {
      this.drop(hostPage);
      return this.create(hostPage);
    }
    return this.base + slot * L.DECODED_PAGE_BYTES;
  }

  private stillSame(slot: number, hostPage: number): boolean {
    this.sureAt[slot] = this.doubts;
    return this.ops.samePage(hostPage * 4096, this.copies + slot * 4096) === 1;
  }

  private create(hostPage: number): number {
    const slot = this.next;
    this.next = (slot + 1) % this.nrPages;
    if (this.hostPageOf[slot]! >= 0) this.drop(this.hostPageOf[slot]!);
    const address = this.base + slot * L.DECODED_PAGE_BYTES;
    this.ops.fill(address, 0, L.DECODED_PAGE_BYTES);
    this.ops.copy(this.copies + slot * 4096, hostPage * 4096, 4096);
    this.sureAt[slot] = this.doubts;
    this.endPage(address + L.PAGE_RECORD_BYTES);
    this.stamp = (this.stamp + 1) | 0;
    this.i32[(address + L.PAGE_STAMP) >>> 2] = this.stamp;
    this.slotOf.set(hostPage, slot);
    this.u8[this.codeMap + (hostPage >>> 3)]! |= 1 << (hostPage & 7);
    this.hostPageOf[slot] = hostPage;
    return address;
  }

  /**
   * Enters the instruction that begins in the last 2 bytes of the page whose records are at `records` and goes on in the page of `next`. It is
   * good while fetches of the next page lead to just these records: generated code looks at their address and stamp each time.
   */
  decodeCrossing(records: number, next: number, word: number): void {
    this.decodeTo(records + L.CROSSING_RECORD, word);
    this.endPage(records + L.CROSSING_RECORD + L.RECORD_BYTES);
    this.i32[(records + L.CROSSING_NEXT) >>> 2] = next;
    this.i32[(records + L.CROSSING_STAMP) >>> 2] = this.i32[(next + L.PAGE_STAMP) >>> 2]!;
    this.u16[(records + L.PAGE_RECORD_BYTES - L.RECORD_BYTES) >>> 1] = HANDLER_CROSSING;
  }

  /** Two records that look up the next page: a 4-byte instruction may end 2 bytes beyond this one. */
  private endPage(address: number): void {
    this.u16[address >>> 1] = HANDLER_PAGE_END;
    this.u16[(address + L.RECORD_BYTES) >>> 1] = HANDLER_PAGE_END;
  }

  /** The host page is written, or leaves the guest: its records go. */
  drop(hostPage: number): void {
    const slot = this.slotOf.get(hostPage);
    if (slot === undefined) return;
    this.slotOf.delete(hostPage);
    this.u8[this.codeMap + (hostPage >>> 3)]! &= ~(1 << (hostPage & 7));
    this.hostPageOf[slot] = -1;
    this.onDrop();
  }

  /**
   * Decodes the instruction at byte `offset` of the page, whose record is at `record`, and some that follow. False: it is a
   * 4-byte instruction that continues in the next page.
   */
  decodeAt(record: number, offset: number): boolean {
    const slot = Math.floor((record - this.base) / L.DECODED_PAGE_BYTES);
    const page = (this.copies + slot * 4096) / 2;
    let before = 0;
    for (let n = 0; n < DECODE_AHEAD && offset < 4096; n++) {
      const low = this.u16[page + (offset >>> 1)]!;
      if (!isCompressed(low) && offset === 4094) return n > 0;
      const high = offset === 4094 ? 0 : this.u16[page + (offset >>> 1) + 1]!;
      const decoded = this.decodeTo(record, low | (high << 16));
      if (decoded === undefined) return true;
      if (before !== 0) this.fuse(before, record);
      if (decoded.instruction.ends) return true;
      before = record;
      record += decoded.lenBytes * 4;
      offset += decoded.lenBytes;
      if (this.u16[record >>> 1] !== HANDLER_DECODE) return true;
    }
    return true;
  }

  /** Makes the record at `first` do the next one too, where there is a handler for both. */
  private fuse(first: number, second: number): void {
    const pair = pairOf(this.u16[first >>> 1]!, this.u16[second >>> 1]!);
    if (pair !== undefined) this.u16[first >>> 1] = pair;
  }

  /** Writes the record of one instruction. */
  decodeTo(record: number, word: number): Decoded | undefined {
    const decoded = decode(word);
    if (decoded === undefined) {
      this.u16[record >>> 1] = HANDLER_ILLEGAL;
      return undefined;
    }
    const { format } = decoded.instruction;
    const rs2First = format === 'S' || format === 'B';
    this.u8[record + L.REC_RD] = (rs2First ? decoded.rs2 : decoded.rd) * 8;
    this.u8[record + L.REC_RS1] = decoded.rs1 * 8;
    if (format === 'R' || format === 'R4' || format === 'AMO') {
      this.u8[record + L.REC_RS2] = decoded.rs2 * 8;
      this.u8[record + L.REC_RS3] = decoded.rs3 * 8;
      this.u8[record + L.REC_RM] = decoded.rm;
    } else {
      // Jumps move from record to record: 8 bytes for each 2 of code.
      this.i32[(record + L.REC_IMM) >>> 2] = format === 'B' || format === 'J' ? decoded.imm * 4 : decoded.imm;
    }
    this.u16[record >>> 1] = handlerOf(decoded);
    return decoded;
  }
}

/** A bit for each page of the memory, in whole blocks of 64 bytes. */
function mapBytes(memoryBytes: number): number {
  return Math.ceil(memoryBytes / 4096 / 512) * 64;
}
