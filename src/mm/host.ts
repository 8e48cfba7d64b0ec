import { CONFIG_PTE_NOTIFIERS, createMemory, KernelError, type WasmMemory } from '../base/index.js';
import { forkMm } from './fault/fork.js';
import type { BackingStore } from './file/backingstore.js';
import { createShmemFile, type File, type FileMode, openFile } from './file/file.js';
import { PageCache } from './file/pagecache.js';
import { PAGE_SIZE, PTRS_PER_TABLE, pfnToPa, planLayout } from './layout.js';
import { Mm } from './mm.js';
import { nrPinned } from './notifier/hooks.js';
import { makeNotifierHost, type NotifierHost } from './notifier/notifierhost.js';
import { Arena } from './page/arena.js';
import { checkNrFrames, FREE_PATTERN, FrameTable } from './page/frames.js';
import {
  LRU_ACTIVE_ANON,
  LRU_ACTIVE_FILE,
  LRU_INACTIVE_ANON,
  LRU_INACTIVE_FILE,
  LRU_UNEVICTABLE,
  Lru,
} from './page/lru.js';
import { createPageOps, type PageOps } from './page/pageops.js';
import { MAX_SWAP_SLOTS } from './pgtable/pte.js';
import { TablePool } from './pgtable/tablepool.js';
import { checkOomScoreAdj, Oom, type OomMode, type OomReport } from './reclaim/oom.js';
import { Reclaim } from './reclaim/reclaim.js';
import { Workingset } from './reclaim/workingset.js';
import { Young } from './reclaim/young.js';
import { nrRemoteFrames, remotesDrainAll } from './remote/hooks.js';
import type { RemoteArea } from './remote/remotearea.js';
import { AnonVmas } from './rmap/anonvma.js';
import { type CompactResult, compact } from './rmap/compact.js';
import { Migration } from './rmap/migrate.js';
import { PageIdle } from './stat/pageidle.js';
import { procVmstat } from './stat/procvmstat.js';
import { type HostStats, notifierStats, VmStat } from './stat/stats.js';
import { SameFilled } from './swap/samefilled.js';
import { SwapMap } from './swap/swap.js';
import type { SwapDevice } from './swap/swapdevice.js';
import { checkPageCluster, SwapIn } from './swap/swapin.js';
import { Writeback } from './swap/writeback.js';
import { Overcommit, type OvercommitPolicy } from './vma/overcommit.js';
import { RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, Rlimits } from './vma/rlimit.js';
import { Gather } from './vma/unmap.js';
import { VmCounters } from './vma/vmcounters.js';

/**
 * A host: the one shared memory, its frames and swap, and the mms that live in them. Everything in it belongs to one thread, the
 * mm thread.
 *
 * Use: `new Host`, `createMm`, work, `mm.exit`, `await stop`.
 */
export interface HostOptions {
  /** Frames of 4 KiB for all mms together; at least MIN_FRAMES. */
  readonly frames: number;
  /** Bytes for what else must lie in the shared memory (`arenaAlloc`); default 16 MiB. */
  readonly arenaBytes?: number;
  /** Page tables of 2 KiB; default: enough to map frames and swap four times over, and 1024. */
  readonly pageTables?: number;
  readonly swap?: SwapDevice;
  /** Pages read from swap at once are at most 2 to this power; 0: no read-ahead (Linux: vm.page-cluster). Default 4; at most 6. */
  readonly pageCluster?: number;
  /** Whether pages that are one value repeated, as zeros are, leave memory without a slot of the swap device, as in Linux; default true. */
  readonly sameFilled?: boolean;
  /** Milliseconds from any fixed point; needed for `notifierBudgetMs`. */
  readonly now?: () => number;
  /** Runs a function when other work has had its turn; default: as a microtask. */
  readonly defer?: (fn: () => void) => void;
  /** A callback that takes longer poisons its subscription (N19); default: no limit. */
  readonly notifierBudgetMs?: number;
  /** Percent of free frames and file pages that may be dirty before who writes to files waits (Linux: vm.dirty_ratio); default 20. */
  readonly dirtyRatio?: number;
  /** As `dirtyRatio`, before write-back begins (Linux: vm.dirty_background_ratio); default 10. */
  readonly dirtyBackgroundRatio?: number;
  /** Runs `fn` after `ms` milliseconds, unless the function that it returns is called before; needed for `ioTimeoutMs`. */
  readonly setTimer?: (fn: () => void, ms: number) => () => void;
  /** Who waits for a backing store is told EIO after this many milliseconds; default 30 000, as Linux's for a disk command. */
  readonly ioTimeoutMs?: number;
  /** Told of each transfer of the swap device that failed, and of each damaged page read from it. */
  readonly onSwapError?: (operation: 'read' | 'write', error: unknown) => void;
  /** What happens when nothing can be reclaimed; default 'kill': the largest mm dies, and the others live. */
  readonly oom?: OomMode;
  /** Told, soon after, of each mm that was killed because memory ran out. */
  readonly onOom?: (report: OomReport) => void;
  /** How much may be mapped for writing (Linux: vm.overcommit_memory, vm.overcommit_ratio); default 'heuristic', and 50 percent. */
  readonly overcommit?: OvercommitPolicy;
  readonly overcommitRatio?: number;
  /** Freed frames are filled with FREE_PATTERN. */
  readonly debug?: boolean;
}

export interface MmOptions {
  /** For messages. */
  readonly name?: string;
  /** Bytes that mlock may lock (Linux: RLIMIT_MEMLOCK); default 8 MiB, as Linux's. */
  readonly rlimitMemlock?: number;
  /** From -1000, never killed when memory runs out, to 1000, killed before all others; default 0 (Linux: oom_score_adj). */
  readonly oomScoreAdj?: number;
  /** Bytes that may be mapped, and privately for writing (Linux: RLIMIT_AS, RLIMIT_DATA); default: no limit. */
  readonly rlimitAs?: number;
  readonly rlimitData?: number;
}

const DEFAULT_ARENA_BYTES = 16 * 2 ** 20;
const DEFAULT_DIRTY_RATIO = 20;
const DEFAULT_DIRTY_BACKGROUND_RATIO = 10;
const DEFAULT_IO_TIMEOUT_MS = 30_000;
const DEFAULT_PAGE_CLUSTER = 4;
const DEFAULT_RLIMIT_MEMLOCK = 8 * 2 ** 20;

export class Host {
  readonly memory: WasmMemory;
  /** Host physical memory: a host physical address is an index of it. */
  readonly u8: Uint8Array;
  readonly framesBase: number;
  readonly frames: FrameTable;
  readonly tables: TablePool;
  readonly anonVmas = new AnonVmas();
  readonly lru: Lru;
  readonly device: SwapDevice | undefined;
  readonly swap: SwapMap;
  readonly sameFilled: SameFilled;
  readonly swapIn: SwapIn;
  readonly writeback: Writeback;
  readonly young: Young;
  /** Which pages were used since they were marked. */
  readonly pageIdle: PageIdle;
  readonly workingset: Workingset;
  readonly reclaim: Reclaim;
  readonly oom: Oom;
  readonly migration: Migration;
  readonly gather: Gather;
  readonly pageCache: PageCache;
  readonly pageOps: PageOps;
  readonly vmstat = new VmStat();
  readonly mms = new Set<Mm>();
  /** Pages of VMAs of all mms. */
  readonly vm = new VmCounters();
  readonly overcommit: Overcommit;
  /** Frames of locked VMAs. */
  nrMlocked = 0;
  /** Other threads that map pages by themselves, of all mms; and the frames that they have and nobody has mapped. Both the hooks' own (remote/hooks.ts). */
  declare readonly remoteAreas: Set<RemoteArea>;
  declare nrRemoteFrames: number;
  /** By frame, how many poisoned subscriptions may map it: each has a reference (N19). */
  declare readonly pins: Map<number, number>;
  declare readonly notifierHost: NotifierHost;
  private readonly options: HostOptions;
  private readonly arena: Arena;
  private nextMmId = 1;

  /** Throws KernelError EINVAL for numbers that cannot work. */
  constructor(options: HostOptions) {
    checkNrFrames(options.frames);
    this.options = options;
    this.device = options.swap;
    const nrSlots = this.device?.nrSlots ?? 0;
    if (nrSlots > MAX_SWAP_SLOTS)
      throw new KernelError('EINVAL', 'Host', `swap slots ${nrSlots} must be at most ${MAX_SWAP_SLOTS}`);
    const nrTables = options.pageTables ?? defaultNrTables(options.frames, nrSlots);
    const layout = planLayout(options.frames, options.arenaBytes ?? DEFAULT_ARENA_BYTES, nrTables);
    this.memory = createMemory(layout.totalBytes);
    this.u8 = new Uint8Array(this.memory.buffer);
    this.framesBase = layout.framesBase;
    this.arena = new Arena(layout.arenaStart, layout.arenaBytes);
    this.pageOps = createPageOps(this.memory);
    this.frames = new FrameTable(
      this.memory,
      layout,
      options.debug ? (pa) => this.pageOps.fill(pa, FREE_PATTERN) : undefined,
    );
    this.tables = new TablePool(this.memory, layout);
    this.lru = new Lru(this.frames);
    this.swap = new SwapMap(this.frames, nrSlots);
    this.sameFilled = new SameFilled(this.pageOps, options.sameFilled ?? true);
    this.swapIn = new SwapIn(this, checkPageCluster(options.pageCluster ?? DEFAULT_PAGE_CLUSTER));
    this.writeback = new Writeback(this);
    this.young = new Young(this);
    this.pageIdle = new PageIdle(this);
    this.workingset = new Workingset(this);
    this.reclaim = new Reclaim(this);
    this.oom = new Oom(this, options.oom ?? 'kill', options.onOom);
    this.migration = new Migration(this);
    this.gather = new Gather(this);
    const { overcommit = 'heuristic', overcommitRatio = 50 } = options;
    this.overcommit = new Overcommit(overcommit, overcommitRatio, this.frames, nrSlots, this.vm);
    this.pageCache = makePageCache(this, options);
    if (CONFIG_PTE_NOTIFIERS) {
      this.remoteAreas = new Set();
      this.nrRemoteFrames = 0;
      this.pins = new Map();
      this.notifierHost = makeNotifierHost(this, options);
    }
  }

  /** A new address space. Throws KernelError ENOMEM when no page table is left for it, EINVAL for an oomScoreAdj out of range. */
  createMm(options: MmOptions = {}): Mm {
    const oomScoreAdj = checkOomScoreAdj(options.oomScoreAdj ?? 0);
    const root = this.tables.alloc(2, 0);
    if (root === 0) throw new KernelError('ENOMEM', 'createMm', `no page table left of ${this.tables.nrTables}`);
    const id = this.nextMmId++;
    const mm = new Mm(this, id, options.name ?? `mm ${id}`, rlimitsOf(options), root);
    mm.oomScoreAdj = oomScoreAdj;
    this.mms.add(mm);
    return mm;
  }

  /** A new address space with the contents and limits of `parent` (fork.ts). Throws KernelError ENOMEM. */
  forkMm(parent: Mm, name: string | undefined): Mm {
    const child = this.createMm({ oomScoreAdj: parent.oomScoreAdj, ...(name === undefined ? {} : { name }) });
    Object.assign(child.rlimits, parent.rlimits);
    try {
      forkMm(parent, child);
    } catch (error) {
      child.exit();
      throw error;
    }
    return child;
  }

  /**
   * Moves pages so that what is free lies in one run at the end of the frames. `blockable`: drivers must not refuse it. Page contents, rights and
   * addresses stay; what is held by `tryGetPage` or under I/O does not move.
   */
  compact(blockable = true): CompactResult {
    return compact(this, blockable);
  }

  /**
   * Opens a store: all who open it share its pages. `mode` 'r', 'w' or 'rw'; default 'rw', or 'r' where the store is read-only. Throws KernelError EINVAL,
   * EROFS.
   */
  openFile(store: BackingStore, options: { mode?: FileMode } = {}): File {
    return openFile(this, store, options.mode ?? (store.readOnly ? 'r' : 'rw'));
  }

  /** A file of zeros without a store, whose pages go to swap (Linux: memfd_create): memory to share between mms. It ends with its last user. */
  memfdCreate(name: string, sizeBytes = 0): File {
    return createShmemFile(this, name, sizeBytes);
  }

  /** Writes all dirty pages of files; what fails, each opener's fsync reports. */
  sync(): Promise<void> {
    return this.pageCache.sync();
  }

  /** Writes what is dirty of a store that nobody has open, forgets its pages, and closes it. Rejects with KernelError EBUSY, EIO. */
  closeStore(store: BackingStore): Promise<void> {
    return this.pageCache.closeStore(store);
  }

  /** Called by `mm.exit`. */
  removeMm(mm: Mm): void {
    this.mms.delete(mm);
    this.oom.forget(mm);
  }

  /** Bytes of the arena, aligned to `align` (a power of two), not cleared. Throws KernelError ENOMEM. */
  arenaAlloc(lenBytes: number, align: number): number {
    return this.arena.alloc(lenBytes, align);
  }

  arenaFree(addr: number, lenBytes: number): void {
    this.arena.free(addr, lenBytes);
  }

  defer(fn: () => void): void {
    if (this.options.defer !== undefined) this.options.defer(fn);
    else void Promise.resolve().then(fn);
  }

  /** Whether `faultInSync` works: the swap device, if there is one, has blocking transfers. */
  get canBlock(): boolean {
    const { device } = this;
    return device === undefined || (device.readSync !== undefined && device.writeSync !== undefined);
  }

  /** Views of whole frames, for the swap device. */
  frameViews(pfns: readonly number[]): Uint8Array[] {
    return pfns.map((pfn) => {
      const pa = pfnToPa(pfn);
      return this.u8.subarray(pa, pa + PAGE_SIZE);
    });
  }

  /** Of the frame's contents as those of `slot` in its present generation. */
  checksum(pfn: number, slot: number): number {
    return this.pageOps.checksum(pfnToPa(pfn), slot, this.swap.generationOf(slot)) >>> 0;
  }

  reportSwapError(operation: 'read' | 'write', error: unknown): void {
    this.options.onSwapError?.(operation, error);
  }

  stats(): HostStats {
    remotesDrainAll(this);
    const { vmstat, frames, swap, lru } = this;
    return {
      frames: frames.nrFrames,
      framesPeak: frames.nrFrames - frames.nrFreeLowest,
      framesFree: frames.nrFree,
      pinnedFrames: this.nrMlocked + nrPinned(this),
      remoteFrames: nrRemoteFrames(this),
      remoteFaults: vmstat.remoteFaults,
      swapOutPages: vmstat.pswpout,
      swapInPages: vmstat.pswpin,
      sameFilledPages: this.sameFilled.nrPages,
      ...notifierStats(vmstat),
      shootdowns: vmstat.shootdowns,
      retries: vmstat.retries,
      tableBytes: this.tables.bytesInUse,
      swapSlots: swap.nrSlots,
      swapSlotsUsed: swap.nrSlots - swap.nrFree,
      swapMetadataBytes: swap.metadataBytes,
      nrActive: lru.nr[LRU_ACTIVE_ANON]! + lru.nr[LRU_ACTIVE_FILE]!,
      nrInactive: lru.nr[LRU_INACTIVE_ANON]! + lru.nr[LRU_INACTIVE_FILE]!,
      nrFilePages: this.pageCache.counts.nrFilePages,
      nrShmem: this.pageCache.counts.nrShmem,
      nrDirty: this.pageCache.counts.nrDirty,
      nrWriteback: this.pageCache.counts.nrWriteback,
      nrDirtied: this.pageCache.counts.nrDirtied,
      nrWritten: this.pageCache.counts.nrWritten,
      nrUnevictable: lru.nr[LRU_UNEVICTABLE]!,
      vmstat: procVmstat(this),
    };
  }

  /** Ends every mm, writes dirty pages of files, waits for I/O under way, closes stores and the swap device. Rejects with KernelError EIO when pages of files are lost. */
  async stop(): Promise<void> {
    for (const mm of [...this.mms]) mm.exit();
    await this.reclaim.stop();
    try {
      await this.pageCache.stop();
    } finally {
      await this.writeback.drain();
      await this.swapIn.drain();
      await this.device?.close();
    }
  }
}

function rlimitsOf(options: MmOptions): Rlimits {
  const rlimits = new Rlimits();
  rlimits.set(RLIMIT_MEMLOCK, options.rlimitMemlock ?? DEFAULT_RLIMIT_MEMLOCK);
  rlimits.set(RLIMIT_AS, options.rlimitAs ?? RLIM_INFINITY);
  rlimits.set(RLIMIT_DATA, options.rlimitData ?? RLIM_INFINITY);
  return rlimits;
}

function defaultNrTables(nrFrames: number, nrSlots: number): number {
  return 1024 + 4 * Math.ceil((nrFrames + nrSlots) / PTRS_PER_TABLE);
}

function makePageCache(host: Host, options: HostOptions): PageCache {
  return new PageCache(
    host,
    { setTimer: options.setTimer, timeoutMs: options.ioTimeoutMs ?? DEFAULT_IO_TIMEOUT_MS },
    {
      dirtyRatio: options.dirtyRatio ?? DEFAULT_DIRTY_RATIO,
      dirtyBackgroundRatio: options.dirtyBackgroundRatio ?? DEFAULT_DIRTY_BACKGROUND_RATIO,
    },
  );
}
