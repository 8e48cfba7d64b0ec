import type { Ending } from './ending.js';

/** What is told of a run. */

export type FailureKind = 'invariant' | 'check' | 'threw' | 'data race' | Ending['kind'];

export interface RunFailure {
  readonly kind: FailureKind;
  readonly message: string;
}

export interface TraceEntry {
  /** Index of the actor; -1: an event of a device or timer. */
  readonly actor: number;
  readonly text: string;
  /** Another actor could notice it, or it writes: worth being shown. */
  readonly visible: boolean;
}
