import { KernelError } from '../base/index.js';
import { type Actor, makeActors, type PendingEvent } from './actor.js';
import type { Party } from './causality.js';
import { endingOf } from './ending.js';
import { DEVICE, Ledger } from './ledger.js';
import type { Conflicts } from './memory.js';
import type { Model } from './model.js';
import type { FailureKind, RunFailure, TraceEntry } from './outcome.js';
import type { PairTable } from './pairs.js';
import type { Access, Race } from './races.js';
import type { JobQueue, Performer, Runtime, Steps } from './runtime.js';
import {
  describeStep,
  isWordStep,
  isWrite,
  type Step,
  WAIT_OK,
  WAIT_TIMED_OUT,
  type WordStep,
  wordLabel,
} from './step.js';

/**
 * One run of a model from its setup to the end, under a schedule. `choose(who)` performs the step that an actor stands before and
 * runs it to the next, or lets an event happen; who may be chosen is `enabled`, what a choice costs `costOf`.
 *
 * Steps that no other actor can notice are not worth a choice: `settle` performs them at once. A word's access is one of those
 * as long as `conflicts` does not know it as shared.
 */

/** A choice from here on is an event, by its place among the pending ones. */
export const FIRST_EVENT = 32;

export interface RunOptions {
  /** Steps of all actors after which a run counts as a livelock. */
  readonly maxSteps: number;
  readonly conflicts: Conflicts;
  /** Every access is a point of choice, shared or not. */
  readonly everyStep: boolean;
  /** Numbers for states (causality.ts), when they are asked for. */
  readonly pairs: PairTable | undefined;
}

export class Run implements Performer {
  /** Each step: an actor's index, or FIRST_EVENT and the event's place. */
  readonly order: number[] = [];
  /** What `choose` was called with. */
  readonly choices: number[] = [];
  readonly actors: readonly Actor[];
  failure: RunFailure | undefined;
  trace: TraceEntry[] | undefined;
  /** Each step is a choice of its own, as a path counts them. */
  stepwise = false;
  /** Accesses to shared words in code that cannot be suspended. */
  atomicSteps = 0;
  /** Switches away from an actor that could have gone on. */
  preemptions = 0;
  /** Who had the processor last. */
  last = -1;
  /** Called where an actor looks again (cpuRelax). */
  onRelax: ((actor: Actor) => void) | undefined;
  readonly ledger: Ledger;
  private readonly runtime: Runtime;
  private readonly model: Model<unknown>;
  private readonly options: RunOptions;
  private readonly outside: JobQueue = { jobs: [], digest: 0 };
  private readonly events: PendingEvent[] = [];
  private readonly ready: number[] = [];
  private nrEvents = 0;
  private state: unknown;
  private relaxed = false;
  private checking = false;
  private inDevice = false;

  constructor(runtime: Runtime, model: Model<unknown>, options: RunOptions) {
    this.runtime = runtime;
    this.model = model;
    this.options = options;
    this.actors = makeActors(model);
    this.ledger = new Ledger(this.actors, options.conflicts, options.pairs, () => runtime.placeNow());
    runtime.performer = this;
    this.state = this.setup();
  }

  /** A word turned out to be shared: earlier runs missed choices. */
  get conflictsGrew(): boolean {
    return this.ledger.grew;
  }

  private setup(): unknown {
    try {
      return this.runOutside(() => this.model.setup());
    } catch (error) {
      throw new KernelError('EINVAL', 'explore', `setup of '${this.model.name}' failed: ${describeError(error)}`);
    }
  }

  /** Runs `body` with nobody else running; settles its promises, and lets its events happen at once. */
  private runOutside(body: () => unknown): unknown {
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

  // What code asks for while it runs.

  needsNoChoice(step: Step): boolean {
    if (this.stepwise || !isWordStep(step) || step.op === 'wait' || this.isShared(step)) return false;
    return this.ledger.memory.canPerform(step) && this.order.length < this.options.maxSteps;
  }

  performUnseen(step: WordStep): number {
    const actor = this.runtime.current as Actor;
    this.order.push(actor.index);
    return this.performFor(actor, actor.index, step);
  }

  private isShared(step: WordStep): boolean {
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

  private performFor(party: Party, who: number, step: WordStep): number {
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

  // The schedule.

  isEnabled(actor: Actor): boolean {
    const { pending, thread } = actor;
    if (pending === undefined || (thread.owner !== undefined && thread.owner !== actor)) return false;
    if (isWordStep(pending)) return this.ledger.memory.canPerform(pending);
    if (pending.op === 'woken') return pending.timed === true || !this.ledger.memory.isAsleep(actor.index);
    if (pending.op === 'relax') return actor.news || actor.wrote;
    return true;
  }

  /** Who may be chosen: valid until the next choice. */
  enabled(): readonly number[] {
    const { ready, actors, events } = this;
    ready.length = 0;
    for (const actor of actors) if (this.isEnabled(actor)) ready.push(actor.index);
    for (let i = 0; i < events.length; i++) ready.push(FIRST_EVENT + i);
    return ready;
  }

  /** The actor that a switch would preempt, or -1: none could go on, or it gives way by itself (cpuRelax). */
  holder(): number {
    const actor = this.actors[this.last];
    return actor !== undefined && this.isEnabled(actor) && actor.pending!.op !== 'relax' && !this.wouldTimeOut(actor)
      ? this.last
      : -1;
  }

  private wouldTimeOut({ pending, index }: Actor): boolean {
    return pending?.op === 'woken' && this.ledger.memory.isAsleep(index);
  }

  /** It would look again although nobody else has done anything. */
  private wouldSpin({ pending, news }: Actor): boolean {
    return pending?.op === 'relax' && !news;
  }

  /** Of one of the enabled: 1 for a preemption, and for a time-out or a vain look while somebody else can go on. */
  costOf(who: number, holder: number): number {
    const actor = this.actors[who];
    if (actor !== undefined && (this.wouldTimeOut(actor) || this.wouldSpin(actor)))
      return this.ready.length > 1 ? 1 : 0;
    return holder < 0 || who === holder ? 0 : 1;
  }

  choose(who: number): void {
    if (this.stepwise && !this.isChoice(who)) {
      this.advance(who);
      return;
    }
    this.preemptions += this.costOf(who, this.holder());
    this.choices.push(who);
    if (who >= FIRST_EVENT) {
      // As an interrupt: who had the processor has lost it.
      this.last = -1;
      this.advanceEvent(who);
      return;
    }
    this.last = who;
    this.advance(who);
  }

  /** A number for where all stand: runs with equal numbers are in the same state. After `settle`. */
  stateKey(replaced?: Actor, id = 0): number {
    const causality = this.ledger.causality!;
    let key = 0;
    for (const actor of this.actors) {
      key = causality.pair(key, actor === replaced ? id : actor.last);
      if (actor.digest !== 0) key = causality.pair(causality.pair(key, 1), actor.digest);
      if (actor.relaxes > 0) key = causality.pair(key, 2 + (actor.news ? 1 : 0) + (actor.wrote ? 2 : 0));
    }
    return this.events.length === 0 ? key : causality.pair(key, causality.chain(this.events.map(({ last }) => last)));
  }

  /** The state to which a choice would lead, where that can be told beforehand; else 0. */
  peekKey(who: number): number {
    const actor = this.actors[who];
    if (actor === undefined || this.relaxed || !isWordStep(actor.pending!)) return 0;
    const step = actor.pending;
    if (step.op === 'wait' || step.op === 'notify') return 0;
    const key = this.ledger.memory.keyOf(step.words, step.index);
    return this.stateKey(actor, this.ledger.causality!.peek(actor, key));
  }

  private isVisible(actor: Actor): boolean {
    const step = actor.pending!;
    if (isWordStep(step)) return this.isShared(step);
    if (step.op === 'woken') return this.wouldTimeOut(actor);
    return step.op === 'resume' || step.op === 'relax' || (step.op === 'start' && actor.thread.size > 1);
  }

  /** Whether a choice of it is one that `settle` would not have made. */
  isChoice(who: number): boolean {
    return who >= FIRST_EVENT || this.isVisible(this.actors[who]!);
  }

  /** Performs what needs no choice, until every actor stands before a visible step, or waits. */
  settle(): void {
    for (let again = true; again && this.failure === undefined; ) {
      again = false;
      for (const actor of this.actors) {
        while (this.failure === undefined && actor.pending && !this.isVisible(actor) && this.isEnabled(actor)) {
          this.advance(actor.index);
          again = true;
        }
      }
    }
  }

  private advanceEvent(who: number): void {
    this.order.push(who);
    const event = this.events.splice(who - FIRST_EVENT, 1)[0]!;
    this.trace?.push({ actor: -1, text: event.name, visible: true });
    try {
      this.happen(event);
    } catch (error) {
      this.fail('threw', `${event.name} threw ${describeError(error)}`);
    }
    this.wakeIdle();
  }

  /** All that the event does is one step. */
  private happen(event: PendingEvent): void {
    this.runtime.current = event;
    this.inDevice = true;
    try {
      event.act();
      this.drain(event);
    } finally {
      this.inDevice = false;
    }
  }

  private advance(index: number): void {
    const actor = this.actors[index]!;
    this.order.push(index);
    this.runtime.current = actor;
    actor.thread.owner = actor;
    try {
      this.resume(actor, this.perform(actor));
      if (actor.result?.settled) actor.result.outcome();
    } catch (error) {
      this.fail('threw', `${actor.name} threw ${describeError(error)}`);
      return;
    }
    if (actor.steps === undefined) this.leaveThread(actor);
    this.wakeIdle();
    if (this.order.length >= this.options.maxSteps) {
      this.fail(
        'livelock',
        `no end after ${this.order.length} steps (a loop that waits for another actor needs cpuRelax)`,
      );
    }
  }

  private enterThread(actor: Actor): void {
    const { thread } = actor;
    if (thread.size > 1) this.ledger.enterThread(actor, thread);
  }

  private leaveThread(actor: Actor): void {
    const { thread } = actor;
    thread.owner = undefined;
    if (thread.size > 1) this.ledger.leaveThread(actor, thread);
  }

  /** Performs the pending step; its result goes to the code that asked for it. */
  private perform(actor: Actor): number {
    const step = actor.pending!;
    const visible = this.trace !== undefined && (this.isVisible(actor) || (isWordStep(step) && isWrite(step)));
    let result = 0;
    let [old, now] = [0, 0];
    if (isWordStep(step)) {
      result = this.performFor(actor, actor.index, step);
      ({ old, now } = this.ledger.memory);
    } else result = this.performPlain(actor, step.op);
    this.trace?.push({ actor: actor.index, text: describeStep(step, old, now), visible });
    return result;
  }

  private performPlain(actor: Actor, op: 'start' | 'resume' | 'woken' | 'relax'): number {
    if (op === 'start') {
      this.enterThread(actor);
      actor.steps = this.mainSteps(actor);
    } else if (op === 'resume') {
      this.enterThread(actor);
      this.ledger.causality?.follow(actor, actor.digest);
      actor.steps = actor.jobs.shift()!();
    } else if (op === 'relax') this.relax(actor);
    else if (this.ledger.memory.isAsleep(actor.index)) {
      this.ledger.memory.timeOut(actor.index);
      this.ledger.causality?.follow(actor, 0);
      return WAIT_TIMED_OUT;
    }
    return op === 'woken' ? WAIT_OK : 0;
  }

  private relax(actor: Actor): void {
    actor.news = actor.wrote = false;
    actor.relaxes++;
    this.relaxed = true;
    this.ledger.noteRelax(actor);
    this.onRelax?.(actor);
  }

  private *mainSteps(actor: Actor): Steps<void> {
    const result = yield* this.runtime.invoke(actor.main as never, this.model.actors, [this.state]);
    if (result instanceof this.runtime.Promise) actor.result = result;
  }

  private resume(actor: Actor, value: number): void {
    const step = actor.pending;
    if (step?.op === 'wait' && this.ledger.memory.isAsleep(actor.index)) {
      actor.pending = step.timed ? { op: 'woken', timed: true } : { op: 'woken' };
      return;
    }
    const next = actor.steps!.next(value);
    if (!next.done) actor.pending = next.value;
    else {
      actor.steps = undefined;
      actor.pending = undefined;
    }
  }

  /** Gives those who are idle their next job. A step of one may settle another's promise. */
  private wakeIdle(): void {
    for (const actor of this.actors) {
      if (actor.pending === undefined && actor.jobs.length > 0) actor.pending = { op: 'resume' };
    }
  }

  checkInvariant(): void {
    if (this.failure === undefined && this.model.invariant) this.verify('invariant', this.model.invariant);
  }

  private verify(kind: 'invariant' | 'check', test: (state: unknown) => unknown): void {
    this.checking = kind === 'invariant';
    try {
      const message = this.runOutside(() => test.call(this.model, this.state));
      if (typeof message === 'string') this.fail(kind, message);
    } catch (error) {
      this.fail(kind, describeError(error));
    }
    this.checking = false;
  }

  /** Nobody can go on: the end, or a deadlock. */
  finish(): void {
    if (this.failure !== undefined) return;
    const ending = endingOf(this.actors, this.ledger.memory);
    if (ending === undefined) {
      if (this.model.check) this.verify('check', this.model.check);
      return;
    }
    for (const { actor, text } of ending.why)
      this.trace?.push({ actor: actor.index, text: `(${text})`, visible: true });
    this.fail(ending.kind, ending.why.map(({ actor, text }) => `${actor.name} ${text}`).join('; '));
  }

  fail(kind: FailureKind, message: string): void {
    this.failure ??= { kind, message };
  }
}

function describeError(error: unknown): string {
  return error instanceof Error ? `${error.name === 'Error' ? '' : `${error.name}: `}${error.message}` : String(error);
}
