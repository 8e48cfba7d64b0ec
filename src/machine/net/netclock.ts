/** What a network needs of the place it runs in: as an Environment of kvm. */
export interface NetClock {
  /** Milliseconds from any fixed point, monotonic. */
  nowMs(): number;
  /** Calls `fn` once other work has had its turn. */
  defer(fn: () => void): void;
  /** Calls `fn` after `ms` milliseconds; the result cancels it. */
  setTimer(fn: () => void, ms: number): () => void;
}
