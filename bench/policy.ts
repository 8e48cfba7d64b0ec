/**
 * How good reclaim's choices are: misses on traces of page references, of real guests and of known hard patterns, for several sizes of
 * memory: the optimum (Belady), LRU, CLOCK, 2Q, Unpin's own code, and Linux where swap and a memory cgroup can be set up.
 *
 *   npm run bench -- policy [TRACE...] [--write]     TRACE: a file, or one of the names that it lists
 *   npm run bench -- policy record NAME FILE         NAME: memhog, sort, debian (with --guest DIR from scripts/debian-guest)
 *
 * `--write` puts the table and the curves into docs/results/policy.md and policy.svg.
 */
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { digits, markdownTable } from './lib/common.js';
import { POLICIES } from './policy/policies.js';
import { record } from './policy/record.js';
import { loop, scanBesideHotSet, shiftingHotSets, zipf } from './policy/synthetic.js';
import { countPages, readTrace, type Trace, writeTrace } from './policy/trace.js';
import { replayOnUnpin } from './policy/unpin.js';

const TRACES = 'bench/traces';
/** Sizes of memory, as parts of the pages that the trace uses. */
const SIZES = [0.05, 0.08, 0.12, 0.18, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95];

const SYNTHETIC: Record<string, () => Trace> = {
  loop: () => loop(1100, 30),
  scan: () => scanBesideHotSet(500, 3000, 12),
  shift: () => shiftingHotSets(3000, 600, 40),
  zipf: () => zipf(3000, 120_000),
};

function load(name: string): Trace {
  return SYNTHETIC[name]?.() ?? readTrace(name);
}

async function main(): Promise<void> {
  const named = process.argv.slice(2).filter((arg, i, all) => !arg.startsWith('--') && !all[i - 1]?.startsWith('--'));
  if (named[0] === 'record') {
    const trace = await record(named[1]!);
    writeTrace(named[2]!, trace);
    return;
  }
  const recorded = readdirSync(TRACES).map((file) => join(TRACES, file));
  for (const name of named.length > 0 ? named : [...Object.keys(SYNTHETIC), ...recorded]) await show(load(name));
}

async function show(trace: Trace): Promise<void> {
  const nrPages = countPages(trace);
  const { length } = trace.refs;
  console.log(
    `\n${basename(trace.name)}: ${length} references to ${nrPages} pages in ${trace.epochEnds.length} epochs`,
  );
  const rows: string[][] = [];
  for (const size of SIZES) {
    const nrFrames = Math.round(nrPages * size);
    const best = nrFrames < 64 ? 0 : POLICIES.optimum!(trace, nrFrames);
    if (best === 0) continue;
    const cells = [`${nrFrames}`, `${best}`];
    for (const [name, policy] of Object.entries(POLICIES)) {
      if (name !== 'optimum') cells.push(times(policy(trace, nrFrames), best));
    }
    const plain = await replayOnUnpin(trace, nrFrames, 0);
    const ahead = await replayOnUnpin(trace, nrFrames, 3);
    cells.push(
      times(plain.misses, best),
      times(ahead.misses, best),
      times(ahead.swapIns, best),
      `${plain.allocstalls}`,
    );
    rows.push(cells);
  }
  const head = [
    'frames',
    'optimum',
    ...Object.keys(POLICIES).slice(1),
    'Unpin',
    'read-ahead: misses',
    'pages read',
    'stalls',
  ];
  console.log(markdownTable(head, rows));
}

function times(misses: number, best: number): string {
  return best === 0 ? `${misses}` : digits(misses / best);
}

await main();
