import { Words } from '../base/index.js';
import {
  FAULT_FLAG_WRITE,
  INVALIDATE_SEQ_WORDS,
  InvalidateSeq,
  type Mm,
  type MmuNotifierOps,
  type MmuNotifierRange,
  mmuNotifierRegister,
  PAGE_SIZE,
  pfnToPa,
} from '../mm/index.js';

/**
 * The external MMU that `unpin step` watches: a page table of one entry, and a TLB of one entry over it. It keeps the contract; each thing that it
 * does is told to `tell` when it is done.
 */
export interface ExternalEntry {
  readonly pfn: number;
  readonly write: boolean;
}

export class StepDevice implements MmuNotifierOps {
  entry: ExternalEntry | undefined;
  tlb: ExternalEntry | undefined;
  /** Whether the entry was used since reclaim asked. */
  accessed = false;
  /** Who takes pages away. */
  taker = 'reclaim';
  readonly seq: InvalidateSeq;
  private readonly words: Words;
  private readonly mm: Mm;
  private readonly va: number;
  private readonly tell: (who: string, what: string) => void;

  constructor(mm: Mm, va: number, tell: (who: string, what: string) => void) {
    this.mm = mm;
    this.va = va;
    this.tell = tell;
    const { host } = mm;
    this.words = new Words(host.memory, host.arenaAlloc(4 * INVALIDATE_SEQ_WORDS, 4), INVALIDATE_SEQ_WORDS);
    for (let i = 0; i < INVALIDATE_SEQ_WORDS; i++) this.words.writeOnce(i, 0);
    this.seq = new InvalidateSeq(this.words, 0);
    mmuNotifierRegister(mm, va, va + PAGE_SIZE, this);
  }

  /** The sequence count, as a reader sees it. */
  get count(): number {
    return this.seq.readBegin();
  }

  invalidateRangeStart(_sub: unknown, range: MmuNotifierRange): void {
    this.seq.beginRange(range);
    this.tell(this.taker, 'invalidateRangeStart: the driver counts a bracket');
    this.entry = undefined;
    this.tell(this.taker, '  the external pte is zapped');
    this.tlb = undefined;
    this.tell(this.taker, '  the TLB is flushed; only now does the callback return');
  }

  invalidateRangeEnd(): void {
    this.seq.end();
    this.tell(this.taker, 'invalidateRangeEnd: seq moves, the bracket is over');
  }

  clearFlushYoung(): boolean {
    const young = this.accessed;
    this.accessed = false;
    this.tlb = undefined;
    this.tell(
      'reclaim',
      `clearFlushYoung: the external accessed bit was ${young ? 'set' : 'clear'}; the TLB is flushed`,
    );
    return young;
  }

  /** One access: by the TLB, by the external pte, or by one attempt at an external fault. Whether it was done. */
  access(write: boolean, value = 0): boolean {
    const what = write ? `store of ${value}` : 'load';
    const hit = this.tlb !== undefined && (this.tlb.write || !write);
    if (!hit && !this.fill(what, write)) return false;
    const pa = pfnToPa(this.tlb!.pfn);
    const { u8 } = this.mm.host;
    if (write) u8[pa] = value;
    this.tell(
      'device',
      write ? `${what} ${hit ? 'hits the TLB' : 'done'}` : `load ${hit ? 'hits the TLB' : 'done'}: ${u8[pa]}`,
    );
    return true;
  }

  private fill(what: string, write: boolean): boolean {
    const { entry } = this;
    if (entry !== undefined && (entry.write || !write))
      this.tell('device', `${what}: TLB miss, the external pte has it`);
    else if (!this.fault(what, write)) return false;
    this.tlb = this.entry;
    this.accessed = true;
    this.tell('device', '  the TLB is filled, the external accessed bit set');
    return true;
  }

  /** The external fault (N8). */
  private fault(what: string, write: boolean): boolean {
    const seq = this.seq.readBegin();
    this.tell('device', `${what} faults: reads seq ${seq}`);
    const pfn = this.mm.tryGetPage(this.va, write ? FAULT_FLAG_WRITE : 0);
    if (pfn < 0) {
      this.tell('device', '  tryGetPage: FAULT_RETRY, the page is not in memory');
      return false;
    }
    this.tell('device', `  tryGetPage: frame ${pfn}, with a reference`);
    const retry = this.seq.readRetry(seq, this.va);
    if (!retry) this.entry = { pfn, write };
    this.tell(
      'device',
      retry ? '  readRetry: yes. It may not be installed' : '  readRetry: no. The external pte is installed',
    );
    this.mm.putPage(pfn);
    return !retry;
  }
}
