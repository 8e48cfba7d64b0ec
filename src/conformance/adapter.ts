import type { HostOptions, Mm } from '../mm/index.js';

/**
 * What the suite needs of a driver. An instance is one external MMU over a range of one mm: a VM with a memslot, a RAM, a memory region of a NIC.
 */
export interface ConformanceAdapter {
  readonly name: string;
  /** For the hosts of the suite, beside its own `frames`, `swap` and `debug`: a larger arena, another `defer`. */
  readonly hostOptions?: Pick<HostOptions, 'arenaBytes' | 'defer' | 'now' | 'notifierBudgetMs'>;
  /** Whether the driver says which pages were used through it (`clearFlushYoung` and `testYoung`); without it that is not looked at. */
  readonly young?: boolean;
  /**
   * Whether its faults may run on another thread than the mm's: then a bracket comes between any two accesses to shared words (`Words`) that it does
   * without a lock of its own. Else only where its fault is inside the mm.
   */
  readonly threads?: boolean;
  /** Whether an access blocks the thread until it has its page, and so cannot wait for a bracket of the same thread to end. */
  readonly blocks?: boolean;
  /** Over the bytes [va, va + lenBytes), whole pages of one VMA that may be read and written. */
  create(mm: Mm, va: number, lenBytes: number): ConformanceInstance | Promise<ConformanceInstance>;
}

/** Accesses are of one byte, at the first address of a page. Where the mm refuses the access, they reject or throw, whatever error it is. */
export interface ConformanceInstance {
  /** The byte at `va`, as the external MMU shows it; faults as often as it must. */
  load(va: number): number | Promise<number>;
  /** May write 0 to the seven bytes behind it. */
  store(va: number, value: number): void | Promise<void>;
  /** Ends it. The suite may call it after the mm has exited, and twice. */
  destroy(): void | Promise<void>;
}

export interface ConformanceCase {
  /** What holds, as a sentence; unlike all others. */
  readonly name: string;
  /** Numbers of docs/contract.md. */
  readonly numbers: readonly string[];
  /** Rejects when it does not hold. */
  run(): Promise<void>;
}

export interface ConformanceResult {
  readonly case: ConformanceCase;
  /** Undefined where it holds. */
  readonly error: Error | undefined;
}
