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
  /** After each step. Throws, or returns what is wrong. */
  invariant?(state: State): Verdict;
  /** When all actors are done. Throws, or returns what is wrong. */
  check?(state: State): Verdict | Promise<Verdict>;
}

/** What is wrong, in words that name the invariant; `undefined` when all is well. */
export type Verdict = string | undefined;

/** For the types: `export default model({ ... })`. */
export function model<State>(description: Model<State>): Model<State> {
  return description;
}
