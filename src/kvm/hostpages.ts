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
   * Number of the first pte of the host's leaf table that has page `va / 4096` = `vpn`: the pte of the page is `vpn & 511` further; 0: there is none.
   * Under the driver's lock, while no bracket is under way: then it is good until the lock is given back, as is what `peekPte` says.
   */
  peekTable(vpn: number): number;
  /** Address of the host's pte 0, for what reads ptes in WebAssembly (neighbourloop.ts). */
  readonly ptesAddr: number;
  /** What that pte lets an external MMU map without a fault: pfn * 2, and 1 more where it may be written; 0: nothing is known. */
  peekPte(index: number): number;
}
