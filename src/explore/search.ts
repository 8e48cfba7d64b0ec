import { KernelError } from '../base/index.js';
import { Conflicts } from './memory.js';
import type { Model } from './model.js';
import { decodePath, encodePath } from './path.js';
import { type FailureKind, Run, type RunOptions, type TraceEntry } from './run.js';
import type { Runtime } from './runtime.js';

/**
 * Depth-first search over the schedules of a model, each run anew from its setup. A preemption is a switch away from an actor that
 * could have gone on; schedules with fewer of them come first, so the first failure found is among the simplest.
 *
 * Only accesses to words that two actors touch, and one of them writes, are points of choice: moving any other access past another
 * actor's steps changes nothing, so every outcome still appears (test/explore/search.test.ts compares with brute force). Which words these are is
 * learned: when a run finds a new one, the search starts again.
 */

export interface SearchOptions {
  /** Most preemptions of a schedule; 'none': no bound. Default 2. */
  readonly preemptions?: number | 'none';
  /** Steps of all actors after which a run counts as a livelock. Default 10 000. */
  readonly maxSteps?: number;
  /** 'none': every access is a point of choice (brute force). Default 'shared'. */
  readonly reduction?: 'shared' | 'none';
  /** Called now and then with the schedules explored so far. */
  readonly onProgress?: (schedules: number) => void;
  /** Called with each finished run's outcome, in test builds. */
  readonly onRun?: (run: Run) => void;
}

export interface SearchFailure {
  readonly kind: FailureKind;
  readonly message: string;
  /** The steps of all actors, in order. */
  readonly trace: readonly TraceEntry[];
  /** What `--replay` and `replayFile` take. */
  readonly path: string;
}

export interface SearchResult {
  readonly name: string;
  readonly actors: readonly string[];
  /** Schedules run, those of earlier, smaller bounds and of starts again included. */
  readonly schedules: number;
  /** Those of the last, largest bound: all different. */
  readonly distinct: number;
  /** No schedule was left out because of the bound. */
  readonly complete: boolean;
  readonly preemptions: number | 'none';
  /** Accesses to shared words in code that cannot be suspended; each ran in one step with what came before it. */
  readonly atomicSteps: number;
  readonly failure: SearchFailure | undefined;
  /** Of a replay: the steps of all actors, in order. */
  readonly trace?: readonly TraceEntry[];
}

/** A point of choice: who may go, the one that needs no preemption first. */
interface Choice {
  readonly candidates: readonly number[];
  /** Preemptions before it. */
  readonly preemptions: number;
  /** Whether candidates after the first are preemptions. */
  readonly preempts: boolean;
  at: number;
}

export class Search {
  private readonly runtime: Runtime;
  private readonly model: Model<unknown>;
  private readonly options: SearchOptions;
  private readonly runOptions: RunOptions;
  private stack: Choice[] = [];
  private bound = 0;
  private cut = false;
  private schedules = 0;
  private distinct = 0;
  private atomicSteps = 0;

  constructor(runtime: Runtime, model: Model<unknown>, options: SearchOptions = {}) {
    checkModel(model);
    this.runtime = runtime;
    this.model = model;
    this.options = options;
    this.runOptions = {
      maxSteps: options.maxSteps ?? 10_000,
      conflicts: options.reduction === 'none' ? undefined : new Conflicts(),
    };
  }

  /** Explores until the first failure, or to the end. */
  run(): SearchResult {
    const { preemptions = 2 } = this.options;
    const last = preemptions === 'none' ? Number.POSITIVE_INFINITY : preemptions;
    let failed: Run | undefined;
    this.bound = preemptions === 'none' ? last : 0;
    for (; failed === undefined && this.bound <= last; this.bound++) {
      this.cut = false;
      failed = this.searchWithinBound();
      if (!this.cut) break;
    }
    return this.result(failed, preemptions);
  }

  private result(failed: Run | undefined, preemptions: number | 'none'): SearchResult {
    const { schedules, distinct, atomicSteps, model } = this;
    const actors = Object.keys(model.actors);
    const failure = failed === undefined ? undefined : this.replay(encodePath(failed.order)).failure;
    const complete = failed === undefined && !this.cut;
    return { name: model.name, actors, schedules, distinct, complete, preemptions, atomicSteps, failure };
  }

  private searchWithinBound(): Run | undefined {
    this.stack = [];
    this.distinct = 0;
    for (;;) {
      const run = this.runOnce();
      this.atomicSteps += run.atomicSteps;
      if (++this.schedules % 64 === 0) this.options.onProgress?.(this.schedules);
      this.options.onRun?.(run);
      if (run.failure !== undefined) return run;
      if (run.conflictsGrew) {
        this.stack = [];
        this.distinct = 0;
        continue;
      }
      this.distinct++;
      if (!this.backtrack()) return undefined;
    }
  }

  /** To the deepest choice that has an alternative left. */
  private backtrack(): boolean {
    for (let choice = this.stack.pop(); choice !== undefined; choice = this.stack.pop()) {
      if (choice.at + 1 >= choice.candidates.length) continue;
      if (choice.preempts && choice.preemptions >= this.bound) {
        this.cut = true;
        continue;
      }
      choice.at++;
      this.stack.push(choice);
      return true;
    }
    return false;
  }

  private runOnce(): Run {
    const run = new Run(this.runtime, this.model, this.runOptions);
    const nrDecided = this.stack.length;
    let depth = 0;
    let last = -1;
    let preemptions = 0;
    for (;;) {
      run.settle();
      run.checkInvariant();
      const enabled = run.enabled();
      if (enabled.length === 0 || run.failure !== undefined) break;
      const choice = (this.stack[depth] ??= chooseFirst(enabled, last, preemptions));
      depth++;
      if (choice.at > 0 && choice.preempts) preemptions++;
      if (enabled.length !== choice.candidates.length || !enabled.every((actor) => choice.candidates.includes(actor)))
        throw notDeterministic(this.model);
      last = choice.candidates[choice.at]!;
      run.advance(last);
    }
    if (depth < nrDecided) throw notDeterministic(this.model);
    run.finish();
    return run;
  }

  /** Runs one schedule and keeps its trace. Throws KernelError EINVAL when the path does not fit the model. */
  replay(path: string): SearchResult {
    const options = { ...this.runOptions, conflicts: new Conflicts() };
    // Once to learn which words are shared, once to tell the steps on them from the others.
    this.follow(path, new Run(this.runtime, this.model, options));
    const run = new Run(this.runtime, this.model, options);
    run.trace = [];
    this.follow(path, run);
    const { failure, trace, atomicSteps } = run;
    return {
      name: this.model.name,
      actors: run.actors.map((actor) => actor.name),
      schedules: 1,
      distinct: 1,
      complete: false,
      preemptions: this.options.preemptions ?? 2,
      atomicSteps,
      failure: failure && { ...failure, trace, path: encodePath(run.order) },
      trace,
    };
  }

  private follow(path: string, run: Run): void {
    const order = decodePath(path, run.actors.length);
    run.stepwise = true;
    let last = -1;
    for (let i = 0; run.failure === undefined; i++) {
      const enabled = run.enabled();
      if (enabled.length === 0) break;
      if (i < order.length && !enabled.includes(order[i]!)) throw badPath(path, i, run);
      last = order[i] ?? (enabled.includes(last) ? last : enabled[0]!);
      run.advance(last);
      run.checkInvariant();
    }
    run.finish();
  }
}

/** To go on with the same actor is no preemption, nor is a switch where it is stuck or done. */
function chooseFirst(enabled: readonly number[], last: number, preemptions: number): Choice {
  const preempts = enabled.includes(last);
  const candidates = preempts ? [last, ...enabled.filter((actor) => actor !== last)] : enabled;
  return { candidates, preemptions, preempts, at: 0 };
}

function notDeterministic(model: Model<unknown>): KernelError {
  const what = 'must do the same in each run: no time, no chance, all state made in setup';
  return new KernelError('EINVAL', 'explore', `model '${model.name}' ${what}`);
}

function badPath(path: string, at: number, run: Run): KernelError {
  const ready = run
    .enabled()
    .map((i) => String.fromCharCode(97 + i))
    .join(' or ');
  return new KernelError(
    'EINVAL',
    'replay',
    `path '${path}' must fit the model: step ${at + 1} must be one of ${ready}`,
  );
}

function checkModel(model: Model<unknown>): void {
  const names = Object.keys(model.actors);
  if (names.length < 1 || names.length > 26)
    throw new KernelError(
      'EINVAL',
      'explore',
      `model '${model.name}' has ${names.length} actors; it must have 1 to 26`,
    );
  for (const name of model.threads?.flat() ?? []) {
    if (!names.includes(name))
      throw new KernelError(
        'EINVAL',
        'explore',
        `threads of '${model.name}' name '${name}', which must be one of ${names.join(', ')}`,
      );
  }
}
