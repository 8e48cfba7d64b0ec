import { KernelError } from '../base/index.js';
import { isModel, loadExports, loadModel } from './load.js';
import type { Model, Mutant } from './model.js';
import { Search, type SearchOptions, type SearchResult } from './search.js';

/**
 * Models by the file: which models a file has, each explored as it is, and each with one protection less, where it must fail.
 */

/** One thing to be explored. */
export interface Task {
  readonly file: string;
  /** The export that is the model. */
  readonly model: string;
  readonly name: string;
  /** The protection to be taken out; undefined: the model as it is. */
  readonly mutant?: Mutant;
}

export interface TaskResult {
  readonly task: Task;
  /** What is explored: the model's name. */
  readonly name: string;
  /** The protection that was taken out. */
  readonly mutant?: string;
  readonly result: SearchResult;
  /** It held; or, for a mutant, it failed as it must. */
  readonly ok: boolean;
  /** Why not, for a mutant. */
  readonly why?: string;
  readonly seconds: number;
}

/** All models that the file exports. Throws KernelError EINVAL when there is none. */
export async function tasksOf(file: string, mutants: boolean): Promise<Task[]> {
  const { exports } = await loadExports(file);
  const models = Object.entries(exports).filter((entry): entry is [string, Model<unknown>] => isModel(entry[1]));
  if (models.length === 0) throw new KernelError('EINVAL', 'explore', `${file} must export a model at least`);
  return models.flatMap(([model, { name, mutants: list = [] }]) =>
    mutants
      ? list.map((mutant) => ({ file, model, name: `${name}: ${mutant.name}`, mutant }))
      : [{ file, model, name }],
  );
}

/** `atMost`: preemptions that a schedule may have, where the model's own bound is higher. */
export async function runTask(
  task: Task,
  { atMost, ...options }: SearchOptions & { readonly atMost?: number },
): Promise<TaskResult> {
  const started = performance.now();
  const { file, model, mutant } = task;
  const edits = mutant === undefined ? [] : editsOf(mutant);
  const { runtime, model: what } = await loadModel(file, model, { edits, reuse: true });
  const bound = mutant?.preemptions === undefined ? lowered(what, atMost) : { preemptions: mutant.preemptions };
  const result = new Search(runtime, what, { ...bound, ...options }).run();
  const seconds = (performance.now() - started) / 1000;
  if (mutant === undefined) return { task, name: what.name, result, ok: result.failure === undefined, seconds };
  return { task, name: what.name, mutant: mutant.name, result, seconds, ...verdict(mutant, result) };
}

function lowered({ preemptions = 2 }: Pick<Model<unknown>, 'preemptions'>, atMost: number | undefined): SearchOptions {
  if (atMost === undefined || (preemptions !== 'none' && preemptions <= atMost)) return {};
  return { preemptions: atMost };
}

/** Throws KernelError EINVAL for a mutant that changes nothing. */
export function editsOf(mutant: Mutant) {
  const { file, find, replace, edits } = mutant;
  if (edits !== undefined) return edits;
  if (file === undefined || find === undefined || replace === undefined)
    throw new KernelError('EINVAL', 'explore', `mutant '${mutant.name}' must have file, find and replace, or edits`);
  return [{ file, find, replace }];
}

function verdict({ fails }: Mutant, { failure }: SearchResult): { ok: boolean; why?: string } {
  if (failure === undefined) return { ok: false, why: 'it was not found' };
  const found = `${failure.kind}: ${failure.message}`;
  if (fails === undefined || fails.test(found)) return { ok: true };
  return { ok: false, why: `it failed otherwise: ${found}` };
}
