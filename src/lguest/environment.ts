/**
 * What the driver needs of the place it runs in. Injected: the core layers know neither Node nor the DOM. `nodeEnvironment()` of
 * `unpin/node` is one.
 */
export interface LguestEnvironment {
  /** Milliseconds from any fixed point; monotonic, with fractions. */
  nowMs(): number;
  /** Calls `fn` once other work (I/O, other guests) has had its turn. */
  defer(fn: () => void): void;
  /** Calls `fn` after `ms` milliseconds, or sooner where no timer is that long; the result cancels it. */
  setTimer(fn: () => void, ms: number): () => void;
  /** See EngineOptions of unpin/riscv. */
  readonly hostIsTso?: boolean;
}
