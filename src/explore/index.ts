/** The interleaving explorer: runs protocol code itself under every schedule within a bound. */

import { loadModel } from './load.js';
import { Search, type SearchOptions, type SearchResult } from './search.js';

export type { Edit } from './edit.js';
export { label, type Model, type Mutant, model, slow, transfer, type Verdict } from './model.js';
export { formatResult } from './print.js';
export type { FailureKind, TraceEntry } from './run.js';
export type { SearchFailure, SearchOptions, SearchProgress, SearchResult } from './search.js';

/**
 * Explores the model that `file` exports as `name` ('default'). Throws KernelError ENOENT, ENOEXEC or EINVAL when there is
 * none; a failure of the model is in the result.
 */
export async function exploreFile(file: string, options: SearchOptions = {}, name?: string): Promise<SearchResult> {
  const { runtime, model } = await loadModel(file, name);
  return new Search(runtime, model, options).run();
}

/** Runs the one schedule `path`, as a failure has it. */
export async function replayFile(
  file: string,
  path: string,
  options: SearchOptions = {},
  name?: string,
): Promise<SearchResult> {
  const { runtime, model } = await loadModel(file, name);
  return new Search(runtime, model, options).replay(path);
}
