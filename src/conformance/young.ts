import type { Scenario } from './operations.js';
import { expectEqual, fail, NR_PAGES, type World } from './world.js';

/** What a driver says of the use of pages: to reclaim, to idle page tracking, and to who only looks. */

/** Rounds of uses, and of reclaim beside them: a driver may be told of the first ones late. */
const ROUNDS = 12;
/** Pages in use through the driver. */
const HOT = [1, 8, 13];

/** Every page is mapped, and was used through the driver. */
async function useAll(w: World): Promise<void> {
  w.fill(10);
  for (let page = 0; page < NR_PAGES; page++) await w.checkPage(page);
}

async function useHot(w: World): Promise<void> {
  for (const page of HOT) await w.load(page);
}

const pfnOf = (w: World, page: number): number => w.mm.pagemap(w.at(page), 1)[0]!.pfn;

function expectYoung(w: World, hot: readonly number[], when: string): void {
  for (let page = 0; page < NR_PAGES; page++) {
    const young = w.mm.notifiers.testYoung(w.at(page), w.at(page + 1));
    expectEqual(young, hot.includes(page), `whether page ${page} was used, asked without a change ${when},`);
  }
}

function isPresent(w: World, page: number): boolean {
  return w.mm.pagemap(w.at(page), 1)[0]!.present;
}

export const YOUNG: readonly Scenario[] = [
  {
    name: 'pages in use through the driver stay, when unused ones are reclaimed',
    numbers: ['N14'],
    async run(w) {
      await useAll(w);
      w.host.reclaim.shrink(true, true, false);
      for (let round = 0; round < ROUNDS && w.mm.residentPages > HOT.length; round++) {
        await useHot(w);
        w.host.reclaim.shrink(true, true, false);
      }
      for (const page of HOT)
        if (!isPresent(w, page))
          fail(`page ${page}, in use through the driver all the time, was reclaimed before pages that nobody used`);
      expectEqual(w.mm.residentPages < NR_PAGES, true, 'whether unused pages were reclaimed');
    },
  },
  {
    name: 'who asks whether a page was used, and changes nothing, hears the truth, and so does who asks next',
    numbers: ['N14'],
    async run(w) {
      await useAll(w);
      for (let page = 0; page < NR_PAGES; page++) w.host.young.testAndClear(pfnOf(w, page));
      expectYoung(w, [], 'after all marks were taken');
      await useHot(w);
      for (const when of ['after it was', 'a second time']) expectYoung(w, HOT, when);
      for (let page = 0; page < NR_PAGES; page++) {
        const young = w.mm.notifiers.clearFlushYoung(w.at(page), w.at(page + 1));
        expectEqual(young, HOT.includes(page), `whether page ${page} was used, asked by aging after others,`);
      }
      expectYoung(w, [], 'after aging');
    },
  },
  {
    name: 'pages that are marked idle are idle until they are used through the driver',
    numbers: ['N14'],
    async run(w) {
      const { pageIdle } = w.host;
      const isIdle = (page: number) => pageIdle.testIdle(pfnOf(w, page));
      await useAll(w);
      pageIdle.setIdleMm(w.mm);
      for (let page = 0; page < NR_PAGES; page++)
        expectEqual(isIdle(page), true, `whether page ${page}, of which nobody made use, is idle`);
      for (let round = 0; round < ROUNDS && HOT.some(isIdle); round++) await useHot(w);
      for (let page = 0; page < NR_PAGES; page++)
        expectEqual(isIdle(page), !HOT.includes(page), `whether page ${page} is idle, after others were used,`);
    },
  },
];
