import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Runs of the built command, for those who measure what its guests do. */

/** `unpin ARGS`, which must succeed; what its guests have written. */
export function runUnpin(args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['dist/cli/main.js', ...args], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`bench: unpin ${args.join(' ')} ended with ${status}: ${stderr}`);
  return stdout;
}

/** Seconds until the last guest of `unpin ARGS` is done; `json` is a file for the report. */
export function secondsOfGuests(args: readonly string[], json: string): number {
  runUnpin([...args, '--json', json]);
  const { guests } = JSON.parse(readFileSync(json, 'utf8')) as { guests: { wallMs: number }[] };
  return Math.max(...guests.map(({ wallMs }) => wallMs)) / 1000;
}
