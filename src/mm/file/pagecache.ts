import { bug, KernelError } from '../../base/index.js';
import type { Host } from '../host.js';
import { PAGE_SIZE } from '../layout.js';
import {
  PG_ACTIVE,
  PG_DIRTY,
  PG_IDLE,
  PG_LOCKED,
  PG_LRU,
  PG_REFERENCED,
  PG_SWAPCACHE,
  PG_UNEVICTABLE,
  PG_WRITEBACK,
} from '../page/frames.js';
import { putPage } from '../page/page.js';
import { AddressSpace, PageCounts } from './addressspace.js';
import type { BackingStore } from './backingstore.js';
import { type DirtyRatios, DirtyThrottle } from './dirtythrottle.js';
import { FileReads } from './filereads.js';
import { FileWriteback } from './filewriteback.js';
import { callStore, type IoLimits } from './storeio.js';
import { dropPages } from './truncate.js';
import { XA_MARK_WRITEBACK, XA_MAX_INDEX } from './xarray.js';

/**
 * The page cache of a host: its address spaces, by the number that frames name and by store, and the two ways of pages between memory and
 * stores. An address space outlives its openers and mappings: what it caches may be wanted again. `close` ends it.
 */
export class PageCache {
  readonly counts = new PageCounts();
  readonly reads: FileReads;
  readonly writeback: FileWriteback;
  readonly throttle: DirtyThrottle;
  private readonly host: Host;
  private readonly byId: (AddressSpace | undefined)[] = [undefined];
  private readonly freeIds: number[] = [];
  private readonly byStore = new Map<BackingStore, AddressSpace>();

  constructor(host: Host, limits: IoLimits, ratios: DirtyRatios) {
    this.host = host;
    this.reads = new FileReads(host, limits);
    this.writeback = new FileWriteback(host, limits);
    this.throttle = new DirtyThrottle(host, ratios);
  }

  /** The one address space of the store. */
  spaceOf(store: BackingStore): AddressSpace {
    const known = this.byStore.get(store);
    if (known !== undefined) return known;
    const as = this.create(store, store.name);
    this.byStore.set(store, as);
    return as;
  }

  /** Shared memory that is swapped. */
  createShmem(name: string, sizeBytes: number): AddressSpace {
    const as = this.create(undefined, name);
    as.sizeBytes = sizeBytes;
    return as;
  }

  private create(store: BackingStore | undefined, name: string): AddressSpace {
    const id = this.freeIds.pop() ?? this.byId.length;
    return (this.byId[id] = new AddressSpace(id, store, name, this.counts, this.host.frames));
  }

  get(id: number): AddressSpace | undefined {
    return this.byId[id];
  }

  /** The address space of a cached frame. */
  ofFrame(pfn: number): AddressSpace {
    const as = this.byId[-this.host.frames.mapping[pfn]!];
    if (as === undefined) bug('N29', `frame ${pfn} is of no address space`);
    return as;
  }

  /** As `as.add`. A page that was evicted, and is `wanted` now, is known again by its shadow. */
  add(as: AddressSpace, index: number, pfn: number, wanted: boolean): void {
    const shadow = as.add(index, pfn);
    if (shadow >= 0 || as.isShmem || !wanted) return;
    const { workingset } = this.host;
    workingset.refault(pfn, workingset.shadowOfNegative(shadow));
  }

  /** Whether the cache has the only reference to the page, and its contents are in the store, or zeros. */
  private isEvictable(pfn: number): boolean {
    const { flags, refcount, mapcount } = this.host.frames;
    const busy = PG_DIRTY | PG_WRITEBACK | PG_LOCKED | PG_SWAPCACHE;
    return (flags[pfn]! & busy) === 0 && refcount[pfn] === 1 && mapcount[pfn] === 0;
  }

  /** Frees a cached page that nobody uses and that can be had again; true when it did. */
  tryEvict(pfn: number): boolean {
    const as = this.ofFrame(pfn);
    if (!this.isEvictable(pfn) || !as.releasePrivate(pfn)) return false;
    as.remove(pfn, as.isShmem ? 0 : this.host.workingset.negativeShadowOf(pfn));
    putPage(this.host, pfn);
    return true;
  }

  /** Read or written by call: the second time in a row it is in use (Linux: mark_page_accessed). */
  markAccessed(pfn: number): void {
    const { frames, lru } = this.host;
    const flags = frames.flags[pfn]! & ~PG_IDLE;
    frames.flags[pfn] = flags;
    if ((flags & PG_REFERENCED) === 0) frames.flags[pfn] = flags | PG_REFERENCED;
    else if ((flags & (PG_LRU | PG_ACTIVE | PG_UNEVICTABLE)) === PG_LRU) {
      lru.move(pfn, PG_ACTIVE, PG_REFERENCED);
      this.host.vmstat.pgactivate++;
    }
  }

  /** Begins to read the bytes, as far as there are frames. */
  willneed(as: AddressSpace, offset: number, lenBytes: number): void {
    const [start, end] = pagesOf(as, offset, lenBytes);
    if (!as.isShmem) this.reads.start(as, Math.floor(start), Math.ceil(end), -1, this.host.reclaim.low, -1, false);
  }

  /** Begins to write the bytes, and drops those of their whole pages that are clean and nobody maps. */
  dontneed(as: AddressSpace, offset: number, lenBytes: number): void {
    const [start, end] = pagesOf(as, offset, lenBytes);
    if (as.isShmem) return;
    this.writeback.writeRange(as, Math.floor(start), Math.ceil(end), Number.MAX_SAFE_INTEGER, false);
    for (let index = Math.ceil(start); (index = as.pages.next(index, Math.floor(end))) >= 0; index++) {
      const pfn = as.pages.get(index);
      if (pfn > 0) this.tryEvict(pfn);
    }
  }

  /** An opener, or a mapping that kept the file open for one, is gone. Shared memory that nobody has any more is gone too. */
  closeFile(as: AddressSpace): void {
    as.nrFiles--;
    if (as.nrFiles > 0 || !as.isShmem) return;
    dropPages(this.host, as, 0, XA_MAX_INDEX);
    this.forget(as);
  }

  /** Writes everything that is dirty; what fails is reported to the openers by their fsync (Linux: sync). */
  async sync(): Promise<void> {
    await Promise.all([...this.counts.dirtySpaces].map((as) => this.syncSpace(as)));
  }

  private async syncSpace(as: AddressSpace): Promise<void> {
    await this.writeback.syncRange(as).catch((error) => as.wbErr.set(error.errno));
    if (as.store?.sync === undefined) return;
    await callStore(as.store, 'sync', () => as.store!.sync!()).catch((error) => as.wbErr.set(error.errno));
  }

  /** Writes what is dirty, drops the pages, closes the store. Rejects with KernelError EBUSY, and EIO when not all could be written: then it stays. */
  async closeStore(store: BackingStore): Promise<void> {
    const as = this.byStore.get(store);
    if (as === undefined) return;
    if (as.nrFiles > 0) throw new KernelError('EBUSY', 'closeStore', `store ${store.name} must not be open or mapped`);
    await this.syncSpace(as);
    if (as.nrFiles > 0 || as.nrDirty > 0 || as.owedTruncate !== undefined)
      throw new KernelError('EIO', 'closeStore', `${as.nrDirty} pages of ${store.name} could not be written`);
    await this.end(as);
  }

  private async end(as: AddressSpace): Promise<void> {
    dropPages(this.host, as, 0, XA_MAX_INDEX);
    this.forget(as);
    const { store } = as;
    if (store?.close !== undefined) await callStore(store, 'close', () => store.close!());
  }

  /** The end of the host: all mms are gone. Writes what is dirty and closes the stores. Rejects with KernelError EIO when something was lost. */
  async stop(): Promise<void> {
    await this.throttle.stop();
    await this.sync();
    await this.reads.drain();
    await this.writeback.drain();
    const lost = this.counts.nrDirty;
    const names = [...this.counts.dirtySpaces].map((as) => as.name);
    for (const as of this.all()) if (as.pages.nrMarked(XA_MARK_WRITEBACK) === 0) await this.end(as);
    if (lost > 0) throw new KernelError('EIO', 'stop', `${lost} pages of ${names.join(', ')} could not be written`);
  }

  /** The address space is empty, and nobody refers to it any more. */
  forget(as: AddressSpace): void {
    if (as.nrPages !== 0 || as.isMapped) bug('N29', `${as.name} goes away with ${as.nrPages} pages cached`);
    if (as.store !== undefined) this.byStore.delete(as.store);
    this.byId[as.id] = undefined;
    this.freeIds.push(as.id);
  }

  all(): AddressSpace[] {
    return this.byId.filter((as) => as !== undefined);
  }
}

/** The pages that the bytes reach into, with fractions: `lenBytes` 0 is to the end. */
function pagesOf(as: AddressSpace, offset: number, lenBytes: number): [start: number, end: number] {
  const end = lenBytes === 0 ? as.endIndex : Math.min((offset + lenBytes) / PAGE_SIZE, as.endIndex);
  return [offset / PAGE_SIZE, end];
}
