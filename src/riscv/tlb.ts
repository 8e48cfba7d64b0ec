import type { RiscvEngine } from './engine.js';
import { MODE_USER } from './exits.js';
import * as L from './layout.js';
import { ACCESS_READ, type Access } from './mmu.js';

/** What the tables need of the generated module. */
export interface TlbOps {
  /** Empties the entries of the table at `table` that lead to `hostPage`. */
  forbidPage(table: number, hostPage: number): void;
  /** Empties the entries of the page of `low`, which is its low word, in tables from `table` to `end`. */
  forgetPage(table: number, end: number, low: number): void;
}

/**
 * A hart's TLB: tables in shared memory (layout.ts), which generated code looks up inline. An entry has two places in its table, and is found
 * at once in the first; the second is looked at before TypeScript is asked (tlbfunctions.ts).
 *
 *   supervisor   one set for all address spaces: what S-mode without sstatus.SUM has used. A kernel maps itself by global ptes
 *                (PTE_G), so that a change of satp leaves it; if some entry is not global, the change takes them all.
 *   spaces       the last NR_TLB_SPACES values of satp each have a set: what U-mode has used, and S-mode with SUM. A guest that gives
 *                each address space an ASID finds its translations again when it comes back.
 *
 * A value of satp stands for itself alone, ASID and table: two tables under one ASID do not share entries, which the manual would allow.
 *
 * Guarantees: after `flushAll`, `flushPage`, `flushAsid` no entry that was asked for is ever used again, in any space. A space that is
 * not the present one is only marked, and flushed when it becomes that. All state is in the hart's memory; the hart's thread alone
 * writes it (N24).
 *
 * Use: `switchSpace` whenever satp, `updateContext` whenever the mode or SUM has changed; `fill` and `fillFetch` on a miss.
 *
 * WHY spaces: a switch between two processes of Linux costs no refill of some 120 entries, which was a third of its time.
 */
export class HartTlb {
  protected readonly i32: Int32Array;
  private readonly engine: RiscvEngine;
  private readonly base: number;

  constructor(engine: RiscvEngine, base: number) {
    this.engine = engine;
    this.i32 = engine.i32;
    this.base = base;
  }

  /** Of a new hart, with satp 0. */
  init(): void {
    this.engine.fill(this.base + L.TLB_SATPS, 0xff, 8 * L.NR_TLB_SPACES);
    this.engine.fill(this.base + L.TLB_USED, 1, NR_TABLES);
    this.setWord(L.TLB_SPACE, this.offsetOf(this.takeSpace(0, 0)));
    this.flushAll();
  }

  private word(offset: number): number {
    return this.i32[(this.base + offset) >>> 2]!;
  }

  private setWord(offset: number, value: number): void {
    this.i32[(this.base + offset) >>> 2] = value;
  }

  // Which tables.

  /** For the present mode and SUM. */
  updateContext(mode: number, sum: boolean): void {
    const space = this.word(L.TLB_SPACE);
    const user = mode === MODE_USER;
    this.setWord(L.DATA_CTX, user ? space : sum ? space + L.TLB_SPACE_SUM : L.TLB_SUPERVISOR);
    this.setWord(L.FETCH_CTX, user ? space + L.TLB_SPACE_FETCH : L.TLB_SUPERVISOR_FETCH);
  }

  /** satp has become another. `updateContext` is the caller's. */
  switchSpace(low: number, high: number, pagingChanged: boolean): void {
    if (pagingChanged || this.word(L.TLB_LOCAL) !== 0) this.flushSupervisor();
    const known = this.spaceOf(low, high);
    const space = known < 0 ? this.takeSpace(low, high) : known;
    this.setWord(L.TLB_SPACE, this.offsetOf(space));
    if (this.isStale(space)) this.flushSpace(space);
  }

  private spaceOf(low: number, high: number): number {
    for (let space = 0; space < L.NR_TLB_SPACES; space++) {
      const at = L.TLB_SATPS + 8 * space;
      if (this.word(at) === low && this.word(at + 4) === high) return space;
    }
    return -1;
  }

  /** Gives the next one away, in turn. */
  private takeSpace(low: number, high: number): number {
    const space = this.word(L.TLB_NEXT);
    this.setWord(L.TLB_NEXT, (space + 1) % L.NR_TLB_SPACES);
    this.setWord(L.TLB_SATPS + 8 * space, low);
    this.setWord(L.TLB_SATPS + 8 * space + 4, high);
    this.markStale(1 << space);
    return space;
  }

  private offsetOf(space: number): number {
    return L.TLB_SPACES + space * L.TLB_SPACE_BYTES;
  }

  private get present(): number {
    return (this.word(L.TLB_SPACE) - L.TLB_SPACES) / L.TLB_SPACE_BYTES;
  }

  private isStale(space: number): boolean {
    return (this.word(L.TLB_STALE) & (1 << space)) !== 0;
  }

  private markStale(spaces: number): void {
    this.setWord(L.TLB_STALE, this.word(L.TLB_STALE) | spaces);
  }

  // Entries.

  /** Index in words of the first place in a table of the page with this low word. */
  private first(table: number, low: number): number {
    return (this.base + table + firstPlace(low)) >>> 2;
  }

  private second(table: number, low: number): number {
    return (this.base + table + secondPlace(low)) >>> 2;
  }

  private setEntry(table: number, va: number, addend: number): void {
    this.engine.u8[this.base + usedOf(table)] = 1;
    const at = this.first(table, va | 0);
    if (this.i32[at] !== (va & ~0xfff)) this.moveAway(table, at);
    this.i32[at] = va & ~0xfff;
    this.i32[at + 1] = Math.floor(va / 2 ** 32);
    this.i32[at + 2] = addend;
  }

  /** What is in the first place of its own goes to its second. */
  private moveAway(table: number, at: number): void {
    const low = this.i32[at]!;
    if ((low & 0xfff) !== 0 || this.first(table, low) !== at) return;
    const to = this.second(table, low);
    this.i32[to] = low;
    this.i32[to + 1] = this.i32[at + 1]!;
    this.i32[to + 2] = this.i32[at + 2]!;
    this.i32[to + 3] = this.i32[at + 3]!;
  }

  /** Maps the page of `va` in the present mode to `hostPage`, for reads or for writes. `global`: by a pte with PTE_G, in all address spaces. */
  fill(va: number, hostPage: number, write: boolean, global: boolean): void {
    const table = this.word(L.DATA_CTX);
    if (!global && table === L.TLB_SUPERVISOR) this.setWord(L.TLB_LOCAL, 1);
    this.setEntry(write ? table + L.TLB_WRITE : table, va, (hostPage << 12) - (va & ~0xfff));
  }

  /** Enters the records of the page of `va` for fetches in the present mode. */
  fillFetch(va: number, records: number, global: boolean): void {
    const table = this.word(L.FETCH_CTX);
    if (!global && table === L.TLB_SUPERVISOR_FETCH) this.setWord(L.TLB_LOCAL, 1);
    this.setEntry(table, va, records);
  }

  /** Host address of `va` if it is there for reading or writing in the present mode, else -1. */
  lookup(va: number, access: Access): number {
    const at = this.entryOf(va, access) >>> 2;
    return this.isFor(at, va) ? ((va | 0) + this.i32[at + 2]!) >>> 0 : -1;
  }

  /** Address of the entry where `va` is, if it is anywhere. */
  entryOf(va: number, access: Access): number {
    const context = this.word(L.DATA_CTX);
    const table = access === ACCESS_READ ? context : context + L.TLB_WRITE;
    const at = this.first(table, va | 0);
    return 4 * (this.isFor(at, va) ? at : this.second(table, va | 0));
  }

  private isFor(at: number, va: number): boolean {
    return this.i32[at] === (va & ~0xfff) && this.i32[at + 1] === Math.floor(va / 2 ** 32);
  }

  /** Calls `fn` for each data entry that may still be used: what it translates, to which host address, for reading or writing, and its own address. */
  forEach(fn: (va: number, hostAddress: number, write: boolean, entry: number) => void): void {
    this.forEachDataTable((table, write) => {
      const first = (this.base + table) >>> 2;
      for (let at = first; at < first + L.TLB_TABLE_BYTES / 4; at += L.TLB_ENTRY_BYTES / 4) {
        const low = this.i32[at]!;
        // Tags are page-aligned but where the entry is empty.
        if ((low & 0xfff) !== 0) continue;
        fn(this.i32[at + 1]! * 2 ** 32 + (low >>> 0), (low + this.i32[at + 2]!) >>> 0, write, at * 4);
      }
    });
  }

  private forEachDataTable(fn: (table: number, write: boolean) => void): void {
    const pair = (table: number) => {
      fn(table, false);
      fn(table + L.TLB_WRITE, true);
    };
    pair(L.TLB_SUPERVISOR);
    for (let space = 0; space < L.NR_TLB_SPACES; space++) {
      if (this.isStale(space)) continue;
      pair(this.offsetOf(space));
      pair(this.offsetOf(space) + L.TLB_SPACE_SUM);
    }
  }

  // Flushes.

  /** Everything, in all spaces. */
  flushAll(): void {
    this.flushSupervisor();
    this.setWord(L.TLB_STALE, (1 << L.NR_TLB_SPACES) - 1);
    this.flushSpace(this.present);
  }

  private flushSupervisor(): void {
    this.empty(L.TLB_SUPERVISOR, L.TLB_SUPERVISOR_BYTES);
    this.setWord(L.TLB_LOCAL, 0);
  }

  private flushSpace(space: number): void {
    this.empty(this.offsetOf(space), L.TLB_SPACE_BYTES);
    this.setWord(L.TLB_STALE, this.word(L.TLB_STALE) & ~(1 << space));
  }

  /** Tables that follow each other. WHY by table: of 128 KiB a guest without user mode uses less than half, and a flush is mostly its stores. */
  private empty(first: number, lenBytes: number): void {
    const { u8 } = this.engine;
    for (let table = first; table < first + lenBytes; table += L.TLB_TABLE_BYTES) {
      const used = this.base + usedOf(table);
      if (u8[used] === 0) continue;
      this.engine.fill(this.base + table, 0xff, L.TLB_TABLE_BYTES);
      u8[used] = 0;
    }
  }

  /** All of an address space but what is global (`sfence.vma` with rs2). */
  flushAsid(asid: number): void {
    if (this.word(L.TLB_LOCAL) !== 0) this.flushSupervisor();
    for (let space = 0; space < L.NR_TLB_SPACES; space++) if (this.asidOf(space) === asid) this.markStale(1 << space);
    if (this.isStale(this.present)) this.flushSpace(this.present);
  }

  private asidOf(space: number): number {
    return (this.word(L.TLB_SATPS + 8 * space + 4) >>> 12) & 0xffff;
  }

  /** The page of `va`, in all modes and spaces: by the low word, so that another page that has the same goes too. */
  flushPage(va: number): void {
    this.forget(L.TLB_SUPERVISOR, L.TLB_SUPERVISOR_BYTES, va);
    for (let space = 0; space < L.NR_TLB_SPACES; space++)
      if (!this.isStale(space)) this.forget(this.offsetOf(space), L.TLB_SPACE_BYTES, va);
  }

  private forget(first: number, lenBytes: number, va: number): void {
    this.engine.tlbOps.forgetPage(this.base + first, this.base + first + lenBytes, va & ~0xfff);
  }

  /** Of the present mode's fetches alone. */
  flushFetch(va: number): void {
    this.forget(this.word(L.FETCH_CTX), L.TLB_TABLE_BYTES, va);
  }

  /** All that leads to decoded code. */
  flushFetches(): void {
    const present = this.word(L.TLB_SPACE);
    this.engine.fill(this.base + L.TLB_SUPERVISOR_FETCH, 0xff, L.TLB_TABLE_BYTES);
    this.engine.fill(this.base + present + L.TLB_SPACE_FETCH, 0xff, L.TLB_TABLE_BYTES);
    this.markStale(((1 << L.NR_TLB_SPACES) - 1) & ~(1 << this.present));
  }

  /** Takes away whatever lets `hostPage` be written. */
  forbidWrites(hostPage: number): void {
    this.forEachDataTable((table, write) => {
      if (write) this.engine.tlbOps.forbidPage(this.base + table, hostPage);
    });
  }
}

const NR_TABLES = (L.TLB_SUPERVISOR_BYTES + L.NR_TLB_SPACES * L.TLB_SPACE_BYTES) / L.TLB_TABLE_BYTES;

/** Offset of the byte of a table: who enters something sets it (here and refill.ts), before or after, for the hart's thread alone reads it. */
function usedOf(table: number): number {
  return L.TLB_USED + ((table - L.TLB_SUPERVISOR) >>> L.TLB_TABLE_SHIFT);
}

/** Byte offset in a table. */
function firstPlace(low: number): number {
  return (low >>> 8) & ((L.TLB_ENTRIES - 1) * L.TLB_ENTRY_BYTES);
}

function secondPlace(low: number): number {
  return firstPlace(low) ^ (((low >>> L.TLB_SECOND_SHIFT) & L.TLB_SECOND_MASK) | L.TLB_SECOND_FLIP);
}
