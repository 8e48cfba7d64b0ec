/** Timers that fire when a test says so. */
export class Clock {
  private now = 0;
  private readonly timers = new Set<{ at: number; fn: () => void }>();

  readonly setTimer = (fn: () => void, ms: number): (() => void) => {
    const timer = { at: this.now + ms, fn };
    this.timers.add(timer);
    return () => void this.timers.delete(timer);
  };

  advance(ms: number): void {
    this.now += ms;
    for (const timer of [...this.timers].filter(({ at }) => at <= this.now)) {
      this.timers.delete(timer);
      timer.fn();
    }
  }
}
