/**
 * How good reclaim's choices are: misses on traces of page references, of real guests and of known hard patterns, for several sizes of
 * memory: the optimum (Belady), LRU, CLOCK, 2Q, Unpin's own code, and Linux where swap and a memory cgroup can be set up.
 *
 *   npm run bench -- policy [TRACE...] [--write]     TRACE: a file, or one of the names that it lists
 *   npm run bench -- policy record NAME FILE         NAME: memhog, sort, debian (with --guest DIR from scripts/debian-guest)
 *
 * `--write` puts the table and the curves into docs/results/policy.md and policy.svg.
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Chart, chartPage } from './lib/chart.js';
import { digits, flag, markdownTable } from './lib/common.js';
import { writePart } from './lib/document.js';
import { LinuxReplay } from './policy/linux.js';
import { optimum, POLICIES } from './policy/policies.js';
import { record } from './policy/record.js';
import { loop, scanBesideHotSet, shiftingHotSets, zipf } from './policy/synthetic.js';
import { countPages, readTrace, type Trace, writeTrace } from './policy/trace.js';
import { replayOnUnpin } from './policy/unpin.js';

const TRACES = 'bench/traces';
/** Sizes of memory, as parts of the pages that the trace uses. */
const SIZES = [0.05, 0.08, 0.12, 0.18, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95];
/** Below it a host is mostly watermarks. */
const LEAST_FRAMES = 160;
const MOST_LINUX_MISSES = 25_000;

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
  const linux = openLinux();
  const charts: Chart[] = [];
  const texts: string[] = [];
  try {
    for (const name of named.length > 0 ? named : [...Object.keys(SYNTHETIC), ...recorded]) {
      const [text, chart] = await measure(load(name), linux);
      console.log(`${text}\n`);
      texts.push(text);
      charts.push(chart);
    }
  } finally {
    linux?.close();
  }
  if (!flag('write')) return;
  writePart('docs/results/policy.md', 'tables', texts.join('\n\n'));
  writeFileSync('docs/results/policy.svg', chartPage(charts, 2));
}

function openLinux(): LinuxReplay | undefined {
  try {
    return LinuxReplay.open();
  } catch (error) {
    process.stderr.write(`bench: SKIPPED: misses of Linux: ${(error as Error).message}\n`);
    return undefined;
  }
}

/** NaN where it would take Linux minutes: each miss waits for a disk. */
async function linuxMisses(linux: LinuxReplay, trace: Trace, nrFrames: number, expected: number): Promise<number> {
  return expected > MOST_LINUX_MISSES ? Number.NaN : linux.misses(trace, nrFrames);
}

/** What there is to compare, for one size of memory. */
async function missesOf(trace: Trace, nrFrames: number, linux: LinuxReplay | undefined): Promise<Map<string, number>> {
  const misses = new Map<string, number>();
  for (const [name, policy] of Object.entries(POLICIES)) misses.set(name, policy(trace, nrFrames));
  if (linux !== undefined) misses.set('Linux', await linuxMisses(linux, trace, nrFrames, misses.get('LRU')!));
  const plain = await replayOnUnpin(trace, nrFrames, 0);
  misses.set('Unpin', plain.misses);
  misses.set('stalls', plain.allocstalls);
  const ahead = await replayOnUnpin(trace, nrFrames, 4);
  misses.set('with read-ahead', ahead.misses);
  misses.set('pages read', ahead.swapIns);
  return misses;
}

async function measure(trace: Trace, linux: LinuxReplay | undefined): Promise<[string, Chart]> {
  const nrPages = countPages(trace);
  const columns: [number, Map<string, number>][] = [];
  for (const size of SIZES) {
    const nrFrames = Math.round(nrPages * size);
    if (nrFrames < LEAST_FRAMES || optimum(trace, nrFrames) === 0) continue;
    columns.push([nrFrames, await missesOf(trace, nrFrames, linux)]);
  }
  const names = [...columns[0]![1].keys()];
  const rows = names.map((name) => [name, ...columns.map(([, misses]) => cell(name, misses))]);
  const what = `**${trace.name}**: ${trace.refs.length} references to ${nrPages} pages in ${trace.epochEnds.length} epochs`;
  const table = markdownTable(['misses, times the optimum', ...columns.map(([nr]) => `${nr} frames`)], rows);
  const curves = names.filter((name) => !['stalls', 'with read-ahead', 'pages read'].includes(name));
  const series = curves.map((name) => ({
    name,
    points: columns
      .map(([nr, misses]) => [nr, Math.max(1, misses.get(name)!)] as const)
      .filter(([, value]) => !Number.isNaN(value)),
    dashed: name !== 'Unpin' && name !== 'Linux',
  }));
  const chart = { title: trace.name, xLabel: 'frames', yLabel: 'misses', yLog: true, series };
  return [`${what}\n\n${table}`, chart];
}

/** The optimum and the stalls as they are, the others as multiples of the optimum. */
function cell(name: string, misses: Map<string, number>): string {
  const value = misses.get(name)!;
  if (Number.isNaN(value)) return '';
  return name === 'optimum' || name === 'stalls' ? `${value}` : digits(value / misses.get('optimum')!);
}

await main();
