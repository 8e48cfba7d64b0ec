import { Words } from '../base/index.js';
import { PAGE_SIZE } from '../mm/index.js';

/**
 * A memslot: a range of guest-physical addresses backed by host virtual memory (Linux: struct kvm_memory_slot).
 *
 * It keeps, for every guest frame, two words and a bit in shared memory:
 *  - `direct`: the entry gfn to host frame (what a second-stage table would hold). It is the only place where a
 *    frame of the host enters the guest: shadow entries are derived from it and never outlive it (N3).
 *  - `rmap`: the head of the chain of shadow entries that map this guest frame (see shadow.ts). It lives here and
 *    not in the frame's `private`, which belongs to the swap cache and to filesystems (S9).
 *  - `dirty`: whether it was written, while that is logged (dirtylog.ts).
 *
 * A `Memslot` is one thread's view of these words. It holds for as long as `Memslots.find` gives it; who kept it while
 * mmuLock was free asks `Memslots.isCurrent` before it installs anything.
 */

/** Direct entries: pfn in bits 31..12, and these. A frame is writable for the guest only where the mm granted a write. */
export const DIRECT_V = 1;
export const DIRECT_W = 2;
/** Set when a translation through the entry is handed out; taken by aging. */
export const DIRECT_A = 4;
/** TLBs may hold a translation of the frame that no shadow entry tells of: all of a TLB goes where this frame's entries must. */
export const DIRECT_T = 8;

/** What the shared table (memslots.ts) says of a slot: numbers alone, so that every thread can build its view. */
export interface MemslotRecord {
  readonly slot: number;
  readonly baseGfn: number;
  readonly nrPages: number;
  /** First host virtual page number. */
  readonly baseVpn: number;
  /** KVM_MEM_... */
  readonly flags: number;
  /** Address of the slot's words: direct, rmap, dirty. */
  readonly arenaAddr: number;
  /** Different for every slot that ever was, and after each change of one. */
  readonly generation: number;
}

export class Memslot implements MemslotRecord {
  readonly slot: number;
  readonly baseGfn: number;
  readonly nrPages: number;
  readonly baseVpn: number;
  readonly flags: number;
  readonly arenaAddr: number;
  readonly generation: number;
  readonly direct: Words;
  readonly rmap: Words;
  readonly dirty: Words;

  constructor(memory: { buffer: SharedArrayBuffer }, record: MemslotRecord) {
    this.slot = record.slot;
    this.baseGfn = record.baseGfn;
    this.nrPages = record.nrPages;
    this.baseVpn = record.baseVpn;
    this.flags = record.flags;
    this.arenaAddr = record.arenaAddr;
    this.generation = record.generation;
    this.direct = new Words(memory, this.arenaAddr, this.nrPages);
    this.rmap = new Words(memory, this.arenaAddr + this.nrPages * 4, this.nrPages);
    this.dirty = new Words(memory, this.arenaAddr + this.nrPages * 8, dirtyWords(this.nrPages));
  }

  hva(gfn: number): number {
    return (this.baseVpn + gfn - this.baseGfn) * PAGE_SIZE;
  }

  contains(gfn: number): boolean {
    return gfn >= this.baseGfn && gfn < this.baseGfn + this.nrPages;
  }

  /** Bytes at `arenaAddr`. */
  get arenaBytes(): number {
    return memslotBytes(this.nrPages);
  }
}

/** Bytes that the words of a slot take. */
export function memslotBytes(nrPages: number): number {
  return nrPages * 8 + dirtyWords(nrPages) * 4;
}

function dirtyWords(nrPages: number): number {
  return Math.ceil(nrPages / 32);
}
