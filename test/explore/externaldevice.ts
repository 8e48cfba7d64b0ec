import {
  cpuRelax,
  INVALIDATE_SEQ_LABEL,
  INVALIDATE_SEQ_WORDS,
  InvalidateSeq,
  type Mm,
  type MmuNotifierRange,
  type MmuSubscription,
  mmuNotifierRegister,
  Words,
} from 'unpin/mm';

/**
 * A device on a thread of its own, that reads and writes one page through an external table: for the models of this folder.
 *
 *   mm thread                              device's thread
 *   start: lock; bracket counted;          lock; entry read, page accessed; unlock
 *          entry gone; unlock              no entry: seq read; pte read; lock; retry asked for; installed; unlock
 *   end:   lock; seq moves; unlock
 *
 * It accesses under its own lock, as a vCPU does within guest mode and a NIC within a copy: what takes its entry away waits for that. `refuses`:
 * it does not wait where a bracket must not block, but refuses while its device is at work (N12).
 *
 * Use: `new Device(mm, va, 'device')`; `read` and `write` by one actor, all else by the mm thread.
 */

const PTE_PRESENT = 1;
const PTE_WRITE = 2;
const PTE_READ = 32;
const LOCK = INVALIDATE_SEQ_WORDS;
/** pfn << 2, and these; 0: none. */
const ENTRY = LOCK + 1;
const DEAD = LOCK + 2;
/** Accesses that it has begun. */
const USES = LOCK + 3;
/** Whether it is at work. */
const BUSY = LOCK + 4;
/** Whether it may begin, for one that is registered late. */
const ALLOWED = LOCK + 5;
const NR_WORDS = LOCK + 6;
const WRITABLE = 1;
const YOUNG = 2;

export interface DeviceOptions {
  readonly refuses?: boolean;
  /** It is registered later. */
  readonly unregistered?: boolean;
}

export class Device {
  readonly words: Words;
  sub: MmuSubscription | undefined;
  /** Ends that came without a start, and starts and ends after it was told that it is released. */
  nrStray = 0;
  nrReleases = 0;
  private nrOpen = 0;
  private readonly seq: InvalidateSeq;
  private readonly mm: Mm;
  private readonly va: number;
  private readonly bytes: Words;
  private readonly refuses: boolean;

  constructor(mm: Mm, va: number, name: string, options: DeviceOptions = {}) {
    this.mm = mm;
    this.va = va;
    this.refuses = options.refuses ?? false;
    const names = ['lock', 'entry', 'dead', 'uses', 'busy', 'allowed'];
    const { host } = mm;
    this.words = new Words(host.memory, host.arenaAlloc(NR_WORDS * 4, 4), NR_WORDS, {
      word: (i) => (i < LOCK ? INVALIDATE_SEQ_LABEL.word(i) : `${name}'s ${names[i - LOCK]}`),
    });
    this.bytes = new Words(host.memory, 0, host.frames.endPfn * 1024, { word: (i) => `frame ${i >>> 10}` });
    this.seq = new InvalidateSeq(this.words, 0);
    if (options.unregistered !== true) this.register();
  }

  register(): void {
    this.sub = mmuNotifierRegister(this.mm, this.va, this.va + 4096, {
      invalidateRangeStart: (_sub, range) => this.start(range),
      invalidateRangeEnd: () => this.end(),
      clearFlushYoung: () => this.clearFlushYoung(),
      testYoung: () => this.testYoung(),
      release: () => this.release(),
    });
  }

  private start(range: MmuNotifierRange): number {
    if (this.refuses && !range.blockable && this.words.load(BUSY) !== 0) return -11;
    this.nrOpen++;
    this.words.lock(LOCK);
    this.seq.begin(range.start, range.end);
    this.words.writeOnce(ENTRY, 0);
    this.words.unlock(LOCK);
    return 0;
  }

  private end(): void {
    if (--this.nrOpen < 0 || this.sub === undefined || this.sub.released) this.nrStray++;
    this.words.lock(LOCK);
    this.seq.end();
    this.words.unlock(LOCK);
  }

  private clearFlushYoung(): boolean {
    this.words.lock(LOCK);
    const entry = this.words.readOnce(ENTRY);
    if ((entry & YOUNG) !== 0) this.words.writeOnce(ENTRY, entry & ~YOUNG);
    this.words.unlock(LOCK);
    return (entry & YOUNG) !== 0;
  }

  private testYoung(): boolean {
    this.words.lock(LOCK);
    const entry = this.words.readOnce(ENTRY);
    this.words.unlock(LOCK);
    return (entry & YOUNG) !== 0;
  }

  private release(): void {
    this.nrReleases++;
    this.words.lock(LOCK);
    this.words.writeOnce(DEAD, 1);
    this.words.writeOnce(ENTRY, 0);
    this.words.unlock(LOCK);
  }

  /** Stores to the page. False: the right to write has to be had from the mm thread. */
  write(value: number): boolean {
    for (;;) {
      const entry = this.begin(WRITABLE);
      if (entry !== 0) this.bytes.writeOnce((entry >>> 2) << 10, value);
      this.done();
      if (entry !== 0) return true;
      if (!this.fault(PTE_PRESENT | PTE_WRITE)) return false;
    }
  }

  /** Loads from the page; undefined where the mm thread has to be asked. */
  read(): number | undefined {
    for (;;) {
      const entry = this.begin(0);
      const value = entry === 0 ? 0 : this.bytes.readOnce((entry >>> 2) << 10);
      this.done();
      if (entry !== 0) return value;
      if (!this.fault(PTE_PRESENT | PTE_READ)) return undefined;
    }
  }

  /** The entry, with what is needed and marked young; 0 if there is none. */
  private begin(need: number): number {
    if (this.refuses) this.words.store(BUSY, 1);
    this.words.lock(LOCK);
    const entry = this.words.readOnce(ENTRY);
    if (entry === 0 || (entry & need) !== need) return 0;
    this.words.fetchAdd(USES, 1);
    if ((entry & YOUNG) === 0) this.words.writeOnce(ENTRY, entry | YOUNG);
    return entry;
  }

  private done(): void {
    this.words.unlock(LOCK);
    if (this.refuses) this.words.store(BUSY, 0);
  }

  /** False when the pte does not have what is needed, or the device may install nothing any more. */
  private fault(need: number): boolean {
    const seq = this.seq.readBegin();
    const pte = this.mm.pageTable.get(this.va / 4096);
    if ((pte & need) !== need) return false;
    this.words.lock(LOCK);
    const dead = this.words.readOnce(DEAD) !== 0;
    const stale = this.seq.readRetry(seq, this.va);
    if (!stale && !dead) this.words.writeOnce(ENTRY, ((pte >>> 12) << 2) | YOUNG | ((pte & PTE_WRITE) >>> 1));
    this.words.unlock(LOCK);
    if (stale) cpuRelax();
    return !dead;
  }

  allow(): void {
    this.words.store(ALLOWED, 1);
  }

  isAllowed(): boolean {
    return this.words.load(ALLOWED) !== 0;
  }

  /** Accesses that it has begun so far. */
  uses(): number {
    return this.words.readOnce(USES);
  }

  /** The frame that it maps, or 0. */
  get frame(): number {
    return this.words.readOnce(ENTRY) >>> 2;
  }

  /** Brackets under way, as it has heard. */
  get inProgress(): number {
    return this.seq.inProgress;
  }

  /** What is wrong with its entry, at any time (N4, N5): it maps what its page is, with no more rights. */
  get wrong(): string | undefined {
    const entry = this.words.readOnce(ENTRY);
    if (entry === 0) return undefined;
    const pte = this.mm.pageTable.get(this.va / 4096);
    if ((pte & PTE_PRESENT) === 0 || pte >>> 12 !== entry >>> 2)
      return `N4: the device maps frame ${entry >>> 2}, which the page has left`;
    if ((entry & WRITABLE) !== 0 && (pte & PTE_WRITE) === 0)
      return 'N5: the device may write, the page may not be written';
    return undefined;
  }
}
