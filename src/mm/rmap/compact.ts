import type { Host } from '../host.js';

/**
 * Compaction (Linux: compaction.c): pages of the upper frames go to free frames below, so that what is free lies in one run at the end. Pages
 * that cannot move stay where they are, and the others go round them.
 */

const BATCH = 64;

export interface CompactResult {
  /** Pages that changed their frame, and those that could not. */
  readonly nrMigrated: number;
  readonly nrFailed: number;
  /** Free frames in a row, the most that there are then. */
  readonly longestFreeRun: number;
}

/** `blockable`: drivers must not refuse. */
export function compact(host: Host, blockable: boolean): CompactResult {
  const { frames, migration } = host;
  const free = frames.takeFree();
  let nrMigrated = 0;
  let nrFailed = 0;
  let next = 0;
  let pfn = frames.endPfn - 1;
  const from: number[] = [];
  const to: number[] = [];
  const flush = () => {
    const nr = migration.migrate(from, to, blockable);
    nrMigrated += nr;
    nrFailed += from.length - nr;
    from.length = 0;
    to.length = 0;
  };
  for (; next < free.length && pfn > free[next]!; pfn--) {
    if (!migration.isMovable(pfn)) continue;
    from.push(pfn);
    frames.claim(free[next]!);
    to.push(free[next++]!);
    if (from.length === BATCH) flush();
  }
  flush();
  for (const rest of free.slice(next).reverse()) frames.unclaim(rest);
  return { nrMigrated, nrFailed, longestFreeRun: longestFreeRun(host) };
}

function longestFreeRun(host: Host): number {
  const { frames } = host;
  let longest = 0;
  let run = 0;
  for (let pfn = frames.firstPfn; pfn < frames.endPfn; pfn++) {
    run = frames.isFree(pfn) ? run + 1 : 0;
    if (run > longest) longest = run;
  }
  return longest;
}
