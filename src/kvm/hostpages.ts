/**
 * How a vCPU's thread finds what the host maps: on the mm thread the `Mm` itself, in another the mm's remote half. An answer is only good
 * once the driver's retry has said so, under its lock (N8).
 */
export interface HostPages {
  /** Pfn of the page at host virtual `va` (bytes) with the rights of `flags`, REMOTE_ZERO, or a FAULT_ number; never waits. */
  tryGetPage(va: number, flags: number): number;
  /** Gives back the reference that `tryGetPage` has taken, where it takes one. */
  putPage(pfn: number): void;
  /** Where the answer was REMOTE_ZERO: makes the page, under the driver's lock; its pfn, or a FAULT_ number. */
  mapZero?(va: number): number;
}
