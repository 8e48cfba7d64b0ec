/**
 * Costs of the memory manager beside Linux's, measured in one run: `npm run bench -- mm [table] [growth] [swap] [same] [--rounds 15] [--write]`;
 * all parts without a name.
 *
 * table: nanoseconds a page, Linux and Unpin in turn, with the spread of the ratios and the floor of the machine. growth: cost against
 * pages, VMAs and other mms. swap: sequential swap-in beside Linux's from the same disk, where swapon is permitted. same: pages of one value. `--write` puts
 * the results into docs/results/mm.md and mm-growth.svg.
 *
 * Runs on one core (taskset, where it is there), and so do the programs that it compares with. Wants a machine that is otherwise quiet.
 */

import { spawnSync } from 'node:child_process';
import { flag, option } from './lib/common.js';
import { writePart } from './lib/document.js';
import { measureGrowth } from './mm/growth.js';
import { measureSameFilled } from './mm/samefilled.js';
import { measureSwap } from './mm/swap.js';
import { measureTable } from './mm/table.js';

const PARTS: Record<string, (rounds: number) => Promise<string>> = {
  table: measureTable,
  swap: measureSwap,
  growth: measureGrowth,
  same: measureSameFilled,
};

async function main(): Promise<void> {
  const rounds = Number(option('rounds', '15'));
  const named = process.argv.slice(2).filter((arg) => arg in PARTS);
  for (const name of named.length > 0 ? named : Object.keys(PARTS)) {
    const text = await PARTS[name]!(rounds);
    console.log(`${text}\n`);
    if (flag('write')) writePart('docs/results/mm.md', name, text);
  }
}

/** Runs the process again, bound to one core, and ends with its exit code. */
function pinned(): boolean {
  if (process.env.UNPIN_BENCH_PINNED !== undefined || process.platform !== 'linux') return true;
  const args = ['-c', '1', process.execPath, 'scripts/run-ts.mjs', 'bench/mm.ts', ...process.argv.slice(2)];
  const env = { ...process.env, UNPIN_BENCH_PINNED: '1' };
  const result = spawnSync('taskset', args, { stdio: 'inherit', env });
  if (result.error !== undefined) {
    process.stderr.write('bench: not bound to one core: there is no taskset\n');
    return true;
  }
  process.exitCode = result.status ?? 1;
  return false;
}

if (pinned()) await main();
