import { digits, markdownTable, median, quantile } from '../lib/common.js';
import { Peer } from '../lib/peer.js';
import { FLOORS } from './floor.js';
import { ROWS, type Row } from './rows.js';
import { newHost, newMm, touched } from './world.js';

/** Rounds of Linux, Unpin and the floor in turn, row by row; medians, and quartiles of the ratios of the rounds. */

interface Result {
  readonly row: Row;
  readonly linux: number[];
  readonly unpin: number[];
  readonly floor: number[];
}

/** Frames for the largest row twice over: the copy of a COW break. */
const NR_FRAMES = 150_000;

export async function measureTable(rounds: number): Promise<string> {
  const peer = Peer.start('mm.c');
  const host = newHost(NR_FRAMES);
  const warm = newMm(host);
  touched(warm, NR_FRAMES - host.reclaim.high - 100);
  warm.exit();
  const results: Result[] = [];
  const skipped: string[] = [];
  for (const row of ROWS) {
    const result = await measureRow(peer, host, row, rounds);
    if (typeof result === 'string') skipped.push(result);
    else results.push(result);
  }
  await peer.stop();
  await host.stop();
  return [tableOf(results), ...skipped].join('\n\n');
}

async function measureRow(
  peer: Peer,
  host: ReturnType<typeof newHost>,
  row: Row,
  rounds: number,
): Promise<Result | string> {
  const result: Result = { row, linux: [], unpin: [], floor: [] };
  for (let round = -2; round < rounds; round++) {
    const linux = await peer.time(row.operation, row.nrPages);
    if (linux instanceof Error) return skip(row, linux);
    const unpin = row.run(host, row.nrPages);
    const floor = row.floor === undefined ? 0 : FLOORS[row.floor](host, row.nrPages);
    if (round < 0) continue;
    result.linux.push(linux / row.nrPages);
    result.unpin.push(unpin / row.nrPages);
    result.floor.push(floor / row.nrPages);
  }
  process.stderr.write(`bench: ${row.name}\n`);
  return result;
}

function skip(row: Row, why: Error): string {
  const line = `SKIPPED: ${row.name}: ${why.message}`;
  process.stderr.write(`bench: ${line}\n`);
  return line;
}

function tableOf(results: readonly Result[]): string {
  const head = ['ns a page', 'Linux', 'Unpin', 'Linux / Unpin', 'quartiles', 'bar', 'floor', 'Unpin / floor'];
  return markdownTable(head, results.map(cells));
}

function cells({ row, linux, unpin, floor }: Result): string[] {
  const ratios = linux.map((ns, i) => ns / unpin[i]!);
  const [low, mid, high] = [quantile(ratios, 0.25), median(ratios), quantile(ratios, 0.75)];
  const bar = row.bar === undefined ? '' : `${row.bar} ${mid >= row.bar ? 'kept' : 'MISSED'}`;
  const floors = row.floor === undefined ? ['', ''] : [digits(median(floor)), digits(median(unpin) / median(floor))];
  return [
    row.name,
    digits(median(linux)),
    digits(median(unpin)),
    digits(mid),
    `${digits(low)} to ${digits(high)}`,
    bar,
    ...floors,
  ];
}
