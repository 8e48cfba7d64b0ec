import { Command } from 'commander';
import { OutputFile } from './files.js';
import { runSteps, type Step, type StepRun } from './steprun.js';

/**
 * `unpin step`: one reclaim against a running external MMU, for those who teach or debug it. On a terminal a key shows the next step, `q` or Ctrl-C ends;
 * elsewhere all of it is printed. `--json FILE` writes the same steps as data: { steps: [{ who, what, pte, external, tlb, seq, inProgress, frame }], stored, found }.
 */

const HEAD: Step = {
  ...{ who: 'who', what: 'what', pte: 'pte', external: 'external pte', tlb: 'TLB' },
  ...{ seq: 'seq', inProgress: 'inProgress', frame: 'frame' },
};
const EXIT_LOST = 1;
const EXIT_SIGINT = 130;
const CTRL_C = 3;
const QUIT = 'q'.charCodeAt(0);

export function stepCommand(): Command {
  return new Command('step')
    .description('show one reclaim against a running external MMU, step by step')
    .option('--json <file>', 'write the steps to a file, as data')
    .action(async ({ json }: { json?: string }) => {
      process.exitCode = await step(json);
    });
}

async function step(json: string | undefined): Promise<number> {
  const file = json === undefined ? undefined : new OutputFile('--json', json);
  const run = await runSteps();
  file?.write(`${JSON.stringify(plain(run), undefined, 2)}\n`);
  const lines = format(run.steps);
  const interactive = process.stdout.isTTY === true && process.stdin.isTTY === true;
  if (!interactive) process.stdout.write(`${lines.join('\n')}\n`);
  else {
    const stopped = await showByKey(lines);
    if (stopped !== undefined) return stopped;
  }
  return conclude(run);
}

/** As in the table, with numbers where they are numbers. */
function plain({ steps, stored, found }: StepRun) {
  const numbers = steps.map((one) => ({ ...one, seq: Number(one.seq), inProgress: Number(one.inProgress) }));
  return { steps: numbers, stored, found };
}

function conclude({ steps, stored, found }: StepRun): number {
  const stale = steps.findIndex((step) => !isKnown(step));
  if (stale >= 0)
    process.stdout.write(`\nat step ${stale + 1} the device had an entry that the host did not know of\n`);
  else if (stored !== found) process.stdout.write(`\nthe device stored ${stored} and found ${found}: it was lost\n`);
  else
    process.stdout.write(
      `\nthe device stored ${stored}, its page was away, and it found ${found} again. At no step did it have an entry that the host had not.\n`,
    );
  return stale < 0 && stored === found ? 0 : EXIT_LOST;
}

/** Whether the pte names what external pte and TLB show. */
function isKnown({ pte, external, tlb }: Step): boolean {
  return [external, tlb].every((entry) => entry === '-' || pte.startsWith(`${entry.replace(/ RW?$/, '')} `));
}

/** A line for each step, after the head; what has changed since the step before is marked. */
function format(steps: readonly Step[]): string[] {
  const all = [HEAD, ...steps];
  const columns = Object.keys(HEAD) as (keyof Step)[];
  const widths = columns.map((c) => Math.max(...all.map((s) => s[c].length)) + 1);
  return all.map((s, n) => {
    const cells = columns.map((c, k) => {
      const changed = n > 1 && k > 1 && s[c] !== all[n - 1]![c];
      return `${s[c]}${changed ? '*' : ''}`.padEnd(widths[k]!);
    });
    return `${n === 0 ? '   ' : String(n).padStart(3)}  ${cells.join(' ')}`.trimEnd();
  });
}

/** Undefined when the last line was shown, else the exit code of who had enough. */
function showByKey(lines: readonly string[]): Promise<number | undefined> {
  const { stdin, stdout } = process;
  const hint = '(a key: next, q: end)';
  let next = 0;
  const show = () => {
    stdout.write(`\r\x1b[K${lines[next++]}\n`);
    if (next < lines.length) stdout.write(hint);
  };
  stdin.setRawMode(true);
  show();
  show();
  return new Promise((resolve) => {
    const end = (code: number | undefined) => {
      stdin.off('data', onData);
      stdin.setRawMode(false);
      stdin.pause();
      stdout.write('\r\x1b[K');
      resolve(code);
    };
    const onData = (keys: Buffer) => {
      for (const key of keys) {
        if (key === CTRL_C || key === QUIT) return end(key === QUIT ? 0 : EXIT_SIGINT);
        show();
        if (next === lines.length) return end(undefined);
      }
    };
    stdin.on('data', onData);
  });
}
