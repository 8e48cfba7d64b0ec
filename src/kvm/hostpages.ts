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
  /**
   * What the host maps at page `va / 4096` = `vpn` and may be mapped without a fault: pfn * 2, and 1 more where it may be written; 0: nothing is known.
   * Under the driver's lock, while no bracket is under way: then it is good until the lock is given back.
   */
  peekPage(vpn: number): number;
}
