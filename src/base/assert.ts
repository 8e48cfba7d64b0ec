/**
 * Broken invariants. Each is cited by its number in `docs/contract.md`; `scripts/check-contract.mjs` checks that
 * every number cited in the sources exists there, and that every number there has a test.
 */

/** Thrown when an invariant of `docs/contract.md` does not hold: a bug of ours, never of a guest or a caller. */
export class BrokenInvariant extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(`BUG ${invariant}: ${message}`);
    this.name = 'BrokenInvariant';
    this.invariant = invariant;
  }
}

export function bug(invariant: string, message: string): never {
  throw new BrokenInvariant(invariant, message);
}
