import { cpuRelax, type WasmMemory, type Words } from '../../base/index.js';
import { FAULT_FLAG_WRITE, FAULT_RETRY, PAGE_SIZE, REMOTE_ZERO } from '../../mm/index.js';
import { IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_ATOMIC, IBV_ACCESS_REMOTE_WRITE } from '../constants.js';
import { type Access, FAILED_ACCESS, FAILED_BOUNDS, FAILED_KEY, FAILED_PD } from './access.js';
import type { CopyOps } from './copyops.js';
import type { NicState } from './nicstate.js';
import {
  E_YOUNG,
  entryAllows,
  entryPfn,
  REGION_DEAD,
  REGION_IMPLICIT,
  REGION_INVALID,
  REGION_PINNED,
  Region,
} from './region.js';
import { CHILD_PAGES, childWord, type RegionTable } from './regiontable.js';

/**
 * How the NIC reaches registered memory: from key and address to frames, by the regions' entries, and what happens where there is none.
 *
 *   enterCopy; region of the key, rights, bounds; entries; copies; leaveCopy
 *   no entry: a fault. By itself from the host's page table (minor), or by the mm thread: then the caller waits, and begins again at that byte
 *   a stream that comes to its mark: the mm thread is asked for what follows (access.ts), and nobody waits
 *
 * Everything of a region is looked at between `enterCopy` and `leaveCopy`, anew for each piece: an entry, a key or a region that goes is gone for the next
 * piece, and who takes it away waits for this one (nicstate.ts). A fault too: between its two visits it remembers nothing but the key, and what `seq` was.
 */

/** What resolves a fault of an mm without waiting: its page table in another thread (RemoteMm), or the mm itself. */
export interface NicPages {
  /** > 0: a pfn; REMOTE_ZERO; or a FAULT_ code below 0: the mm thread must tell. */
  tryGetPage(va: number, flags: number): number;
  putPage(pfn: number): void;
  /** Under the region's lock, where `tryGetPage` was REMOTE_ZERO: pfn, or FAULT_RETRY. */
  mapZero(va: number): number;
}

/** Asks the mm thread for pages; `access.resume` is called when it has answered. */
export interface NicFaults {
  request(access: Access, key: number, page: number, nrPages: number, write: boolean): void;
  /** Pages that are wanted soon: without an answer. */
  readAhead(key: number, page: number, nrPages: number, write: boolean): void;
  /** How a context's pages are found by this thread; undefined: it is closed. */
  pagesOf(context: number): NicPages | undefined;
}

/** WHY: a longer copy would hold a notifier up for longer than a crossing takes. */
const MAX_COPY = 65536;
/** Looks at a bracket that is under way, before the mm thread is asked: it answers when it is over. */
const MAX_STALE = 8;

const WRITES = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;

export class NicMemory {
  readonly words: Words;
  readonly table: RegionTable;
  /** WHY: to ask a memory for its buffer takes longer than to copy a page. */
  private readonly buffer: SharedArrayBuffer;
  private readonly u8: Uint8Array;
  private readonly ops: CopyOps;
  private readonly state: NicState;
  private readonly faults: NicFaults;
  private readonly children = new Map<number, Region>();
  /** Where `find` has found it. */
  private leaf: Region | undefined;
  private leafPage = 0;
  /** Byte of the region behind the last that was moved. */
  private movedEnd = 0;

  constructor(memory: WasmMemory, words: Words, state: NicState, table: RegionTable, ops: CopyOps, faults: NicFaults) {
    this.buffer = memory.buffer;
    this.u8 = new Uint8Array(memory.buffer);
    this.words = words;
    this.state = state;
    this.table = table;
    this.ops = ops;
    this.faults = faults;
  }

  /** Whether [to, to + lenBytes) of `key` may be reached with `right` (an IBV_ACCESS flag, or 0 to read locally) from protection domain `pd`: 0, or a FAILED_ code. */
  check(key: number, to: number, lenBytes: number, right: number, pd: number): number {
    this.state.enterCopy();
    const result = this.checkInCopy(this.table.find(key), to, lenBytes, right, pd);
    this.state.leaveCopy();
    return result;
  }

  private checkInCopy(region: Region | undefined, to: number, lenBytes: number, right: number, pd: number): number {
    if (region === undefined) return FAILED_KEY;
    const flags = region.flags();
    if ((flags & (REGION_INVALID | REGION_DEAD)) !== 0) return FAILED_KEY;
    if (region.pd() !== pd) return FAILED_PD;
    if ((flags & right) !== right) return FAILED_ACCESS;
    return region.covers(to, lenBytes) ? 0 : FAILED_BOUNDS;
  }

  /**
   * Copies [start, end) of `bytes` to `to` of `key`. The bytes copied: where they are fewer, the memory is not there yet, and `access.resume` will be called; or a
   * FAILED_ code.
   */
  write(
    access: Access,
    key: number,
    to: number,
    right: number,
    pd: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): number {
    return this.move(access, key, to, end - start, right, pd, bytes, start);
  }

  /** Copies `lenBytes` from `to` of `key` to out[at]. As `write`. */
  read(
    access: Access,
    key: number,
    to: number,
    right: number,
    pd: number,
    out: Uint8Array,
    at: number,
    lenBytes: number,
  ): number {
    return this.move(access, key, to, lenBytes, right, pd, out, at);
  }

  private move(
    access: Access,
    key: number,
    to: number,
    lenBytes: number,
    right: number,
    pd: number,
    bytes: Uint8Array,
    at: number,
  ): number {
    const write = (right & WRITES) !== 0;
    for (let moved = 0; ; ) {
      const wanted = Math.min(lenBytes - moved, MAX_COPY);
      this.state.enterCopy();
      const region = this.table.find(key);
      const failed = this.checkInCopy(region, to + moved, lenBytes - moved, right, pd);
      const n = failed === 0 ? this.moveInCopy(region!, to + moved, wanted, write, bytes, at + moved) : failed;
      this.state.leaveCopy();
      if (n < 0) return n;
      moved += n;
      if (n > 0 && key === access.windowKey) this.passMark(access, key, write);
      if (moved === lenBytes) return moved;
      const result = n === wanted ? 1 : this.fault(access, key, to + moved, lenBytes - moved, write);
      if (result < 0) return result;
      if (result === 0) return moved;
    }
  }

  /** Bytes from the first on whose entries are there. */
  private moveInCopy(
    region: Region,
    to: number,
    lenBytes: number,
    write: boolean,
    bytes: Uint8Array,
    at: number,
  ): number {
    let moved = 0;
    let byte = region.byteOf(to);
    const isOurs = bytes.buffer === this.buffer;
    const from = bytes.byteOffset + at;
    while (moved < lenBytes) {
      const pa = this.lookup(region, byte, write);
      if (pa === 0) break;
      const n = Math.min(PAGE_SIZE - (byte % PAGE_SIZE), lenBytes - moved);
      if (!isOurs) this.copyElsewhere(pa, bytes, at + moved, n, write);
      else if (write) this.ops.copy(pa, from + moved, n);
      else this.ops.copy(from + moved, pa, n);
      moved += n;
      byte += n;
    }
    this.movedEnd = byte;
    return moved;
  }

  /** In a copy: the host physical address of `byte` of the region, where its entry gives the right (M43); 0 where not. */
  private lookup(region: Region, byte: number, write: boolean): number {
    if (!this.find(region, byte)) return 0;
    const leaf = this.leaf!;
    // A child that has gone bad; of the region itself it was asked before.
    if (leaf !== region && (leaf.flags() & REGION_DEAD) !== 0) return 0;
    const entry = leaf.entry(this.leafPage);
    if (!entryAllows(entry, write)) return 0;
    if ((entry & E_YOUNG) === 0) leaf.markYoung(this.leafPage, entry);
    // WHY not pfn * PAGE_SIZE: addresses above 2 GiB are negative as int32, and this is one.
    return (entryPfn(entry) << 12) + (byte % PAGE_SIZE);
  }

  /** In a copy: the table, and the page of it, that has `byte` of the region; false where an implicit region has none yet. */
  private find(region: Region, byte: number): boolean {
    const page = Math.floor(byte / PAGE_SIZE);
    this.leaf = region;
    this.leafPage = page;
    if ((region.flags() & REGION_IMPLICIT) === 0) return true;
    const word = childWord(this.words, region.table(), page);
    const address = word === 0 ? 0 : this.words.load(word);
    if (address === 0) return false;
    this.leaf = this.childAt(address);
    this.leafPage = page & (CHILD_PAGES - 1);
    return true;
  }

  private childAt(address: number): Region {
    let child = this.children.get(address);
    if (child === undefined) this.children.set(address, (child = new Region(this.words, address)));
    return child;
  }

  /** Bytes that do not lie in the host's memory. */
  private copyElsewhere(pa: number, bytes: Uint8Array, at: number, lenBytes: number, write: boolean): void {
    const page = this.u8.subarray(pa >>> 0, (pa >>> 0) + lenBytes);
    if (write) page.set(bytes.subarray(at, at + lenBytes));
    else bytes.set(page, at);
  }

  /**
   * Calls `use` with the host physical address of the 8 bytes at `to`, in a copy. 1; 0: not there yet; or a FAILED_ code.
   */
  withWord(access: Access, key: number, to: number, right: number, pd: number, use: (pa: number) => void): number {
    for (;;) {
      this.state.enterCopy();
      const region = this.table.find(key);
      const result = this.checkInCopy(region, to, 8, right, pd);
      const pa = result === 0 ? this.lookup(region!, region!.byteOf(to), true) : 0;
      if (pa !== 0) use(pa >>> 0);
      this.state.leaveCopy();
      if (result !== 0) return result;
      if (pa !== 0) return 1;
      const faulted = this.fault(access, key, to, 8, true);
      if (faulted <= 0) return faulted;
    }
  }

  /**
   * Ends what `key` names, for everybody: SEND with invalidate, LOCAL_INV. With `rights` (IBV_ACCESS flags) only a region that has one of them. 0, or a
   * FAILED_ code.
   */
  invalidate(key: number, pd: number, rights = 0): number {
    this.state.enterCopy();
    const region = this.table.find(key);
    let result = 0;
    if (region === undefined) result = FAILED_KEY;
    else if (region.pd() !== pd) result = FAILED_PD;
    else if (rights !== 0 && (region.flags() & rights) === 0) result = FAILED_ACCESS;
    else region.addFlags(REGION_INVALID);
    this.state.leaveCopy();
    return result;
  }

  // Faults.

  /**
   * 1: look again; 0: the mm thread is asked; or why the page cannot be had. WHY one request at a time: who waits is asked for more by all that comes and goes
   * on its connection, and each answer would have made another request.
   */
  private fault(access: Access, key: number, to: number, lenBytes: number, write: boolean): number {
    if (access.waiting) return 0;
    for (let stale = 0; stale < MAX_STALE; stale++) {
      const result = this.tryFault(key, to, write);
      if (result > 0) return 1;
      if (result < 0) break;
      cpuRelax();
    }
    const page = this.pageOf(key, to);
    if (page < 0) return 1;
    const failed = access.takeFailure(key, page);
    if (failed !== 0) return failed;
    this.faults.request(access, key, page, access.pagesToAsk(key, page, to, lenBytes), write);
    return 0;
  }

  /** The stream has come to its mark, or not: what follows the window is asked for, unless it is there. */
  private passMark(access: Access, key: number, write: boolean): void {
    const page = Math.floor((this.movedEnd - 1) / PAGE_SIZE);
    if (page < access.mark) return;
    const next = access.advance(page);
    if (next < 0) return;
    if (this.isMissing(key, next, write)) this.faults.readAhead(key, next, access.nrPages, write);
    else access.endReadAhead();
  }

  /** Whether page `page` of the region is one that has no entry with the right. */
  private isMissing(key: number, page: number, write: boolean): boolean {
    this.state.enterCopy();
    const region = this.table.find(key);
    const inside = region !== undefined && page < region.nrPages();
    const known = inside && this.find(region, page * PAGE_SIZE);
    const missing = known ? !this.leaf!.hasEntry(this.leafPage, write) : inside;
    this.state.leaveCopy();
    return missing;
  }

  /** The page of the region at `to`; -1 when it is gone. */
  private pageOf(key: number, to: number): number {
    this.state.enterCopy();
    const region = this.table.find(key);
    const page = region === undefined ? -1 : Math.floor(region.byteOf(to) / PAGE_SIZE);
    this.state.leaveCopy();
    return page;
  }

  /**
   * A fault that waits for nothing. 1: an entry is installed, or all is to be looked at anew; 0: a bracket came between; below 0: the mm thread must do it.
   *
   *   NIC                                      mm thread
   *   seq = readBegin, in a copy
   *   pfn from the page table                  a bracket: begin, zap; waits for the copy; pte; end
   *   in a copy, under the lock: same key,
   *     readRetry(seq)? installs nothing
   *   installs
   *
   * Required outcome: no entry for what a bracket covers, or what it took away since `readBegin` (N3). Proved by test/explore/models/rdma.ts.
   */
  private tryFault(key: number, to: number, write: boolean): number {
    const { state } = this;
    state.enterCopy();
    const region = this.table.find(key);
    const known = region !== undefined && this.find(region, region.byteOf(to));
    const flags = known ? region.flags() : 0;
    const leaf = this.leaf!;
    const id = known ? leaf.key() : 0;
    const seq = known ? leaf.seq.readBegin() : 0;
    const pages = known ? this.faults.pagesOf(region.context()) : undefined;
    const va = known ? (leaf.vpn() + this.leafPage) * PAGE_SIZE : 0;
    state.leaveCopy();
    if (region === undefined) return 1;
    if (!known || pages === undefined || (flags & REGION_PINNED) !== 0) return FAULT_RETRY;
    const pfn = pages.tryGetPage(va, write ? FAULT_FLAG_WRITE : 0);
    if (pfn < 0) return pfn;
    const result = this.install(key, to, leaf, id, seq, va, pfn, write, pages);
    if (pfn !== REMOTE_ZERO) pages.putPage(pfn);
    return result;
  }

  private install(
    key: number,
    to: number,
    leaf: Region,
    id: number,
    seq: number,
    va: number,
    pfn: number,
    write: boolean,
    pages: NicPages,
  ): number {
    this.state.enterCopy();
    const region = this.table.find(key);
    const same =
      region !== undefined && this.find(region, region.byteOf(to)) && this.leaf === leaf && leaf.key() === id;
    const result = same ? this.installIn(leaf, this.leafPage, seq, va, pfn, write, pages) : 1;
    this.state.leaveCopy();
    return result;
  }

  /** In a copy. */
  private installIn(
    leaf: Region,
    page: number,
    seq: number,
    va: number,
    pfn: number,
    write: boolean,
    pages: NicPages,
  ): number {
    leaf.lock();
    const stale = (leaf.flags() & REGION_DEAD) !== 0 || leaf.seq.readRetry(seq, va);
    if (!stale && pfn === REMOTE_ZERO) pfn = pages.mapZero(va);
    if (!stale && pfn > 0) {
      leaf.installLocked(page, pfn, write);
      leaf.countFault();
    }
    if (stale) leaf.countRetry();
    leaf.unlock();
    return stale ? 0 : pfn > 0 ? 1 : FAULT_RETRY;
  }
}
