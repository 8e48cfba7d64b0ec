/** The primary MMU and the general notifiers. */

export { cpuRelax, Words, type WordsLabel } from '../base/index.js';
export type { Iovec } from './access.js';
export { type BackingStore, MemoryStore, type StorePages } from './backingstore.js';
export { checkHost } from './check.js';
export type { CompactResult } from './compact.js';
export { FAULT_FLAG_WRITE, FAULT_HWPOISON, FAULT_OOM, FAULT_RETRY, FAULT_SIGBUS, FAULT_SIGSEGV } from './faultcode.js';
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
} from './file.js';
export { MIN_FRAMES } from './frames.js';
export { Host, type HostOptions, type MmOptions } from './host.js';
export { INVALIDATE_SEQ_LABEL, INVALIDATE_SEQ_WORDS, InvalidateSeq } from './invalidateseq.js';
export { PAGE_SHIFT, PAGE_SIZE, paToPfn, pfnToPa, VA_SIZE, vaToVpn, vpnToVa } from './layout.js';
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
} from './madvise.js';
export { MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT } from './mlock.js';
export type { Mm } from './mm.js';
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
} from './mmap.js';
export { MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE } from './mremap.js';
export { MS_ASYNC, MS_INVALIDATE, MS_SYNC } from './msync.js';
export { mmuNotifierRegister, mmuNotifierUnpin, mmuNotifierUnregister } from './notifier.js';
export type { OomAsker, OomCandidate, OomMode, OomReport } from './oom.js';
export { OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN } from './oom.js';
export type { OvercommitPolicy } from './overcommit.js';
export type { PagemapEntry } from './pagemap.js';
export type { ProcStatus } from './procstatus.js';
export type { ProcVmstat } from './procvmstat.js';
export { describePte } from './pte.js';
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
} from './range.js';
export { RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, type RlimitResource } from './rlimit.js';
export type { SmapsCounts, SmapsEntry, SmapsRollup } from './smaps.js';
export type { HostStats, NotifierCalls, VmStat } from './stats.js';
export type { MmapLockMode, MmuNotifierOps, MmuNotifierOptions, MmuSubscription } from './subscription.js';
export { MemorySwap, type SwapDevice } from './swapdevice.js';
export { PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE, type Vma } from './vma.js';
