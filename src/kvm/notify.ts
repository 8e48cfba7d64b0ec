import { type MmuNotifierOps, type MmuNotifierRange, PAGE_SIZE, VA_SIZE } from '../mm/index.js';
import { clearYoungVpns, testYoungVpns } from './aging.js';
import type { Vm } from './vm.js';

/**
 * The whole relation of kvm with mm: what it does when the host is about to change a pte under a guest.
 *
 *   mm thread                                vCPU
 *   start: seq counts a bracket
 *          direct, shadow entries go;
 *          TLBs flushed by request           in the guest: comes out, flushes, acknowledges; outside: flushes before it enters
 *   clears the pte, frees the frame          faults: seq read, tryGetPage, readRetry says no -> tries again
 *   end:   seq moves                         faults: maps the new frame
 *
 * Nothing of `start` may block: it takes the VM's mmu lock alone, which no one holds across a wait (N13), and waits, without it, for vCPUs
 * that are in the guest, which come out at their next taken branch. What runs on this very thread is flushed at once.
 */
export function kvmNotifierOps(vm: Vm): MmuNotifierOps {
  return {
    invalidateRangeStart(_sub, range: MmuNotifierRange): number {
      for (const cache of vm.pfnCaches) cache.invalidate(range);
      vm.lockMmu();
      vm.invalidate.beginRange(range);
      let nrZapped = 0;
      for (let i = 0; i < range.nrRanges; i++) nrZapped += vm.zapVpns(range.ranges[2 * i]!, range.ranges[2 * i + 1]!);
      vm.unlockMmu();
      if (nrZapped === 0) return 0;
      // One shootdown a vCPU and bracket, however many pages it has.
      vm.host.vmstat.shootdowns += vm.vcpus.length;
      vm.awaitFlushes();
      return 0;
    },

    invalidateRangeEnd(): void {
      vm.lockMmu();
      vm.invalidate.end();
      vm.unlockMmu();
    },

    clearFlushYoung: (_sub, start, end): boolean => age(vm, start, end),

    // WHY it flushes as well: nothing drives the translation of a hot page out of these large TLBs, and without that it would look idle for as long as it is used.
    clearYoung: (_sub, start, end): boolean => age(vm, start, end),

    testYoung(_sub, start: number, end: number): boolean {
      vm.lockMmu();
      const young = testYoungVpns(vm, start, end);
      vm.unlockMmu();
      return young;
    },

    release(): void {
      vm.lockMmu();
      // A bracket that never ends: a vCPU's thread that has looked its page up may not install it any more.
      vm.invalidate.begin(0, VA_SIZE);
      vm.zapAll();
      vm.unlockMmu();
      vm.awaitFlushes();
    },

    // Shadow entries and TLBs hang on direct entries (`checkVm`).
    mappings: (_sub, start, end, writable): number => vm.countDirect(start / PAGE_SIZE, end / PAGE_SIZE, writable),
  };
}

/**
 * TLBs of this thread are flushed at once. A vCPU with a thread of its own flushes before it enters the guest, and is not waited for: what it uses by its TLB until
 * its slice is over, a millisecond, is not seen.
 */
function age(vm: Vm, start: number, end: number): boolean {
  vm.lockMmu();
  const young = clearYoungVpns(vm, start, end);
  vm.unlockMmu();
  return young;
}
