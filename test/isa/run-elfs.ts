import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FlatBoard, type FlatBoardResult } from './flatboard.js';

/**
 * Runs each ELF program of a folder in S-mode on our hart and prints how many passed, by the part of the name before its
 * last dash. A program passes that prints PASS and shuts down by SBI with the reason 0.
 *
 *   node scripts/run-ts.mjs test/isa/run-elfs.ts FOLDER [FILTER]
 *
 * FILTER: only names that contain it. Exit code 1 when one did not pass, 2 for bad arguments.
 */

/** Ten times what the longest known needs. */
const MAX_INSTRUCTIONS = 5_000_000;

function run(file: string): FlatBoardResult {
  try {
    return new FlatBoard(readFileSync(file)).run(MAX_INSTRUCTIONS);
  } catch (error) {
    return { end: 'stuck', console: '', instructions: 0, detail: `${(error as Error).stack}` };
  }
}

const passed = ({ end, console }: FlatBoardResult) => end === 'shutdown' && console === 'PASS\n';

const [folder, filter = ''] = process.argv.slice(2);
if (folder === undefined) {
  process.stderr.write('usage: node scripts/run-ts.mjs test/isa/run-elfs.ts FOLDER [FILTER]\n');
  process.exit(2);
}

const suites = new Map<string, { passed: number; total: number }>();
for (const name of readdirSync(folder).sort()) {
  if (!name.includes(filter)) continue;
  const result = run(join(folder, name));
  const suite = name.slice(0, name.lastIndexOf('-'));
  const counts = suites.get(suite) ?? { passed: 0, total: 0 };
  suites.set(suite, counts);
  counts.total++;
  if (passed(result)) counts.passed++;
  else process.stdout.write(`${name}: ${result.end} ${result.console.trim()} ${result.detail}\n`);
}

for (const [suite, { passed, total }] of suites)
  process.stdout.write(`${suite.padEnd(12)} ${passed} of ${total} passed\n`);
const all = [...suites.values()];
process.exitCode = all.length > 0 && all.every(({ passed, total }) => passed === total) ? 0 : 1;
