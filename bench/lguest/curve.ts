import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { chartPage, type Series } from '../lib/chart.js';
import { digits, flag, markdownTable, median, quantile } from '../lib/common.js';
import { secondsOfGuests } from '../lib/unpinrun.js';
import { DRIVERS, type Driver, guestArgs } from './drivers.js';

/**
 * The overcommit curve: how long guests take when the frames of the host are a fraction of their RAM. forkhog works on all of it, in seven processes that
 * share most of it by copy-on-write: nothing is idle, so this is the worst case.
 */

const GUESTS = [1, 2];
const RAM_MIB = 32;
/** Of the guests' RAM; the first has room for all of it. */
const FRACTIONS = [1.1, 0.9, 0.75, 0.6, 0.5, 0.4, 0.3];
/** Beside locked RAM. */
const SPARE_MIB = 8;
const CHART = 'docs/results/lguest-curve.svg';

interface Curve {
  readonly nr: number;
  readonly driver: Driver;
  /** Seconds of each run: locked, then by fractions. */
  readonly seconds: number[][];
}

export function measureCurve(runs: number): string {
  const folder = mkdtempSync(join(tmpdir(), 'unpin-bench-'));
  try {
    const curves = GUESTS.flatMap((nr) => measureGuests(nr, runs, join(folder, 'report.json')));
    if (!flag('write')) return tableOf(curves);
    writeFileSync(CHART, draw(curves));
    return `![time to finish by frames as a fraction of RAM](${basename(CHART)})\n\n${tableOf(curves)}`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Both drivers with each number of frames in turn, in each run. */
function measureGuests(nr: number, runs: number, json: string): Curve[] {
  const frames = FRACTIONS.map((fraction) => ['--frames', `${Math.ceil(nr * RAM_MIB * fraction)}M`]);
  const memories = [['--pin', '--frames', `${nr * (RAM_MIB + SPARE_MIB)}M`], ...frames];
  const curves = DRIVERS.map((driver): Curve => ({ nr, driver, seconds: memories.map(() => []) }));
  const rest = ['--guests', String(nr), '--ram', `${RAM_MIB}M`];
  for (let run = 0; run < runs; run++) {
    for (const [m, memory] of memories.entries())
      for (const { driver, seconds } of curves)
        seconds[m]!.push(secondsOfGuests([...guestArgs(driver, 'passes=1'), ...rest, ...memory], json));
    process.stderr.write(`bench: curve: ${nr} guests: run ${run + 1} of ${runs}\n`);
  }
  return curves;
}

function tableOf(curves: readonly Curve[]): string {
  const head = ['seconds, by frames / RAM', 'locked', ...FRACTIONS.map(String)];
  const rows = GUESTS.flatMap((nr) => {
    const [lguest, kvm] = DRIVERS.map((driver) => curves.find((c) => c.nr === nr && c.driver === driver)!);
    const seconds = [lguest!, kvm!].map((curve) => [nameOf(curve), ...curve.seconds.map((s) => digits(median(s)))]);
    return [...seconds, ['lguest / kvm', ...lguest!.seconds.map((s, m) => ratioText(s, kvm!.seconds[m]!))]];
  });
  return markdownTable(head, rows);
}

/** Median, and quartiles. */
function ratioText(lguest: readonly number[], kvm: readonly number[]): string {
  const ratios = lguest.map((s, i) => s / kvm[i]!);
  return `${digits(median(ratios))} (${digits(quantile(ratios, 0.25))} to ${digits(quantile(ratios, 0.75))})`;
}

function draw(curves: readonly Curve[]): string {
  const series = curves.map((curve): Series => {
    const [locked, ...seconds] = curve.seconds.map(median);
    return { name: nameOf(curve), points: FRACTIONS.map((x, k) => [x, seconds[k]! / locked!] as const) };
  });
  const base: Series = { name: 'locked', points: FRACTIONS.map((x) => [x, 1] as const), dashed: true };
  const title = 'time to finish, locked = 1';
  const axes = { xLabel: 'frames of the host / RAM of the guests', yLabel: 'times' };
  return chartPage([{ title, ...axes, series: [...series, base] }], 1);
}

function nameOf({ nr, driver }: Curve): string {
  return `${driver}, ${nr === 1 ? '1 guest' : `${nr} guests`}`;
}
