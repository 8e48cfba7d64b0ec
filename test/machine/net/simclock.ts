import type { NetClock } from '../../../src/machine/index.js';

/** A clock that moves when it is told to: `run` does what is due, in order of time. */
export class SimClock implements NetClock {
  private now = 0;
  private readonly deferred: (() => void)[] = [];
  private readonly timers = new Set<{ at: number; fn: () => void }>();

  nowMs(): number {
    return this.now;
  }

  defer(fn: () => void): void {
    this.deferred.push(fn);
  }

  setTimer(fn: () => void, ms: number): () => void {
    const timer = { at: this.now + ms, fn };
    this.timers.add(timer);
    return () => this.timers.delete(timer);
  }

  get idle(): boolean {
    return this.timers.size === 0 && this.deferred.length === 0;
  }

  /** Until `ms` from now, or until `done`. */
  run(ms: number, done: () => boolean = () => false): void {
    const until = this.now + ms;
    while (!done()) {
      if (this.deferred.length > 0) {
        this.deferred.shift()!();
        continue;
      }
      const next = [...this.timers].reduce<{ at: number; fn: () => void } | undefined>(
        (first, timer) => (first === undefined || timer.at < first.at ? timer : first),
        undefined,
      );
      if (next === undefined || next.at > until) break;
      this.now = next.at;
      this.timers.delete(next);
      next.fn();
    }
    if (!done()) this.now = until;
  }
}
