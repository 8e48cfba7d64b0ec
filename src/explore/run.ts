import { KernelError } from '../base/index.js';
import { type Actor, makeActors } from './actor.js';
import { type Conflicts, SharedMemory } from './memory.js';
import type { Model } from './model.js';
import type { JobQueue, Performer, Runtime, Steps } from './runtime.js';
import { describeStep, isWordStep, isWrite, type Step, type WordStep, wordLabel } from './step.js';

/**
 * One run of a model from its setup to the end, under a schedule. `advance(actor)` performs the step that the actor stands
 * before and runs it to the next; who may be advanced is `enabled`.
 *
 * Steps that no other actor can notice are not worth a choice: `settle` performs them at once. A word's access is one of those
 * as long as `conflicts` does not know it as shared.
 */

export type FailureKind = 'invariant' | 'check' | 'threw' | 'deadlock' | 'livelock';

export interface RunFailure {
  readonly kind: FailureKind;
  readonly message: string;
}

export interface TraceEntry {
  readonly actor: number;
  readonly text: string;
  /** Another actor could notice it, or it writes: worth being shown. */
  readonly visible: boolean;
}

/** What an invariant reads is read by one more actor: the steps that change it are worth a choice. */
const OBSERVER = 26;

export interface RunOptions {
  /** Steps of all actors after which a run counts as a livelock. */
  readonly maxSteps: number;
  /** Access to shared words only; undefined: every access is a point of choice. */
  readonly conflicts: Conflicts | undefined;
}

export class Run implements Performer {
  readonly order: number[] = [];
  readonly actors: readonly Actor[];
  failure: RunFailure | undefined;
  trace: TraceEntry[] | undefined;
  /** Each step is an `advance` of its own, as a path counts them. */
  stepwise = false;
  /** A word turned out to be shared: earlier runs missed choices. */
  conflictsGrew = false;
  /** Accesses to shared words in code that cannot be suspended. */
  atomicSteps = 0;
  private readonly runtime: Runtime;
  private readonly model: Model<unknown>;
  private readonly options: RunOptions;
  private readonly memory = new SharedMemory();
  private readonly outside: JobQueue = { jobs: [] };
  private state: unknown;
  private changes = 0;
  private checking = false;

  constructor(runtime: Runtime, model: Model<unknown>, options: RunOptions) {
    this.runtime = runtime;
    this.model = model;
    this.options = options;
    this.actors = makeActors(model);
    runtime.performer = this;
    this.state = this.setup();
  }

  private setup(): unknown {
    try {
      return this.runOutside(() => this.model.setup());
    } catch (error) {
      throw new KernelError('EINVAL', 'explore', `setup of '${this.model.name}' failed: ${describeError(error)}`);
    }
  }

  /** Runs `body` with nobody else running; settles its promises. */
  private runOutside(body: () => unknown): unknown {
    const { runtime, outside } = this;
    runtime.current = outside;
    const result = body();
    for (let job = outside.jobs.shift(); job !== undefined; job = outside.jobs.shift()) {
      runtime.atomic(job, undefined, []);
    }
    if (!(result instanceof runtime.Promise)) return result;
    if (!result.settled) throw new Error('setup, invariant and check must not wait for what an actor does');
    return result.outcome();
  }

  /** Those that `settle` would perform next. */
  needsNoChoice(step: Step): boolean {
    if (this.stepwise || !isWordStep(step) || step.op === 'wait' || this.isShared(step)) return false;
    return this.memory.canPerform(step) && this.order.length < this.options.maxSteps;
  }

  performUnseen(step: WordStep): number {
    const actor = this.runtime.current as Actor;
    this.order.push(actor.index);
    return this.performFor(actor, step);
  }

  private performFor(actor: Actor, step: WordStep): number {
    const { key, old, now } = this.memory.perform(step, actor.index);
    this.noteAccess(actor, step, key, old !== now);
    return old;
  }

  private isShared(step: WordStep): boolean {
    const { conflicts } = this.options;
    return conflicts === undefined || conflicts.shared.has(this.memory.keyOf(step.words, step.index));
  }

  performNow(step: Step): number {
    if (!isWordStep(step)) return 0;
    if (!this.memory.canPerform(step) || step.op === 'wait') {
      throw new Error(
        `${step.op} of ${wordLabel(step)} where the code cannot be suspended: in a getter, a constructor, a callback of a native`,
      );
    }
    const { current } = this.runtime;
    if (current === this.outside) return this.performOutside(step);
    if (this.isShared(step)) this.atomicSteps++;
    return this.performFor(current as Actor, step);
  }

  private performOutside(step: WordStep): number {
    const { key, old } = this.memory.perform(step, -1);
    if (this.checking && this.options.conflicts?.note(key, OBSERVER, false)) this.conflictsGrew = true;
    return old;
  }

  private noteAccess(actor: Actor, step: WordStep, key: number, changed: boolean): void {
    if (changed && step.op !== 'lock' && step.op !== 'unlock') {
      this.changes++;
      actor.changes++;
    }
    const { conflicts } = this.options;
    if (conflicts?.note(key, actor.index, isWrite(step))) this.conflictsGrew = true;
  }

  isEnabled(actor: Actor): boolean {
    const { pending, thread } = actor;
    if (pending === undefined || (thread.owner !== undefined && thread.owner !== actor)) return false;
    if (isWordStep(pending)) return this.memory.canPerform(pending);
    if (pending.op === 'woken') return !this.memory.isAsleep(actor.index);
    if (pending.op === 'relax') return this.changes - actor.changes !== actor.seenChanges;
    return true;
  }

  enabled(): number[] {
    return this.actors.filter((actor) => this.isEnabled(actor)).map((actor) => actor.index);
  }

  private isVisible(actor: Actor): boolean {
    const step = actor.pending!;
    if (!isWordStep(step)) return step.op === 'resume' || (step.op === 'start' && actor.thread.size > 1);
    return this.isShared(step);
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

  advance(index: number): void {
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
    if (actor.steps === undefined) actor.thread.owner = undefined;
    this.wakeIdle();
    if (this.order.length >= this.options.maxSteps) {
      this.fail(
        'livelock',
        `no end after ${this.order.length} steps (a loop that waits for another actor needs cpuRelax)`,
      );
    }
  }

  /** Performs the pending step; its result goes to the code that asked for it. */
  private perform(actor: Actor): number {
    const step = actor.pending!;
    const visible = this.trace !== undefined && (this.isVisible(actor) || (isWordStep(step) && isWrite(step)));
    let old = 0;
    let now = 0;
    if (isWordStep(step)) {
      const access = this.memory.perform(step, actor.index);
      ({ old, now } = access);
      this.noteAccess(actor, step, access.key, old !== now);
    } else if (step.op === 'start') actor.steps = this.mainSteps(actor);
    else if (step.op === 'resume') actor.steps = actor.jobs.shift()!();
    else if (step.op === 'relax') actor.seenChanges = this.changes - actor.changes;
    this.trace?.push({ actor: actor.index, text: describeStep(step, old, now), visible });
    return old;
  }

  private *mainSteps(actor: Actor): Steps<void> {
    const result = yield* this.runtime.invoke(actor.main as never, this.model.actors, [this.state]);
    if (result instanceof this.runtime.Promise) actor.result = result;
  }

  private resume(actor: Actor, value: number): void {
    const step = actor.pending;
    if (step?.op === 'wait' && this.memory.isAsleep(actor.index)) {
      actor.pending = { op: 'woken' };
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

  /** Nobody can go on: the end, or a deadlock. */
  finish(): void {
    if (this.failure !== undefined) return;
    const stuck = this.actors.filter((actor) => actor.pending !== undefined || actor.result?.settled === false);
    if (stuck.length === 0) {
      if (this.model.check) this.verify('check', this.model.check);
      return;
    }
    for (const actor of stuck)
      this.trace?.push({ actor: actor.index, text: `(${this.whyStuck(actor)})`, visible: true });
    const kind = stuck.some((actor) => actor.pending?.op === 'relax') ? 'livelock' : 'deadlock';
    this.fail(kind, stuck.map((actor) => `${actor.name} ${this.whyStuck(actor)}`).join('; '));
  }

  private whyStuck({ pending, index }: Actor): string {
    if (pending === undefined) return 'awaits a promise that nobody settles';
    if (pending.op === 'relax') return 'looks again and again, and nobody changes what it waits for';
    if (pending.op === 'woken') return 'waits, and nobody is left to wake it';
    if (!isWordStep(pending)) return 'waits for its thread';
    const holder = this.memory.holderOf(pending);
    const who = holder === undefined ? 'nobody who is left' : holder === index ? 'itself' : this.actors[holder]?.name;
    return `waits for lock ${wordLabel(pending)}, held by ${who ?? 'setup'}`;
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

  private fail(kind: FailureKind, message: string): void {
    this.failure ??= { kind, message };
  }
}

function describeError(error: unknown): string {
  return error instanceof Error ? `${error.name === 'Error' ? '' : `${error.name}: `}${error.message}` : String(error);
}
