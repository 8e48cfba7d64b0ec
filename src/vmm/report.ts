import type { SmapsRollup } from '../mm/index.js';

/**
 * What is told of a guest and of the host when they are done: the shape of `unpin boot --json`.
 */

export type GuestExit = 'poweroff' | 'reset' | 'killed' | 'timeout';

export interface GuestReport {
  name: string;
  /** How it ended; only `poweroff` is success. */
  exit: GuestExit;
  /** One line in words; empty after a plain power off. */
  reason: string;
  wallMs: number;
  /** From the first instruction to the first one in user mode; null when it never came to that. */
  bootMs: number | null;
  instructions: number;
  faults: {
    /** External faults served without waiting. */
    minor: number;
    /** External faults that waited for a frame or for the swap device. */
    major: number;
  };
  ramBytes: number;
  residentPeakBytes: number;
  /** Where its memory was at the end, in KiB, under the names of /proc/pid/smaps_rollup. */
  smaps_rollup: SmapsRollup;
  /** Of a guest by lguest: what the driver counted. */
  lguest?: {
    hypercalls: number;
    /** Exceptions and interrupts that the guest was handed. */
    traps: number;
    interrupts: number;
    /** LHCALL_NEW_PGTABLE, and those that took a page directory from another address space. */
    switches: number;
    victims: number;
    /** Shadow entries that notifiers took away. */
    zapped: number;
  };
  /** Where the guest had a balloon: what was in it at the end, and what it gave back and took again in all. */
  balloon?: {
    actualBytes: number;
    inflatedBytes: number;
    deflatedBytes: number;
    /** Free pages that it reported. */
    reportedBytes: number;
  };
}
