import { emitKeypressEvents, type Key } from 'node:readline';
import { Command } from 'commander';
import { OutputFile } from './files.js';
import { RawTerminal } from './rawterminal.js';
import { runSteps, type Step, type StepRun } from './steprun.js';
import { type StepTable, stepTable } from './steptable.js';

/**
 * `unpin step`: one reclaim against a running external MMU, for those who teach or debug it. On a terminal a key shows the next step, `q` or Ctrl-C ends;
 * elsewhere all of it is printed. `--json FILE` writes the same steps as data: { steps: [{ who, what, pte, external, tlb, seq, inProgress, frame }], stored, found }.
 */

const EXIT_LOST = 1;
const EXIT_SIGINT = 130;
const HINT = '(a key: next, q: end)';

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
  const { stdin, stdout } = process;
  const interactive = stdout.isTTY === true && stdin.isTTY === true;
  const table = stepTable(run.steps, stdout.isTTY === true ? stdout.columns : 0);
  if (!interactive) stdout.write(`${[table.head, ...table.steps].join('\n')}\n`);
  else {
    const stopped = await showByKey(table);
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

/** Undefined when the last step was shown, else the exit code of who had enough. */
function showByKey({ head, steps }: StepTable): Promise<number | undefined> {
  const { stdin, stdout } = process;
  let next = 0;
  const show = () => {
    stdout.write(`\r\x1b[K${steps[next++]}\n`);
    if (next < steps.length) stdout.write(HINT);
  };
  const terminal = new RawTerminal();
  emitKeypressEvents(stdin);
  stdout.write(`${head}\n`);
  show();
  return new Promise((resolve) => {
    const end = (code: number | undefined) => {
      stdin.off('keypress', onKey).off('end', onEnd).pause();
      terminal.restore();
      stdout.write('\r\x1b[K');
      resolve(code);
    };
    const onEnd = () => end(0);
    const onKey = (_text: string | undefined, key: Key) => {
      if (key.ctrl === true && key.name === 'c') end(EXIT_SIGINT);
      else if (key.name === (key.ctrl === true ? 'd' : 'q')) end(0);
      else {
        show();
        if (next === steps.length) end(undefined);
      }
    };
    stdin.on('keypress', onKey).on('end', onEnd).resume();
  });
}
