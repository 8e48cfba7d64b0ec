import { KernelError } from '../base/index.js';
import { FIRST_PAIR } from './causality.js';
import { checkModel } from './checkmodel.js';
import { LivelockWatch } from './livelock.js';
import { Conflicts } from './memory.js';
import { minimise } from './minimise.js';
import type { Model } from './model.js';
import type { FailureKind, TraceEntry } from './outcome.js';
import { PairTable } from './pairs.js';
import { decodePath, encodePath, letterOf } from './path.js';
import { Run } from './run.js';
import type { RunOptions } from './runperformer.js';
import type { Runtime } from './runtime.js';
import { Visits } from './visits.js';
import { randomWalks, type Walks } from './walks.js';

/**
 * Search over the schedules of a model, each run anew from its setup. A preemption is a switch away from an actor that could have gone
 * on; all schedules with none come first, then those with one, and so on up to the bound: the first failure has the fewest.
 *
 * What is left out, and why nothing is lost:
 *
 * - Only accesses to words that two actors touch, and one of them writes, are points of choice: moving any other access past another
 *   actor's steps changes nothing. Which words these are is learned: when a run finds a new one, the search starts again.
 * - A run that comes to a state in which the search has been, with as few preemptions and the same actor at work, ends there: its futures are
 *   known. States are told apart by the happens-before order of all that led to them (causality.ts), which is exact: runs that differ only in the
 *   order of independent steps meet, and no two others do. One preemption may buy another actor at work (`Visits`).
 *
 * Every state that some schedule within the bound reaches is visited, so invariants and the final check see what they would see without the
 * reduction. test/explore/reduction.test.ts compares with brute force.
 */

export interface SearchOptions {
  /** Most preemptions of a schedule; 'none': no bound. Default 2. */
  readonly preemptions?: number | 'none';
  /** Steps of all actors after which a run counts as a livelock. Default 10 000. */
  readonly maxSteps?: number;
  /** 'none': every access is a point of choice (brute force); 'words': those to shared words are; 'states': also no state twice. Default 'states'. */
  readonly reduction?: 'states' | 'words' | 'none';
  /** Schedules to choose at random when all within the bound have held. Default 0. */
  readonly random?: number;
  /** Schedules by random priorities (PCT), which find any bug of `depth` ordering constraints with a known chance. Default 0. */
  readonly pct?: number;
  readonly depth?: number;
  /** Of the first random schedule; the others count up from it. Default 1. */
  readonly seed?: number;
  /** Called now and then. */
  readonly onProgress?: (progress: SearchProgress) => void;
  /** Called with each finished run, failed ones included. */
  readonly onRun?: (run: Run) => void;
  /** Go on after a failure: for those who count them in `onRun`. */
  readonly goOn?: boolean;
}

export interface SearchProgress {
  readonly schedules: number;
  readonly states: number;
  /** Preemptions of the schedules that are being run. */
  readonly preemptions: number;
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
  /** Schedules run, those of starts again and those that ended in a known state included. */
  readonly schedules: number;
  /** Those that went to their end, since the last start. */
  readonly distinct: number;
  /** States visited: points of choice and ends; 0 without that reduction. */
  readonly states: number;
  /** Every state of every schedule within the bound was visited. */
  readonly exhausted: boolean;
  /** No schedule was left out because of the bound. */
  readonly complete: boolean;
  readonly preemptions: number | 'none';
  /** Random schedules that held. */
  readonly walks: number;
  /** Accesses to shared words in code that cannot be suspended; each ran in one step with what came before it. */
  readonly atomicSteps: number;
  readonly failure: SearchFailure | undefined;
  /** Preemptions of the failing schedule. */
  readonly failurePreemptions?: number;
  /** Of the random schedule that failed, before it was made simpler. */
  readonly failureSeed?: number;
  /** Of a replay: the steps of all actors, in order. */
  readonly trace?: readonly TraceEntry[];
}

/** The choices that led to a point of choice, from the last back to the first. */
interface Chain {
  readonly before: Chain | undefined;
  readonly choice: number;
}

/** A schedule to be run: its first choices; then it goes on without preemption. */
interface Item {
  readonly chain: Chain | undefined;
  /** The state to which it leads, or 0. */
  readonly key: number;
}

export class Search {
  readonly runtime: Runtime;
  readonly model: Model<unknown>;
  readonly options: SearchOptions;
  readonly conflicts = new Conflicts();
  readonly watch: LivelockWatch;
  private readonly preemptions: number | 'none';
  private readonly reduction: 'states' | 'words' | 'none';
  private pairs = new PairTable(FIRST_PAIR);
  private visits = new Visits();
  private work: Item[] = [];
  private later: Item[] = [];
  private level = 0;
  private schedules = 0;
  private distinct = 0;
  private atomicSteps = 0;
  private exhausted = false;
  /** Steps of the first schedule since the start. */
  private firstOrder: readonly number[] | undefined;

  constructor(runtime: Runtime, model: Model<unknown>, options: SearchOptions = {}) {
    checkModel(model);
    this.runtime = runtime;
    this.model = model;
    this.options = options;
    this.preemptions = options.preemptions ?? model.preemptions ?? 2;
    this.reduction = options.reduction ?? (model.sharesObjects ? 'words' : 'states');
    this.watch = new LivelockWatch(runtime, () => this.newRun());
  }

  /** A run with what is known of shared words; `pairs` for one whose states are told apart. */
  newRun(pairs?: PairTable): Run {
    const { options, conflicts } = this;
    const runOptions: RunOptions = {
      maxSteps: options.maxSteps ?? 10_000,
      conflicts,
      everyStep: this.reduction === 'none',
      pairs,
    };
    return new Run(this.runtime, this.model, runOptions);
  }

  /** Explores until the first failure, or to the end. */
  run(): SearchResult {
    const { preemptions } = this;
    const bound = preemptions === 'none' ? Number.POSITIVE_INFINITY : preemptions;
    const failed = this.searchWithin(bound);
    if (failed !== undefined) return { ...this.result(0, false), ...this.failureOf(failed) };
    this.checkSame();
    this.exhausted = true;
    const complete = this.later.length === 0;
    this.later = [];
    const { held, failed: walk, seed }: Walks = complete ? { held: 0 } : randomWalks(this, this.options);
    const result = this.result(held, complete);
    return walk === undefined ? result : { ...result, ...this.failureOf(walk), failureSeed: seed! };
  }

  private result(walks: number, complete: boolean): SearchResult {
    const { schedules, distinct, atomicSteps, model } = this;
    return {
      name: model.name,
      actors: Object.keys(model.actors),
      schedules: schedules + walks,
      distinct,
      states: this.visits.size,
      exhausted: this.exhausted,
      complete,
      preemptions: this.preemptions,
      walks,
      atomicSteps,
      failure: undefined,
    };
  }

  private failureOf(failed: Run): { failure: SearchFailure; failurePreemptions: number } {
    const run = minimise(this, failed);
    const { failure } = new Search(this.runtime, this.model, this.options).replay(encodePath(run.order));
    if (failure === undefined) throw notDeterministic(this.model);
    return { failure, failurePreemptions: run.preemptions };
  }

  /** All schedules with so many preemptions at most. Returns the run that failed. */
  private searchWithin(bound: number): Run | undefined {
    this.restart();
    for (;;) {
      const item = this.work.pop();
      if (item === undefined) {
        if (this.later.length === 0 || this.level >= bound) return undefined;
        this.work = this.later.reverse();
        this.later = [];
        this.level++;
        continue;
      }
      if (item.chain && this.visits.isKnown(item.key, item.chain.choice, this.level)) continue;
      const run = this.runItem(item.chain);
      if (run.conflictsGrew) this.restart();
      else if (run.failure !== undefined && !this.options.goOn) return run;
    }
  }

  /** The first schedule once more: it must come out as it did. */
  private checkSame(): void {
    const { work, later, visits, firstOrder } = this;
    [this.work, this.later, this.visits] = [[], [], new Visits()];
    const { order } = this.runItem(undefined);
    if (order.join() !== firstOrder?.join()) throw notDeterministic(this.model);
    [this.work, this.later, this.visits] = [work, later, visits];
    this.distinct--;
  }

  private restart(): void {
    this.pairs = new PairTable(FIRST_PAIR);
    this.visits = new Visits();
    this.work = [{ chain: undefined, key: 0 }];
    this.later = [];
    this.level = 0;
    this.distinct = 0;
    this.firstOrder = undefined;
  }

  private runItem(chain: Chain | undefined): Run {
    const run = this.newRun(this.reduction === 'states' ? this.pairs : undefined);
    this.watch.follow(run);
    this.follow(run, chain);
    if (this.extend(run, chain)) {
      run.finish();
      this.distinct++;
      this.options.onRun?.(run);
    }
    this.firstOrder ??= run.order;
    this.atomicSteps += run.atomicSteps;
    if (++this.schedules % 64 === 0) this.tellProgress();
    return run;
  }

  tellProgress(walks = 0): void {
    const { schedules, visits, level } = this;
    this.options.onProgress?.({ schedules: schedules + walks, states: visits.size, preemptions: level });
  }

  /** Makes the choices of `chain`, or as many as there are before a failure or a new shared word. */
  private follow(run: Run, chain: Chain | undefined): void {
    for (const choice of choicesOf(chain)) {
      run.settle();
      if (run.failure !== undefined || run.conflictsGrew) return;
      if (!run.enabled().includes(choice)) throw notDeterministic(this.model);
      run.choose(choice);
    }
  }

  /** Goes on without preemption; what else could be done at each point is left for later. False: it came to a known state, or to a new shared word. */
  private extend(run: Run, chain: Chain | undefined): boolean {
    for (;;) {
      run.settle();
      run.checkInvariant();
      this.watch.check(run);
      if (run.conflictsGrew) return false;
      if (run.failure !== undefined) return true;
      const holder = run.holder();
      const key = run.ledger.causality === undefined ? 0 : run.stateKey();
      if (run.ledger.causality !== undefined && !this.visits.enter(key, holder, this.level)) return false;
      const choice = this.branch(run, holder, chain);
      if (choice < 0) return true;
      chain = { before: chain, choice };
      run.choose(choice);
    }
  }

  /** The choice to go on with; the others become items. -1: nobody can go on. */
  private branch(run: Run, holder: number, chain: Chain | undefined): number {
    const enabled = run.enabled();
    let first = -1;
    for (const who of enabled) {
      const cost = run.costOf(who, holder);
      if (cost === 0 && (first < 0 || who === holder)) first = who;
    }
    if (first < 0) first = enabled[0] ?? -1;
    for (let i = enabled.length - 1; i >= 0; i--) {
      const who = enabled[i]!;
      if (who === first) continue;
      const cost = run.costOf(who, holder);
      const key = run.ledger.causality === undefined ? 0 : run.peekKey(who);
      if (this.visits.isKnown(key, who, this.level + cost)) continue;
      const item = { chain: { before: chain, choice: who }, key };
      (cost === 0 ? this.work : this.later).push(item);
    }
    return first;
  }

  /** Runs one schedule and keeps its trace. Throws KernelError EINVAL when the path does not fit the model. */
  replay(path: string): SearchResult {
    const { actors } = this.model;
    const order = decodePath(path, Object.keys(actors).length);
    // Until it is known which words are shared, to tell the steps on them from the others.
    for (let run = this.newRun(); ; run = this.newRun()) {
      this.followOrder(run, order, path);
      if (!run.conflictsGrew) break;
    }
    this.runtime.tracing = true;
    const run = this.newRun();
    run.trace = [];
    this.followOrder(run, order, path);
    this.runtime.tracing = false;
    const { failure, trace, atomicSteps } = run;
    return {
      ...this.result(0, false),
      schedules: 1,
      distinct: 1,
      atomicSteps,
      failure: failure && { ...failure, trace, path: encodePath(run.order) },
      trace,
    };
  }

  private followOrder(run: Run, order: readonly number[], path: string): void {
    run.stepwise = true;
    this.watch.follow(run);
    for (let i = 0; run.failure === undefined; i++) {
      const enabled = run.enabled();
      if (enabled.length === 0) break;
      if (i < order.length && !enabled.includes(order[i]!)) throw badPath(path, i, run);
      run.choose(order[i] ?? (enabled.includes(run.last) ? run.last : enabled[0]!));
      run.checkInvariant();
      if (i + 1 === order.length) this.watch.check(run);
    }
    run.finish();
  }
}

function choicesOf(chain: Chain | undefined): number[] {
  const choices: number[] = [];
  for (let at = chain; at !== undefined; at = at.before) choices.push(at.choice);
  return choices.reverse();
}

export function notDeterministic(model: Model<unknown>): KernelError {
  const what = 'must do the same in each run: no time, no chance, all state made in setup';
  return new KernelError('EINVAL', 'explore', `model '${model.name}' ${what}`);
}

function badPath(path: string, at: number, run: Run): KernelError {
  const ready = run.enabled().map(letterOf).join(' or ');
  return new KernelError(
    'EINVAL',
    'replay',
    `path '${path}' must fit the model: step ${at + 1} must be one of ${ready}`,
  );
}
