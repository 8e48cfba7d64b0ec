import { Command, InvalidArgumentError, Option } from 'commander';
import { exploreFile, formatResult, replayFile, type SearchProgress, type SearchResult } from '../explore/index.js';
import { parseCount } from './args.js';

/** `unpin explore`: every schedule of a model, within a bound on preemptions. Exit code 1 when one fails. */

interface ExploreOptions {
  preemptions: number | 'none';
  steps: number;
  model?: string;
  replay?: string;
}

const EXIT_FAILURE = 1;

export function exploreCommand(): Command {
  return new Command('explore')
    .description('run the actors of a model under every schedule and find the one that fails')
    .argument('<file>', 'TypeScript or JavaScript file whose default export is a model (docs/explore.md)')
    .addOption(
      new Option('--preemptions <n>', 'most preemptions of a schedule, or none for no bound')
        .argParser((text) => (text === 'none' ? text : parsePreemptions(text)))
        .default(2),
    )
    .addOption(
      new Option('--steps <n>', 'steps after which a schedule counts as a livelock')
        .argParser(parseCount(1, 1e9))
        .default(10_000),
    )
    .option('--model <name>', 'the export that is the model (default: default)')
    .option('--replay <path>', 'run one schedule, as a failure prints it')
    .action(async (file: string, options: ExploreOptions) => {
      process.exitCode = await explore(file, options);
    });
}

function parsePreemptions(text: string): number {
  if (!/^\d{1,3}$/.test(text)) throw new InvalidArgumentError(`'${text}' must be a whole number, or none.`);
  return Number(text);
}

async function explore(file: string, options: ExploreOptions): Promise<number> {
  const { preemptions, steps: maxSteps, model, replay } = options;
  const search = { preemptions, maxSteps, onProgress: progress() };
  const result =
    replay === undefined ? await exploreFile(file, search, model) : await replayFile(file, replay, search, model);
  process.stderr.write(process.stderr.isTTY ? '\r\x1b[K' : '');
  process.stdout.write(formatResult(result));
  if (result.atomicSteps > 0) process.stdout.write(atomicNote(result));
  if (result.failure === undefined) return 0;
  if (replay === undefined)
    process.stdout.write(
      `\nreplay: unpin explore ${file}${model ? ` --model ${model}` : ''} --replay ${result.failure.path}\n`,
    );
  return EXIT_FAILURE;
}

function atomicNote({ atomicSteps }: SearchResult): string {
  const where = 'in getters, constructors, generators or callbacks of natives, which cannot be held up';
  return `note: shared words were touched ${atomicSteps} times ${where}\n`;
}

/** Tells a terminal at once, and anything else every ten seconds. */
function progress(): (progress: SearchProgress) => void {
  const started = Date.now();
  const everyMs = process.stderr.isTTY ? 200 : 10_000;
  let next = started + everyMs;
  return ({ schedules }) => {
    const now = Date.now();
    if (now < next) return;
    next = now + everyMs;
    const text = `${schedules} schedules explored, ${Math.round((now - started) / 1000)} s`;
    process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${text}` : `${text}\n`);
  };
}
