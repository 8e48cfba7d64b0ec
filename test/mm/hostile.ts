import { expect } from 'vitest';
import { KernelError, Words } from '../../src/base/index.js';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  FAULT_RETRY,
  Host,
  InvalidateSeq,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  type MmuNotifierOps,
  type MmuNotifierRange,
  type MmuSubscription,
  mmuNotifierRegister,
  mmuNotifierUnpin,
  mmuNotifierUnregister,
  pfnToPa,
  VA_SIZE,
} from '../../src/mm/index.js';
import { TestDriver } from './testdriver.js';

/**
 * Random operations on mms of which some have drivers that break their contract, and go on using what they have entered: they read it, and
 * write to it, for as long as they exist. Each frame is tagged by its generation and filled when it is freed, so:
 *
 *  - no stale access: a frame that a driver, good or hostile, has an entry for is never another's (S12, N19);
 *  - nothing lost: every page of every mm has what was written last, and no trace of a hostile write in an mm that is not the driver's;
 *  - no leak: when the drivers are destroyed and the mms gone, every frame and slot is free.
 */

const PAGE = 4096;
const NR_PAGES = 24;
/** Where hostile drivers write, and nobody else. */
const SCRIBBLE_AT = 4000;

const FAULTS = [
  'throws',
  'throws in end',
  'refuses',
  'promise',
  'slow',
  'lies',
  'young throws',
  'idle throws',
  'look is a promise',
  'keeps its lock',
] as const;
type Fault = (typeof FAULTS)[number];

/** mulberry32 */
export function random(seed: number): (n: number) => number {
  let a = seed;
  return (n) => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

interface Entry {
  pfn: number;
  generation: number;
  write: boolean;
}

/** Does its work until `broken` is set; from then on it does what its fault is. */
class HostileDriver {
  readonly entries = new Map<number, Entry>();
  readonly sub: MmuSubscription;
  told: string | undefined;
  broken = false;
  private readonly host: Host;
  private readonly seq: InvalidateSeq;
  private readonly words: Words;
  private readonly wordsAddr: number;
  private readonly fault: Fault;
  private readonly pass: (ms: number) => void;

  constructor(mm: Mm, fault: Fault, pass: (ms: number) => void) {
    this.host = mm.host;
    this.fault = fault;
    this.pass = pass;
    this.wordsAddr = this.host.arenaAlloc(20, 4);
    this.words = new Words(this.host.memory, this.wordsAddr, 5);
    for (let i = 0; i < 5; i++) this.words.writeOnce(i, 0);
    this.seq = new InvalidateSeq(this.words, 0);
    this.sub = mmuNotifierRegister(mm, 0, VA_SIZE, this.ops(), { onPoisoned: (_sub, reason) => (this.told = reason) });
  }

  private ops(): MmuNotifierOps {
    return {
      invalidateRangeStart: (_sub, range) => this.start(range) as number,
      invalidateRangeEnd: () => {
        this.seq.end();
        if (this.broken && this.fault === 'throws in end') throw new Error('in end');
      },
      clearFlushYoung: () => {
        if (this.broken && this.fault === 'young throws') throw new Error('in young');
        return false;
      },
      clearYoung: () => {
        if (this.broken && this.fault === 'idle throws') throw new Error('in idle');
        return false;
      },
      testYoung: () => {
        if (this.broken && this.fault === 'look is a promise') return Promise.resolve() as unknown as boolean;
        return false;
      },
      mappings: (_sub, start, end, writable) => {
        let nr = 0;
        for (const [vpn, { write }] of this.entries)
          if (vpn * PAGE >= start && vpn * PAGE < end && (write || !writable)) nr++;
        return nr;
      },
    };
  }

  private start(range: MmuNotifierRange): unknown {
    this.seq.beginRange(range);
    if (this.broken) {
      if (this.fault === 'throws') throw new Error('in start');
      if (this.fault === 'refuses') return -11;
      if (this.fault === 'promise') return Promise.resolve();
      if (this.fault === 'lies') return 0;
      if (this.fault === 'slow') this.pass(11);
      if (this.fault === 'keeps its lock') this.words.lock(4);
    }
    for (let i = 0; i < range.nrRanges; i++)
      for (let vpn = range.ranges[2 * i]!; vpn < range.ranges[2 * i + 1]!; vpn++) this.entries.delete(vpn);
    return 0;
  }

  /** Enters the page, poisoned or not. */
  enter(mm: Mm, va: number, write: boolean): void {
    const seq = this.seq.readBegin();
    const pfn = mm.tryGetPage(va, write ? FAULT_FLAG_WRITE : 0);
    if (pfn < 0) return;
    if (!this.seq.readRetry(seq))
      this.entries.set(va / PAGE, { pfn, generation: this.host.frames.generation[pfn]!, write });
    mm.putPage(pfn);
  }

  /** Uses each entry that it has. */
  use(): void {
    for (const [vpn, { pfn, generation, write }] of this.entries) {
      if (this.host.frames.refcount[pfn]! <= 0 || this.host.frames.generation[pfn] !== generation)
        throw new Error(
          `stale: page 0x${vpn.toString(16)} of a driver that ${this.fault} shows frame ${pfn}, another's`,
        );
      if (write) this.host.u8[pfnToPa(pfn) + SCRIBBLE_AT] = 0xbd;
    }
  }

  /** The instance goes, with its table: what it pinned is won back. */
  destroy(): void {
    if (this.sub.registered) mmuNotifierUnregister(this.sub);
    this.entries.clear();
    mmuNotifierUnpin(this.sub);
    this.host.arenaFree(this.wordsAddr, 20);
  }
}

/** An mm, what its pages must hold, and its drivers. */
class Subject {
  readonly mm: Mm;
  readonly va: number;
  readonly model: (number | undefined)[];
  readonly good: TestDriver;
  readonly hostile: HostileDriver[] = [];
  /** Whether a hostile driver of this mm may have written to it. */
  scribbled = false;

  constructor(mm: Mm, va: number, model: (number | undefined)[]) {
    this.mm = mm;
    this.va = va;
    this.model = model;
    this.good = new TestDriver(mm);
  }
}

export interface HostileResult {
  poisonedByFault: Record<string, number>;
  pinnedPeak: number;
  unpinned: number;
  brackets: number;
}

export class HostileWorld {
  private nowMs = 0;
  private readonly host = new Host({
    frames: 384,
    arenaBytes: 2 ** 20,
    swap: new MemorySwap({ sizeBytes: 2 ** 23 }),
    debug: true,
    now: () => this.nowMs,
    notifierBudgetMs: 10,
    oom: 'refuse',
  });
  private readonly subjects: Subject[] = [];
  private readonly rnd: (n: number) => number;
  private nextValue = 1;
  private readonly result: HostileResult = { poisonedByFault: {}, pinnedPeak: 0, unpinned: 0, brackets: 0 };

  constructor(seed: number) {
    this.rnd = random(seed);
  }

  run(nrOps: number, checkEvery: number): HostileResult {
    while (this.subjects.length < 2) this.addSubject();
    for (let n = 0; n < nrOps; n++) {
      const subject = this.subjects[this.rnd(this.subjects.length)]!;
      try {
        this.step(subject, this.rnd(100));
      } catch (error) {
        if (!(error instanceof KernelError && error.code === 'ENOMEM')) throw error;
        this.destroyHostile();
      }
      this.useAll();
      if (n % checkEvery === 0) checkHost(this.host);
      if (this.host.pins.size > 120) this.destroyHostile();
    }
    return this.finish();
  }

  private addSubject(): void {
    const mm = this.host.createMm();
    const va = mm.mmap(0, NR_PAGES * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);
    this.subjects.push(new Subject(mm, va, new Array(NR_PAGES).fill(undefined)));
  }

  private step(s: Subject, kind: number): void {
    const page = this.rnd(NR_PAGES);
    const at = s.va + page * PAGE;
    if (kind < 20) this.store(s, page);
    else if (kind < 45) this.check(s, page);
    else if (kind < 60) this.driverStore(s, page);
    else if (kind < 72) this.enterHostile(s, at);
    else if (kind < 78) s.model.fill(undefined, page, page + this.drop(s, page));
    else if (kind < 81) this.remap(s, page);
    else if (kind < 87) this.host.reclaim.shrink(this.rnd(2) === 0, true, this.rnd(3) === 0);
    else if (kind < 90) this.look(s);
    else if (kind < 92) this.fork(s);
    else if (kind < 94) this.exit(s);
    else if (kind < 96) this.addHostile(s);
    else if (kind < 98) this.breakOne(s);
    else this.destroyOne(s);
  }

  private store(s: Subject, page: number): void {
    const value = this.nextValue++;
    s.mm.writeSync(s.va + page * PAGE, new Uint8Array(new Uint32Array([value]).buffer));
    s.model[page] = value;
  }

  private check(s: Subject, page: number): void {
    const bytes = new Uint8Array(PAGE);
    s.mm.readSync(s.va + page * PAGE, bytes);
    const value = new DataView(bytes.buffer).getUint32(0, true);
    if (value !== (s.model[page] ?? 0))
      throw new Error(`lost: page ${page} of ${s.mm.name} is ${value}, not ${s.model[page]}`);
    if (bytes[SCRIBBLE_AT] !== 0 && !s.scribbled)
      throw new Error(`page ${page} of ${s.mm.name} was written by another's driver`);
  }

  private driverStore(s: Subject, page: number): void {
    const va = s.va + page * PAGE;
    for (;;) {
      const pa = s.good.access(va, true);
      if (pa !== undefined) {
        s.model[page] = this.nextValue++;
        new DataView(this.host.memory.buffer).setUint32(pa, s.model[page]!, true);
        return;
      }
      if (s.good.tryFault(va, true) === FAULT_RETRY) s.mm.faultInSync(va, FAULT_FLAG_WRITE);
    }
  }

  private enterHostile(s: Subject, at: number): void {
    const driver = s.hostile[this.rnd(Math.max(1, s.hostile.length))];
    driver?.enter(s.mm, at, this.rnd(2) === 0);
    if (driver !== undefined) s.scribbled = true;
  }

  private drop(s: Subject, page: number): number {
    const nr = Math.min(1 + this.rnd(4), NR_PAGES - page);
    s.mm.madviseDontneed(s.va + page * PAGE, nr * PAGE);
    return nr;
  }

  private remap(s: Subject, page: number): void {
    s.mm.munmap(s.va + page * PAGE, PAGE);
    s.mm.mmap(s.va + page * PAGE, PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
    s.model[page] = undefined;
  }

  /** Who uses the pages? */
  private look(s: Subject): void {
    if (this.rnd(2) === 0) this.host.pageIdle.setIdleMm(s.mm);
    else this.host.pageIdle.countMm(s.mm);
    s.mm.smapsRollup();
    s.mm.notifiers.testYoung(s.va, s.va + NR_PAGES * PAGE);
  }

  /** The child has none of the parent's drivers; what they write from now on must not be seen in it. */
  private fork(s: Subject): void {
    if (this.subjects.length >= 5) return;
    const child = new Subject(s.mm.fork(), s.va, [...s.model]);
    // What was scribbled before the fork is the child's too: it is copied away, so that anything new shows.
    for (let page = 0; page < NR_PAGES; page++) child.mm.writeSync(s.va + page * PAGE + SCRIBBLE_AT, new Uint8Array(1));
    this.subjects.push(child);
  }

  private exit(s: Subject): void {
    if (this.subjects.length <= 2) return;
    s.mm.exit();
    for (const driver of s.hostile) this.destroyDriver(driver);
    this.subjects.splice(this.subjects.indexOf(s), 1);
  }

  private addHostile(s: Subject): void {
    if (s.hostile.length >= 3) return;
    const fault = FAULTS[this.rnd(FAULTS.length)]!;
    const driver = new HostileDriver(s.mm, fault, (ms) => (this.nowMs += ms));
    s.hostile.push(driver);
  }

  private breakOne(s: Subject): void {
    const driver = s.hostile[this.rnd(Math.max(1, s.hostile.length))];
    if (driver !== undefined) driver.broken = true;
  }

  private destroyOne(s: Subject): void {
    const driver = s.hostile.splice(this.rnd(Math.max(1, s.hostile.length)), 1)[0];
    if (driver !== undefined) this.destroyDriver(driver);
  }

  private destroyDriver(driver: HostileDriver): void {
    const { poisoned } = driver.sub;
    if (poisoned !== undefined) {
      const what =
        /threw Error: (in \w+)|\w+ returned (?:a promise|-11)|took|left|held/.exec(poisoned)?.[0] ?? poisoned;
      this.result.poisonedByFault[what] = (this.result.poisonedByFault[what] ?? 0) + 1;
    }
    this.result.unpinned += driver.sub.pinned.size;
    driver.destroy();
    expect(driver.sub.pinned.size).toBe(0);
  }

  private destroyHostile(): void {
    for (const s of this.subjects) for (const driver of s.hostile.splice(0)) this.destroyDriver(driver);
    expect(this.host.pins.size).toBe(0);
  }

  private useAll(): void {
    this.result.pinnedPeak = Math.max(this.result.pinnedPeak, this.host.pins.size);
    for (const s of this.subjects) for (const driver of s.hostile) driver.use();
  }

  private finish(): HostileResult {
    this.destroyHostile();
    for (const s of this.subjects) {
      for (let page = 0; page < NR_PAGES; page++) this.check(s, page);
      expect(s.good.sub.poisoned).toBeUndefined();
    }
    checkHost(this.host);
    for (const s of this.subjects.splice(0)) s.mm.exit();
    checkHost(this.host);
    const { frames, swap } = this.host;
    while (this.host.reclaim.shrink(true, true, true) > 0);
    expect([frames.nrFree, swap.nrFree]).toEqual([frames.nrFrames, swap.nrSlots]);
    this.result.brackets = this.host.vmstat.brackets;
    return this.result;
  }
}
