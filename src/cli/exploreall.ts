import fs from 'node:fs';
import path from 'node:path';
import { KernelError } from '../base/index.js';
import {
  formatResult,
  runTasks,
  type SearchOptions,
  type Task,
  type TaskRefusal,
  type TaskResult,
  tasksOf,
} from '../explore/index.js';
import { ExploreProgress } from './exploreprogress.js';
import { OutputFile } from './files.js';
import { table } from './table.js';

/** `unpin explore --all` and `--mutants`: many models side by side, a table, and one line that says it all. */

export interface SuiteOptions {
  readonly search: SearchOptions;
  /** Take each protection out, one at a time, instead of running the models as they are. */
  readonly mutants: boolean;
  /** Only the export of this name. */
  readonly model: string | undefined;
  readonly workers: number | undefined;
  readonly json: string | undefined;
}

type Done = TaskResult | TaskRefusal;

/** Files with models below a folder. Throws KernelError ENOENT. */
export function modelFiles(folder: string): string[] {
  if (!fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory())
    throw new KernelError('ENOENT', 'explore', `${folder} must be a folder of models`);
  const files = fs.readdirSync(folder, { recursive: true, withFileTypes: true });
  return files
    .filter((entry) => entry.isFile() && /\.[mc]?[jt]s$/.test(entry.name))
    .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

/** Returns the exit code: 0 when every model held, or every mutant was found. */
export async function exploreSuite(files: readonly string[], options: SuiteOptions): Promise<number> {
  const json = options.json === undefined ? undefined : new OutputFile('--json', options.json);
  try {
    const started = performance.now();
    const done = await run(await allTasks(files, options), options);
    const seconds = (performance.now() - started) / 1000;
    process.stdout.write(options.mutants ? mutantReport(done, seconds) : modelReport(done, seconds));
    json?.write(`${JSON.stringify({ mutants: options.mutants, seconds, models: done.map(plain) }, undefined, 2)}\n`);
    return done.every(isOk) ? 0 : 1;
  } catch (error) {
    json?.discard();
    throw error;
  }
}

async function allTasks(files: readonly string[], { mutants, model }: SuiteOptions): Promise<Task[]> {
  const tasks: Task[] = [];
  for (const file of files) tasks.push(...(await tasksOf(file, mutants)));
  const chosen = tasks.filter((task) => model === undefined || task.model === model);
  if (chosen.length > 0) return chosen;
  const what = mutants ? 'name at least one mutant' : 'export at least one model';
  throw new KernelError('EINVAL', 'explore', `${files.join(', ') || 'the folder'} must ${what}`);
}

async function run(tasks: readonly Task[], { search, workers }: SuiteOptions): Promise<Done[]> {
  const progress = new ExploreProgress();
  let nrDone = 0;
  const done = await runTasks(tasks, {
    search,
    ...(workers === undefined ? {} : { nrWorkers: workers }),
    onDone: () => void nrDone++,
    onProgress: (schedules) => progress.tell(() => `${nrDone} of ${tasks.length} done, ${schedules} schedules`),
  });
  progress.clear();
  return done;
}

const isOk = (done: Done): boolean => 'result' in done && done.ok;

function modelReport(done: readonly Done[], seconds: number): string {
  const head = ['model', 'schedules', 'states', 'bound', 'exhausted', 'seconds'];
  const failures = done.filter((one) => !isOk(one)).map(describeFailure);
  const schedules = done.reduce((sum, one) => sum + ('result' in one ? one.result.distinct : 0), 0);
  const states = done.reduce((sum, one) => sum + ('result' in one ? one.result.states : 0), 0);
  const covered = `${schedules} schedules through ${states} states`;
  const summary =
    failures.length === 0
      ? `all ${done.length} models held: ${covered}, ${seconds.toFixed(1)} s`
      : `${failures.length} of ${done.length} models failed: ${covered}, ${seconds.toFixed(1)} s`;
  return `${table([head, ...done.map(modelRow)])}\n\n${failures.map((text) => `${text}\n`).join('')}${summary}\n`;
}

function modelRow(done: Done): string[] {
  if ('refusal' in done) return [done.task.name, '-', '-', '-', 'refused', '-'];
  const { name, result, seconds } = done;
  const { distinct, states, preemptions, exhausted, complete, failure } = result;
  const bound = complete ? 'all' : String(preemptions);
  const how = failure !== undefined ? 'FAILED' : exhausted ? 'yes' : 'no';
  return [name, String(distinct), String(states), bound, how, seconds.toFixed(1)];
}

function describeFailure(done: Done): string {
  if ('refusal' in done) return `${done.task.name}: ${done.refusal}\n`;
  const { file, model } = done.task;
  const replay = `unpin explore ${file}${model === 'default' ? '' : ` --model ${model}`} --replay ${done.result.failure!.path}`;
  return `${formatResult(done.result)}\nreplay: ${replay}\n`;
}

function mutantReport(done: readonly Done[], seconds: number): string {
  const head = ['protection taken out', 'found as', 'schedules', 'preemptions', 'path'];
  const alive = done.filter((one) => !isOk(one));
  const models = new Set(done.map(({ task }) => `${task.file} ${task.model}`)).size;
  const summary =
    alive.length === 0
      ? `all ${done.length} mutants of ${models} models were found, ${seconds.toFixed(1)} s`
      : `${alive.length} of ${done.length} mutants left alive, ${seconds.toFixed(1)} s`;
  const reasons = alive.map((one) => `${one.task.name}: ${'refusal' in one ? one.refusal : one.why}\n`);
  return `${table([head, ...done.map(mutantRow)])}\n\n${reasons.join('')}${summary}\n`;
}

function mutantRow(done: Done): string[] {
  if ('refusal' in done) return [done.task.name, 'REFUSED', '-', '-', '-'];
  const { task, result, ok } = done;
  const { failure, schedules, failurePreemptions } = result;
  if (failure === undefined) return [task.name, 'NOT FOUND', String(schedules), '-', '-'];
  return [task.name, ok ? failure.kind : 'OTHERWISE', String(schedules), String(failurePreemptions), failure.path];
}

/** For the JSON: no traces. */
function plain(done: Done) {
  const { file, model } = done.task;
  if ('refusal' in done) return { file, model, name: done.task.name, ok: false, refusal: done.refusal };
  const { name, mutant, ok, why, seconds, result } = done;
  const { schedules, distinct, states, exhausted, complete, preemptions, walks, failure, failurePreemptions } = result;
  const found = failure && {
    kind: failure.kind,
    message: failure.message,
    path: failure.path,
    preemptions: failurePreemptions,
  };
  const counts = { schedules, distinct, states, exhausted, complete, preemptions, walks };
  return { file, model, name, mutant, ok, why, seconds, ...counts, failure: found };
}
