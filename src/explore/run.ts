import { KernelError } from '../base/index.js';
import type { Actor } from './actor.js';
import { endingOf } from './ending.js';
import type { Model } from './model.js';
import { NOWHERE } from './places.js';
import { type RunOptions, RunPerformer } from './runperformer.js';
import type { Runtime, Steps } from './runtime.js';
import { describeStep, isWordStep, isWrite, WAIT_OK, WAIT_TIMED_OUT } from './step.js';

/**
 * One run of a model from its setup to the end, under a schedule. `choose(who)` performs the step that an actor stands before and
 * runs it to the next, or lets an event happen; who may be chosen is `enabled`, what a choice costs `costOf`.
 *
 * Steps that no other actor can notice are not worth a choice: `settle` performs them at once. A word's access is one of those
 * as long as `conflicts` does not know it as shared.
 */

/** A choice from here on is an event, by its place among the pending ones. */
export const FIRST_EVENT = 32;

export class Run extends RunPerformer {
  /** What `choose` was called with. */
  readonly choices: number[] = [];
  /** Switches away from an actor that could have gone on. */
  preemptions = 0;
  /** Who had the processor last. */
  last = -1;
  /** Called where an actor looks again (cpuRelax). */
  onRelax: ((actor: Actor) => void) | undefined;
  private readonly model: Model<unknown>;
  private readonly ready: number[] = [];
  private readonly state: unknown;
  private relaxed = false;

  constructor(runtime: Runtime, model: Model<unknown>, options: RunOptions) {
    super(runtime, model, options);
    this.model = model;
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
      this.threw(event.name, error);
    }
    this.wakeIdle();
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
      this.threw(actor.name, error);
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

  private threw(who: string, error: unknown): void {
    const place = error instanceof Error ? this.runtime.locate(error.stack ?? '') : NOWHERE;
    this.fail('threw', `${who} threw ${describeError(error)}${place === NOWHERE ? '' : ` at ${place}`}`);
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
}

function describeError(error: unknown): string {
  return error instanceof Error ? `${error.name === 'Error' ? '' : `${error.name}: `}${error.message}` : String(error);
}
