import { KernelError, Words } from '../../base/index.js';
import { INVALIDATE_SEQ_WORDS, InvalidateSeq, PAGE_SIZE } from '../../mm/index.js';

/**
 * A region as the NIC's translation table has it, in shared words: key, bounds, rights, and an entry for each page. The mm thread makes and ends
 * it (../mr.ts); the NIC looks entries up in its copies, and installs them from its own faults.
 *
 *   entry:  pfn << 12 | E_YOUNG | E_WRITE | E_VALID           0: not there
 *
 * What is looked at without the lock is looked at between `enterCopy` and `leaveCopy` of NicState, and is gone only when that copy is over. An entry is
 * installed under the region's lock, after `readRetry` has said no there (N3, N8); it is taken away under that lock too. E_VALID is not E_WRITE (M43).
 */

export const E_VALID = 1;
export const E_WRITE = 2;
/** Used since the notifier asked last (N14). */
export const E_YOUNG = 4;

export const entryPfn = (entry: number): number => entry >>> 12;
/** E_VALID is not E_WRITE (M43). */
export const entryAllows = (entry: number, write: boolean): boolean => {
  const need = write ? E_VALID | E_WRITE : E_VALID;
  return (entry & need) === need;
};
export const mkEntry = (pfn: number, write: boolean): number =>
  (pfn << 12) | E_YOUNG | (write ? E_WRITE | E_VALID : E_VALID);

/** FLAGS of a region, above its IBV_ACCESS bits. */
export const REGION_IMPLICIT = 1 << 16;
export const REGION_PINNED = 1 << 17;
/** A piece of an implicit one: no key names it. */
export const REGION_CHILD = 1 << 18;
/** The peer, or LOCAL_INV, has invalidated it; or its mm is gone. */
export const REGION_INVALID = 1 << 19;
/** The mm is gone, or the region ends: nothing is installed. */
export const REGION_DEAD = 1 << 20;

/** Who holds the lock gives it back within microseconds, or was killed. */
const LOCK_TIMEOUT_MS = 2000;

const KEY = 0;
const FLAGS = 1;
const PD = 2;
const CONTEXT = 3;
const IOVA_LOW = 4;
const IOVA_HIGH = 5;
const LEN_LOW = 6;
const LEN_HIGH = 7;
/** Byte in its page at which it begins. */
const OFFSET = 8;
const VPN = 9;
/** Index, in the words of the whole memory, of entry 0; of an implicit one, of its directory. */
const TABLE = 10;
const NR_PAGES = 11;
const LOCK = 12;
/** Entries that are there: counted under the lock. */
const NR_ENTRIES = 13;
const NR_FAULTS = 14;
const NR_RETRIES = 15;
const SEQ = 16;
export const REGION_WORDS = 32;

/** All of the memory as words: regions and tables lie where the arena had room. */
export function memoryWords(memory: { buffer: SharedArrayBuffer }, lenBytes = memory.buffer.byteLength): Words {
  return new Words(memory, 0, lenBytes >>> 2);
}

export interface RegionInit {
  readonly flags: number;
  readonly pd: number;
  readonly context: number;
  readonly iova: number;
  readonly length: number;
  readonly addr: number;
  /** Byte address of the entries, zeroed; of an implicit region its directory. */
  readonly tableAddr: number;
  readonly nrPages: number;
}

export class Region {
  readonly words: Words;
  /** Index of its first word. */
  readonly base: number;
  readonly seq: InvalidateSeq;

  /** `address` of REGION_WORDS words, in `memoryWords`. */
  constructor(words: Words, address: number) {
    this.words = words;
    this.base = address >>> 2;
    this.seq = new InvalidateSeq(words, this.base + SEQ);
  }

  /** By the mm thread, before a key names it. */
  init(init: RegionInit): void {
    const { words, base } = this;
    words.writeOnce(base + FLAGS, init.flags);
    words.writeOnce(base + PD, init.pd);
    words.writeOnce(base + CONTEXT, init.context);
    words.writeOnce(base + IOVA_LOW, init.iova | 0);
    words.writeOnce(base + IOVA_HIGH, high(init.iova));
    words.writeOnce(base + LEN_LOW, init.length | 0);
    words.writeOnce(base + LEN_HIGH, high(init.length));
    words.writeOnce(base + OFFSET, init.addr % PAGE_SIZE);
    words.writeOnce(base + VPN, Math.floor(init.addr / PAGE_SIZE));
    words.writeOnce(base + TABLE, init.tableAddr >>> 2);
    words.writeOnce(base + NR_PAGES, init.nrPages);
    words.writeOnce(base + LOCK, 0);
    words.writeOnce(base + NR_ENTRIES, 0);
    words.writeOnce(base + NR_FAULTS, 0);
    words.writeOnce(base + NR_RETRIES, 0);
    for (let i = 0; i < INVALIDATE_SEQ_WORDS; i++) words.writeOnce(base + SEQ + i, 0);
  }

  /** The key begins, or (0) ends, to name it: what `init` wrote is seen by whoever sees the key. */
  setKey(key: number): void {
    this.words.store(this.base + KEY, key);
  }

  key(): number {
    return this.words.load(this.base + KEY) >>> 0;
  }

  flags(): number {
    return this.words.load(this.base + FLAGS);
  }

  addFlags(flags: number): void {
    this.words.fetchOr(this.base + FLAGS, flags);
  }

  pd(): number {
    return this.words.readOnce(this.base + PD);
  }

  context(): number {
    return this.words.readOnce(this.base + CONTEXT);
  }

  iova(): number {
    return wide(this.words.readOnce(this.base + IOVA_LOW), this.words.readOnce(this.base + IOVA_HIGH));
  }

  length(): number {
    return wide(this.words.readOnce(this.base + LEN_LOW), this.words.readOnce(this.base + LEN_HIGH));
  }

  vpn(): number {
    return this.words.readOnce(this.base + VPN);
  }

  nrPages(): number {
    return this.words.readOnce(this.base + NR_PAGES);
  }

  table(): number {
    return this.words.readOnce(this.base + TABLE);
  }

  /** Whether [to, to + lenBytes) of its own addresses is in it (M42: these are iovas, not addresses of the mm). */
  covers(to: number, lenBytes: number): boolean {
    const offset = to - this.iova();
    return offset >= 0 && lenBytes >= 0 && offset + lenBytes <= this.length();
  }

  /** Byte of its first page that `to` is: page and offset in one (M42, M44). */
  byteOf(to: number): number {
    return to - this.iova() + this.words.readOnce(this.base + OFFSET);
  }

  entry(page: number): number {
    return this.words.load(this.table() + page);
  }

  /** Whether page `page` has an entry, with the right; it is not used by that. */
  hasEntry(page: number, write: boolean): boolean {
    return entryAllows(this.entry(page), write);
  }

  /** Marks the entry as used, if it is still the one that was found: it may have gone meanwhile, and a plain store would bring it back. */
  markYoung(page: number, entry: number): void {
    this.words.compareExchange(this.table() + page, entry, entry | E_YOUNG);
  }

  /** Throws KernelError ETIMEDOUT: a NIC's thread was stopped with it. */
  lock(): void {
    if (this.words.lockTimeout(this.base + LOCK, LOCK_TIMEOUT_MS, () => false)) return;
    throw new KernelError('ETIMEDOUT', 'region', `a region's lock is held for ${LOCK_TIMEOUT_MS} ms: its NIC is dead`);
  }

  unlock(): void {
    this.words.unlock(this.base + LOCK);
  }

  /** The NIC's thread has ended, perhaps with the lock; the mm thread has it not. */
  breakLock(): void {
    this.words.store(this.base + LOCK, 0);
  }

  /** Under the lock, after `readRetry` has said no. An entry for writing stays one. */
  installLocked(page: number, pfn: number, write: boolean): void {
    const i = this.table() + page;
    const old = this.words.load(i);
    if (old !== 0 && entryPfn(old) === pfn && (old & E_WRITE) !== 0) return;
    if (old === 0) this.countLocked(1);
    this.words.store(i, mkEntry(pfn, write));
  }

  /** As `installLocked`, of `nrPages` pages from `page` on. */
  installRunLocked(page: number, pfns: Int32Array, nrPages: number, write: boolean): void {
    for (let k = 0; k < nrPages; k++) this.installLocked(page + k, pfns[k]!, write);
  }

  private countLocked(by: number): void {
    const i = this.base + NR_ENTRIES;
    this.words.writeOnce(i, this.words.readOnce(i) + by);
  }

  nrEntries(): number {
    return this.words.readOnce(this.base + NR_ENTRIES);
  }

  /** Under the lock: takes the entries of pages [from, to) away. Returns how many there were. */
  zapLocked(from: number, to: number): number {
    if (this.nrEntries() === 0) return 0;
    const table = this.table();
    let nr = 0;
    for (let i = table + from; i < table + to; i++) {
      if (this.words.readOnce(i) === 0) continue;
      this.words.store(i, 0);
      nr++;
    }
    if (nr > 0) this.countLocked(-nr);
    return nr;
  }

  /** Under the lock: whether pages [from, to) were used since it was asked last. */
  clearYoungLocked(from: number, to: number): boolean {
    const table = this.table();
    let young = false;
    for (let i = table + from; i < table + to; i++) {
      const entry = this.words.readOnce(i);
      if ((entry & E_YOUNG) === 0) continue;
      this.words.fetchAnd(i, ~E_YOUNG);
      young = true;
    }
    return young;
  }

  /** The same question, which changes nothing: of each word as it is at that moment, so it needs no lock. */
  testYoung(from: number, to: number): boolean {
    const table = this.table();
    for (let i = table + from; i < table + to; i++) if ((this.words.load(i) & E_YOUNG) !== 0) return true;
    return false;
  }

  /** Entries of pages [from, to); with `writable` those alone that may write. */
  countEntries(from: number, to: number, writable: boolean): number {
    const table = this.table();
    let nr = 0;
    for (let i = table + from; i < table + to; i++) {
      const entry = this.words.readOnce(i);
      if (entry !== 0 && (!writable || (entry & E_WRITE) !== 0)) nr++;
    }
    return nr;
  }

  /** Faults that the NIC has served by itself, and those that it had to do again: by its thread alone. */
  countFault(): void {
    this.words.writeOnce(this.base + NR_FAULTS, this.words.readOnce(this.base + NR_FAULTS) + 1);
  }

  countRetry(): void {
    this.words.writeOnce(this.base + NR_RETRIES, this.words.readOnce(this.base + NR_RETRIES) + 1);
  }

  nrFaults(): number {
    return this.words.readOnce(this.base + NR_FAULTS);
  }

  nrRetries(): number {
    return this.words.readOnce(this.base + NR_RETRIES);
  }

  /** The words of entry `page`, for the explorer's names. */
  entryWord(page: number): number {
    return this.table() + page;
  }
}

function high(value: number): number {
  return Math.floor(value / 2 ** 32) | 0;
}

function wide(low: number, highWord: number): number {
  return (low >>> 0) + (highWord >>> 0) * 2 ** 32;
}
