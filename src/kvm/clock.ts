import { cpuRelax, Words } from '../base/index.js';
import type { Host } from '../mm/index.js';

/**
 * The guest's clock: one for the VM, the same for all its vCPUs in whatever thread, and never backwards. It stands still while every
 * vCPU that is not idle waits for a page, so that a guest whose memory is swapped sees no time go by in which it could do nothing,
 * and none of its watchdogs fires. While one of them computes, time goes on for all.
 *
 * `value` is what is to be subtracted from the environment's ticks while the clock runs, and the guest's time while it stands:
 * either way the other one is the environment's ticks less `value`. `seq` is odd while somebody changes them:
 *
 *   a vCPU                                  who begins to wait, or is idle
 *   seq, even                               seq odd
 *   value; the environment's ticks          counts; the environment's ticks; value
 *   seq as before? then this is the time    seq even
 *
 * Required outcome: who has read seq before the change has read the environment's ticks before it as well, so no time that any vCPU saw is later than
 * that at which the clock stands, nor later than that from which it goes on.
 *
 * A thread may be killed while seq is odd. Its guest is lost then, and nobody waits for it for ever.
 *
 * Use: `VmClock.create(host, ...)`, or `new VmClock(memory, clock.address, ...)` in another thread. Each vCPU `enter`s when it begins to run or is no longer
 * idle, and `leave`s before it is idle or has ended; `waitBegins` and `waitEnds` lie between.
 */

export const TIMEBASE_HZ = 10_000_000;
export const TICKS_PER_MS = TIMEBASE_HZ / 1000;

/** Bit 0: being changed; bit 1: the clock stands; above: a count. */
const SEQ = 0;
const VALUE_HIGH = 1;
const VALUE_LOW = 2;
/** vCPUs that are not idle, and of these, those that wait for a page. */
const NR_ACTIVE = 3;
const NR_WAITING = 4;
const NR_WORDS = 8;
const CHANGING = 1;
const STANDS = 2;
const SEQ_STEP = 4;
/** About a second: whoever is slower than that has been killed. */
const MAX_SPINS = 1e8;

export class VmClock {
  readonly address: number;
  private readonly words: Words;
  private readonly nowMs: () => number;
  private readonly startMs: number;
  /** Its words are another's. */
  private freed = false;

  /** `nowMs`: the environment's clock, the same in all threads, by which the guest's began at `startMs`. */
  constructor(memory: { buffer: SharedArrayBuffer }, address: number, nowMs: () => number, startMs: number) {
    this.address = address;
    this.words = new Words(memory, address, NR_WORDS, 'clock');
    this.nowMs = nowMs;
    this.startMs = startMs;
  }

  /** Throws KernelError ENOMEM. */
  static create(host: Host, nowMs: () => number, startMs: number): VmClock {
    const clock = new VmClock(host.memory, host.arenaAlloc(NR_WORDS * 4, 64), nowMs, startMs);
    for (let i = 0; i < NR_WORDS; i++) clock.words.writeOnce(i, 0);
    return clock;
  }

  /** Its vCPUs may still come back from `run`: what they tell it is ignored. */
  free(host: Host): void {
    this.freed = true;
    host.arenaFree(this.address, NR_WORDS * 4);
  }

  private envTicks(): number {
    return Math.floor((this.nowMs() - this.startMs) * TICKS_PER_MS);
  }

  /** Ticks, a whole number. */
  now(): number {
    const { words } = this;
    if (this.freed) return 0;
    for (let spin = 0; ; spin++) {
      const seq = words.load(SEQ);
      if ((seq & CHANGING) !== 0 && spin < MAX_SPINS) {
        cpuRelax();
        continue;
      }
      const value = this.loadValue();
      const ticks = (seq & STANDS) !== 0 ? value : this.envTicks() - value;
      if (words.load(SEQ) === seq) return ticks;
    }
  }

  /** Whether it stands still. */
  get stands(): boolean {
    return (this.words.load(SEQ) & STANDS) !== 0;
  }

  private loadValue(): number {
    return this.words.load(VALUE_HIGH) * 2 ** 32 + (this.words.load(VALUE_LOW) >>> 0);
  }

  /** A vCPU begins to run, or is no longer idle. */
  enter(): void {
    this.change(1, 0);
  }

  /** A vCPU is idle from now on, or does not run any more. */
  leave(): void {
    this.change(-1, 0);
  }

  /** A vCPU that is not idle waits for a page from now on. */
  waitBegins(): void {
    this.change(0, 1);
  }

  waitEnds(): void {
    this.change(0, -1);
  }

  private change(active: number, waiting: number): void {
    const { words } = this;
    if (this.freed) return;
    const seq = this.beginChange();
    const nrActive = words.load(NR_ACTIVE) + active;
    const nrWaiting = words.load(NR_WAITING) + waiting;
    words.store(NR_ACTIVE, nrActive);
    words.store(NR_WAITING, nrWaiting);
    const stands = nrWaiting > 0 && nrWaiting === nrActive ? STANDS : 0;
    if (stands !== (seq & STANDS)) {
      const value = this.envTicks() - this.loadValue();
      words.store(VALUE_HIGH, Math.floor(value / 2 ** 32));
      words.store(VALUE_LOW, value | 0);
    }
    words.store(SEQ, ((seq & ~STANDS) + SEQ_STEP) | stands);
  }

  /** Makes seq odd; as it was before. */
  private beginChange(): number {
    const { words } = this;
    for (let spin = 0; ; spin++) {
      const seq = words.load(SEQ);
      if ((seq & CHANGING) === 0) {
        if (words.compareExchange(SEQ, seq, seq | CHANGING) === seq) return seq;
      } else if (spin >= MAX_SPINS) {
        return seq & ~CHANGING;
      }
      cpuRelax();
    }
  }
}
