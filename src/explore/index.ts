/** The interleaving explorer: runs protocol code itself under every schedule within a bound. */

import { type LoadOptions, loadModel } from './load.js';
import { Search, type SearchOptions, type SearchResult } from './search.js';

export type { Edit } from './edit.js';
export { label, type Model, type Mutant, model, slow, transfer, type Verdict } from './model.js';
export type { FailureKind, TraceEntry } from './outcome.js';
export { type PoolOptions, runTasks, type TaskRefusal } from './pool.js';
export { extent, formatResult } from './print.js';
export type { SearchFailure, SearchOptions, SearchProgress, SearchResult } from './search.js';

export { type Task, type TaskResult, tasksOf } from './suite.js';

/** How to search, and how to load. */
export interface ExploreOptions extends SearchOptions, LoadOptions {}

/**
 * Explores the model that `file` exports as `name` ('default'). Throws KernelError ENOENT, ENOEXEC or EINVAL when there is
 * none; a failure of the model is in the result.
 */
export async function exploreFile(file: string, options: ExploreOptions = {}, name?: string): Promise<SearchResult> {
  const { runtime, model } = await loadModel(file, name, options);
  return new Search(runtime, model, options).run();
}

/** Runs the one schedule `path`, as a failure has it. */
export async function replayFile(
  file: string,
  path: string,
  options: ExploreOptions = {},
  name?: string,
): Promise<SearchResult> {
  const { runtime, model } = await loadModel(file, name, options);
  return new Search(runtime, model, options).replay(path);
}
