import { ReferenceDriver } from '../../src/conformance/index.js';
import {
  FAULT_FLAG_WRITE,
  type Mm,
  type MmuNotifierRange,
  type MmuSubscription,
  PAGE_SIZE,
  pfnToPa,
} from '../../src/mm/index.js';

/** The reference driver with one thing wrong each. */

const LOCK = 4;

type Wrong = new (mm: Mm, va: number, lenBytes: number) => ReferenceDriver;

/** Its external fault with the parts in other places. */
abstract class OtherFault extends ReferenceDriver {
  protected abstract fault(va: number, flags: number): boolean | number;

  protected override tryFault(va: number, write: boolean): boolean | number {
    return this.fault(va, write ? FAULT_FLAG_WRITE : 0);
  }

  protected install(va: number, pfn: number, flags: number): void {
    this.table.set(va / PAGE_SIZE, { pfn, write: flags !== 0, young: true });
  }
}

export const BROKEN: Readonly<Record<string, Wrong>> = {
  'does not zap': class extends ReferenceDriver {
    protected override zap(): void {}
    override mappings(): number {
      return 0;
    }
  },
  'zaps the first page of a range alone': class extends ReferenceDriver {
    protected override zap(startVpn: number): void {
      super.zap(startVpn, startVpn + 1);
    }
    override mappings(): number {
      return 0;
    }
  },
  'zaps the first range of a bracket alone': class extends ReferenceDriver {
    override invalidateRangeStart(sub: MmuSubscription, range: MmuNotifierRange): number {
      const first = {
        mm: range.mm,
        event: range.event,
        blockable: range.blockable,
        start: range.start,
        end: range.end,
      };
      return super.invalidateRangeStart(sub, { ...first, nrRanges: Math.min(1, range.nrRanges), ranges: range.ranges });
    }
    override mappings(): number {
      return 0;
    }
  },
  'tells by its own count that it has not zapped': class extends ReferenceDriver {
    protected override zap(): void {}
  },
  'zaps at the end of the bracket': class extends ReferenceDriver {
    private late: [number, number][] = [];
    protected override zap(start: number, end: number): void {
      this.late.push([start, end]);
    }
    override invalidateRangeEnd(sub: MmuSubscription, range: MmuNotifierRange): void {
      for (const [start, end] of this.late.splice(0)) super.zap(start, end);
      super.invalidateRangeEnd(sub, range);
    }
    override mappings(): number {
      return 0;
    }
  },
  'never retries': class extends OtherFault {
    protected fault(va: number, flags: number): boolean | number {
      const pfn = this.mm.tryGetPage(va, flags);
      if (pfn < 0) return pfn;
      this.install(va, pfn, flags);
      this.mm.putPage(pfn);
      return true;
    }
  },
  'asks for retry before it takes its lock': class extends OtherFault {
    protected fault(va: number, flags: number): boolean | number {
      const seq = this.seq.readBegin();
      const pfn = this.mm.tryGetPage(va, flags);
      if (pfn < 0) return pfn;
      const stale = this.seq.readRetry(seq, va);
      this.words.lock(LOCK);
      if (!stale) this.install(va, pfn, flags);
      this.words.unlock(LOCK);
      this.mm.putPage(pfn);
      return !stale;
    }
  },
  'reads seq after the look-up': class extends OtherFault {
    protected fault(va: number, flags: number): boolean | number {
      const pfn = this.mm.tryGetPage(va, flags);
      if (pfn < 0) return pfn;
      const seq = this.seq.readBegin();
      this.words.lock(LOCK);
      const stale = this.seq.readRetry(seq, va);
      if (!stale) this.install(va, pfn, flags);
      this.words.unlock(LOCK);
      this.mm.putPage(pfn);
      return !stale;
    }
  },
  'looks at brackets under way, not at those that have ended': class extends OtherFault {
    protected fault(va: number, flags: number): boolean | number {
      const pfn = this.mm.tryGetPage(va, flags);
      if (pfn < 0) return pfn;
      this.words.lock(LOCK);
      const stale = this.seq.readRetry(this.seq.readBegin(), va);
      if (!stale) this.install(va, pfn, flags);
      this.words.unlock(LOCK);
      this.mm.putPage(pfn);
      return !stale;
    }
  },
  'looks at brackets that have ended, not at those under way': class extends OtherFault {
    protected fault(va: number, flags: number): boolean | number {
      const seq = this.seq.readBegin();
      const pfn = this.mm.tryGetPage(va, flags);
      if (pfn < 0) return pfn;
      this.words.lock(LOCK);
      const stale = this.seq.readBegin() !== seq;
      if (!stale) this.install(va, pfn, flags);
      this.words.unlock(LOCK);
      this.mm.putPage(pfn);
      return !stale;
    }
  },
  'forgets to say that it writes': class extends ReferenceDriver {
    protected override tryFault(va: number, write: boolean): boolean | number {
      const result = super.tryFault(va, false);
      const entry = this.table.get(va / PAGE_SIZE);
      if (write && entry !== undefined) this.table.set(va / PAGE_SIZE, { ...entry, write: true });
      return result;
    }
  },
  'takes a read look-up for a right to write': class extends ReferenceDriver {
    protected override tryFault(va: number, write: boolean): boolean | number {
      const result = super.tryFault(va, write);
      const entry = this.table.get(va / PAGE_SIZE);
      if (entry !== undefined) this.table.set(va / PAGE_SIZE, { ...entry, write: true });
      return result;
    }
  },
  'keeps what may write when rights go': class extends ReferenceDriver {
    override invalidateRangeStart(sub: MmuSubscription, range: MmuNotifierRange): number {
      const kept = new Map(this.table);
      const result = super.invalidateRangeStart(sub, range);
      if (range.event >= 2) for (const [vpn, entry] of kept) this.table.set(vpn, entry);
      return result;
    }
    override mappings(): number {
      return 0;
    }
  },
  'keeps its table after release': class extends ReferenceDriver {
    override release(): void {
      for (const [vpn, entry] of this.kept) this.table.set(vpn, entry);
    }
    private kept = new Map<number, { pfn: number; write: boolean; young: boolean }>();
    protected override zap(start: number, end: number): void {
      this.kept = new Map(this.table);
      super.zap(start, end);
    }
  },
  'is never young': class extends ReferenceDriver {
    override clearFlushYoung(): boolean {
      return false;
    }
  },
  'is always young': class extends ReferenceDriver {
    override clearFlushYoung(): boolean {
      return true;
    }
  },
  'takes the marks when it is asked without a change': class extends ReferenceDriver {
    override testYoung(sub: MmuSubscription, start: number, end: number): boolean {
      return super.clearFlushYoung(sub, start, end);
    }
  },
  'calls every page young that it maps, when it is asked without a change': class extends ReferenceDriver {
    override testYoung(_sub: MmuSubscription, start: number): boolean {
      return this.table.has(start / PAGE_SIZE);
    }
  },
  'is never young when it is asked without a change': class extends ReferenceDriver {
    override testYoung(): boolean {
      return false;
    }
  },
  'is asynchronous when it is asked without a change': class extends ReferenceDriver {
    override testYoung(sub: MmuSubscription, start: number, end: number): boolean {
      return Promise.resolve(super.testYoung(sub, start, end)) as unknown as boolean;
    }
  },
  'tells idle page tracking of a use for ever': class extends ReferenceDriver {
    clearYoung(sub: MmuSubscription, start: number, end: number): boolean {
      return super.testYoung(sub, start, end);
    }
  },
  'takes the marks for idle page tracking and does not tell': class extends ReferenceDriver {
    clearYoung(sub: MmuSubscription, start: number, end: number): boolean {
      super.clearFlushYoung(sub, start, end);
      return false;
    }
  },
  'keeps a reference to each page': class extends OtherFault {
    protected fault(va: number, flags: number): boolean | number {
      const pfn = this.mm.tryGetPage(va, flags);
      if (pfn < 0) return pfn;
      this.install(va, pfn, flags);
      return true;
    }
  },
  'refuses every bracket': class extends ReferenceDriver {
    override invalidateRangeStart(): number {
      return -11;
    }
  },
  'counts a bracket and then refuses it': class extends ReferenceDriver {
    override invalidateRangeStart(sub: MmuSubscription, range: MmuNotifierRange): number {
      super.invalidateRangeStart(sub, range);
      return range.blockable ? 0 : -11;
    }
  },
  'does not count the end of a bracket': class extends ReferenceDriver {
    override invalidateRangeEnd(): void {}
  },
  'ends all brackets with the first': class extends ReferenceDriver {
    override invalidateRangeEnd(sub: MmuSubscription, range: MmuNotifierRange): void {
      while (this.seq.inProgress > 0) super.invalidateRangeEnd(sub, range);
    }
    override invalidateRangeStart(sub: MmuSubscription, range: MmuNotifierRange): number {
      return super.invalidateRangeStart(sub, range);
    }
  },
  'is asynchronous': class extends ReferenceDriver {
    override invalidateRangeStart(sub: MmuSubscription, range: MmuNotifierRange): number {
      return Promise.resolve().then(() => super.invalidateRangeStart(sub, range)) as unknown as number;
    }
  },
  'stays registered when it is destroyed': class extends ReferenceDriver {
    override destroy(): void {
      this.ended = true;
      this.table.clear();
    }
  },
  'writes at the end of a bracket': class extends ReferenceDriver {
    private last: number[] = [];
    protected override zap(start: number, end: number): void {
      this.last = [...this.table].filter(([vpn]) => vpn >= start && vpn < end).map(([, entry]) => entry.pfn);
      super.zap(start, end);
    }
    override invalidateRangeEnd(sub: MmuSubscription, range: MmuNotifierRange): void {
      for (const pfn of this.last.splice(0)) this.mm.host.u8[pfnToPa(pfn)] = 0xbd;
      super.invalidateRangeEnd(sub, range);
    }
  },
};
