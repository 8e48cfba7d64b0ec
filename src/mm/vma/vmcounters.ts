import { PROT_EXEC, PROT_WRITE, VM_ACCOUNT, VM_LOCKED, VM_SHARED, type Vma } from './vma.js';

/**
 * Pages of VMAs by kind, whether they are there or not (Linux: mm->total_vm, data_vm, exec_vm, locked_vm, hiwater_vm, and
 * vm_committed_as). One for each mm, one for all mms of a host together; VmaSet keeps them.
 */
export class VmCounters {
  /** All pages: VmSize; and the most there were: VmPeak. */
  total = 0;
  peak = 0;
  /** Private and writable: VmData, what RLIMIT_DATA limits. */
  data = 0;
  /** Executable and not writable: VmExe and VmLib. */
  exec = 0;
  /** Of locked VMAs: VmLck. */
  locked = 0;
  /** Charged to the commit limit: Committed_AS. */
  committed = 0;

  add(vma: Vma, nrPages: number): void {
    this.total += nrPages;
    if (this.total > this.peak) this.peak = this.total;
    if (isDataMapping(vma.prot, vma.flags)) this.data += nrPages;
    if ((vma.prot & (PROT_EXEC | PROT_WRITE)) === PROT_EXEC) this.exec += nrPages;
    if ((vma.flags & VM_LOCKED) !== 0) this.locked += nrPages;
    if ((vma.flags & VM_ACCOUNT) !== 0) this.committed += nrPages;
  }
}

export function isDataMapping(prot: number, flags: number): boolean {
  return (prot & PROT_WRITE) !== 0 && (flags & VM_SHARED) === 0;
}
