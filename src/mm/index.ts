/**
 * The primary MMU and the general notifiers. The rooms of this folder:
 *
 *   host.ts, mm.ts  a host and its address spaces: what users call          check.ts  the whole-state checker
 *   page/           frames and their table, lists, operations on pages       pgtable/  ptes and page tables
 *   vma/            mappings and the calls that change them, limits          fault/    faults, copy-on-write, fork, access by address
 *   rmap/           from a frame to its ptes, migration, compaction          reclaim/  what leaves memory, and who dies when nothing can
 *   swap/           slots, swap cache, transfers                             file/     page cache, files, shared memory, write-back
 *   notifier/       subscriptions, brackets, read-begin and read-retry       stat/     vmstat, smaps, pagemap, idle pages
 *   remote/         other threads that map pages by themselves
 */

export { cpuRelax, type WasmMemory, Words, type WordsLabel } from '../base/index.js';
export { checkHost } from './check.js';
export type { Iovec } from './fault/access.js';
export {
  FAULT_FLAG_WRITE,
  FAULT_HWPOISON,
  FAULT_OOM,
  FAULT_RETRY,
  FAULT_SIGBUS,
  FAULT_SIGSEGV,
} from './fault/faultcode.js';
export { HeldPages, MAX_HELD_PAGES } from './fault/heldpages.js';
export { type BackingStore, MemoryStore, type StorePages } from './file/backingstore.js';
export {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  type File,
  type FileMode,
  POSIX_FADV_DONTNEED,
  POSIX_FADV_NORMAL,
  POSIX_FADV_RANDOM,
  POSIX_FADV_SEQUENTIAL,
  POSIX_FADV_WILLNEED,
} from './file/file.js';
export { MS_ASYNC, MS_INVALIDATE, MS_SYNC } from './file/msync.js';
export { Host, type HostOptions, type MmOptions } from './host.js';
export { PAGE_SHIFT, PAGE_SIZE, paToPfn, pfnToPa, VA_SIZE, vaToVpn, vpnToVa } from './layout.js';
export type { Mm } from './mm.js';
export { INVALIDATE_SEQ_LABEL, INVALIDATE_SEQ_WORDS, InvalidateSeq } from './notifier/invalidateseq.js';
export { mmuNotifierRegister, mmuNotifierUnpin, mmuNotifierUnregister } from './notifier/notifier.js';
export {
  MMU_NOTIFY_CLEAR,
  MMU_NOTIFY_NAMES,
  MMU_NOTIFY_PROTECTION_PAGE,
  MMU_NOTIFY_PROTECTION_VMA,
  MMU_NOTIFY_SOFT_DIRTY,
  MMU_NOTIFY_UNMAP,
  type MmuNotifierRange,
  type MmuNotifyEvent,
  RangeList,
} from './notifier/range.js';
export type { MmapLockMode, MmuNotifierOps, MmuNotifierOptions, MmuSubscription } from './notifier/subscription.js';
export { MIN_FRAMES } from './page/frames.js';
export { pinPage, unpinPage } from './page/page.js';
export { describePte, pushPeekPte } from './pgtable/pte.js';
export type { OomAsker, OomCandidate, OomMode, OomReport } from './reclaim/oom.js';
export { OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN } from './reclaim/oom.js';
export type { RemoteDescriptor } from './remote/descriptor.js';
export type { RemoteArea, RemoteOptions } from './remote/remotearea.js';
export { REMOTE_ZERO, RemoteMm } from './remote/remotemm.js';
export { createRemote } from './remote/remotes.js';
export type { CompactResult } from './rmap/compact.js';
export type { IdleCount, PageIdle } from './stat/pageidle.js';
export type { PagemapEntry } from './stat/pagemap.js';
export type { ProcStatus } from './stat/procstatus.js';
export type { ProcVmstat } from './stat/procvmstat.js';
export type { SmapsCounts, SmapsEntry, SmapsRollup } from './stat/smaps.js';
export type { HostStats, NotifierCalls, VmStat } from './stat/stats.js';
export { MemorySwap, type SwapDevice } from './swap/swapdevice.js';
export {
  MADV_COLD,
  MADV_DODUMP,
  MADV_DOFORK,
  MADV_DONTDUMP,
  MADV_DONTFORK,
  MADV_DONTNEED,
  MADV_DONTNEED_LOCKED,
  MADV_FREE,
  MADV_KEEPONFORK,
  MADV_NORMAL,
  MADV_PAGEOUT,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  MADV_RANDOM,
  MADV_REMOVE,
  MADV_SEQUENTIAL,
  MADV_WILLNEED,
  MADV_WIPEONFORK,
  type MadviseNow,
  type MadviseWaits,
} from './vma/madvise.js';
export { MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT } from './vma/mlock.js';
export {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_LOCKED,
  MAP_NONBLOCK,
  MAP_NORESERVE,
  MAP_POPULATE,
  MAP_PRIVATE,
  MAP_SHARED,
  MAP_SHARED_VALIDATE,
} from './vma/mmap.js';
export { MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE } from './vma/mremap.js';
export type { OvercommitPolicy } from './vma/overcommit.js';
export { RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, type RlimitResource } from './vma/rlimit.js';
export { PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE, type Vma } from './vma/vma.js';
