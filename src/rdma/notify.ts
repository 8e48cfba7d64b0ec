import { MMU_NOTIFY_UNMAP, type MmuNotifierOps, type MmuNotifierRange, PAGE_SIZE, VA_SIZE } from '../mm/index.js';
import { REGION_DEAD } from './nic/region.js';
import type { OdpTable } from './odptable.js';

/**
 * The whole relation of rdma with mm: what it does when the host is about to change a pte under registered memory.
 *
 *   mm thread                                NIC
 *   start: seq counts a bracket
 *          entries go
 *          waits for the copy in flight      in a copy: ends it, within microseconds; outside: finds the entry gone in the next one
 *   clears the pte, frees the frame          faults: seq read, page looked up, readRetry says no -> tries again; TCP holds the peer back meanwhile
 *   end:   seq moves                         faults: gets the new frame
 *
 * Nothing of `start` may block: it takes the region's lock alone, which no one holds across a wait (N13), and waits, without it, for a copy that is in flight. Nothing is
 * held from start to end, so brackets nest and overlap (N7, M38). A region is followed in the mm that it was registered in, whoever runs the callback (M45): the table knows no other.
 */
export function rdmaNotifierOps(table: OdpTable): MmuNotifierOps {
  const { region, device } = table;
  return {
    invalidateRangeStart(_sub, range: MmuNotifierRange): number {
      region.lock();
      region.seq.beginRange(range);
      let nrZapped = 0;
      for (let i = 0; i < range.nrRanges; i++)
        nrZapped += table.zapVpnsLocked(range.ranges[2 * i]!, range.ranges[2 * i + 1]!);
      region.unlock();
      if (range.event === MMU_NOTIFY_UNMAP) table.unmapped(range);
      if (nrZapped === 0) return 0;
      table.countInvalidations(nrZapped);
      // One wait a bracket, however many pages it has.
      device.state.awaitCopy();
      return 0;
    },

    invalidateRangeEnd(): void {
      region.lock();
      region.seq.end();
      region.unlock();
    },

    // A NIC has no TLB: it looks each entry up anew, so there is nothing to flush.
    clearFlushYoung: (_sub, start, end): boolean => age(table, start, end),
    clearYoung: (_sub, start, end): boolean => age(table, start, end),

    testYoung: (_sub, start, end): boolean => table.testYoung(start / PAGE_SIZE, end / PAGE_SIZE),

    release(): void {
      region.lock();
      // A bracket that never ends: a NIC that has looked its page up may not install it any more.
      region.seq.begin(0, VA_SIZE);
      region.addFlags(REGION_DEAD);
      table.zapAllLocked();
      region.unlock();
      device.state.awaitCopy();
    },

    mappings: (_sub, start, end, writable): number => table.countEntries(start / PAGE_SIZE, end / PAGE_SIZE, writable),
  };
}

function age(table: OdpTable, start: number, end: number): boolean {
  table.region.lock();
  const young = table.clearYoungVpnsLocked(start / PAGE_SIZE, end / PAGE_SIZE);
  table.region.unlock();
  return young;
}
