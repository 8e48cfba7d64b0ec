import { type WasmMemory, Words } from '../../base/index.js';
import { FAULT_RETRY } from '../fault/faultcode.js';
import { PTRS_PER_TABLE, pfnToPa, vaToVpn } from '../layout.js';
import { createPageOps, type PageOps } from '../page/pageops.js';
import { PTE_NONE, PTE_PRESENT, PTE_READ, PTE_WRITE, peekPte, ptePfn } from '../pgtable/pte.js';
import {
  AREA_FILLED,
  AREA_HEAD,
  AREA_ROOT,
  areaLabel,
  areaWords,
  armCovers,
  type RemoteDescriptor,
  slotPfn,
  slotVpn,
} from './descriptor.js';
import { demandZeroPte } from './undrained.js';

/**
 * How a thread that has no `Mm` resolves an external fault: a vCPU's worker, a NIC's. It reads the host's page table, and makes pages of zeros from
 * frames that were given to it; for all else it asks the mm thread.
 *
 *   seq = invalidate.readBegin()
 *   pfn = remote.lookup(va, write)          FAULT_RETRY: ask the mm thread (`tryGetPage`, `faultIn`), and begin again
 *   lock of the driver
 *     if readRetry(seq, va): unlock, begin again
 *     pfn is REMOTE_ZERO: pfn = remote.mapZero(va); FAULT_RETRY: unlock, begin again, or ask the mm thread
 *     install pfn
 *   unlock
 *
 * Nothing is installed after the driver's `release`: that is looked at under the lock as well. No reference of the page is needed: a bracket that begins later takes the driver's lock and takes the entry away, before the pte changes.
 *
 * What may be read without any lock is the page table as it was, or garbage: a table that is freed meanwhile, and is another's then. Tables are freed
 * inside UNMAP brackets over all that they mapped; seq moves at their end, and `readRetry` says so. `mapZero` must not even once write to such a table,
 * and does not: the arm that it reads names table and address in one word, an armed table stays where it is until a bracket over what was armed has
 * opened, and none is open over `va`, for its start would wait for the lock that the caller holds (remotes.ts has the rest).
 *
 * It may be stopped for ever between any two of its steps; remotearea.ts then tells what has become of its frames (N25).
 */

/** The page is untouched memory, and can be had by `mapZero`. */
export const REMOTE_ZERO = 0;

export class RemoteMm {
  private readonly area: Words;
  private readonly arms: Words;
  private readonly tables: Words;
  /** Address of pte 0. */
  readonly ptesAddr: number;
  private readonly capacity: number;
  private readonly pageOps: PageOps;

  /** One thread alone uses a descriptor at a time: the next one when `recover` has run. */
  constructor(memory: WasmMemory, descriptor: RemoteDescriptor) {
    const { areaAddr, capacity, armsAddr, tablesAddr, nrTables } = descriptor;
    this.capacity = capacity;
    this.ptesAddr = tablesAddr;
    this.area = new Words(memory, areaAddr, areaWords(capacity), { word: (i) => areaLabel(i, capacity) });
    this.arms = new Words(memory, armsAddr, nrTables, { word: (i) => `arm of table ${i}` });
    this.tables = new Words(memory, tablesAddr, nrTables * PTRS_PER_TABLE);
    this.pageOps = createPageOps(memory);
  }

  /**
   * The frame behind `va` where its pte is present and gives the right; REMOTE_ZERO where it is to be written and `mapZero` may do; else
   * FAULT_RETRY: only the mm thread can tell. What it returns is good for `readRetry` alone. Untouched memory that is only read is the mm thread's
   * too: it maps the zero page.
   */
  lookup(va: number, write: boolean): number {
    const vpn = vaToVpn(va);
    const i = this.find(vpn);
    if (i === 0) return FAULT_RETRY;
    const pte = this.tables.load(i);
    const need = write ? PTE_PRESENT | PTE_READ | PTE_WRITE : PTE_PRESENT | PTE_READ;
    if ((pte & need) === need) return ptePfn(pte);
    return write && pte === PTE_NONE && this.mayZero(i, vpn) ? REMOTE_ZERO : FAULT_RETRY;
  }

  /**
   * For `peekPte`: number of the first pte of the leaf table that has page `vpn`, whose own is `vpn & 511` further; 0: there is none. Under the driver's
   * lock, while no bracket is under way at all (`InvalidateSeq.inProgress`): so no pte loses anything, and no table goes, before the lock is given back.
   */
  peekTable(vpn: number): number {
    const root = this.area.load(AREA_ROOT);
    if (root === 0 || vpn >>> 27 !== 0) return 0;
    const mid = this.tables.readOnce(root + (vpn >>> 18));
    return mid === 0 ? 0 : this.tables.readOnce(mid * PTRS_PER_TABLE + ((vpn >>> 9) & 511)) * PTRS_PER_TABLE;
  }

  /** What an external MMU may map by a pte without a fault: pfn * 2, and 1 more where it may be written; 0: only a fault can tell. */
  peekPte(index: number): number {
    return peekPte(this.tables.readOnce(index));
  }

  /** Word of the pte, or 0. */
  private find(vpn: number): number {
    const root = this.area.load(AREA_ROOT);
    if (root === 0 || vpn >>> 27 !== 0) return 0;
    const mid = this.tables.load(root + (vpn >>> 18));
    if (mid === 0) return 0;
    const leaf = this.tables.load(mid * PTRS_PER_TABLE + ((vpn >>> 9) & 511));
    return leaf === 0 ? 0 : leaf * PTRS_PER_TABLE + (vpn & 511);
  }

  private mayZero(i: number, vpn: number): boolean {
    return armCovers(this.arms.load(i >>> 9), vpn) && this.countFrames() > 0;
  }

  /** Frames that it has left: what the mm thread should know when it is asked for something anyway. */
  get nrFrames(): number {
    return this.countFrames();
  }

  private countFrames(): number {
    return (this.area.load(AREA_FILLED) - this.area.load(AREA_HEAD)) | 0;
  }

  /**
   * Maps a page of zeros at `va`, writable and dirty, and returns its frame; or FAULT_RETRY, with nothing done. The caller holds its driver's lock, and
   * `readRetry` has said no under it; the driver's subscription covers `va`.
   *
   * The order of its stores is that of remotearea.ts: the slot says where the frame goes, the pte is written, the position moves.
   */
  mapZero(va: number): number {
    const { area, capacity } = this;
    const vpn = vaToVpn(va);
    const i = this.find(vpn);
    if (i === 0 || !this.mayZero(i, vpn)) return FAULT_RETRY;
    const head = area.load(AREA_HEAD);
    const slot = slotVpn(head, capacity);
    area.store(slot, vpn);
    // Pairs with `takeBack`: either it sees the page in the slot, or we see that the frame is ours no more.
    if (((area.load(AREA_FILLED) - head) | 0) <= 0) return this.giveUp(slot);
    const pfn = area.readOnce(slotPfn(head, capacity));
    this.pageOps.zero(pfnToPa(pfn));
    if (this.tables.compareExchange(i, PTE_NONE, demandZeroPte(pfn)) !== PTE_NONE) return this.giveUp(slot);
    area.store(AREA_HEAD, (head + 1) | 0);
    return pfn;
  }

  /** The frame stays where it was. */
  private giveUp(slot: number): number {
    this.area.store(slot, 0);
    return FAULT_RETRY;
  }
}
