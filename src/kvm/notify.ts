import { type MmuNotifierOps, type MmuNotifierRange, PAGE_SIZE } from '../mm/index.js';
import type { Vm } from './vm.js';

/**
 * The whole relation of kvm with mm: what it does when the host is about to change a pte under a guest.
 *
 *   mm thread                                vCPU
 *   start: seq counts a bracket
 *          direct, shadow entries go
 *          TLBs flushed                      (looks its TLB up again before it goes on)
 *   clears the pte, frees the frame          faults: seq read, tryGetPage, readRetry says no -> tries again
 *   end:   seq moves                         faults: maps the new frame
 *
 * Nothing of `start` may block: it takes the VM's mmu lock alone, which no one holds across a wait (N13).
 */
export function kvmNotifierOps(vm: Vm): MmuNotifierOps {
  return {
    invalidateRangeStart(_sub, range: MmuNotifierRange): number {
      for (const cache of vm.pfnCaches) cache.invalidate(range);
      vm.lockMmu();
      vm.invalidate.beginRange(range);
      let nrZapped = 0;
      for (let i = 0; i < range.nrRanges; i++) nrZapped += vm.zapVpns(range.ranges[2 * i]!, range.ranges[2 * i + 1]!);
      // One shootdown a vCPU and bracket, however many pages it has.
      if (nrZapped > 0) vm.host.vmstat.shootdowns += vm.vcpus.length;
      vm.unlockMmu();
      return 0;
    },

    invalidateRangeEnd(): void {
      vm.lockMmu();
      vm.invalidate.end();
      vm.unlockMmu();
    },

    clearFlushYoung(_sub, start: number, end: number): boolean {
      vm.lockMmu();
      const young = vm.clearYoungVpns(start, end);
      vm.unlockMmu();
      return young;
    },

    release(): void {
      vm.lockMmu();
      vm.zapAll();
      vm.unlockMmu();
    },

    // Shadow entries and TLBs hang on direct entries (`checkVm`).
    mappings: (_sub, start, end, writable): number => vm.countDirect(start / PAGE_SIZE, end / PAGE_SIZE, writable),
  };
}
