import { digits, markdownTable, median } from '../lib/common.js';
import { measurePairs, type Pairs, pairsMissing } from '../lib/guestpairs.js';

/**
 * What QEMU's TCG is weak at, beside Unpin, in processor time of the whole process (by the clock it is the same where nothing else runs): bench-mem's page faults, fork+exec and context switches in Debian's kernel (guests/linux/bench-mem.c).
 */

/** The figures of `bench-mem NAME`, how many operations each is, and what they are. */
const FIGURES: Record<string, { nr: number; what: string }> = {
  'page-faults': { nr: 16_384, what: 'page fault' },
  'fork-exec': { nr: 200, what: 'fork + exec + exit + wait' },
  'pipe-ping-pong': { nr: 40_000, what: 'context switch' },
};
const RAM = '256M';
const FRAMES = '288M';

export async function measureQemu(runs: number, guest: string): Promise<string> {
  const missing = pairsMissing(guest);
  if (missing !== undefined) {
    process.stderr.write(`bench: SKIPPED: qemu: ${missing}\n`);
    return `Not measured: ${missing}`;
  }
  const commands = Object.keys(FIGURES).map((name) => `bench-mem ${name}`);
  const { pairs } = await measurePairs({ guest, commands, runs, ram: RAM, frames: FRAMES });
  const head = ['µs an operation', 'QEMU TCG', 'Unpin', 'QEMU / Unpin', 'least to greatest', 'bar'];
  const rows = Object.keys(FIGURES).map((name) => cells(name, pairs.get(name)));
  return markdownTable(head, rows);
}

function cells(name: string, pair: Pairs | undefined): string[] {
  if (pair === undefined || pair.unpinCpu.length === 0)
    throw new Error(`bench: no figure '${name}': does the guest have this version's bench-mem?`);
  const { nr, what } = FIGURES[name]!;
  const ratios = pair.qemuCpu.map((seconds, i) => seconds / pair.unpinCpu[i]!);
  const mid = median(ratios);
  const us = (seconds: readonly number[]) => digits((median(seconds) / nr) * 1e6);
  const spread = `${digits(Math.min(...ratios))} to ${digits(Math.max(...ratios))}`;
  return [what, us(pair.qemuCpu), us(pair.unpinCpu), digits(mid), spread, `1 ${mid >= 1 ? 'kept' : 'MISSED'}`];
}
