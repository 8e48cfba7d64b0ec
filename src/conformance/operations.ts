import {
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  PAGE_SIZE,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
} from '../mm/index.js';
import { expectEqual, fail, NR_PAGES, type World } from './world.js';

/** One operation of the mm after another, with the driver's entries in place before each: what it shows afterwards. */

export interface Scenario {
  readonly name: string;
  readonly numbers: readonly string[];
  run(world: World): Promise<void>;
}

/** Every page has an entry, that of even pages may be written. */
async function enterAll(w: World): Promise<void> {
  for (let page = 0; page < NR_PAGES; page++) {
    await w.checkPage(page);
    if (page % 2 === 0 && w.model[page] !== undefined) await w.store(page, w.model[page]! + 1);
  }
}

async function setUp(w: World): Promise<void> {
  w.fill(10);
  await enterAll(w);
}

export const OPERATIONS: readonly Scenario[] = [
  {
    name: 'loads and stores agree with what the host sees, the first touch included',
    numbers: ['N15'],
    async run(w) {
      await w.check();
      await w.store(3, 77);
      await w.check();
      w.fill(20);
      await w.check();
    },
  },
  {
    name: 'after munmap nothing of the range is shown, and after a new mapping zeros',
    numbers: ['N1', 'N3', 'N4'],
    async run(w) {
      await setUp(w);
      w.mm.munmap(w.at(4), 6 * PAGE_SIZE);
      w.model.fill(undefined, 4, 10);
      await w.check();
      w.remap(4, 6);
      await w.check();
    },
  },
  {
    name: 'after MADV_DONTNEED zeros are shown',
    numbers: ['N1', 'N3', 'N4'],
    async run(w) {
      await setUp(w);
      w.mm.madviseDontneed(w.at(0), 5 * PAGE_SIZE);
      w.model.fill(0, 0, 5);
      await w.check();
    },
  },
  {
    name: 'a fixed mapping over the range takes its place',
    numbers: ['N1', 'N3'],
    async run(w) {
      await setUp(w);
      w.remap(2, 12);
      await w.check();
    },
  },
  {
    name: 'mprotect takes the right to write, and the right to read, and gives both back',
    numbers: ['N5'],
    async run(w) {
      await setUp(w);
      w.mm.mprotect(w.at(0), 8 * PAGE_SIZE, PROT_READ);
      for (let page = 0; page < 8; page++) await w.refusesStore(page);
      await w.check();
      w.mm.mprotect(w.at(0), 8 * PAGE_SIZE, PROT_NONE);
      for (let page = 0; page < 8; page++) await w.refuses(page);
      w.mm.mprotect(w.at(0), 8 * PAGE_SIZE, PROT_READ | PROT_WRITE);
      await w.check();
      await w.store(1, 99);
      await w.check();
    },
  },
  {
    name: 'after fork neither side sees what the other writes',
    numbers: ['N20'],
    async run(w) {
      await setUp(w);
      const child = w.mm.fork();
      const before = [...w.model];
      for (let page = 0; page < 8; page++) await w.store(page, 100 + page);
      for (let page = 4; page < 12; page++) child.writeSync(w.at(page), new Uint8Array([150 + page]));
      await w.check();
      const byte = new Uint8Array(1);
      for (let page = 0; page < NR_PAGES; page++) {
        child.readSync(w.at(page), byte);
        const wanted = page >= 4 && page < 12 ? 150 + page : before[page]!;
        if (byte[0] !== wanted) fail(`the child of a fork sees ${byte[0]} in page ${page}, not ${wanted}`);
      }
    },
  },
  {
    name: 'a copy-on-write by the host is seen, of a forked page and of the zero page',
    numbers: ['N5', 'N20'],
    async run(w) {
      await w.checkPage(14);
      w.write(14, 41);
      await w.checkPage(14);
      await setUp(w);
      const child = w.mm.fork();
      for (let page = 0; page < NR_PAGES; page++) await w.checkPage(page);
      w.fill(60);
      await w.check();
      child.exit();
    },
  },
  {
    name: 'a store to untouched memory leaves other untouched memory zero',
    numbers: ['N5', 'N15'],
    async run(w) {
      for (let page = 0; page < NR_PAGES; page++) await w.checkPage(page);
      await w.store(5, 55);
      await w.check();
      if (w.host.u8[w.host.frames.zeroPfn * PAGE_SIZE] !== 0) fail('the zero page was written');
    },
  },
  {
    name: 'pages that are reclaimed come back as they were, in other frames',
    numbers: ['N1', 'N3', 'N4', 'N15'],
    async run(w) {
      await setUp(w);
      for (let round = 0; round < 3; round++) {
        expectEqual(w.reclaim(), 0, 'pages that cannot be reclaimed');
        await w.check();
      }
    },
  },
  {
    name: 'a store to a page that is clean in swap is not lost when it is reclaimed again',
    numbers: ['N15'],
    async run(w) {
      w.fill(10);
      for (let round = 0; round < 4; round++) {
        w.reclaim();
        for (let page = 0; page < NR_PAGES; page++) await w.checkPage(page);
        for (let page = round; page < NR_PAGES; page += 3) await w.store(page, 100 + 20 * round + page);
        w.reclaim();
        await w.check();
      }
    },
  },
  {
    name: 'a bracket of several ranges concerns each of them, and not what lies between',
    numbers: ['N1', 'N11'],
    async run(w) {
      await setUp(w);
      for (let page = 1; page < NR_PAGES; page += 3) await w.mm.mlock(w.at(page), PAGE_SIZE);
      w.reclaim();
      await w.check();
    },
  },
  {
    name: 'mremap takes what was shown away from the old address, and brings it with the new one',
    numbers: ['N3', 'N21'],
    async run(w) {
      await setUp(w);
      const to = 2 ** 33;
      w.mm.mremap(w.at(0), 4 * PAGE_SIZE, 4 * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
      const moved = w.model.slice(0, 4);
      w.model.fill(undefined, 0, 4);
      await w.check();
      w.mm.writeSync(to, new Uint8Array([123]));
      w.mm.mremap(to, 4 * PAGE_SIZE, 4 * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, w.at(0));
      for (const [page, value] of [123, ...moved.slice(1)].entries()) w.model[page] = value;
      await w.check();
    },
  },
  {
    name: 'a page that is migrated keeps what was stored, and is shown in its new frame',
    numbers: ['N5', 'N22'],
    async run(w) {
      const below = w.host.createMm();
      const nr = 60;
      const at = below.mmap(0, nr * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
      for (let page = 0; page < nr; page++) below.writeSync(at + page * PAGE_SIZE, new Uint8Array([1]));
      await setUp(w);
      below.exit();
      const { pgmigrate_success: before } = w.host.vmstat;
      w.host.compact();
      if (w.host.vmstat.pgmigrate_success === before) fail('nothing was migrated: the case shows nothing');
      await w.check();
      await w.store(7, 88);
      await w.check();
    },
  },
];
