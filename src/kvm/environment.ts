/**
 * What a VM needs of the place it runs in: a clock and timers. Injected, since the core layers know neither Node nor
 * the DOM; `unpin/node` has one for Node, and tests have their own.
 */
export interface Environment {
  /** Milliseconds from any fixed point, monotonic, with fractions. */
  nowMs(): number;
  /** Calls `fn` once other work (I/O, other guests) has had its turn. */
  defer(fn: () => void): void;
  /** Calls `fn` after `ms` milliseconds; the result cancels it. */
  setTimer(fn: () => void, ms: number): () => void;
  /** See EngineOptions. */
  readonly hostIsTso?: boolean;
}
