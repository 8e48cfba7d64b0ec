import { KernelError, Words } from '../base/index.js';
import {
  FAULT_FLAG_WRITE,
  INVALIDATE_SEQ_LABEL,
  INVALIDATE_SEQ_WORDS,
  InvalidateSeq,
  type Mm,
  type MmuNotifierOps,
  type MmuNotifierRange,
  type MmuSubscription,
  mmuNotifierRegister,
  mmuNotifierUnpin,
  mmuNotifierUnregister,
  PAGE_SIZE,
  pfnToPa,
} from '../mm/index.js';
import type { ConformanceInstance } from './adapter.js';

/**
 * The smallest driver that keeps the contract, to read and to start from: a table from pages to frames under one lock, filled by external faults, emptied
 * by the notifier. Its faults may run on a thread of their own (its table is a Map here, so it is used on one).
 */
export interface ReferenceEntry {
  readonly pfn: number;
  readonly write: boolean;
  young: boolean;
}

const LOCK = INVALIDATE_SEQ_WORDS;
const NR_WORDS = INVALIDATE_SEQ_WORDS + 1;

export class ReferenceDriver implements ConformanceInstance, MmuNotifierOps {
  protected readonly mm: Mm;
  protected readonly table = new Map<number, ReferenceEntry>();
  protected readonly words: Words;
  protected readonly seq: InvalidateSeq;
  protected readonly sub: MmuSubscription;
  private readonly wordsAddr: number;
  protected ended = false;

  constructor(mm: Mm, va: number, lenBytes: number) {
    this.mm = mm;
    this.wordsAddr = mm.host.arenaAlloc(NR_WORDS * 4, 4);
    this.words = new Words(mm.host.memory, this.wordsAddr, NR_WORDS, INVALIDATE_SEQ_LABEL);
    for (let i = 0; i < NR_WORDS; i++) this.words.writeOnce(i, 0);
    this.seq = new InvalidateSeq(this.words, 0);
    this.sub = mmuNotifierRegister(mm, va, va + lenBytes, this);
  }

  /** Pairs with `invalidateRangeEnd`. */
  invalidateRangeStart(_sub: MmuSubscription, range: MmuNotifierRange): number {
    this.words.lock(LOCK);
    this.seq.beginRange(range);
    for (let i = 0; i < range.nrRanges; i++) this.zap(range.ranges[2 * i]!, range.ranges[2 * i + 1]!);
    this.words.unlock(LOCK);
    return 0;
  }

  protected zap(startVpn: number, endVpn: number): void {
    for (const vpn of this.table.keys()) if (vpn >= startVpn && vpn < endVpn) this.table.delete(vpn);
  }

  /** Pairs with `invalidateRangeStart`. */
  invalidateRangeEnd(_sub: MmuSubscription, _range: MmuNotifierRange): void {
    this.words.lock(LOCK);
    this.seq.end();
    this.words.unlock(LOCK);
  }

  clearFlushYoung(_sub: MmuSubscription, start: number, end: number): boolean {
    let young = false;
    for (let vpn = start / PAGE_SIZE; vpn < end / PAGE_SIZE; vpn++) {
      const entry = this.table.get(vpn);
      if (entry === undefined) continue;
      young ||= entry.young;
      entry.young = false;
    }
    return young;
  }

  testYoung(_sub: MmuSubscription, start: number, end: number): boolean {
    for (let vpn = start / PAGE_SIZE; vpn < end / PAGE_SIZE; vpn++) if (this.table.get(vpn)?.young) return true;
    return false;
  }

  release(_sub: MmuSubscription): void {
    this.table.clear();
    this.ended = true;
  }

  mappings(_sub: MmuSubscription, start: number, end: number, writable: boolean): number {
    let nr = 0;
    for (const [vpn, { write }] of this.table)
      if (vpn >= start / PAGE_SIZE && vpn < end / PAGE_SIZE && (write || !writable)) nr++;
    return nr;
  }

  /** One attempt at an external fault. False when a bracket came between, a FAULT_ number when the mm has no page to give. */
  protected tryFault(va: number, write: boolean): boolean | number {
    const seq = this.seq.readBegin();
    const pfn = this.mm.tryGetPage(va, write ? FAULT_FLAG_WRITE : 0);
    if (pfn < 0) return pfn;
    this.words.lock(LOCK);
    const stale = this.seq.readRetry(seq, va);
    if (!stale) this.table.set(va / PAGE_SIZE, { pfn, write, young: true });
    this.words.unlock(LOCK);
    this.mm.putPage(pfn);
    return !stale;
  }

  /** Calls `use` with the host physical address of the page at `va`, as the table has it: it is good until the next wait. */
  private async access<T>(va: number, write: boolean, use: (pa: number) => T): Promise<T> {
    for (;;) {
      if (this.ended) throw new KernelError('EFAULT', 'ReferenceDriver', 'the driver is destroyed, or its mm gone');
      if (this.sub.poisoned !== undefined) throw new KernelError('EIO', 'ReferenceDriver', this.sub.poisoned);
      const entry = this.table.get(va / PAGE_SIZE);
      if (entry !== undefined && (entry.write || !write)) {
        entry.young = true;
        return use(pfnToPa(entry.pfn));
      }
      const result = this.tryFault(va, write);
      if (typeof result === 'number') await this.mm.faultIn(va, write ? FAULT_FLAG_WRITE : 0);
      // Others have their turn, the end of the bracket among them.
      else if (!result) await new Promise<void>((resolve) => this.mm.host.defer(resolve));
    }
  }

  load(va: number): Promise<number> {
    return this.access(va, false, (pa) => this.mm.host.u8[pa]!);
  }

  store(va: number, value: number): Promise<void> {
    const { u8 } = this.mm.host;
    return this.access(va, true, (pa) => void (u8[pa] = value));
  }

  destroy(): void {
    if (!this.sub.registered) return;
    mmuNotifierUnregister(this.sub);
    this.table.clear();
    this.ended = true;
    this.mm.host.arenaFree(this.wordsAddr, NR_WORDS * 4);
    mmuNotifierUnpin(this.sub);
  }
}
