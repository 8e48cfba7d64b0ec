import { Words } from '../base/index.js';
import { type Host, PAGE_SIZE } from '../mm/index.js';
import { Memslot, type MemslotRecord, memslotBytes } from './memslot.js';

/**
 * The memslots of one VM, in shared words, so that every thread that runs a vCPU sees the same slots.
 *
 * The mm thread makes the table and alone changes it, with the VM's mmuLock held; `Memslots.attach` is the view of another
 * thread, which looks slots up with mmuLock held. Each change moves `generation`, by which a view knows that what it has
 * cached is stale:
 *
 *   mm thread                                vCPU
 *   lock                                     slot = find(gfn)
 *   zap; remove(slot): generation moves      page = tryGetPage(slot.hva(gfn))
 *   unlock; every vCPU flushes               lock
 *   free(slot)                               isCurrent(slot) says no: unlock, again
 *
 * Required outcome: nothing is installed in a slot that went, whose words are another's by now (M29).
 *
 * Use: `new Memslots(host)` or `Memslots.attach(memory, descriptor)`; `find`; on the mm thread `alloc`, `add`, `remove`, `free`.
 */

export const KVM_USER_MEM_SLOTS = 32;

/** The table's words: generation, a bit for each slot there is, then the records. */
const GENERATION = 0;
const USED = 1;
const FIRST_RECORD = 2;
/** Words of a record. */
const BASE_GFN = 0;
const NR_PAGES = 1;
const BASE_VPN = 2;
const FLAGS = 3;
const ARENA_ADDR = 4;
const RECORD_GENERATION = 5;
const RECORD_WORDS = 6;
const NR_WORDS = FIRST_RECORD + KVM_USER_MEM_SLOTS * RECORD_WORDS;

/** What another thread needs to attach; plain data. */
export interface MemslotsDescriptor {
  readonly tableAddr: number;
}

/** What is chosen for a new slot; the rest is the table's. */
export type NewMemslot = Omit<MemslotRecord, 'arenaAddr' | 'generation'>;

export class Memslots {
  private readonly memory: { buffer: SharedArrayBuffer };
  /** Of the mm thread alone. */
  private readonly host: Host | undefined;
  private readonly tableAddr: number;
  private readonly words: Words;
  private readonly list: Memslot[] = [];
  private generation = 0;
  private last: Memslot | undefined;

  /** An empty table, of the mm thread. Throws KernelError ENOMEM. */
  constructor(host: Host);
  constructor(host: undefined, memory: { buffer: SharedArrayBuffer }, tableAddr: number);
  constructor(host: Host | undefined, memory?: { buffer: SharedArrayBuffer }, tableAddr?: number) {
    this.host = host;
    this.memory = memory ?? host!.memory;
    this.tableAddr = tableAddr ?? host!.arenaAlloc(NR_WORDS * 4, 64);
    this.words = new Words(this.memory, this.tableAddr, NR_WORDS);
    if (host !== undefined) clear(this.words);
  }

  /** The view of another thread. Its owner looks slots up with mmuLock held, and changes none. */
  static attach(memory: { buffer: SharedArrayBuffer }, descriptor: MemslotsDescriptor): Memslots {
    return new Memslots(undefined, memory, descriptor.tableAddr);
  }

  descriptor(): MemslotsDescriptor {
    return { tableAddr: this.tableAddr };
  }

  /** The slot of a guest frame. The last hit is kept: a VM has few slots and its accesses stay in one. */
  find(gfn: number): Memslot | undefined {
    if (this.words.readOnce(GENERATION) !== this.generation) this.refresh();
    const last = this.last;
    if (last !== undefined && gfn >= last.baseGfn && gfn < last.baseGfn + last.nrPages) return last;
    return this.findSlow(gfn);
  }

  private findSlow(gfn: number): Memslot | undefined {
    const found = this.list.find((slot) => slot.contains(gfn));
    if (found !== undefined) this.last = found;
    return found;
  }

  /** Moves with each change of the table. */
  get currentGeneration(): number {
    return this.words.readOnce(GENERATION);
  }

  /** Host virtual address of the page at guest-physical `gpa`; undefined where no slot is. */
  hva(gpa: number): number | undefined {
    const gfn = Math.floor(gpa / PAGE_SIZE);
    return this.find(gfn)?.hva(gfn);
  }

  bySlot(slot: number): Memslot | undefined {
    return this.all().find((s) => s.slot === slot);
  }

  all(): readonly Memslot[] {
    if (this.words.readOnce(GENERATION) !== this.generation) this.refresh();
    return this.list;
  }

  /** Whether `slot`, found before mmuLock was taken, is still there as it was. With mmuLock held. */
  isCurrent(slot: Memslot): boolean {
    return this.words.readOnce(recordOf(slot.slot) + RECORD_GENERATION) === slot.generation;
  }

  /** Builds the list again; what did not change keeps its object. */
  private refresh(): void {
    const { words, list } = this;
    const old = list.splice(0);
    this.last = undefined;
    this.generation = words.readOnce(GENERATION);
    const used = words.readOnce(USED);
    for (let slot = 0; slot < KVM_USER_MEM_SLOTS; slot++) {
      if (((used >>> slot) & 1) === 0) continue;
      const generation = words.readOnce(recordOf(slot) + RECORD_GENERATION);
      const same = old.find((s) => s.generation === generation);
      list.push(same ?? new Memslot(this.memory, this.read(slot, generation)));
    }
  }

  private read(slot: number, generation: number): MemslotRecord {
    const { words } = this;
    const at = recordOf(slot);
    return {
      slot,
      baseGfn: words.readOnce(at + BASE_GFN) >>> 0,
      nrPages: words.readOnce(at + NR_PAGES),
      baseVpn: words.readOnce(at + BASE_VPN),
      flags: words.readOnce(at + FLAGS),
      arenaAddr: words.readOnce(at + ARENA_ADDR) >>> 0,
      generation,
    };
  }

  /** The words of a slot, cleared, which nobody sees before `add`. Throws KernelError ENOMEM. */
  alloc(nrPages: number): number {
    const arenaAddr = this.host!.arenaAlloc(memslotBytes(nrPages), 8);
    clear(new Words(this.memory, arenaAddr, memslotBytes(nrPages) / 4));
    return arenaAddr;
  }

  /** Puts a slot into the table, or another in its place. On the mm thread, with mmuLock held. */
  add(record: NewMemslot, arenaAddr: number): void {
    const { words } = this;
    const at = recordOf(record.slot);
    words.writeOnce(at + BASE_GFN, record.baseGfn | 0);
    words.writeOnce(at + NR_PAGES, record.nrPages);
    words.writeOnce(at + BASE_VPN, record.baseVpn);
    words.writeOnce(at + FLAGS, record.flags);
    words.writeOnce(at + ARENA_ADDR, arenaAddr | 0);
    words.writeOnce(USED, words.readOnce(USED) | (1 << record.slot));
    this.changed(at);
  }

  /** Takes a slot out of the table; its entries are zapped already. On the mm thread, with mmuLock held. */
  remove({ slot }: Memslot): void {
    this.words.writeOnce(USED, this.words.readOnce(USED) & ~(1 << slot));
    this.changed(recordOf(slot));
  }

  private changed(at: number): void {
    const generation = (this.words.readOnce(GENERATION) + 1) | 0;
    this.words.writeOnce(at + RECORD_GENERATION, generation);
    this.words.writeOnce(GENERATION, generation);
    // Its own view is never stale, so that a look at it changes nothing.
    this.refresh();
  }

  /** Gives the words of a removed slot back, once no vCPU can be using them. */
  free(slot: Memslot): void {
    this.host!.arenaFree(slot.arenaAddr, slot.arenaBytes);
  }

  /** Gives everything back, the table too. */
  destroy(): void {
    for (const slot of this.all()) this.free(slot);
    this.host!.arenaFree(this.tableAddr, NR_WORDS * 4);
  }
}

function recordOf(slot: number): number {
  return FIRST_RECORD + slot * RECORD_WORDS;
}

function clear(words: Words): void {
  for (let i = 0; i < words.length; i++) words.writeOnce(i, 0);
}
