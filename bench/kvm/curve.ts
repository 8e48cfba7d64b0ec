import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
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
/** What was measured so far; gone when all is. */
const UNFINISHED = '.cache/kvm-curve.json';

/** Seconds until the last guest is done. */
function run(args: readonly string[], json: string): number {
  return secondsOfGuests(['boot', '--ram', `${RAM_MIB}M`, '--swap-size', '1G', ...args], json);
}

/** Pinned, then each fraction. */
function configurations(nr: number): string[][] {
  const sizes = FRACTIONS.map((fraction) => `${Math.ceil(nr * RAM_MIB * fraction)}M`);
  const pinned = ['--pin', '--frames', `${nr * RAM_MIB + SPARE_MIB}M`];
  return [pinned, ...sizes.map((size) => ['--frames', size])].map((args) => ['--guests', String(nr), ...args]);
}

/** Seconds that were measured, by the arguments of `unpin boot`; in a file, so that who is interrupted goes on where he was. */
class Measured {
  private readonly path: string;
  private readonly seconds: Record<string, number[]>;

  constructor(path: string) {
    this.path = path;
    this.seconds = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {};
  }

  of(args: readonly string[]): readonly number[] {
    return this.seconds[args.join(' ')] ?? [];
  }

  add(args: readonly string[], seconds: number): void {
    this.seconds[args.join(' ')] = [...this.of(args), seconds];
    mkdirSync(dirname(this.path), { recursive: true });
    writeFileSync(this.path, JSON.stringify(this.seconds));
  }
}

/** Everything once, then everything again: `runs` times, or as often as the time allows, but once. */
function measureAll(measured: Measured, runs: number, endMs: number, json: string): void {
  for (let i = 0; i < runs; i++) {
    for (const nr of GUESTS) {
      for (const args of configurations(nr)) {
        if (measured.of(args).length > i) continue;
        if (i > 0 && Date.now() > endMs) return;
        measured.add(args, run(args, json));
      }
      process.stderr.write(`bench: run ${i + 1} of ${runs}: ${guestsText(nr)}\n`);
    }
  }
}

/** Medians of at most `runs` runs, as many as `minutes` have room for. */
export async function measureCurve(runs: number, minutes: number): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'unpin-bench-'));
  try {
    const measured = new Measured(UNFINISHED);
    measureAll(measured, runs, Date.now() + minutes * 60_000, join(folder, 'report.json'));
    const results = GUESTS.map((nr) => configurations(nr).map((args) => median(measured.of(args))));
    rmSync(UNFINISHED, { force: true });
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
