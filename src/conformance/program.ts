import { PAGE_SIZE } from '../mm/index.js';
import type { Scenario } from './operations.js';
import { NR_PAGES, type World } from './world.js';

/** Random programs: the same for every driver and every run. */

const NR_STEPS = 250;
const SEEDS = [1, 2, 3];

/** A linear congruential generator; `next(n)` is from 0 below n. */
function generator(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

async function step(w: World, next: (n: number) => number, n: number): Promise<void> {
  const page = next(NR_PAGES);
  const value = 1 + (n % 200);
  const kind = next(20);
  if (kind < 6) await w.checkPage(page);
  else if (kind < 11) {
    if (w.model[page] !== undefined) await w.store(page, value);
  } else if (kind < 13) {
    if (w.model[page] !== undefined) w.write(page, value);
  } else if (kind < 15) w.host.reclaim.shrink(next(2) === 0, true, next(2) === 0);
  else if (kind === 15) w.remap(page, Math.min(1 + next(4), NR_PAGES - page));
  else if (kind === 16) w.reclaim();
  else if (kind === 17) {
    w.mm.munmap(w.at(page), PAGE_SIZE);
    w.model[page] = undefined;
  } else if (kind === 18) w.host.compact();
  else forked(w);
}

/** A child that lives until the next fork. */
function forked(w: World): void {
  for (const mm of [...w.host.mms]) if (mm !== w.mm) mm.exit();
  w.mm.fork();
}

export const PROGRAMS: readonly Scenario[] = SEEDS.map((seed) => ({
  name: `random program ${seed}: every page is what was written last`,
  numbers: ['N1', 'N3', 'N15'],
  async run(w) {
    const next = generator(seed);
    for (let n = 0; n < NR_STEPS; n++) {
      await step(w, next, n);
      if (n % 25 === 0) await w.check();
    }
    await w.check();
  },
}));
