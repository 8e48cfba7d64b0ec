import { ERRNO } from '../base/index.js';
import {
  MMU_NOTIFY_CLEAR,
  MMU_NOTIFY_PROTECTION_PAGE,
  MMU_NOTIFY_PROTECTION_VMA,
  MMU_NOTIFY_SOFT_DIRTY,
  MMU_NOTIFY_UNMAP,
  type MmuNotifyEvent,
  mmuNotifierRegister,
  mmuNotifierUnregister,
  PAGE_SIZE,
  RangeList,
  VA_SIZE,
} from '../mm/index.js';
import { Interposer } from './interpose.js';
import type { Scenario } from './operations.js';
import { expectEqual, fail, NR_PAGES, type World } from './world.js';

/** Brackets beside external faults: one in the middle of a fault, several at once, refused ones, and more of them than needed. */

const PAGE = 5;

/** Operations that a fault of PAGE may meet. Each leaves the page with a value that only it has. */
const MEETS: Readonly<Record<string, (w: World) => void>> = {
  'MADV_DONTNEED and a new page': (w) => {
    w.mm.madviseDontneed(w.at(PAGE), PAGE_SIZE);
    w.write(PAGE, 201);
  },
  'reclaim, and the frame in other hands': (w) => {
    w.reclaim();
    w.foreign().exit();
  },
  'a new mapping in its place': (w) => {
    w.mm.munmap(w.at(PAGE), PAGE_SIZE);
    w.remap(PAGE, 1);
    w.write(PAGE, 202);
  },
  'a fork whose parent writes': (w) => {
    w.mm.fork();
    w.write(PAGE, 203);
  },
  compaction: (w) => void w.host.compact(),
};

async function meetAll(w: World, write: boolean): Promise<void> {
  for (const [name, operation] of Object.entries(MEETS)) {
    for (let k = 0; ; k++) {
      w.remap(PAGE, 1);
      w.write(PAGE, 100);
      if (!(await meet(w, name, operation, write, k))) break;
    }
  }
}

/** False when there is no `k`-th point. */
async function meet(
  w: World,
  name: string,
  operation: (w: World) => void,
  write: boolean,
  k: number,
): Promise<boolean> {
  const interposer = new Interposer(w, k, () => operation(w));
  let seen = -1;
  await interposer.around(async () => {
    if (write) await w.within(w.instance.store(w.at(PAGE), 150), `a store beside ${name}`);
    else seen = await w.load(PAGE);
  });
  const after = w.model[PAGE]!;
  // The access came before the operation or after it.
  if (write) w.model[PAGE] = w.read(PAGE) === 150 ? 150 : after;
  else if (seen !== 100 && seen !== after) fail(`a load beside ${name}, at point ${k}, showed ${seen}`);
  try {
    await w.check();
  } catch (error) {
    fail(`after ${name} in the middle of a fault, at point ${k}: ${(error as Error).message}`);
  }
  return interposer.reached;
}

/** A bracket that changes nothing. */
function bracket(w: World, event: MmuNotifyEvent, first: number, end: number): RangeList {
  const range = new RangeList(w.mm);
  range.reset(event, true);
  range.add(w.at(first) / PAGE_SIZE, w.at(end) / PAGE_SIZE);
  return range.seal();
}

export const RACES: readonly Scenario[] = [
  {
    name: 'a load with a whole operation in the middle of its fault, at every point, never shows or keeps an old page',
    numbers: ['N3', 'N8'],
    run: (w) => meetAll(w, false),
  },
  {
    name: 'a store with a whole operation in the middle of its fault, at every point, is not lost and goes to no old page',
    numbers: ['N3', 'N8', 'N15'],
    run: (w) => meetAll(w, true),
  },
  {
    name: 'where another driver refuses a bracket, this one is ended too, and goes on',
    numbers: ['N12'],
    async run(w) {
      w.fill(10);
      await w.check();
      const refuser = mmuNotifierRegister(w.mm, 0, VA_SIZE, {
        invalidateRangeStart: (_sub, range) => (range.blockable ? 0 : -ERRNO.EAGAIN),
      });
      for (let n = 0; n < 8; n++) w.host.reclaim.shrink(false, true, true);
      mmuNotifierUnregister(refuser);
      if (w.host.vmstat.refusals === 0) fail('nothing was refused: the case shows nothing');
      await w.check();
      for (let page = 0; page < NR_PAGES; page++) await w.store(page, 50 + page);
      w.reclaim();
      await w.check();
    },
  },
  {
    name: 'a bracket that may block is never refused, and after one that may not everything is as it was',
    numbers: ['N12'],
    async run(w) {
      w.fill(10);
      await w.check();
      for (let n = 0; n < 8; n++) w.host.reclaim.shrink(n % 2 === 0, true, true);
      w.checkPoison();
      await w.check();
    },
  },
  {
    name: 'more is invalidated than was there, again and again, and nothing changes',
    numbers: ['N11'],
    async run(w) {
      w.fill(10);
      await w.check();
      const events = [MMU_NOTIFY_UNMAP, MMU_NOTIFY_CLEAR, MMU_NOTIFY_PROTECTION_VMA, MMU_NOTIFY_PROTECTION_PAGE];
      for (const event of [...events, MMU_NOTIFY_SOFT_DIRTY] as MmuNotifyEvent[]) {
        for (const [first, end] of [
          [0, NR_PAGES],
          [0, NR_PAGES],
          [-8, NR_PAGES + 8],
          [3, 4],
        ] as const) {
          const range = bracket(w, event, first, end);
          w.mm.notifiers.invalidateRangeStart(range);
          w.mm.notifiers.invalidateRangeEnd(range);
        }
        await w.check();
      }
    },
  },
];

/** For drivers whose accesses can wait. */
export const OVERLAP: Scenario = {
  name: 'while brackets overlap no fault in them succeeds, until the last of them has ended',
  numbers: ['N3', 'N7', 'N8'],
  async run(w) {
    w.fill(10);
    await w.check();
    const [a, b] = [bracket(w, MMU_NOTIFY_CLEAR, 2, 6), bracket(w, MMU_NOTIFY_CLEAR, 5, 9)];
    w.mm.notifiers.invalidateRangeStart(a);
    w.mm.notifiers.invalidateRangeStart(b);
    let done = false;
    const load = w.load(5).finally(() => (done = true));
    load.catch(() => {});
    for (let n = 0; n < 20; n++) await w.turn();
    if (done) fail('a fault inside two brackets succeeded');
    w.mm.notifiers.invalidateRangeEnd(a);
    for (let n = 0; n < 20; n++) await w.turn();
    if (done) fail('a fault succeeded when the first of two overlapping brackets had ended');
    w.mm.notifiers.invalidateRangeEnd(b);
    expectEqual(await load, 15, 'page 5, after both brackets,');
    await w.check();
  },
};
