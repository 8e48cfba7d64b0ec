/**
 * The guest's clocks: the time CSR, which stands while the guest waits for its memory, so that it sees no time go by in which it could do nothing; and the time of day, which is the host's.
 */
export const LGUEST_TIMEBASE_HZ = 10_000_000;

export class LguestClock {
  readonly ticksPerMs = LGUEST_TIMEBASE_HZ / 1000;
  readonly nsPerTick = 1e9 / LGUEST_TIMEBASE_HZ;
  private readonly nowMs: () => number;
  private readonly unixMs: () => number;
  /** What of the environment's time is not the guest's. */
  private lostMs: number;
  private standsAtMs = Number.NaN;

  constructor(nowMs: () => number, unixMs: () => number) {
    this.nowMs = nowMs;
    this.unixMs = unixMs;
    this.lostMs = nowMs();
  }

  /** A whole number. */
  ticks(): number {
    const ms = Number.isNaN(this.standsAtMs) ? this.nowMs() : this.standsAtMs;
    return Math.floor((ms - this.lostMs) * this.ticksPerMs);
  }

  waitBegins(): void {
    this.standsAtMs = this.nowMs();
  }

  waitEnds(): void {
    this.lostMs += this.nowMs() - this.standsAtMs;
    this.standsAtMs = Number.NaN;
  }

  timestamp(): { sec: number; nsec: number; ticks: number } {
    const unixMs = this.unixMs();
    const sec = Math.floor(unixMs / 1000);
    return { sec, nsec: Math.floor((unixMs - sec * 1000) * 1e6), ticks: this.ticks() };
  }
}
