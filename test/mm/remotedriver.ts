import {
  cpuRelax,
  FAULT_FLAG_WRITE,
  FAULT_RETRY,
  type Host,
  INVALIDATE_SEQ_LABEL,
  INVALIDATE_SEQ_WORDS,
  InvalidateSeq,
  type Mm,
  type MmuNotifierOps,
  type MmuNotifierRange,
  type MmuSubscription,
  mmuNotifierRegister,
  REMOTE_ZERO,
  type RemoteDescriptor,
  RemoteMm,
  type WasmMemory,
  Words,
} from '../../src/mm/index.js';

/**
 * A driver whose faults are resolved in another thread, as a VM's are in its vCPUs' workers: an external table of one word a page, a lock and a sequence
 * count, all in shared words. `RemoteDriver` is the mm thread's half, `RemoteUser` the other's, which may as well run on the same thread.
 *
 * A user accesses under the lock: what takes its entry away waits for that, as for a vCPU's acknowledgement.
 */

const LOCK = INVALIDATE_SEQ_WORDS;
/** Whether the driver was released. */
const DEAD = LOCK + 1;
/** Entries: pfn << 2, and WRITABLE. */
const TABLE = LOCK + 2;
const WRITABLE = 1;

export interface UserDescriptor {
  readonly remote: RemoteDescriptor;
  readonly wordsAddr: number;
  /** The pages that it uses. */
  readonly va: number;
  readonly nrPages: number;
  readonly endPfn: number;
}

const label = {
  word: (i: number) =>
    i < LOCK ? INVALIDATE_SEQ_LABEL.word(i) : i < TABLE ? ['lock', 'dead'][i - LOCK]! : `entry ${i - TABLE}`,
};

export class RemoteDriver {
  readonly words: Words;
  readonly seq: InvalidateSeq;
  readonly sub: MmuSubscription;
  readonly host: Host;
  readonly mm: Mm;
  readonly va: number;
  readonly nrPages: number;
  private readonly wordsAddr: number;
  private readonly baseVpn: number;

  constructor(mm: Mm, va: number, nrPages: number) {
    this.mm = mm;
    this.va = va;
    this.nrPages = nrPages;
    this.host = mm.host;
    this.baseVpn = va / 4096;
    this.wordsAddr = this.host.arenaAlloc((TABLE + nrPages) * 4, 8);
    this.words = new Words(this.host.memory, this.wordsAddr, TABLE + nrPages, label);
    for (let i = 0; i < TABLE + nrPages; i++) this.words.writeOnce(i, 0);
    this.seq = new InvalidateSeq(this.words, 0);
    this.sub = mmuNotifierRegister(mm, va, va + nrPages * 4096, this.ops());
  }

  private ops(): MmuNotifierOps {
    return {
      invalidateRangeStart: (_sub, range) => this.start(range),
      invalidateRangeEnd: () => {
        this.words.lock(LOCK);
        this.seq.end();
        this.words.unlock(LOCK);
      },
      release: () => {
        this.words.lock(LOCK);
        this.words.writeOnce(DEAD, 1);
        this.words.unlock(LOCK);
      },
      mappings: (_sub, start, end, writable) => this.count(start / 4096, end / 4096, writable),
    };
  }

  private start(range: MmuNotifierRange): number {
    this.words.lock(LOCK);
    this.seq.beginRange(range);
    for (let i = 0; i < range.nrRanges; i++)
      for (let vpn = range.ranges[2 * i]!; vpn < range.ranges[2 * i + 1]!; vpn++) {
        const k = vpn - this.baseVpn;
        if (k >= 0 && k < this.nrPages) this.words.writeOnce(TABLE + k, 0);
      }
    this.words.unlock(LOCK);
    return 0;
  }

  private count(startVpn: number, endVpn: number, writable: boolean): number {
    let nr = 0;
    for (let k = 0; k < this.nrPages; k++) {
      const entry = this.words.readOnce(TABLE + k);
      const vpn = this.baseVpn + k;
      if (vpn >= startVpn && vpn < endVpn && entry !== 0 && (!writable || (entry & WRITABLE) !== 0)) nr++;
    }
    return nr;
  }

  describe(remote: RemoteDescriptor): UserDescriptor {
    return {
      remote,
      wordsAddr: this.wordsAddr,
      va: this.va,
      nrPages: this.nrPages,
      endPfn: this.host.frames.endPfn,
    };
  }

  /** The user's thread has ended: if it held the lock, the lock is nobody's. Entries are dropped. */
  forget(): void {
    this.words.store(LOCK, 0);
    for (let k = 0; k < this.nrPages; k++) this.words.writeOnce(TABLE + k, 0);
  }

  /** What is wrong with the entries: each is what its pte is, with no more rights. */
  get wrong(): string | undefined {
    for (let k = 0; k < this.nrPages; k++) {
      const entry = this.words.readOnce(TABLE + k);
      if (entry === 0) continue;
      const pte = this.mm.pageTable.get(this.baseVpn + k);
      if ((pte & 1) === 0 || pte >>> 12 !== entry >>> 2)
        return `N4: page ${k} is entered as frame ${entry >>> 2}, its pte is 0x${pte.toString(16)}`;
      if ((entry & WRITABLE) !== 0 && (pte & 2) === 0) return `N5: page ${k} is writable from outside alone`;
    }
    return undefined;
  }
}

export class RemoteUser {
  readonly remote: RemoteMm;
  readonly words: Words;
  private readonly seq: InvalidateSeq;
  private readonly bytes: Words;
  private readonly va: number;

  constructor(memory: WasmMemory, d: UserDescriptor) {
    this.remote = new RemoteMm(memory, d.remote);
    this.words = new Words(memory, d.wordsAddr, TABLE + d.nrPages, label);
    this.seq = new InvalidateSeq(this.words, 0);
    this.bytes = new Words(memory, 0, d.endPfn * 1024, { word: (i) => `frame ${i >>> 10}` });
    this.va = d.va;
  }

  /** Stores to the first word of page `k`. False: the mm thread has to be asked. */
  write(k: number, value: number): boolean {
    return this.access(k, true, (frame) => this.bytes.writeOnce(frame, value)) !== undefined;
  }

  read(k: number): number | undefined {
    return this.access(k, false, (frame) => this.bytes.readOnce(frame))?.value;
  }

  private access<T>(k: number, write: boolean, use: (frame: number) => T): { value: T } | undefined {
    for (;;) {
      this.words.lock(LOCK);
      const entry = this.words.readOnce(TABLE + k);
      const hit = entry !== 0 && (!write || (entry & WRITABLE) !== 0);
      const value = hit ? { value: use((entry >>> 2) << 10) } : undefined;
      this.words.unlock(LOCK);
      if (value !== undefined) return value;
      if (!this.fault(k, write)) return undefined;
    }
  }

  /** False where the mm thread has to be asked. */
  fault(k: number, write: boolean): boolean {
    const va = this.va + k * 4096;
    const seq = this.seq.readBegin();
    let pfn = this.remote.lookup(va, write);
    if (pfn === FAULT_RETRY) return false;
    this.words.lock(LOCK);
    const dead = this.words.readOnce(DEAD) !== 0;
    const stale = this.seq.readRetry(seq, va);
    if (!stale && !dead && pfn === REMOTE_ZERO) pfn = this.remote.mapZero(va);
    if (!stale && !dead && pfn > 0) this.words.writeOnce(TABLE + k, (pfn << 2) | (write ? WRITABLE : 0));
    this.words.unlock(LOCK);
    if (stale) cpuRelax();
    return !dead && (stale || pfn > 0);
  }
}

/** On the mm thread: what a crossing of the thread does. */
export async function serve(driver: RemoteDriver, k: number, write: boolean): Promise<void> {
  const va = driver.va + k * 4096;
  const flags = write ? FAULT_FLAG_WRITE : 0;
  const pfn = driver.mm.tryGetPage(va, flags);
  if (pfn > 0) driver.mm.putPage(pfn);
  else await driver.mm.faultIn(va, flags);
}
