import { KernelError } from '../base/index.js';
import { FAULT_FLAG_WRITE, FAULT_RETRY, type Mm, PAGE_SIZE, pfnToPa, type Vma } from '../mm/index.js';
import {
  PteNotifier,
  pteNotifierReadBegin,
  pteNotifierReadRetry,
  pteNotifierRegister,
  pteNotifierUnpin,
  pteNotifierUnregister,
} from '../notifier/index.js';

/**
 * The external page table of a GuestRam, and its whole relation with mm: a driver written with the proposal's face and nothing else
 * of the notifiers.
 *
 * It is flat: for each page of the guest two words, the host physical address of the frame for reading and for writing, 0 where an access
 * has to fault. So it costs 8 bytes a page (0.2 %), has no conflicts, and an entry is found by `clear` without a search.
 *
 * WHY: a hit costs 0.9 ns over a plain array, a tagged TLB of fixed size 1.4 to 1.7, and that misses too.
 *
 * Guarantees: an entry is there only while its page is mapped in the mm (`clear` takes it away first), the right to write only after
 * the mm granted a write, which marked the page dirty. `faultSync` and `tryFault` alone install, between read-begin and read-retry.
 *
 * Aging. The proposal's callbacks return nothing, so reclaim cannot ask whether a page was used through this table, and a hit leaves no trace
 * in the pte: a hot page looks cold and is swapped out. But a fault that finds its page present marks the pte accessed. So each `clear`
 * also drops the next few entries of a sweep: hot ones come back by a cheap fault before reclaim looks at them again.
 *
 * WHY: of a hot set of 30 % of the frames beside a stream, 42 % more pages were read from swap than with clearFlushYoung, of one of
 * 60 % twice as many; with the sweep 0 and 6 % more.
 */

/** Sweeps over the whole table while reclaim takes as many pages as are resident. */
const SWEEPS_PER_CYCLE = 4;
/** Pages that one `clear` looks at, at most. */
const MAX_SWEEP_PAGES = 4096;

/** Of `tryFault`: a bracket ran or runs beside it. */
export const STALE = 0;

export interface GuestRamStats {
  /** Accesses that found no entry. */
  faults: number;
  /** Those that had to wait for a page or a free frame. */
  majorFaults: number;
  /** Look-ups thrown away because a bracket ran beside them. */
  retries: number;
  /** Calls of `clear`. */
  clears: number;
  /** Entries dropped by aging. */
  aged: number;
}

export class SoftTlb {
  readonly mm: Mm;
  /** First byte in the mm. */
  readonly va: number;
  readonly lenBytes: number;
  readonly stats: GuestRamStats = { faults: 0, majorFaults: 0, retries: 0, clears: 0, aged: 0 };
  /** Host physical address of each page, as int32; 0: fault. */
  protected readonly readTable: Int32Array;
  protected readonly writeTable: Int32Array;
  private readonly pn: PteNotifier;
  private hand = 0;

  /** Over [va, va + lenBytes) of `mm`, which lies in one VMA. */
  protected constructor(mm: Mm, va: number, lenBytes: number) {
    this.mm = mm;
    this.va = va;
    this.lenBytes = lenBytes;
    const nrPages = checkArea(mm, va, lenBytes);
    this.readTable = new Int32Array(nrPages);
    this.writeTable = new Int32Array(nrPages);
    const flushAll = () => this.flushAll();
    const clear = (_pn: PteNotifier, _vma: Vma, address: number) => this.clear(address);
    const mappings = (_pn: PteNotifier, start: number, end: number, writable: boolean) =>
      this.countEntries(start, end, writable);
    this.pn = new PteNotifier({ clear, release: flushAll, mappings }, { onPoisoned: flushAll });
    pteNotifierRegister(this.pn, mm.findVma(va)!);
  }

  /** Whether it is in use: not destroyed, and not all of it unmapped. */
  get alive(): boolean {
    return this.pn.registered;
  }

  /** Refuses what is not a whole access inside the RAM, and everything once a callback broke its contract (N19). */
  protected check(addr: number, lenBytes: number): void {
    const inside = Number.isInteger(addr) && addr >= 0 && addr + lenBytes <= this.lenBytes;
    if (inside && this.alive && this.pn.poisoned === undefined) return;
    const what = Number.isInteger(addr) ? `0x${addr.toString(16)} with ${lenBytes} bytes` : String(addr);
    if (!inside) refuse('EFAULT', `address ${what} must lie in [0, 0x${this.lenBytes.toString(16)})`);
    if (!this.alive) refuse('EFAULT', `address ${what} of RAM that is destroyed or unmapped`);
    refuse('EIO', `address ${what}: the RAM may map nothing any more: ${this.pn.poisoned}`);
  }

  /** Ends the relation with mm; what a broken contract had pinned is won back, for the table is empty. */
  protected detach(): void {
    if (this.pn.registered) pteNotifierUnregister(this.pn);
    this.flushAll();
    pteNotifierUnpin(this.pn);
  }

  private countEntries(start: number, end: number, writable: boolean): number {
    const table = writable ? this.writeTable : this.readTable;
    let nr = 0;
    for (let page = (start - this.va) / PAGE_SIZE; page < (end - this.va) / PAGE_SIZE; page++) if (table[page]) nr++;
    return nr;
  }

  private clear(address: number): void {
    this.stats.clears++;
    this.drop((address - this.va) / PAGE_SIZE);
    this.age();
  }

  /** The VMA may be larger than the RAM in it: typed arrays ignore what is outside them. */
  private drop(page: number): void {
    this.readTable[page] = 0;
    this.writeTable[page] = 0;
  }

  private flushAll(): void {
    this.readTable.fill(0);
    this.writeTable.fill(0);
  }

  /**
   * The host physical address of a page, installed; or the FAULT_ number that is in the way, or STALE. Never waits. A copy-on-write of
   * its own is a bracket as well: it looks twice.
   */
  protected tryFault(page: number, write: boolean): number {
    const pa = this.tryFaultOnce(page, write);
    return pa === STALE ? this.tryFaultOnce(page, write) : pa;
  }

  private tryFaultOnce(page: number, write: boolean): number {
    this.stats.faults++;
    const va = this.va + page * PAGE_SIZE;
    const seq = pteNotifierReadBegin(this.pn);
    const pfn = this.mm.tryGetPage(va, write ? FAULT_FLAG_WRITE : 0);
    if (pfn < 0) return pfn;
    const stale = pteNotifierReadRetry(this.pn, seq, va);
    if (!stale) this.install(page, pfn, write);
    this.mm.putPage(pfn);
    return stale ? this.countRetry() : pfnToPa(pfn);
  }

  private install(page: number, pfn: number, write: boolean): void {
    const pa = pfnToPa(pfn);
    this.readTable[page] = pa;
    if (write) this.writeTable[page] = pa;
  }

  private countRetry(): number {
    this.stats.retries++;
    this.mm.host.vmstat.retries++;
    return STALE;
  }

  /** The same, blocking. Throws KernelError EFAULT, EHWPOISON, ENOMEM, EOPNOTSUPP, EIO; EDEADLK where a bracket holds the page. */
  protected faultSync(page: number, write: boolean): number {
    const va = this.va + page * PAGE_SIZE;
    for (;;) {
      const pa = this.tryFault(page, write);
      if (pa > 0) return pa;
      // Nothing else runs before this returns, so a bracket that is open now will not end.
      if (pa === STALE) refuse('EDEADLK', `address 0x${va.toString(16)} is being taken away: not from a callback`);
      if (pa === FAULT_RETRY) this.stats.majorFaults++;
      this.mm.faultInSync(va, write ? FAULT_FLAG_WRITE : 0);
    }
  }

  protected translateSlow(addr: number, write: boolean): number {
    this.check(addr, 1);
    return this.faultSync(addr >>> 12, write) + (addr & 4095);
  }

  /** Where the bytes [addr, addr + lenBytes) are, blocking for the page; -1 when they cross into the next one. */
  protected spanSlow(addr: number, lenBytes: number, write: boolean): number {
    const offset = addr & 4095;
    const pa = (write ? this.writeTable : this.readTable)[addr >>> 12];
    if (pa && addr >>> 0 === addr && offset + lenBytes <= PAGE_SIZE) return (pa | offset) >>> 0;
    this.check(addr, lenBytes);
    return offset + lenBytes > PAGE_SIZE ? -1 : this.faultSync(addr >>> 12, write) + offset;
  }

  /** Waits until the page can be had. Rejects with KernelError EFAULT, EHWPOISON, ENOMEM. */
  protected async waitFor(page: number, write: boolean): Promise<void> {
    this.stats.majorFaults++;
    await this.mm.faultIn(this.va + page * PAGE_SIZE, write ? FAULT_FLAG_WRITE : 0);
  }

  private age(): void {
    const { readTable } = this;
    const perPage = Math.ceil((SWEEPS_PER_CYCLE * readTable.length) / this.mm.residentPages);
    for (let k = Math.min(perPage, MAX_SWEEP_PAGES); k > 0; k--) {
      if (this.hand >= readTable.length) this.hand = 0;
      if (readTable[this.hand] !== 0) {
        this.stats.aged++;
        this.drop(this.hand);
      }
      this.hand++;
    }
  }
}

/** The table is indexed by 20 bits, what a 32-bit address has above its offset. */
export function checkLenBytes(lenBytes: number): void {
  if (!(Number.isInteger(lenBytes) && lenBytes > 0 && lenBytes <= 2 ** 32 && lenBytes % PAGE_SIZE === 0))
    refuse('EINVAL', `lenBytes ${lenBytes} must be a multiple of ${PAGE_SIZE} up to 2^32`);
}

/** Returns the pages. */
function checkArea(mm: Mm, va: number, lenBytes: number): number {
  checkLenBytes(lenBytes);
  const vma = va % PAGE_SIZE === 0 ? mm.findVma(va) : undefined;
  if (vma === undefined || va + lenBytes > vma.end) {
    const range = `[0x${va.toString(16)}, 0x${(va + lenBytes).toString(16)})`;
    refuse('EINVAL', `${range} must be whole pages of one VMA of ${mm.name}`);
  }
  return lenBytes / PAGE_SIZE;
}

function refuse(code: 'EINVAL' | 'EFAULT' | 'EIO' | 'EDEADLK', message: string): never {
  throw new KernelError(code, 'GuestRam', message);
}
