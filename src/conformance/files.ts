import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  type File,
  MAP_FIXED,
  MAP_SHARED,
  MemoryStore,
  MS_SYNC,
  PAGE_SIZE,
  PROT_READ,
  PROT_WRITE,
} from '../mm/index.js';
import type { Scenario } from './operations.js';
import { expectEqual, NR_PAGES, type World } from './world.js';

/** Operations on a file that is mapped in the middle of the driver's range. */

const FIRST = 4;
const NR = 8;

/** Pages FIRST to FIRST + NR are those of a file, with 70, 71 and so on in them. */
function mapFile(w: World): { file: File; store: MemoryStore } {
  const contents = new Uint8Array(NR * PAGE_SIZE);
  for (let page = 0; page < NR; page++) contents[page * PAGE_SIZE] = 70 + page;
  const store = new MemoryStore({ contents });
  const file = w.host.openFile(store);
  w.mm.mmap(w.at(FIRST), NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file);
  for (let page = 0; page < NR; page++) w.model[FIRST + page] = 70 + page;
  return { file, store };
}

async function useAll(w: World): Promise<void> {
  for (let page = 0; page < NR_PAGES; page++) await w.mm.faultIn(w.at(page), 0);
  await w.check();
  for (let page = FIRST; page < FIRST + NR; page += 2) await w.store(page, 120 + page);
}

export const FILE_OPERATIONS: readonly Scenario[] = [
  {
    name: 'pages that a truncated file has lost are not shown',
    numbers: ['N23'],
    async run(w) {
      const { file } = mapFile(w);
      await useAll(w);
      await file.truncate(3 * PAGE_SIZE);
      w.model.fill(undefined, FIRST + 3, FIRST + NR);
      await w.check();
    },
  },
  {
    name: 'a hole punched in a file shows zeros',
    numbers: ['N23'],
    async run(w) {
      const { file } = mapFile(w);
      await useAll(w);
      await file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE_SIZE, 4 * PAGE_SIZE);
      w.model.fill(0, FIRST + 2, FIRST + 6);
      for (let page = FIRST; page < FIRST + NR; page++) await w.mm.faultIn(w.at(page), 0);
      await w.check();
    },
  },
  {
    name: 'a store after a shared page was written back marks it dirty again',
    numbers: ['N15', 'N27'],
    async run(w) {
      const { store } = mapFile(w);
      await useAll(w);
      for (let round = 0; round < 3; round++) {
        await w.mm.msync(w.at(FIRST), NR * PAGE_SIZE, MS_SYNC);
        await w.store(FIRST, 90 + round);
        await w.store(FIRST + 5, 95 + round);
      }
      await w.mm.msync(w.at(FIRST), NR * PAGE_SIZE, MS_SYNC);
      for (const page of [0, 5]) {
        const bytes = new Uint8Array(PAGE_SIZE);
        store.readSync(page * PAGE_SIZE, [bytes]);
        expectEqual(bytes[0], w.model[FIRST + page], `page ${page} of the file, after msync,`);
      }
      await w.check();
    },
  },
];
