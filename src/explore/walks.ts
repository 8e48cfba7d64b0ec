import type { Run } from './run.js';
import { FIRST_EVENT } from './run.js';
import type { Search, SearchOptions } from './search.js';
import { Random } from './seed.js';

/**
 * Schedules by chance, for what lies beyond the bound: a uniform choice at each point, or random priorities (probabilistic concurrency testing:
 * the highest that can run runs, and at depth - 1 points, and where it calls cpuRelax, the one that runs falls below all others; a bug that needs `depth` steps in order is
 * found with a chance of at least 1 / (actors × steps^(depth - 1)) in each run, Burckhardt et al., ASPLOS 2010). Each has a seed of its own.
 */

export interface Walks {
  readonly held: number;
  readonly failed?: Run;
  /** Of the run that failed. */
  readonly seed?: number;
}

const DEFAULT_DEPTH = 3;

export function randomWalks(search: Search, options: SearchOptions): Walks {
  const { random = 0, pct = 0, depth = DEFAULT_DEPTH, seed: first = 1 } = options;
  let nrChoices = 20;
  for (let n = 0; n < random + pct; n++) {
    const seed = first + (n < random ? n : n - random);
    const run = search.newRun();
    walk(search, run, n < random ? uniform(new Random(seed)) : priorities(new Random(seed), run, depth, nrChoices));
    nrChoices = Math.max(nrChoices, run.choices.length);
    if (run.failure !== undefined) return { held: n, failed: run, seed };
    if (n % 64 === 63) search.tellProgress(n + 1);
  }
  return { held: random + pct };
}

type Pick = (enabled: readonly number[]) => number;

function walk(search: Search, run: Run, pick: Pick): void {
  search.watch.follow(run);
  for (;;) {
    run.settle();
    run.checkInvariant();
    search.watch.check(run);
    const enabled = run.enabled();
    if (run.failure !== undefined || enabled.length === 0) break;
    run.choose(pick(enabled));
  }
  run.finish();
}

function uniform(random: Random): Pick {
  return (enabled) => enabled[random.below(enabled.length)]!;
}

function priorities(random: Random, run: Run, depth: number, nrChoices: number): Pick {
  const priority = run.actors.map(() => depth + random.below(1e6));
  const changes = new Set(Array.from({ length: depth - 1 }, () => random.below(nrChoices)));
  let lowest = depth - 1;
  const rank = (who: number) => (who < FIRST_EVENT ? priority[who]! : depth + random.below(1e6));
  return (enabled) => {
    let best = enabled[0]!;
    let bestRank = -1;
    for (const who of enabled) {
      const at = rank(who);
      if (at > bestRank) [best, bestRank] = [who, at];
    }
    const falls = changes.has(run.choices.length) || run.actors[best]?.pending?.op === 'relax';
    if (falls && best < FIRST_EVENT) priority[best] = lowest--;
    return best;
  };
}
