import type { Edit } from './edit.js';

export { slow, transfer } from './device.js';
export { label } from './label.js';

/**
 * What is explored: a state, actors that run on it at once, and what must hold. Actors are plain functions, asynchronous ones too,
 * that call the real code; what they share they reach through `Words`.
 */
export interface Model<State> {
  readonly name: string;
  /** Makes the state; runs before each schedule, by itself. All state must come from here: schedules share nothing else. */
  setup(): State | Promise<State>;
  /** They run at once, each on a thread of its own unless `threads` says otherwise. */
  readonly actors: Readonly<Record<string, (state: State) => unknown>>;
  /** Groups of actors that share a JavaScript thread: they take turns only where they await. */
  readonly threads?: readonly (readonly string[])[];
  /** Most preemptions, where the command line or caller says nothing. Default 2. */
  readonly preemptions?: number | 'none';
  /**
   * Actors share plain objects, and not only words and arrays over shared memory: then states are not told apart, and every schedule of the
   * accesses to shared words is run.
   */
  readonly sharesObjects?: boolean;
  /** Files of unpin (ends of their paths) or folders (`mm/`) whose plain accesses are looked at for data races, besides the model's own. */
  readonly races?: readonly string[];
  /** Protections that can be taken out; then the model must fail. */
  readonly mutants?: readonly Mutant[];
  /** After each step. Throws, or returns what is wrong. */
  invariant?(state: State): Verdict;
  /** When all actors are done. Throws, or returns what is wrong. */
  check?(state: State): Verdict | Promise<Verdict>;
}

/** One protection less. */
export interface Mutant extends Partial<Edit> {
  /** Which protection is taken out. */
  readonly name: string;
  /** More than one change, in place of file, find and replace. */
  readonly edits?: readonly Edit[];
  /** What the failure's kind and message must match. */
  readonly fails?: RegExp;
  /** Where more are needed than the model has. */
  readonly preemptions?: number | 'none';
}

/** What is wrong, in words that name the invariant; `undefined` when all is well. */
export type Verdict = string | undefined;

/** For the types: `export default model({ ... })`. */
export function model<State>(description: Model<State>): Model<State> {
  return description;
}
