import { type MmuNotifierOps, type MmuNotifierRange, PAGE_SIZE, VA_SIZE } from '../mm/index.js';
import type { LgCpu } from './cpu.js';

/**
 * The whole relation of lguest with mm: what it does when the host is about to change a pte under a guest. Because of it no page of a guest is pinned, and
 * anybody may launch one (S10).
 *
 *   the mm                                   the guest, on the same thread
 *   start: seq counts a bracket
 *          shadow entries go by the reverse
 *          map, and their translations       is bumped out: what it knew of the page it must ask for again
 *   clears the pte, frees the frame          faults: seq read, tryGetPage, readRetry says no -> tries again
 *   end:   seq moves                         faults: shows the new frame
 *
 * It needs no lock, and waits for nobody: the guest is outside whenever the mm does something, if only by an access of its own that faults.
 */
export function lguestNotifierOps(cpu: LgCpu): MmuNotifierOps {
  const { directories, invalidate, access } = cpu;
  const gfn = (va: number) => Math.min(Math.max((va - access.base) / PAGE_SIZE, 0), access.pfnLimit);
  return {
    invalidateRangeStart(_sub, range: MmuNotifierRange): number {
      invalidate.beginRange(range);
      let nrZapped = 0;
      for (let i = 0; i < range.nrRanges; i++)
        nrZapped += directories.zap(gfn(range.ranges[2 * i]! * PAGE_SIZE), gfn(range.ranges[2 * i + 1]! * PAGE_SIZE));
      if (nrZapped > 0) cpu.host.vmstat.shootdowns++;
      return 0;
    },

    invalidateRangeEnd(): void {
      invalidate.end();
    },

    clearFlushYoung: (_sub, start, end): boolean => directories.clearYoung(gfn(start), gfn(end)),

    // WHY it flushes as well: nothing drives the translation of a hot page out of the TLB, and without that it would look idle for as long as it is used.
    clearYoung: (_sub, start, end): boolean => directories.clearYoung(gfn(start), gfn(end)),

    testYoung: (_sub, start, end): boolean => directories.testYoung(gfn(start), gfn(end)),

    release(): void {
      // A bracket that never ends: a fault under way installs nothing any more.
      invalidate.begin(0, VA_SIZE);
      directories.zap(0, access.pfnLimit);
    },

    // What the TLB knows hangs on shadow entries (`checkLguest`).
    mappings: (_sub, start, end, writable): number => directories.count(gfn(start), gfn(end), writable),
  };
}
