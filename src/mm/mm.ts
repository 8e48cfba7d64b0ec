import { bug, CONFIG_PTE_NOTIFIERS, KernelError } from '../base/index.js';
import { pageRange } from './args.js';
import { exitMm } from './exit.js';
import { accessMm, accessMmSync, copyIn, copyOut, type Iovec, processVmRw } from './fault/access.js';
import { handleMmFault } from './fault/fault.js';
import { FAULT_FLAG_WRITE, FAULT_OOM, FAULT_SIGSEGV } from './fault/faultcode.js';
import { faultIn, faultInSync, isSwappingIn } from './fault/faultin.js';
import { tryGetPages } from './fault/getpages.js';
import { populate, populateNow } from './fault/populate.js';
import type { File } from './file/file.js';
import { msync } from './file/msync.js';
import type { Host } from './host.js';
import { bytesToPages, NR_VPNS, PTRS_PER_TABLE, vaToVpn } from './layout.js';
import { mmuNotifierRemoveClosed } from './notifier/hooks.js';
import { MmuNotifiers } from './notifier/notifier.js';
import { RangeList } from './notifier/range.js';
import { getPage, putPage } from './page/page.js';
import { PageTable } from './pgtable/pagetable.js';
import { PTE_ACCESSED, PTE_PRESENT, PTE_READ, PTE_WRITE, peekPte, pteIsPresent, ptePfn } from './pgtable/pte.js';
import { clearSoftDirty } from './pgtable/softdirty.js';
import { refuseKilled } from './reclaim/oom.js';
import { remotesDrain } from './remote/hooks.js';
import type { Remotes } from './remote/remotes.js';
import { type PagemapEntry, pagemap } from './stat/pagemap.js';
import { type ProcStatus, procStatus } from './stat/procstatus.js';
import { type SmapsEntry, type SmapsRollup, smaps, smapsRollup } from './stat/smaps.js';
import {
  MADV_DONTNEED,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  MADV_REMOVE,
  type MadviseNow,
  type MadviseWaits,
  madvise,
} from './vma/madvise.js';
import { madviseWait } from './vma/madvisewait.js';
import { mincore } from './vma/mincore.js';
import { mlockall, mlockError, mlockRange, munlockall, munlockRange } from './vma/mlock.js';
import { MAP_NONBLOCK, MAP_POPULATE, mmap, munmap } from './vma/mmap.js';
import { MmapLock } from './vma/mmaplock.js';
import { mprotect } from './vma/mprotect.js';
import { mremap } from './vma/mremap.js';
import type { RlimitResource, Rlimits } from './vma/rlimit.js';
import type { Vma } from './vma/vma.js';
import { VmaSet } from './vma/vmaset.js';
import { VmCounters } from './vma/vmcounters.js';

/**
 * An address space (Linux: struct mm_struct): what a process would have. Made by `host.createMm`, ended by `exit`.
 *
 * Use: `mmap`, then `read` and `write` by address, or as an external MMU: `tryGetPage`, and where that says FAULT_RETRY
 * `await faultIn` and again; `putPage` when the entry is installed.
 */
export class Mm {
  readonly host: Host;
  readonly id: number;
  readonly name: string;
  readonly rlimits: Rlimits;
  /** Pages of its VMAs. */
  readonly vm = new VmCounters();
  readonly vmas: VmaSet;
  readonly pageTable: PageTable;
  /** These two are the hooks' own (notifier/hooks.ts). */
  declare readonly notifiers: MmuNotifiers;
  /** The bracket of whatever runs on this mm: they never overlap on one thread. */
  declare readonly range: RangeList;
  readonly mmapLock: MmapLock;
  /** Flags that new VMAs get: VM_LOCKED after mlockall(MCL_FUTURE). */
  defFlags = 0;
  residentPages = 0;
  residentPeakPages = 0;
  exited = false;
  /** From -1000, never killed when memory runs out, to 1000, killed first. */
  oomScoreAdj = 0;
  /** Why it was killed, once it was, in one line: every fault is refused with it. */
  oomKilled: string | undefined;
  /** Subscriptions, and one more where other threads map pages: 0 where nobody has to know of brackets. The hooks' own, as is the next. */
  declare nrWatchers: number;
  /** Drivers that hear of mmapLock, and those that have yet to hear that it was given back. */
  declare nrLockHooks: number;
  /** Other threads that map pages of it by themselves; undefined where there are none. The hooks' own (remote/hooks.ts). */
  declare remotes: Remotes | undefined;
  /** Reclaim's marks while it works on a batch. */
  inReclaim = false;
  refusedReclaim = false;

  constructor(host: Host, id: number, name: string, rlimits: Rlimits, rootTable: number) {
    this.host = host;
    this.id = id;
    this.name = name;
    this.rlimits = rlimits;
    this.vmas = new VmaSet(this.vm, host.vm);
    this.pageTable = new PageTable(host.tables, rootTable);
    this.mmapLock = new MmapLock(this);
    if (CONFIG_PTE_NOTIFIERS) {
      this.nrWatchers = 0;
      this.nrLockHooks = 0;
      this.notifiers = new MmuNotifiers(this, host.notifierHost);
      this.range = new RangeList(this);
      this.remotes = undefined;
    }
  }

  addResident(nrPages: number): void {
    this.residentPages += nrPages;
    if (this.residentPages > this.residentPeakPages) this.residentPeakPages = this.residentPages;
  }

  /**
   * Maps `length` bytes: with MAP_ANONYMOUS of new memory, else of `file` from byte `offset` on. `flags` has MAP_PRIVATE (what is written goes to a
   * copy) or MAP_SHARED (all who map it see it, and the file gets it), and may have MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_POPULATE,
   * MAP_LOCKED. Returns its address. What is to be populated is, as far as that needs no waiting; `await populate` for the rest. Throws
   * KernelError EINVAL, ENOMEM, EPERM, EEXIST, EBADF, EAGAIN, EACCES, EOVERFLOW, EOPNOTSUPP as mmap(2).
   */
  mmap(addr: number, length: number, prot: number, flags: number, file?: File, offset = 0): number {
    const va = this.locked('mmap', () => mmap(this, addr, length, prot, flags, file, offset));
    if (this.findVma(va)!.locked || (flags & (MAP_POPULATE | MAP_NONBLOCK)) === MAP_POPULATE)
      populateNow(this, vaToVpn(va), vaToVpn(va) + bytesToPages(length));
    return va;
  }

  /** Writes shared mappings of files back: see msync.ts. Rejects with KernelError EINVAL, ENOMEM, EBUSY, and as `file.fsync`. */
  async msync(addr: number, length: number, flags: number): Promise<void> {
    await msync(this, addr, length, flags);
  }

  /** Unmaps every page in [va, va + length). Throws KernelError EINVAL, ENOMEM (too many VMAs) as munmap(2). */
  munmap(va: number, length: number): void {
    this.locked('munmap', () => munmap(this, va, length));
  }

  /**
   * Gives the pages of [va, va + length) the rights `prot`; those before a hole, or before what a limit refuses, even where it throws.
   * Throws KernelError EINVAL, ENOMEM, EACCES as mprotect(2).
   */
  mprotect(va: number, length: number, prot: number): void {
    this.locked('mprotect', () => mprotect(this, va, length, prot));
  }

  /**
   * Takes the soft-dirty marks of all pages (Linux: 4 in /proc/pid/clear_refs): `pagemap` tells from then on which are written. External
   * MMUs lose the right to write, and get it back by a fault.
   */
  clearSoftDirty(): void {
    this.locked('clearSoftDirty', () => clearSoftDirty(this));
  }

  /**
   * Brings every page of [va, va + length) in that is mapped and accessible, for writing where its VMA allows that: what MAP_POPULATE
   * and MAP_LOCKED could not do without waiting. Rejects with KernelError EINVAL, and ENOMEM, EHWPOISON as `faultIn`.
   */
  async populate(va: number, length: number): Promise<void> {
    const [startVpn, endVpn] = pageRange('populate', va, length, 'EINVAL');
    await populate(this, startVpn, endVpn, (error) => {
      if (!(error instanceof KernelError && error.code === 'EFAULT')) throw error;
    });
  }

  /**
   * Advice about [va, va + length), one of the MADV_ constants. MADV_POPULATE_READ, _WRITE and MADV_REMOVE wait, and return a promise;
   * WILLNEED and PAGEOUT start their I/O and do not. Throws, or rejects with, KernelError EINVAL, ENOMEM (a hole; the rest is done), EACCES,
   * EAGAIN, EFAULT, EHWPOISON as madvise(2).
   */
  madvise(va: number, length: number, advice: MadviseWaits): Promise<void>;
  madvise(va: number, length: number, advice: MadviseNow): void;
  madvise(va: number, length: number, advice: number): Promise<void> | void;
  madvise(va: number, length: number, advice: number): Promise<void> | void {
    if (advice === MADV_POPULATE_READ || advice === MADV_POPULATE_WRITE || advice === MADV_REMOVE)
      return madviseWait(this, va, length, advice);
    remotesDrain(this);
    madvise(this, va, length, advice);
  }

  /** `madvise` with MADV_DONTNEED: the next access sees zeros. */
  madviseDontneed(va: number, length: number): void {
    madvise(this, va, length, MADV_DONTNEED);
  }

  /** Where its memory is, for each VMA: /proc/pid/smaps, in KiB. */
  smaps(): SmapsEntry[] {
    remotesDrain(this);
    return smaps(this);
  }

  /** The sums of `smaps`: /proc/pid/smaps_rollup, in KiB. */
  smapsRollup(): SmapsRollup {
    remotesDrain(this);
    return smapsRollup(this);
  }

  /** The Vm lines of /proc/pid/status, in KiB. */
  procStatus(): ProcStatus {
    remotesDrain(this);
    return procStatus(this);
  }

  /** What each of `nrPages` pages from `va` on is: present, swapped, soft-dirty, its frame. Throws KernelError EINVAL. */
  pagemap(va: number, nrPages: number): PagemapEntry[] {
    remotesDrain(this);
    return pagemap(this, va, nrPages);
  }

  /**
   * Whether each page of [va, va + length) can be had without I/O, as 1 or 0 in `vec`. Throws KernelError EINVAL, EFAULT (`vec` too
   * short), ENOMEM (a hole; what lies before it is in `vec`) as mincore(2).
   */
  mincore(va: number, length: number, vec: Uint8Array): void {
    mincore(this, va, length, vec);
  }

  /**
   * Locks the pages of [va, va + length) in memory; resolves when they are all there. With MLOCK_ONFAULT (mlock2) they stay once
   * they are there. Rejects with KernelError EINVAL, EPERM, ENOMEM (limits, a hole, PROT_NONE), EAGAIN (no frame) as mlock(2).
   */
  async mlock(va: number, length: number, flags = 0): Promise<void> {
    const [startVpn, endVpn] = this.locked('mlock', () => mlockRange(this, va, length, flags));
    await populate(this, startVpn, endVpn, mlockError);
  }

  /** Throws KernelError EINVAL, ENOMEM as munlock(2). */
  munlock(va: number, length: number): void {
    this.locked('munlock', () => munlockRange(this, va, length));
  }

  /**
   * Locks all that is mapped (MCL_CURRENT), and all that will be (MCL_FUTURE); with MCL_ONFAULT as pages come. Resolves when what is
   * accessible of it is there, or cannot be had. Rejects with KernelError EINVAL, EPERM, ENOMEM as mlockall(2).
   */
  async mlockall(flags: number): Promise<void> {
    if (this.locked('mlockall', () => mlockall(this, flags))) await populate(this, 0, NR_VPNS, () => {});
  }

  munlockall(): void {
    this.locked('munlockall', () => munlockall(this));
  }

  /** Limits in bytes, for RLIMIT_AS, RLIMIT_DATA and RLIMIT_MEMLOCK. Throws KernelError EINVAL. */
  setrlimit(resource: RlimitResource, bytes: number): void {
    this.rlimits.set(resource, bytes);
  }

  getrlimit(resource: RlimitResource): number {
    return this.rlimits.get(resource);
  }

  private locked<T>(syscall: string, body: () => T): T {
    if (this.exited) throw new KernelError('EFAULT', syscall, `${this.name} has exited`);
    refuseKilled(this, syscall);
    this.mmapLock.lock('write');
    try {
      return body();
    } finally {
      this.mmapLock.unlock();
      mmuNotifierRemoveClosed(this);
      this.host.gather.free();
    }
  }

  /**
   * Shrinks, grows or moves the mapping at `addr` (Linux: mremap); flags MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP, of which the last two
   * take `newAddr`. Returns its address. Throws KernelError EINVAL, EFAULT, ENOMEM.
   */
  mremap(addr: number, oldLength: number, newLength: number, flags = 0, newAddr = 0): number {
    const va = this.locked('mremap', () => mremap(this, addr, oldLength, newLength, flags, newAddr));
    const [startVpn, endVpn] = [vaToVpn(va) + bytesToPages(oldLength), vaToVpn(va) + bytesToPages(newLength)];
    if (startVpn < endVpn && this.findVma(va)!.locked) populateNow(this, startVpn, endVpn);
    return va;
  }

  /**
   * A copy of this mm whose contents are shared until either side writes (Linux: fork). It has no subscription and no locked memory.
   * Throws KernelError ENOMEM, EFAULT (exited).
   */
  fork(options: { name?: string } = {}): Mm {
    return this.locked('fork', () => this.host.forkMm(this, options.name));
  }

  findVma(va: number): Vma | undefined {
    return this.vmas.find(vaToVpn(va));
  }

  /**
   * The frame behind `va`, with a reference for the caller to give back by `putPage`; or FAULT_RETRY, FAULT_SIGSEGV,
   * FAULT_HWPOISON, FAULT_OOM. Never waits. With FAULT_FLAG_WRITE the page is dirty from now on, and only then may it be written.
   */
  tryGetPage(va: number, flags: number): number {
    const vpn = vaToVpn(va);
    if (vpn < 0 || vpn >= NR_VPNS) return FAULT_SIGSEGV;
    const i = this.pageTable.find(vpn);
    if (i !== 0) {
      const pte = this.pageTable.words.readOnce(i);
      const need = (flags & FAULT_FLAG_WRITE) !== 0 ? PTE_PRESENT | PTE_READ | PTE_WRITE : PTE_PRESENT | PTE_READ;
      if ((pte & need) === need) {
        if ((pte & PTE_ACCESSED) === 0) this.pageTable.words.writeOnce(i, pte | PTE_ACCESSED);
        getPage(this.host, ptePfn(pte));
        return ptePfn(pte);
      }
    }
    return this.tryGetPageSlow(vpn, (flags & FAULT_FLAG_WRITE) !== 0);
  }

  private tryGetPageSlow(vpn: number, write: boolean): number {
    if (this.oomKilled !== undefined) return FAULT_OOM;
    this.mmapLock.lock('read');
    const pfn = handleMmFault(this, vpn, write, this.host.reclaim.min);
    this.mmapLock.unlock();
    if (pfn > 0) getPage(this.host, pfn);
    return pfn;
  }

  /** `tryGetPage` for `nrPages` pages from `va` on, as far as they can be had, into `pfns`: how many, each with a reference; or the FAULT_ number of the first. */
  tryGetPages(va: number, nrPages: number, flags: number, pfns: Int32Array): number {
    return tryGetPages(this, vaToVpn(va), nrPages, (flags & FAULT_FLAG_WRITE) !== 0, pfns);
  }

  /**
   * For `peekPte`: number of the first pte of the leaf table that has page `vpn`, whose own is `vpn & 511` further; 0: there is none. Under the driver's
   * lock, while no bracket is under way: good until the lock is given back, with what `peekPte` says.
   */
  peekTable(vpn: number): number {
    return vpn >>> 27 !== 0 ? 0 : this.pageTable.find(vpn & ~(PTRS_PER_TABLE - 1));
  }

  /** Address of pte 0. */
  get ptesAddr(): number {
    return this.host.tables.addr;
  }

  /** What an external MMU may map by a pte without a fault: pfn * 2, and 1 more where it may be written (it is dirty then); 0: only `tryGetPage` can tell. No reference is taken. */
  peekPte(index: number): number {
    return peekPte(this.pageTable.words.readOnce(index));
  }

  /** Gives back a reference of `tryGetPage`. */
  putPage(pfn: number): void {
    if (!this.host.frames.isFrame(pfn) || this.host.frames.refcount[pfn]! <= 0)
      bug('N4', `putPage of frame ${pfn}, which is free`);
    putPage(this.host, pfn);
  }

  /** Waits until `va` is mapped with the right asked for. Rejects with KernelError EFAULT, EHWPOISON, ENOMEM. */
  async faultIn(va: number, flags: number): Promise<void> {
    await faultIn(this, va, (flags & FAULT_FLAG_WRITE) !== 0);
  }

  /** The same, blocking; throws EOPNOTSUPP where the swap device cannot. */
  faultInSync(va: number, flags: number): void {
    faultInSync(this, va, (flags & FAULT_FLAG_WRITE) !== 0);
  }

  /** Whether the page at `va` is being read from swap: `faultIn` then waits for that read, and takes no frame. */
  isSwappingIn(va: number): boolean {
    return isSwappingIn(this, va);
  }

  /** Fills `dst` from `va` on. Rejects as `faultIn` does. */
  async read(va: number, dst: Uint8Array): Promise<void> {
    await accessMm(this, va, dst.length, 0, copyOut(this, dst));
  }

  /** Writes `src` to `va` on. Rejects as `faultIn` does. */
  async write(va: number, src: Uint8Array): Promise<void> {
    await accessMm(this, va, src.length, FAULT_FLAG_WRITE, copyIn(this, src));
  }

  /**
   * Fills the buffers of `local`, one after the other, from the runs of `remote` (Linux: process_vm_readv). Returns the bytes that were moved:
   * fewer where a page cannot be had after others could. Rejects as `faultIn` does where there is none; EINVAL for more than 1024 runs.
   */
  processVmReadv(local: readonly Uint8Array[], remote: readonly Iovec[]): Promise<number> {
    return processVmRw(this, local, remote, 0);
  }

  /** The other way: from the buffers of `local` into the runs of `remote` (Linux: process_vm_writev). */
  processVmWritev(local: readonly Uint8Array[], remote: readonly Iovec[]): Promise<number> {
    return processVmRw(this, local, remote, FAULT_FLAG_WRITE);
  }

  readSync(va: number, dst: Uint8Array): void {
    accessMmSync(this, va, dst.length, 0, copyOut(this, dst));
  }

  writeSync(va: number, src: Uint8Array): void {
    accessMmSync(this, va, src.length, FAULT_FLAG_WRITE, copyIn(this, src));
  }

  /** Calls `fn` for each page of [startVpn, endVpn) that is present, and says whether it is writable. */
  forEachPresent(startVpn: number, endVpn: number, fn: (vpn: number, pfn: number, write: boolean) => void): void {
    for (let vpn = startVpn; (vpn = this.pageTable.skipEmpty(vpn, endVpn)) < endVpn; vpn++) {
      const pte = this.pageTable.get(vpn);
      if (pteIsPresent(pte)) fn(vpn, ptePfn(pte), (pte & PTE_WRITE) !== 0);
    }
  }

  /** The end: everything is unmapped with notification, areas are closed, subscriptions released, then the frames are freed. */
  exit(): void {
    if (!this.exited) exitMm(this);
  }
}
