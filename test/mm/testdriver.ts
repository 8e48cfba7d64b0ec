import { Words } from '../../src/base/index.js';
import {
  FAULT_FLAG_WRITE,
  type Host,
  InvalidateSeq,
  type Mm,
  type MmuNotifierOps,
  type MmuSubscription,
  mmuNotifierRegister,
  mmuNotifierUnregister,
  pfnToPa,
  VA_SIZE,
} from '../../src/mm/index.js';

interface Entry {
  readonly pfn: number;
  readonly write: boolean;
  /** The frame's generation when it was entered: another one later means a stale entry. */
  readonly generation: number;
  young: boolean;
}

/**
 * An external MMU in its simplest form: a table from pages to frames, filled by faults under the collision-retry protocol, emptied by
 * the notifier. Every access checks that the frame is still the one that was entered (the best oracle: tagged frames).
 */
export class TestDriver {
  readonly table = new Map<number, Entry>();
  readonly sub: MmuSubscription;
  readonly seq: InvalidateSeq;
  /** Refuse non-blocking brackets. */
  refuse = false;
  nrStarts = 0;
  nrEnds = 0;
  nrReleases = 0;
  private readonly mm: Mm;
  private readonly host: Host;

  constructor(mm: Mm, start = 0, end = VA_SIZE) {
    this.mm = mm;
    this.host = mm.host;
    const addr = this.host.arenaAlloc(16, 4);
    const words = new Words(this.host.memory, addr, 4);
    for (let i = 0; i < 4; i++) words.writeOnce(i, 0);
    this.seq = new InvalidateSeq(words, 0);
    this.sub = mmuNotifierRegister(mm, start, end, this.ops());
  }

  private ops(): MmuNotifierOps {
    return {
      invalidateRangeStart: (_sub, range) => {
        if (this.refuse && !range.blockable) return -11;
        this.nrStarts++;
        this.seq.beginRange(range);
        for (let i = 0; i < range.nrRanges; i++) this.zap(range.ranges[2 * i]!, range.ranges[2 * i + 1]!);
        return 0;
      },
      invalidateRangeEnd: () => {
        this.nrEnds++;
        this.seq.end();
      },
      clearFlushYoung: (_sub, start, end) => {
        let young = false;
        for (let vpn = start / 4096; vpn < end / 4096; vpn++) {
          const entry = this.table.get(vpn);
          if (entry === undefined) continue;
          young ||= entry.young;
          entry.young = false;
        }
        return young;
      },
      testYoung: (_sub, start, end) => {
        for (let vpn = start / 4096; vpn < end / 4096; vpn++) if (this.table.get(vpn)?.young) return true;
        return false;
      },
      release: () => {
        this.nrReleases++;
        this.table.clear();
      },
    };
  }

  private zap(startVpn: number, endVpn: number): void {
    for (const vpn of [...this.table.keys()]) if (vpn >= startVpn && vpn < endVpn) this.table.delete(vpn);
  }

  /** Enters `va`, or returns the FAULT_ number that is in the way. A copy-on-write of its own moves seq: it looks twice. */
  tryFault(va: number, write: boolean): number {
    const pfn = this.tryFaultOnce(va, write);
    return pfn > 0 && this.access(va, write) === undefined ? this.tryFaultOnce(va, write) : pfn;
  }

  private tryFaultOnce(va: number, write: boolean): number {
    const seq = this.seq.readBegin();
    const pfn = this.mm.tryGetPage(va, write ? FAULT_FLAG_WRITE : 0);
    if (pfn < 0) return pfn;
    if (!this.seq.readRetry(seq, va)) {
      const generation = this.host.frames.generation[pfn]!;
      this.table.set(Math.floor(va / 4096), { pfn, write, generation, young: true });
    }
    this.mm.putPage(pfn);
    return pfn;
  }

  /** The frame behind `va` in the external table, as bytes of host memory; undefined when it has to fault. */
  access(va: number, write: boolean): number | undefined {
    const entry = this.table.get(Math.floor(va / 4096));
    if (entry === undefined || (write && !entry.write)) return undefined;
    if (this.host.frames.generation[entry.pfn] !== entry.generation || this.host.frames.refcount[entry.pfn] === 0) {
      throw new Error(`stale external entry for 0x${va.toString(16)}: frame ${entry.pfn} is another's`);
    }
    entry.young = true;
    return pfnToPa(entry.pfn) + (va % 4096);
  }

  async load(va: number): Promise<number> {
    for (;;) {
      const pa = this.access(va, false);
      if (pa !== undefined) return this.host.u8[pa]!;
      if (this.tryFault(va, false) < 0) await this.mm.faultIn(va, 0);
    }
  }

  async store(va: number, value: number): Promise<void> {
    for (;;) {
      const pa = this.access(va, true);
      if (pa !== undefined) {
        this.host.u8[pa] = value;
        return;
      }
      if (this.tryFault(va, true) < 0) await this.mm.faultIn(va, FAULT_FLAG_WRITE);
    }
  }

  unregister(): void {
    mmuNotifierUnregister(this.sub);
  }
}
