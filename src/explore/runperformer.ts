import { type Actor, makeActors, type PendingEvent } from './actor.js';
import type { Party } from './causality.js';
import { DEVICE, Ledger } from './ledger.js';
import type { Conflicts } from './memory.js';
import type { Model } from './model.js';
import type { FailureKind, RunFailure, TraceEntry } from './outcome.js';
import type { PairTable } from './pairs.js';
import type { Access, Race } from './races.js';
import type { JobQueue, Performer, Runtime } from './runtime.js';
import { isWordStep, type Step, type WordStep, wordLabel } from './step.js';

/**
 * A run as the code sees it that runs in it: what that code asks of the runtime while it runs (accesses that need no choice, or can have none, events that
 * it makes, promises that it settles) is performed here, and put down in the ledger. What is run outside any schedule, setup and checks, is run here too.
 *
 * Use: as the half of a Run (run.ts) that knows no schedule.
 */

export interface RunOptions {
  /** Steps of all actors after which a run counts as a livelock. */
  readonly maxSteps: number;
  readonly conflicts: Conflicts;
  /** Every access is a point of choice, shared or not. */
  readonly everyStep: boolean;
  /** Numbers for states (causality.ts), when they are asked for. */
  readonly pairs: PairTable | undefined;
}

export abstract class RunPerformer implements Performer {
  /** Each step: an actor's index, or FIRST_EVENT and the event's place. */
  readonly order: number[] = [];
  readonly actors: readonly Actor[];
  failure: RunFailure | undefined;
  trace: TraceEntry[] | undefined;
  /** Each step is a choice of its own, as a path counts them. */
  stepwise = false;
  /** Accesses to shared words in code that cannot be suspended. */
  atomicSteps = 0;
  readonly ledger: Ledger;
  protected readonly runtime: Runtime;
  protected readonly options: RunOptions;
  protected readonly events: PendingEvent[] = [];
  protected checking = false;
  private readonly outside: JobQueue = { jobs: [], digest: 0 };
  private nrEvents = 0;
  private inDevice = false;

  constructor(runtime: Runtime, model: Model<unknown>, options: RunOptions) {
    this.runtime = runtime;
    this.options = options;
    this.actors = makeActors(model);
    this.ledger = new Ledger(this.actors, options.conflicts, options.pairs, () => runtime.placeNow());
    runtime.performer = this;
  }

  /** Runs `body` with nobody else running; settles its promises, and lets its events happen at once. */
  protected runOutside(body: () => unknown): unknown {
    const { runtime, outside, events } = this;
    runtime.current = outside;
    const nrPending = events.length;
    const result = body();
    for (;;) {
      this.drain(outside);
      if (events.length <= nrPending || !(result instanceof runtime.Promise) || result.settled) break;
      this.happen(events.splice(nrPending, 1)[0]!);
      runtime.current = outside;
    }
    if (!(result instanceof runtime.Promise)) return result;
    if (!result.settled) throw new Error('setup, invariant and check must not wait for what an actor does');
    return result.outcome();
  }

  private drain(queue: JobQueue): void {
    for (let job = queue.jobs.shift(); job !== undefined; job = queue.jobs.shift()) {
      this.runtime.atomic(job, undefined, []);
    }
  }

  needsNoChoice(step: Step): boolean {
    if (this.stepwise || !isWordStep(step) || step.op === 'wait' || this.isShared(step)) return false;
    return this.ledger.memory.canPerform(step) && this.order.length < this.options.maxSteps;
  }

  performUnseen(step: WordStep): number {
    const actor = this.runtime.current as Actor;
    this.order.push(actor.index);
    return this.performFor(actor, actor.index, step);
  }

  protected isShared(step: WordStep): boolean {
    return (
      this.options.everyStep || this.options.conflicts.shared.has(this.ledger.memory.keyOf(step.words, step.index))
    );
  }

  performNow(step: Step): number {
    if (!isWordStep(step)) return 0;
    if (!this.ledger.memory.canPerform(step) || step.op === 'wait') {
      throw new Error(
        `${step.op} of ${wordLabel(step)} where the code cannot be suspended: in a getter, a constructor, a callback of a native`,
      );
    }
    const { current } = this.runtime;
    if (current === this.outside) return this.performOutside(step);
    if (this.inDevice) return this.performFor(current as PendingEvent, DEVICE, step);
    if (this.isShared(step)) this.atomicSteps++;
    return this.performFor(current as Actor, (current as Actor).index, step);
  }

  private performOutside(step: WordStep): number {
    const { op, words, index } = step;
    // WHY: setup and check read whole page tables; half of the time of a run of the real mm went into that.
    if (!this.checking && (op === 'readOnce' || op === 'load') && index < words.array.length)
      return words.array[index] as number;
    return this.ledger.performOutside(step, this.checking);
  }

  protected performFor(party: Party, who: number, step: WordStep): number {
    const result = this.ledger.perform(party, who, step);
    this.noteRace();
    return result;
  }

  plainAccess(array: ArrayBufferView, at: number, lenBytes: number, write: boolean, text?: () => string): void {
    const { current } = this.runtime;
    if (current === this.outside) return;
    const who = this.inDevice ? DEVICE : (current as Actor).index;
    this.ledger.plainAccess(current as Actor, who, array, at, lenBytes, write, text);
    this.noteRace();
  }

  private noteRace(): void {
    if (this.ledger.race !== undefined && this.failure === undefined) this.failRace(this.ledger.race);
  }

  private failRace({ before, now }: Race): void {
    const describe = ({ party, text, place }: Access) =>
      `${(party as Actor | PendingEvent).name} ${text}${place === undefined ? '' : ` at ${this.runtime.locate(place)}`}`;
    this.fail('data race', `nothing orders these accesses to the same bytes: ${describe(before)}; ${describe(now)}`);
    for (const access of [before, now]) this.traceRace(access);
  }

  /** What the columns end with. */
  private traceRace({ party, text, place }: Access): void {
    const actor = (party as Partial<Actor>).index ?? -1;
    const lines = place === undefined ? [text] : [text, `  at ${this.runtime.locate(place)}`];
    for (const line of lines) this.trace?.push({ actor, text: line, visible: true });
  }

  pushed(queue: JobQueue): void {
    const { current } = this.runtime;
    if (queue !== this.outside && current !== this.outside) this.ledger.pushed(queue, current as Actor);
  }

  sawSettled(settler: JobQueue): void {
    const { current } = this.runtime;
    if (settler !== this.outside && current !== this.outside)
      this.ledger.sawSettled(current as Actor, settler as Actor);
  }

  addEvent(name: string, act: () => void): PendingEvent {
    const { current } = this.runtime;
    const creator = current === this.outside ? undefined : (current as Actor);
    const { causality, races } = this.ledger;
    const last = causality?.pair(creator?.last ?? 0, 0) ?? 0;
    if (creator !== undefined) creator.last = last;
    const clock = creator === undefined || races === undefined ? [] : races.stamp(creator);
    const slot = this.actors.length + this.nrEvents++;
    const event = { name, act, jobs: [], digest: 0, last, slot, clock };
    this.events.push(event);
    return event;
  }

  removeEvent(event: PendingEvent): void {
    const at = this.events.indexOf(event);
    if (at >= 0) this.events.splice(at, 1);
  }

  /** All that the event does is one step. */
  protected happen(event: PendingEvent): void {
    this.runtime.current = event;
    this.inDevice = true;
    try {
      event.act();
      this.drain(event);
    } finally {
      this.inDevice = false;
    }
  }

  fail(kind: FailureKind, message: string): void {
    this.failure ??= { kind, message };
  }
}
