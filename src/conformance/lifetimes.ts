import { checkHost, PAGE_SIZE } from '../mm/index.js';
import type { Scenario } from './operations.js';
import { expectEqual, fail, NR_PAGES } from './world.js';

/** The end of an area, of the mm, and of the instance; and what it holds. */

export const LIFETIMES: readonly Scenario[] = [
  {
    name: 'after an access the driver holds no reference',
    numbers: ['N4'],
    async run(w) {
      w.fill(10);
      for (let page = 0; page < NR_PAGES; page++) {
        await w.checkPage(page);
        await w.store(page, 30 + page);
      }
      checkHost(w.host);
      await w.check();
      checkHost(w.host);
    },
  },
  {
    name: 'when nothing of the area is mapped any more it shows nothing, or what is mapped there next',
    numbers: ['N3'],
    async run(w) {
      w.fill(10);
      await w.check();
      w.mm.munmap(w.va, NR_PAGES * PAGE_SIZE);
      w.foreign().exit();
      for (let page = 0; page < NR_PAGES; page++) await w.refuses(page);
      w.remap(0, NR_PAGES);
      for (let page = 0; page < NR_PAGES; page++) {
        const seen = await w.load(page).catch(() => 0);
        expectEqual(seen, 0, `page ${page} of a new mapping over an area that was closed`);
      }
      w.checkPoison();
    },
  },
  {
    name: 'when the mm has exited nothing is shown, and no frame is kept',
    numbers: ['N4', 'N18'],
    async run(w) {
      w.fill(10);
      await w.check();
      w.mm.exit();
      const other = w.foreign();
      for (let page = 0; page < NR_PAGES; page++) await w.refuses(page);
      other.exit();
    },
  },
  {
    name: 'an instance that is destroyed hears nothing more and keeps no frame; another may take its place',
    numbers: ['N17', 'N4'],
    async run(w) {
      w.fill(10);
      await w.check();
      await w.instance.destroy();
      const { brackets } = w.host.vmstat;
      w.mm.madviseDontneed(w.at(0), 4 * PAGE_SIZE);
      w.model.fill(0, 0, 4);
      w.reclaim();
      expectEqual(w.host.vmstat.brackets - brackets, 0, 'brackets that a destroyed instance was told of');
      expectEqual(w.mm.notifiers.nrSubscriptions, 0, 'subscriptions of a destroyed instance');
      const nrOthers = w.host.frames.nrFrames - w.host.frames.nrFree;
      if (nrOthers > NR_PAGES) fail(`${nrOthers} frames are not free after the end of the instance`);
      w.instance = await w.adapter.create(w.mm, w.va, NR_PAGES * PAGE_SIZE);
      await w.check();
      await w.instance.destroy();
      await w.instance.destroy();
    },
  },
  {
    name: 'two instances over the same pages show the same, and one goes on when the other ends',
    numbers: ['N11', 'N17'],
    async run(w) {
      const first = w.instance;
      const second = await w.adapter.create(w.mm, w.va, NR_PAGES * PAGE_SIZE);
      for (let page = 0; page < NR_PAGES; page++) {
        w.instance = page % 2 === 0 ? first : second;
        await w.store(page, 40 + page);
      }
      for (const instance of [first, second]) {
        w.instance = instance;
        await w.check();
        w.reclaim();
      }
      await first.destroy();
      await w.check();
    },
  },
];
