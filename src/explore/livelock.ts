import type { Actor } from './actor.js';
import type { Run } from './run.js';
import type { Runtime } from './runtime.js';

/**
 * Finds livelocks under a fair schedule: where an actor looks again (cpuRelax), all words and all that actors stand before are as they were
 * at an earlier time, and since then everyone who could run has run and has come to look again. What went round once goes round for ever,
 * unless a plain variable counts the rounds; so the cycle is run a hundred times more, by itself, before it is called a livelock.
 */

const ROUNDS = 100;
/** Of one search: those that ended after all are few. */
const MAX_TRIALS = 50;

interface Moment {
  readonly nrSteps: number;
  readonly relaxes: readonly number[];
}

export class LivelockWatch {
  private readonly runtime: Runtime;
  private readonly newRun: () => Run;
  private seen = new Map<string, Moment>();
  private suspect: Moment | undefined;
  private trials = 0;

  constructor(runtime: Runtime, newRun: () => Run) {
    this.runtime = runtime;
    this.newRun = newRun;
  }

  follow(run: Run): void {
    this.seen = new Map();
    this.suspect = undefined;
    run.onRelax = () => this.note(run);
  }

  private note(run: Run): void {
    const state = momentOf(run);
    const before = this.seen.get(state);
    if (before === undefined) {
      this.seen.set(state, { nrSteps: run.order.length, relaxes: run.actors.map(({ relaxes }) => relaxes) });
    } else if (isFair(run, before)) this.suspect = before;
  }

  /** After a choice: fails the run when it has come round. */
  check(run: Run): void {
    const { suspect } = this;
    if (suspect === undefined || run.failure !== undefined) return;
    this.suspect = undefined;
    if (this.trials >= MAX_TRIALS) return;
    const nrSteps = run.order.length - suspect.nrSteps;
    const names = run.actors.filter((actor, i) => actor.relaxes > suspect.relaxes[i]!).map(({ name }) => name);
    if (this.goesRound(run.order, suspect.nrSteps))
      run.fail('livelock', `${names.join(' and ')} come back to the same state every ${nrSteps} steps, for ever`);
    else this.trials++;
    this.runtime.performer = run;
  }

  private goesRound(order: readonly number[], from: number): boolean {
    const run = this.newRun();
    run.stepwise = true;
    if (!order.every((who) => step(run, who))) return false;
    const state = momentOf(run);
    const cycle = order.slice(from);
    for (let round = 0; round < ROUNDS; round++) {
      if (!cycle.every((who) => step(run, who)) || momentOf(run) !== state) return false;
    }
    return true;
  }
}

function step(run: Run, who: number): boolean {
  if (run.failure !== undefined || !run.enabled().includes(who)) return false;
  run.choose(who);
  return true;
}

function momentOf(run: Run): string {
  const { hashLow, hashHigh } = run.ledger.memory;
  return `${hashLow} ${hashHigh} ${run.actors.map((actor) => standing(run, actor)).join(' ')}`;
}

function standing(run: Run, { pending }: Actor): string {
  if (pending === undefined) return '-';
  if (!('words' in pending)) return pending.op;
  const { op, words, index, value, expected } = pending;
  return `${op}:${run.ledger.memory.keyOf(words, index)}:${value}:${expected}`;
}

/** Everyone who could run has come to look again since. */
function isFair(run: Run, before: Moment): boolean {
  return run.actors.every((actor, i) => actor.relaxes > before.relaxes[i]! || !run.isEnabled(actor));
}
