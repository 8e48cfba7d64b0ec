import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { chartPage, type Series } from '../lib/chart.js';
import { flag, markdownTable, median } from '../lib/common.js';
import { secondsOfGuests } from '../lib/unpinrun.js';

/**
 * The overcommit curve: how long guests take when the frames of the host are a fraction of their RAM, against guests whose RAM is locked. Each is
 * our own guest, which works on all of its RAM and verifies it: nothing of it is idle, so this is the worst case.
 */

const GUESTS = [1, 2, 4, 8];
const RAM_MIB = 32;
/** Of the guests' RAM; the first has room for all of it. */
const FRACTIONS = [1.1, 0.9, 0.75, 0.6, 0.5, 0.4, 0.3];
/** Beside locked RAM. */
const SPARE_MIB = 8;
const CHART = 'docs/results/kvm-curve.svg';

/** Seconds until the last guest is done. */
function run(args: readonly string[], json: string): number {
  return secondsOfGuests(['boot', '--ram', `${RAM_MIB}M`, '--swap-size', '1G', ...args], json);
}

/** Medians of the runs: pinned, then each fraction; all of them in turn in each run. */
function measureGuests(nr: number, runs: number, json: string): number[] {
  const sizes = FRACTIONS.map((fraction) => `${Math.ceil(nr * RAM_MIB * fraction)}M`);
  const configurations = [
    ['--pin', '--frames', `${nr * RAM_MIB + SPARE_MIB}M`],
    ...sizes.map((size) => ['--frames', size]),
  ];
  const seconds: number[][] = configurations.map(() => []);
  for (let i = 0; i < runs; i++) {
    for (const [c, args] of configurations.entries()) seconds[c]!.push(run(['--guests', String(nr), ...args], json));
    process.stderr.write(`bench: ${nr} guests: run ${i + 1} of ${runs}\n`);
  }
  return seconds.map(median);
}

export async function measureCurve(runs: number): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'unpin-bench-'));
  try {
    const results = GUESTS.map((nr) => measureGuests(nr, runs, join(folder, 'report.json')));
    if (!flag('write')) return tableOf(results);
    writeFileSync(CHART, draw(results));
    return `![time to finish by frames as a fraction of RAM](${basename(CHART)})\n\n${tableOf(results)}`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function tableOf(results: readonly number[][]): string {
  const head = ['seconds, by frames / RAM', 'pinned', ...FRACTIONS.map(String)];
  const rows = results.map((seconds, i) => [guestsText(GUESTS[i]!), ...seconds.map((s) => s.toFixed(1))]);
  return markdownTable(head, rows);
}

function draw(results: readonly number[][]): string {
  const series = results.map(([pinned, ...seconds], i): Series => {
    return { name: guestsText(GUESTS[i]!), points: FRACTIONS.map((x, k) => [x, seconds[k]! / pinned!] as const) };
  });
  const base: Series = { name: 'pinned', points: FRACTIONS.map((x) => [x, 1] as const), dashed: true };
  const title = 'time to finish, pinned = 1';
  return chartPage(
    [{ title, xLabel: 'frames of the host / RAM of the guests', yLabel: 'times', series: [...series, base] }],
    1,
  );
}

function guestsText(nr: number): string {
  return nr === 1 ? '1 guest' : `${nr} guests`;
}
