import { Command, InvalidArgumentError, Option } from 'commander';
import { KernelError } from '../base/index.js';
import {
  type ExploreOptions as ExploreFileOptions,
  exploreFile,
  formatResult,
  replayFile,
  type SearchOptions,
  type SearchResult,
} from '../explore/index.js';
import { parseCount } from './args.js';
import { exploreSuite, modelFiles } from './exploreall.js';
import { ExploreProgress } from './exploreprogress.js';

/** `unpin explore`: every schedule of a model, within a bound on preemptions. Exit code 1 when one fails. */

interface ExploreOptions {
  preemptions?: number | 'none';
  steps: number;
  random: number;
  pct: number;
  depth: number;
  seed: number;
  model?: string;
  races?: string[];
  replay?: string;
  all?: boolean | string;
  mutants?: boolean;
  workers?: number;
  json?: string;
}

const EXIT_FAILURE = 1;
const MODELS = 'test/explore/models';

export function exploreCommand(): Command {
  return new Command('explore')
    .description('run the actors of a model under every schedule and find the one that fails')
    .argument('[file]', 'TypeScript or JavaScript file whose default export is a model (docs/explore.md)')
    .addOption(
      new Option(
        '--preemptions <n>',
        "most preemptions of a schedule, or none for no bound (default: the model's, or 2)",
      ).argParser((text) => (text === 'none' ? text : parsePreemptions(text))),
    )
    .addOption(count('--steps <n>', 'steps after which a schedule counts as a livelock', 1, 1e9, 10_000))
    .addOption(count('--random <n>', 'random schedules to run beyond the bound', 0, 1e9, 0))
    .addOption(count('--pct <n>', 'schedules by random priorities (PCT) to run beyond the bound', 0, 1e9, 0))
    .addOption(count('--depth <n>', 'ordering constraints of a bug that --pct looks for', 1, 20, 3))
    .addOption(count('--seed <n>', 'seed of the first random schedule', 0, 2 ** 31 - 1, 1))
    .option('--races <files...>', 'files of unpin whose plain accesses are looked at for data races too')
    .option('--model <name>', 'the export that is the model (default: default)')
    .option('--replay <path>', 'run one schedule, as a failure prints it')
    .option('--all [folder]', `explore every model below a folder (default: ${MODELS})`)
    .option('--mutants', 'take each protection out that the models name: every one must be missed')
    .addOption(
      new Option('--workers <n>', 'threads, with --all or --mutants (default: one a processor)').argParser(
        parseCount(1, 256),
      ),
    )
    .option('--json <file>', 'write the results there, with --all or --mutants')
    .action(async (file: string | undefined, options: ExploreOptions, command: Command) => {
      if (file === undefined && !options.all && !options.mutants) command.error("missing required argument 'file'");
      process.exitCode = await explore(file, options);
    });
}

function count(flags: string, what: string, min: number, max: number, otherwise: number): Option {
  return new Option(flags, what).argParser(parseCount(min, max)).default(otherwise);
}

function parsePreemptions(text: string): number {
  if (!/^\d{1,3}$/.test(text)) throw new InvalidArgumentError(`'${text}' must be a whole number, or none.`);
  return Number(text);
}

function searchOptions({ preemptions, steps: maxSteps, random, pct, depth, seed }: ExploreOptions): SearchOptions {
  return { maxSteps, random, pct, depth, seed, ...(preemptions === undefined ? {} : { preemptions }) };
}

function explore(file: string | undefined, options: ExploreOptions): Promise<number> {
  const { all, mutants = false, model, workers, json } = options;
  if (!all && !mutants) return exploreOne(file!, options);
  if (file !== undefined && all) throw new KernelError('EINVAL', 'explore', `name a file or --all, not both: ${file}`);
  const files = file === undefined ? modelFiles(typeof all === 'string' ? all : MODELS) : [file];
  return exploreSuite(files, { search: searchOptions(options), mutants, model, workers, json });
}

async function exploreOne(file: string, options: ExploreOptions): Promise<number> {
  const { model, replay, races, json } = options;
  if (json !== undefined) throw new KernelError('EINVAL', 'explore', '--json goes with --all or --mutants');
  const progress = new ExploreProgress();
  const search: ExploreFileOptions = {
    ...searchOptions(options),
    ...(races === undefined ? {} : { races }),
    onProgress: ({ schedules, states, preemptions }) =>
      progress.tell(() => `${schedules} schedules, ${states} states, ${preemptions} preemptions`),
  };
  const result =
    replay === undefined ? await exploreFile(file, search, model) : await replayFile(file, replay, search, model);
  progress.clear();
  process.stdout.write(formatResult(result));
  if (result.atomicSteps > 0) process.stdout.write(atomicNote(result));
  if (result.failure === undefined) return 0;
  if (replay === undefined) process.stdout.write(replayNote(file, model, result));
  return EXIT_FAILURE;
}

function replayNote(file: string, model: string | undefined, { failure, failureSeed }: SearchResult): string {
  const replay = `replay: unpin explore ${file}${model ? ` --model ${model}` : ''} --replay ${failure!.path}\n`;
  return `\n${failureSeed === undefined ? '' : `found by the random schedule of seed ${failureSeed}\n`}${replay}`;
}

function atomicNote({ atomicSteps }: SearchResult): string {
  const where = 'in getters, constructors, generators or callbacks of natives, which cannot be held up';
  return `note: shared words were touched ${atomicSteps} times ${where}\n`;
}
