import { writeFileSync } from 'node:fs';
import { FAULT_FLAG_WRITE, type Host, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, type Mm } from '../../src/mm/index.js';
import { type Chart, chartPage, type Series } from '../lib/chart.js';
import { digits, flag, markdownTable, median } from '../lib/common.js';
import { cowBreak, dontneedRange, forkMapped, mprotectRange, munmapMapped, type Row, writeFault } from './rows.js';
import { map, newHost, newMm, PAGE, timed, touch } from './world.js';

/** How costs grow with the pages of an operation, with the VMAs of an mm, and with what is not involved. */

const SIZES = [1024, 4096, 16_384, 65_536, 262_144, 900_000];
/** What one host can have beside its tables in 4 GiB. */
const MOST_FRAMES = 910_000;
const VMAS = [10, 100, 1000, 10_000, 65_000];
const OTHERS = [1, 10, 100, 1000];

export async function measureGrowth(rounds: number): Promise<string> {
  const few = Math.max(3, Math.min(rounds, 5));
  const charts: Chart[] = [
    {
      title: 'cost a page',
      xLabel: 'pages of the operation',
      yLabel: 'ns a page',
      xLog: true,
      yLog: true,
      series: await byPages(few),
    },
    {
      title: 'one operation in an mm of many VMAs',
      xLabel: 'VMAs of the mm',
      yLabel: 'ns an operation',
      xLog: true,
      series: byVmas(few),
    },
    {
      title: 'one operation beside other mms',
      xLabel: 'other mms, each with 64 pages',
      yLabel: 'ns an operation',
      xLog: true,
      series: byOthers(few),
    },
  ];
  if (flag('write')) writeFileSync('docs/results/mm-growth.svg', chartPage(charts, 3));
  return charts.map(tableOf).join('\n\n');
}

async function byPages(rounds: number): Promise<Series[]> {
  const host = newHost(MOST_FRAMES);
  const warm = newMm(host);
  touch(warm, map(warm, SIZES.at(-1)!), SIZES.at(-1)!);
  warm.exit();
  const rows: Row[] = [writeFault, munmapMapped, dontneedRange, forkMapped, mprotectRange, cowBreak];
  const series = rows.map((row) => {
    // A copy needs a second frame for each page.
    const sizes = row === cowBreak ? SIZES.filter((nr) => nr <= MOST_FRAMES / 2) : SIZES;
    return { name: row.name, points: sizes.map((nr) => [nr, costOf(row, host, nr, rounds)] as const) };
  });
  await host.stop();
  return series;
}

function costOf(row: Row, host: Host, nr: number, rounds: number): number {
  const repeats = nr <= 4096 ? rounds * 4 : nr <= 65_536 ? rounds : Math.min(rounds, 3);
  const times: number[] = [];
  for (let k = 0; k < repeats; k++) times.push(row.run(host, nr) / nr);
  return median(times);
}

/** VMAs of two pages each, with holes between them. */
function mmOfVmas(host: Host, nrVmas: number): Mm {
  const mm = newMm(host);
  for (let k = 0; k < nrVmas; k++) {
    mm.mmap(vmaAt(k), 2 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
  }
  return mm;
}

const vmaAt = (k: number) => 0x4000_0000 + k * 4 * PAGE;
const scattered = (k: number, nr: number) => (Math.imul(k, 2654435761) >>> 0) % nr;

function byVmas(rounds: number): Series[] {
  const lookup: [number, number][] = [];
  const fault: [number, number][] = [];
  const mapping: [number, number][] = [];
  for (const nr of VMAS) {
    const host = newHost(32_768, 131_072);
    const mm = mmOfVmas(host, nr);
    lookup.push([nr, each(rounds, 20_000, (k) => mm.findVma(vmaAt(scattered(k, nr))))]);
    const nrFaults = Math.min(nr, 4000);
    const drop = () => {
      for (let k = 0; k < nrFaults; k++) mm.madviseDontneed(vmaAt(k), PAGE);
    };
    fault.push([nr, each(rounds, nrFaults, (k) => mm.putPage(mm.tryGetPage(vmaAt(k), FAULT_FLAG_WRITE)), drop)]);
    mapping.push([nr, each(rounds, 4000, (k) => remap(mm, vmaAt(scattered(k, nr))))]);
  }
  return [
    { name: 'findVma', points: lookup },
    { name: 'write fault with zeroing', points: fault },
    { name: 'munmap and mmap of one VMA', points: mapping },
  ];
}

function remap(mm: Mm, va: number): void {
  mm.munmap(va, 2 * PAGE);
  mm.mmap(va, 2 * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
}

function byOthers(rounds: number): Series[] {
  const NR = 4000;
  const fault: [number, number][] = [];
  const drop: [number, number][] = [];
  const protect: [number, number][] = [];
  for (const nr of OTHERS) {
    const host = newHost(100_000, 16_384);
    for (let k = 0; k < nr; k++) {
      const other = newMm(host);
      touch(other, map(other, 64), 64);
    }
    const mm = newMm(host);
    const va = map(mm, NR);
    const dontneed = () => mm.madviseDontneed(va, NR * PAGE);
    const touchAll = () => touch(mm, va, NR);
    fault.push([nr, each(rounds, NR, (k) => mm.putPage(mm.tryGetPage(va + k * PAGE, FAULT_FLAG_WRITE)), dontneed)]);
    drop.push([nr, each(rounds, NR, (k) => mm.madviseDontneed(va + k * PAGE, PAGE), touchAll)]);
    protect.push([nr, each(rounds, NR, (k) => remap(mm, va + k * PAGE - (k % 2) * PAGE), touchAll)]);
  }
  return [
    { name: 'write fault with zeroing', points: fault },
    { name: 'DONTNEED of a page', points: drop },
    { name: 'munmap and mmap of two pages', points: protect },
  ];
}

/** Median nanoseconds a call over the rounds; `prepare` is not timed. */
function each(rounds: number, nr: number, call: (k: number) => unknown, prepare: () => unknown = () => {}): number {
  const times: number[] = [];
  for (let round = 0; round < rounds * 2 + 1; round++) {
    prepare();
    const ns = timed(() => {
      for (let k = 0; k < nr; k++) call(k);
    });
    times.push(ns / nr);
  }
  return median(times);
}

function tableOf(chart: Chart): string {
  const xs = [...new Set(chart.series.flatMap((s) => s.points.map(([x]) => x)))];
  const rows = chart.series.map((s) => [
    s.name,
    ...xs.map((x) => {
      const point = s.points.find(([px]) => px === x);
      return point === undefined ? '' : digits(point[1]);
    }),
  ]);
  return markdownTable([`${chart.yLabel}, by ${chart.xLabel}`, ...xs.map(String)], rows);
}
