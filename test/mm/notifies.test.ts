import { expect, test } from 'vitest';
import {
  checkHost,
  FAULT_FLAG_WRITE,
  Host,
  MADV_COLD,
  MADV_DONTFORK,
  MADV_DONTNEED,
  MADV_FREE,
  MADV_PAGEOUT,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  MADV_REMOVE,
  MADV_SEQUENTIAL,
  MADV_WILLNEED,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MAP_SHARED,
  MCL_CURRENT,
  MemoryStore,
  MemorySwap,
  MMU_NOTIFY_NAMES,
  type Mm,
  MREMAP_MAYMOVE,
  mmuNotifierRegister,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
  VA_SIZE,
} from '../../src/mm/index.js';
import { PTE_READ, PTE_WRITE, pteIsPresent, ptePfn } from '../../src/mm/pgtable/pte.js';

/**
 * Each operation, and the events that a subscription over the whole mm hears of it: exactly these, with exactly these pages. Pages count from
 * the start of an area of sixteen: 0 to 7 are private anonymous memory, of which 0 to 3 were written, 8 to 11 a shared mapping of a file, read, 8
 * written too. A row that expects nothing is an operation that must not notify (N21). Whatever takes a page or a right away does it between start and end, to
 * pages that the bracket names (N1), and what was mapped is free only after the end (N4).
 */

const PAGE = 4096;
const VA = 0x4000_0000;
const RW = PROT_READ | PROT_WRITE;
const FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

/** Event, whether it is one that must not block, and pairs of first page and page after the last. */
type Event = [event: string, ...pages: [from: number, to: number][]];

interface World {
  readonly host: Host;
  readonly mm: Mm;
  readonly file: Awaited<ReturnType<typeof openFile>>;
}

function openFile(host: Host) {
  return host.openFile(new MemoryStore({ contents: new Uint8Array(4 * PAGE) }), { mode: 'rw' });
}

/** For each page of the area its frame and rights; 0 where nothing is mapped. */
function mapped(mm: Mm): number[] {
  return Array.from({ length: 16 }, (_, page) => {
    const pte = mm.pageTable.get(VA / PAGE + page);
    return pteIsPresent(pte) ? pte & (~0xfff | PTE_READ | PTE_WRITE) : 0;
  });
}

/** Looks at all ptes at each start and end: what is wrong in `faults`. */
class Watch {
  readonly faults: string[] = [];
  private readonly w: World;
  private last: number[];

  constructor(w: World) {
    this.w = w;
    this.last = mapped(w.mm);
    mmuNotifierRegister(w.mm, 0, VA_SIZE, {
      invalidateRangeStart: () => this.look('before its start'),
      invalidateRangeEnd: (_sub, { ranges, nrRanges }) => {
        for (const was of this.last)
          if (was !== 0 && w.host.frames.isFree(ptePfn(was))) this.faults.push('a frame is free');
        const named = new Set<number>();
        for (let i = 0; i < nrRanges; i++)
          for (let vpn = ranges[2 * i]!; vpn < ranges[2 * i + 1]!; vpn++) named.add(vpn - VA / PAGE);
        this.look('and is not named', named);
      },
    });
  }

  /** Nothing has been taken from any page since the last look, but from those that are `named`. */
  look(when: string, named: ReadonlySet<number> = new Set()): void {
    const now = mapped(this.w.mm);
    for (const [page, was] of this.last.entries()) {
      const is = now[page]!;
      const lost = was !== 0 && (ptePfn(is) !== ptePfn(was) || (was & ~is) !== 0);
      if (lost && !named.has(page)) this.faults.push(`page ${page} loses ${when}`);
    }
    this.last = now;
  }
}

async function newWorld(): Promise<World & { events: Event[] }> {
  const swap = new MemorySwap({ sizeBytes: 2 ** 20 });
  const host = new Host({ frames: 128, arenaBytes: 65536, swap, debug: true, defer: (fn) => setImmediate(fn) });
  const mm = host.createMm();
  const file = openFile(host);
  mm.mmap(VA, 8 * PAGE, RW, FIXED);
  mm.mmap(VA + 8 * PAGE, 4 * PAGE, RW, MAP_SHARED | MAP_FIXED, file);
  for (const p of [0, 1, 2, 3, 8]) await mm.write(at(p), new Uint8Array([p + 1]));
  await mm.read(at(8), new Uint8Array(4 * PAGE));
  const events: Event[] = [];
  mmuNotifierRegister(mm, 0, VA_SIZE, {
    invalidateRangeStart: (_sub, range) => {
      const pages: [number, number][] = [];
      const page = (k: number) => range.ranges[k]! - VA / PAGE;
      for (let i = 0; i < range.nrRanges; i++) pages.push([page(2 * i), page(2 * i + 1)]);
      events.push([`${MMU_NOTIFY_NAMES[range.event]}${range.blockable ? '' : ', not blocking'}`, ...pages]);
    },
    clearFlushYoung: () => false,
  });
  return { host, mm, file, events };
}

const at = (page: number) => VA + page * PAGE;
const write = (mm: Mm, page: number) => mm.writeSync(at(page), new Uint8Array([1]));

/** Moves the frame of page 1 elsewhere. */
function migrateOne({ host, mm }: World): void {
  const pfn = mm.pagemap(at(1), 1)[0]!.pfn;
  expect(host.migration.migrate([pfn], [host.frames.alloc(0)], true)).toBe(1);
}

type Row = [operation: string, expected: Event[], run: (w: World) => unknown, prepare?: (w: World) => unknown];

const UNMAPS: Row[] = [
  ['munmap', [['UNMAP', [1, 3]]], ({ mm }) => mm.munmap(at(1), 2 * PAGE)],
  ['munmap over two mappings', [['UNMAP', [6, 9]]], ({ mm }) => mm.munmap(at(6), 3 * PAGE)],
  [
    'munmap over a hole',
    [['UNMAP', [0, 2], [4, 8]]],
    ({ mm }) => mm.munmap(at(0), 8 * PAGE),
    ({ mm }) => mm.munmap(at(2), 2 * PAGE),
  ],
  ['munmap of nothing', [], ({ mm }) => mm.munmap(at(64), PAGE)],
  ['a fixed mapping over another', [['UNMAP', [2, 4]]], ({ mm }) => mm.mmap(at(2), 2 * PAGE, RW, FIXED)],
  ['a fixed mapping where nothing is', [], ({ mm }) => mm.mmap(at(64), PAGE, RW, FIXED)],
  ['exit', [['UNMAP', [0, 12]]], ({ mm }) => mm.exit()],
  ['mremap that moves', [['UNMAP', [0, 2]]], ({ mm }) => mm.mremap(at(0), 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE)],
  ['mremap that shrinks', [['UNMAP', [6, 8]]], ({ mm }) => mm.mremap(at(0), 8 * PAGE, 6 * PAGE, 0)],
  ['mremap that grows in place', [], ({ mm }) => mm.mremap(at(8), 4 * PAGE, 6 * PAGE, 0)],
];

const CLEARS: Row[] = [
  ['MADV_DONTNEED', [['CLEAR', [1, 3]]], ({ mm }) => mm.madvise(at(1), 2 * PAGE, MADV_DONTNEED)],
  [
    'MADV_DONTNEED of two mappings',
    [
      ['CLEAR', [7, 8]],
      ['CLEAR', [8, 9]],
    ],
    ({ mm }) => mm.madvise(at(7), 2 * PAGE, MADV_DONTNEED),
  ],
  ['MADV_FREE', [['CLEAR', [0, 4]]], ({ mm }) => mm.madvise(at(0), 4 * PAGE, MADV_FREE)],
  ['MADV_PAGEOUT', [['CLEAR', [1, 3]]], ({ mm }) => mm.madvise(at(1), 2 * PAGE, MADV_PAGEOUT)],
  ['reclaim', [['CLEAR', [0, 4], [8, 12]]], ({ host }) => host.reclaim.shrink(true, true, true)],
  [
    'a pass of kswapd',
    [['CLEAR, not blocking', [0, 4], [8, 12]]],
    ({ host }) => host.reclaim.shrink(false, true, true),
  ],
  ['migration', [['CLEAR', [1, 2]]], migrateOne],
  [
    'compaction, which fills a hole',
    [['CLEAR', [11, 12]]],
    ({ host }) => host.compact(),
    ({ mm }) => mm.munmap(at(0), PAGE),
  ],
  ['MADV_REMOVE', [['CLEAR', [9, 11]]], ({ mm }) => mm.madvise(at(9), 2 * PAGE, MADV_REMOVE)],
  ['truncation', [['CLEAR', [10, 12]]], ({ file }) => file.truncate(2 * PAGE)],
  ['a hole', [['CLEAR', [9, 11]]], ({ file }) => file.fallocate(3, PAGE - 5, 2 * PAGE + 10)],
  ['a hole in a part of a page', [], ({ file }) => file.fallocate(3, 5, 10)],
  ['truncation that makes the file longer', [], ({ file }) => file.truncate(9 * PAGE)],
  ['a hole in the file', [['CLEAR', [9, 10]]], ({ file }) => file.fallocate(3, PAGE, PAGE)],
  ['the copy of a shared page', [['CLEAR', [2, 3]]], ({ mm }) => write(mm, 2), ({ mm }) => mm.fork()],
  [
    'a write to the zero page',
    [['CLEAR', [5, 6]]],
    ({ mm }) => write(mm, 5),
    ({ mm }) => mm.readSync(at(5), new Uint8Array(1)),
  ],
  ['the reuse of a page that is shared no more', [], ({ mm }) => write(mm, 2), ({ mm }) => mm.fork().exit()],
];

const RIGHTS: Row[] = [
  ['mprotect that takes', [['PROTECTION_VMA', [1, 3]]], ({ mm }) => mm.mprotect(at(1), 2 * PAGE, PROT_READ)],
  [
    'mprotect that gives',
    [['PROTECTION_VMA', [1, 3]]],
    ({ mm }) => mm.mprotect(at(1), 2 * PAGE, RW),
    ({ mm }) => mm.mprotect(at(1), 2 * PAGE, PROT_NONE),
  ],
  [
    'mprotect of two mappings',
    [
      ['PROTECTION_VMA', [7, 8]],
      ['PROTECTION_VMA', [8, 9]],
    ],
    ({ mm }) => mm.mprotect(at(7), 2 * PAGE, PROT_READ),
  ],
  ['mprotect that changes nothing', [], ({ mm }) => mm.mprotect(at(1), 2 * PAGE, RW)],
  ['fork', [['PROTECTION_PAGE', [0, 8]]], ({ mm }) => mm.fork()],
  ['clearSoftDirty', [['SOFT_DIRTY', [0, 12]]], ({ mm }) => mm.clearSoftDirty()],
  ['fsync, which cleans a page', [['PROTECTION_PAGE', [8, 9]]], ({ file }) => file.fsync()],
  ['fsync again', [], ({ file }) => file.fsync(), ({ file }) => file.fsync()],
  ['msync, which cleans a page', [['PROTECTION_PAGE', [8, 9]]], ({ mm }) => mm.msync(at(8), PAGE, 4)],
  ['msync of a clean page', [], ({ mm }) => mm.msync(at(9), PAGE, 4)],
  ['a write to a page that was cleaned', [], ({ mm }) => write(mm, 8), ({ file }) => file.fsync()],
];

const NO_EVENTS: Row[] = [
  ['a first touch', [], ({ mm }) => write(mm, 6)],
  ['a first read', [], ({ mm }) => mm.putPage(mm.tryGetPage(at(6), 0))],
  [
    'a page that comes back from swap',
    [],
    ({ mm }) => mm.read(at(1), new Uint8Array(1)),
    ({ mm }) => mm.madvise(at(1), PAGE, MADV_PAGEOUT),
  ],
  [
    'the right to write again',
    [],
    ({ mm }) => mm.putPage(mm.tryGetPage(at(1), FAULT_FLAG_WRITE)),
    ({ mm }) => mm.clearSoftDirty(),
  ],
  ['mlock', [], ({ mm }) => mm.mlock(at(2), 4 * PAGE)],
  ['munlock', [], ({ mm }) => mm.munlock(at(2), 4 * PAGE), ({ mm }) => mm.mlock(at(2), 4 * PAGE)],
  ['mlockall, munlockall', [], ({ mm }) => mm.mlockall(MCL_CURRENT).then(() => mm.munlockall())],
  ['MADV_SEQUENTIAL, which splits', [], ({ mm }) => mm.madvise(at(2), PAGE, MADV_SEQUENTIAL)],
  ['MADV_DONTFORK', [], ({ mm }) => mm.madvise(at(2), PAGE, MADV_DONTFORK)],
  ['MADV_COLD', [], ({ mm }) => mm.madvise(at(0), 4 * PAGE, MADV_COLD)],
  ['MADV_WILLNEED', [], ({ mm }) => mm.madvise(at(0), 12 * PAGE, MADV_WILLNEED)],
  ['MADV_POPULATE_READ', [], ({ mm }) => mm.madvise(at(0), 12 * PAGE, MADV_POPULATE_READ)],
  ['MADV_POPULATE_WRITE', [], ({ mm }) => mm.madvise(at(0), 8 * PAGE, MADV_POPULATE_WRITE)],
  ['mincore', [], ({ mm }) => mm.mincore(at(0), 12 * PAGE, new Uint8Array(12))],
  ['pagemap', [], ({ mm }) => mm.pagemap(at(0), 12)],
  ['a mapping that merges', [], ({ mm }) => mm.mmap(at(12), PAGE, RW, FIXED)],
];

for (const [kind, rows] of Object.entries({ UNMAPS, CLEARS, RIGHTS, NO_EVENTS })) {
  test.each(rows)(`N1 N2 N4 N21 S4: ${kind}: %s`, async (_operation, expected, run, prepare) => {
    const { events, ...w } = await newWorld();
    await prepare?.(w);
    await w.host.writeback.drain();
    events.length = 0;
    const watch = new Watch(w);
    await run(w);
    watch.look('after its end');
    expect(watch.faults).toEqual([]);
    expect(events).toEqual(expected);
    checkHost(w.host);
  });
}
