import { expect, test } from 'vitest';
import { Words } from '../../src/base/index.js';
import { XA_MARK_DIRTY } from '../../src/mm/file/xarray.js';
import {
  checkHost,
  createRemote,
  Host,
  InvalidateSeq,
  MADV_PAGEOUT,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  MemoryStore,
  MemorySwap,
  MMU_NOTIFY_CLEAR,
  mmuNotifierRegister,
  PAGE_SIZE,
  VA_SIZE,
} from '../../src/mm/index.js';
import {
  PG_ACTIVE,
  PG_DIRTY,
  PG_FREE,
  PG_LOCKED,
  PG_LRU,
  PG_PRIVATE,
  PG_SWAPBACKED,
  PG_SWAPCACHE,
  PG_WRITEBACK,
} from '../../src/mm/page/frames.js';
import {
  mkMigrationPte,
  mkPte,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_READ,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  pteIsPresent,
  pteIsSame,
  pteIsSwap,
  ptePfn,
  pteSwapSlot,
} from '../../src/mm/pgtable/pte.js';

/**
 * The whole-state checker sees what it is there for: one field of a sound host is made wrong, and it says which number is broken. All other tests of mm
 * rely on its silence.
 */

const PAGE = PAGE_SIZE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;
const RW = 3;

/** Pages of the anonymous area. */
const SWAPPED = 0;
const SAME_FILLED = 1;
/** Read back from swap: clean, in the swap cache. */
const CLEAN = 2;
/** Both sides of a fork map it. */
const SHARED = 3;
/** Its mm's alone, dirty and writable. */
const OWN = 4;
const ZERO_PAGE = 5;

/** A host with a page of each kind. */
async function setUp() {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const host = new Host({ frames: 64, arenaBytes: 2 ** 18, swap, sameFilled: true, debug: true });
  const mm = host.createMm({ name: 'mm' });
  const va = mm.mmap(0, 16 * PAGE, RW, ANON);
  const at = (page: number) => va + page * PAGE;
  const file = host.openFile(new MemoryStore({ contents: new Uint8Array(4 * PAGE).fill(7) }), { mode: 'rw' });
  const fileVa = mm.mmap(0, 4 * PAGE, RW, MAP_SHARED, file);
  const copyVa = mm.mmap(0, 4 * PAGE, RW, MAP_PRIVATE, file);
  const shmemVa = mm.mmap(0, 4 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS);
  for (const page of [SWAPPED, CLEAN, SHARED]) mm.writeSync(at(page), new Uint8Array([page + 1]));
  mm.writeSync(at(SAME_FILLED), new Uint8Array(PAGE).fill(5));
  mm.madvise(va, (CLEAN + 1) * PAGE, MADV_PAGEOUT);
  await host.writeback.drain();
  const byte = new Uint8Array(1);
  mm.readSync(at(CLEAN), byte);
  const child = mm.fork();
  mm.writeSync(at(OWN), new Uint8Array([5]));
  mm.readSync(at(ZERO_PAGE), byte);
  await mm.write(fileVa, byte);
  await mm.read(fileVa + PAGE, byte);
  await mm.read(copyVa + PAGE, byte);
  await file.read(byte, 3 * PAGE);
  await mm.write(shmemVa, new Uint8Array([9]));
  const sub = mmuNotifierRegister(mm, 0, VA_SIZE, {});
  const pte = (address: number) => mm.pageTable.get(address / PAGE);
  const pfn = (page: number) => ptePfn(pte(at(page)));
  const put = (address: number, value: number) =>
    mm.pageTable.words.writeOnce(mm.pageTable.find(address / PAGE), value);
  const kinds = [pteIsSwap(pte(at(SWAPPED))), pteIsSame(pte(at(SAME_FILLED))), pteIsPresent(pte(at(CLEAN)))];
  expect([...kinds, (host.frames.flags[pfn(CLEAN)]! & PG_SWAPCACHE) !== 0]).toEqual([true, true, true, true]);
  expect(host.frames.mapcount[pfn(SHARED)]).toBe(2);
  return {
    ...{ host, mm, child, va, at, fileVa, copyVa, shmemVa, sub, pte, pfn, put },
    as: file.mapping,
    filePfn: ptePfn(pte(fileVa)),
    /** Page 3 of the file, which nobody maps. */
    cachedPfn: file.mapping.pages.get(3),
    vma: mm.findVma(va)!,
    /** A pte gets other bits. */
    setPte: (page: number, set: number, clear = 0) => put(at(page), (pte(at(page)) & ~clear) | set),
    setFlags: (frame: number, set: number, clear = 0) => {
      host.frames.flags[frame] = (host.frames.flags[frame]! & ~clear) | set;
    },
  };
}

type World = Awaited<ReturnType<typeof setUp>>;
/** What may be written to it here. */
const open = (value: object) => value as Record<string, number>;

/** By what is wrong: what is said, and how it is made so; a function that this returns takes it back. */
const BREAK: Record<string, [message: RegExp, wrong: (w: World) => unknown]> = {
  'a bracket is open': [
    /N7: mm: a bracket is left open/,
    ({ mm, va }) => {
      mm.range.reset(MMU_NOTIFY_CLEAR, true);
      mm.range.add(va / PAGE, va / PAGE + 1);
      mm.notifiers.invalidateRangeStart(mm.range.seal());
    },
  ],
  'mmapLock is held': [
    /N7: mm: mmapLock is left held/,
    ({ mm }) => {
      mm.mmapLock.lock('read');
      return () => mm.mmapLock.unlock();
    },
  ],
  'a pte has no VMA': [/N21: .* without a VMA/, (w) => w.put(w.at(40), mkPte(w.pfn(OWN), PTE_READ))],
  'a pte is of no kind': [/N22: pte .* is of no kind/, (w) => w.put(w.at(OWN), mkMigrationPte(w.pte(w.at(OWN))))],
  'resident pages are miscounted': [/N6: mm: \d+ pages present/, ({ mm }) => void mm.residentPages++],
  'a VMA ends where it starts': [/N21: mm: VMA .* out of order/, ({ vma }) => (open(vma).endVpn = vma.startVpn)],
  'a VMA is not in its anonVma': [/N6: mm: VMA not in its anonVma/, ({ vma }) => void (open(vma).pgoff! += 1000)],
  'pages of an mm are miscounted': [/N21: mm: \d+ pages total/, ({ mm }) => void open(mm.vm).total!++],
  'pages of the host are miscounted': [/N21: the host: \d+ pages data/, ({ host }) => void open(host.vm).data!++],
  'a hole between VMAs has another size': [/N21: mm: the tree of VMAs is broken/, ({ vma }) => void open(vma).gap!++],
  'a subscription is kept that is not registered': [/N17: /, ({ sub }) => (sub.registered = false)],
  'a sound subscription pins': [/N19: .* broke nothing pins 1 frames/, ({ sub }) => void sub.pinned.add(1)],
  'a subscription lies outside': [
    /N16: /,
    ({ sub }) => (sub.pieces = [{ ...sub.pieces[0]!, end: VA_SIZE + PAGE }, ...sub.pieces]),
  ],
  'a pte has other rights than its VMA': [/N5: .* rights differ/, (w) => w.setPte(OWN, 0, PTE_READ)],
  'the zero page may be written': [/N5: .* may write the zero page/, (w) => w.setPte(ZERO_PAGE, PTE_WRITE)],
  'a mapped frame is free': [/N4: .* is mapped but free/, (w) => w.setFlags(w.pfn(OWN), PG_FREE)],
  'a frame is mapped while it is read': [/N22: .* mapped while it is read/, (w) => w.setFlags(w.pfn(OWN), PG_LOCKED)],
  'a dirty pte has a clean frame': [/N15: .* its pte is dirty/, (w) => w.setFlags(w.pfn(OWN), 0, PG_DIRTY)],
  'a dirty pte of several has a clean frame': [
    /N15: .* its pte is dirty/,
    (w) => w.setFlags(w.pfn(SHARED), 0, PG_DIRTY),
  ],
  'a writable pte is not soft-dirty': [/N15: .* not soft-dirty/, (w) => w.setPte(OWN, 0, PTE_SOFT_DIRTY)],
  'a writable pte is clean': [/N15: .* writable but clean/, (w) => w.setPte(OWN, 0, PTE_DIRTY)],
  'a pte is writable and its VMA not': [/N15: .* its VMA is not/, ({ vma }) => (vma.allows = (write) => !write)],
  'the reverse map misses a pte': [/N6: .* not found by the reverse map/, (w) => w.host.frames.index[w.pfn(OWN)]!++],
  'a clean page is in no slot': [/N15: .* in no slot/, (w) => w.setFlags(w.pfn(CLEAN), 0, PG_SWAPCACHE)],
  'a shared frame is exclusive': [/N20: .* with mapcount 2/, (w) => w.setPte(SHARED, PTE_EXCLUSIVE)],
  'a page table is lost': [/N4: \d+ page tables in use/, ({ host }) => void host.tables.alloc(0, 0)],
  'entries of a table are miscounted': [
    /N6: page table/,
    (w) => w.mm.pageTable.addUsed(w.mm.pageTable.find(w.va / PAGE), 1),
  ],
  'a pinned frame has no flag': [/N19: frame .* its flag differs/, (w) => w.host.pins.set(w.pfn(OWN), 1)],
  'mapcount is wrong': [/N6: frame \d+: mapcount 3/, (w) => w.host.frames.mapcount[w.pfn(SHARED)]!++],
  'mlockcount is wrong': [/N27: frame \d+: mlockcount 1/, (w) => w.host.frames.mlockcount[w.pfn(OWN)]!++],
  'mlocked frames are miscounted': [/N27: 0 frames mlocked/, ({ host }) => void host.nrMlocked++],
  'a reference is nobody’s': [/N4: 1 references beyond/, (w) => w.host.frames.refcount[w.pfn(OWN)]!++],
  'a reference is missing': [/N4: -1 references beyond/, (w) => w.host.frames.refcount[w.pfn(SHARED)]!--],
  'a frame in use has no reference': [/N4: .* with refcount 0/, (w) => (w.host.frames.refcount[w.pfn(OWN)] = 0)],
  'a free frame has a reference': [
    /N4: free frame \d+: refcount 1/,
    ({ host: { frames } }) => (frames.refcount[frames.freeList()[0]!] = 1),
  ],
  'free frames are miscounted': [/N4: \d+ frames on the free list/, ({ host }) => void host.frames.nrFree++],
  'a slot does not cache its frame': [/N22: frame \d+ is not what/, ({ host }) => host.swap.cache.fill(0)],
  'a frame is on a list and under I/O': [/N27: .* on a list, or under/, (w) => w.setFlags(w.pfn(OWN), PG_WRITEBACK)],
  'a frame is on no list': [/N27: .* on a list, or under/, (w) => w.setFlags(w.pfn(OWN), 0, PG_LRU)],
  'a frame is on the wrong list': [/N27: .* on the wrong lru list/, (w) => toggle(w, PG_ACTIVE)],
  'a list is miscounted': [/N27: lru list 0: /, ({ host }) => host.lru.nr[0]!++],
  'a slot is counted once too often': [
    /N22: swap slot \d+: count 3, named by 2/,
    (w) => w.host.swap.count[pteSwapSlot(w.pte(w.at(SWAPPED)))]!++,
  ],
  'a slot caches a frame that does not know': [
    /N22: swap slot \d+ caches frame/,
    (w) => (w.host.swap.cache[pteSwapSlot(w.pte(w.at(SWAPPED)))] = w.pfn(OWN)),
  ],
  'free slots are miscounted': [/N22: \d+ swap slots free/, ({ host }) => void open(host.swap).nrFree!++],
  'a value of same-filled pages is miscounted': [
    /N22: value \d+ of same-filled/,
    (w) => w.mm.pageTable.set(w.mm.pageTable.find(w.at(SAME_FILLED) / PAGE), 0),
  ],
  'frames of threads are miscounted': [
    /N25: \d+ frames are in the hands of threads/,
    ({ host, mm }) => {
      createRemote(mm).refill();
      checkHost(host);
      host.nrRemoteFrames++;
    },
  ],
  'a cached frame says another place': [/N29: .* the frame says/, (w) => w.host.frames.index[w.cachedPfn]!++],
  'a page is cached beyond the end': [/N23: .* beyond the end/, ({ as }) => (as.sizeBytes = 1)],
  'a page of a file is of swap': [/N29: .* is swapped and has a store/, (w) => w.setFlags(w.cachedPfn, PG_SWAPBACKED)],
  'private has two owners': [
    /N22: .* claimed by swap cache and store/,
    (w) => w.setFlags(w.cachedPfn, PG_SWAPCACHE | PG_PRIVATE),
  ],
  'a dirty page is not marked': [/N29: .* dirty, marked not so/, ({ as }) => as.pages.clearMark(0, XA_MARK_DIRTY)],
  'a page under write-back is not marked': [
    /N29: .* under write-back, marked/,
    (w) => w.setFlags(w.filePfn, PG_WRITEBACK),
  ],
  'dirty pages are miscounted': [
    /N29: nrDirty: 1 found, 2 counted/,
    ({ host }) => void host.pageCache.counts.nrDirty++,
  ],
  'cached pages are miscounted': [/N29: .* pages cached, \d+ counted/, ({ as }) => void as.nrPages++],
  'a dirty file is not listed': [
    /N29: .* 1 dirty pages, not listed so/,
    ({ host }) => host.pageCache.counts.dirtySpaces.clear(),
  ],
  'a frame says that it is cached': [/N29: frame \d+ says that it is cached/, cachedTwice],
  'a shared mapping shows another page': [
    /N29: .* is not page 1 of/,
    ({ as, cachedPfn }) => as.pages.set(1, cachedPfn),
  ],
  'a private mapping writes to the file': [
    /N15: .* may be written by a private mapping/,
    (w) => {
      w.as.setDirty(ptePfn(w.pte(w.copyVa + PAGE)));
      w.put(w.copyVa + PAGE, w.pte(w.copyVa + PAGE) | PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY);
    },
  ],
  'a file does not know its mapping': [
    /N29: mm: a VMA is among the mappings/,
    (w) => w.as.unlink(w.mm.findVma(w.fileVa)!),
  ],
};

function toggle({ host, pfn }: World, flag: number): void {
  host.frames.flags[pfn(OWN)] = host.frames.flags[pfn(OWN)]! ^ flag;
}

/** A free frame claims to be a page of the file. */
function cachedTwice({ host: { frames }, as }: World): void {
  frames.mapping[frames.freeList()[0]!] = -as.id;
}

test('a host with pages of every kind is sound', async () => {
  const { host } = await setUp();
  checkHost(host);
});

test.each(Object.entries(BREAK))('the checker sees it where %s', async (_what, [message, wrong]) => {
  const w = await setUp();
  const undo = wrong(w);
  expect(() => checkHost(w.host)).toThrow(message);
  if (typeof undo === 'function') undo();
});

/** Wrong turns that are found where they are taken. */
const TURNS: Record<string, [message: RegExp, take: (w: World) => unknown]> = {
  'a frame in use is freed': [
    /N4: frame \d+ freed with refcount 1/,
    ({ host: { frames } }) => frames.free(frames.alloc(0)),
  ],
  'a frame on a list is freed': [
    /N4: frame \d+ freed with refcount 0, mapcount 0/,
    ({ host: { frames } }) => {
      const pfn = frames.alloc(0);
      frames.refcount[pfn] = 0;
      frames.flags[pfn] = PG_LRU;
      frames.free(pfn);
    },
  ],
  'a free page is put': [
    /N4: putPage of frame \d+, which is free/,
    ({ host, mm }) => mm.putPage(host.frames.freeList()[0]!),
  ],
  'a piece of the arena is freed twice': [
    /N4: arena block/,
    ({ host }) => {
      const addr = host.arenaAlloc(64, 8);
      host.arenaFree(addr, 64);
      host.arenaFree(addr, 64);
    },
  ],
  'mmapLock is given back and not held': [/N7: mmapLock given back/, ({ mm }) => mm.mmapLock.unlock()],
  'brackets overlap that never end': [
    /N7: more than 15 brackets overlap/,
    ({ host }) => {
      const words = new Words(host.memory, host.arenaAlloc(12, 4), 3);
      for (let i = 0; i < 3; i++) words.writeOnce(i, 0);
      const seq = new InvalidateSeq(words, 0);
      for (let n = 0; n < 16; n++) seq.begin(0, PAGE);
    },
  ],
  'a slot is put that nobody names': [
    /N22: swap slot \d+ put more often/,
    ({ host }) => host.swap.put(host.swap.nrSlots - 1),
  ],
  'a slot is cached by two frames': [
    /N22: swap slot \d+ cached by frame/,
    (w) => w.host.swap.addToCache(w.host.frames.private[w.pfn(CLEAN)]!, w.pfn(OWN)),
  ],
  'a frame leaves a slot that it is not in': [
    /N22: frame \d+ is not the cache of/,
    (w) => w.host.swap.removeFromCache(w.pfn(OWN)),
  ],
  'a value of same-filled pages is put too often': [
    /N22: value \d+ of same-filled pages put more often/,
    ({ host }) => host.sameFilled.put(host.sameFilled.nrNumbers),
  ],
  'a page leaves the cache while it is mapped': [
    /N23: .* leaves the cache while it is mapped/,
    ({ as, filePfn }) => as.remove(filePfn, 0),
  ],
  'a page leaves the cache while it is written': [
    /N27: .* leaves under write-back/,
    (w) => {
      w.setFlags(w.cachedPfn, PG_WRITEBACK);
      w.as.remove(w.cachedPfn, 0);
    },
  ],
  'a page is cached twice': [/N29: .* page 3 cached a second time/, (w) => w.as.add(3, w.pfn(OWN))],
  'a page leaves a file that is not its own': [/N29: .* is not its page/, (w) => w.as.remove(w.pfn(OWN), 0)],
  'a frame takes the place of a page of another file': [
    /N29: .* is not its page/,
    (w) => w.as.replace(w.pfn(OWN), w.host.frames.freeList()[0]!),
  ],
};

test.each(Object.entries(TURNS))('it is seen where %s', async (_what, [message, take]) => {
  const w = await setUp();
  expect(() => take(w)).toThrow(message);
});
