import { type NativeTwin, nativeTwins } from './natives.js';
import { PlainAccesses } from './plain.js';
import { createPromiseClass, type ExploredPromise, type PromiseClass } from './promise.js';
import type { Step } from './step.js';

/**
 * What rewritten code (rewrite.ts) calls at run time, as `__x`. A coloured function is `dual`: a plain function that runs its
 * generator to the end at once, with the generator function hidden on it for those who can suspend.
 */

// biome-ignore lint/suspicious/noExplicitAny: these stand for whatever functions the explored program has
type Any = any;
export type Steps<T = Any> = Generator<Step, T, Any>;
type GeneratorFunction = (this: Any, ...args: Any[]) => Steps;
type Plain = ((...args: Any[]) => Any) & { [GENERATOR]?: GeneratorFunction };

const GENERATOR = Symbol('generator');

/** A thread of control: it has a queue of jobs, as a JavaScript thread has its microtasks. */
export interface JobQueue {
  readonly jobs: (() => Steps)[];
  /** A number for who queued jobs from outside, and when (causality.ts). */
  digest: number;
}

export interface Performer {
  /** Performs a step of code that cannot be suspended. */
  performNow(step: Step): number;
  /**
   * Whether a step may be performed at once although the code could be suspended there; `performUnseen` does it.
   * WHY: most accesses of the real mm need no choice; without a detour through the scheduler its runs take half the time.
   */
  needsNoChoice(step: Step): boolean;
  performUnseen(step: Step): number;
  /** A plain access to `lenBytes` of shared memory, from byte `at` of the array's buffer; without `text` it is no race. */
  plainAccess(array: ArrayBufferView, at: number, lenBytes: number, write: boolean, text?: () => string): void;
  /** The code that runs has queued a job for another. */
  pushed(queue: JobQueue): void;
  /** The code that runs has subscribed to what another has settled. */
  sawSettled(settler: JobQueue): void;
  /** `act` happens once, as a step of its own, when the scheduler says so. */
  addEvent(name: string, act: () => void): object;
  removeEvent(event: object): void;
}

/** What an asynchronous function yields to `drive`, which is its caller or the job that resumed it. */
class AwaitRequest {
  readonly promise: ExploredPromise;
  constructor(promise: ExploredPromise) {
    this.promise = promise;
  }
}

export class Runtime {
  /** Whether what `method` or `call` just returned is a generator to be delegated to. */
  suspends = false;
  /** Whose code is running now. */
  current: JobQueue = { jobs: [], digest: 0 };
  /** What performs steps: the run that is under way. */
  performer: Performer | undefined;
  /** Whether steps remember where in the program they are. */
  tracing = false;
  /** A stack to `file:line`; load.ts knows how. */
  locate: (stack: string) => string = (stack) => stack;
  /** Plain accesses of rewritten code: of files that are looked at for races, and of others. */
  readonly plain = new PlainAccesses(this, true);
  readonly quiet = new PlainAccesses(this, false);
  /** Calls that cannot suspend, one inside the other. */
  private atomicDepth = 0;
  readonly Promise: PromiseClass;
  readonly schedulingPoint: Plain;
  private readonly natives: Map<unknown, NativeTwin>;

  constructor() {
    this.Promise = createPromiseClass(this);
    this.schedulingPoint = this.dual(function* (step: Step): Steps {
      return yield step;
    });
    this.natives = nativeTwins(this);
  }

  /** `object[key](...args)`. */
  method(object: Any, key: PropertyKey, args: Any[]): Any {
    const f = object[key];
    if (f === Function.prototype.call) return this.call(object, args[0], args.slice(1));
    if (f === Function.prototype.apply) return this.call(object, args[0], args[1] ?? []);
    if (typeof f !== 'function') throw new TypeError(`${String(key)} is not a function`);
    const twin = isDual(args[0]) ? this.natives.get(f) : undefined;
    if (twin === undefined) return this.call(f, object, args);
    const steps = twin(object, args);
    this.suspends = true;
    return steps;
  }

  /** As `method`, of a name in BULK. */
  bulkMethod(accesses: PlainAccesses, object: Any, key: string, args: Any[]): Any {
    accesses.noteBulk(object, key, args);
    return this.method(object, key, args);
  }

  call(f: Plain, self: Any, args: Any[]): Any {
    if (typeof f !== 'function') throw new TypeError(`${String(f)} is not a function`);
    if (f === this.schedulingPoint) {
      if (this.tracing) args[0].place = this.placeNow();
      if (this.atomicDepth > 0 || this.performer!.needsNoChoice(args[0])) {
        const { performer } = this;
        const result = this.atomicDepth > 0 ? performer!.performNow(args[0]) : performer!.performUnseen(args[0]);
        // After it: to describe the step it may have called the program's own label, which says whether that suspends.
        this.suspends = false;
        return result;
      }
    }
    const generator = f[GENERATOR];
    const result = generator === undefined ? f.apply(self, args) : generator.apply(self, args);
    this.suspends = generator !== undefined;
    return result;
  }

  /** As rewritten code calls `f`: for what calls functions of the program from here. */
  *invoke(f: Plain, self: Any, args: Any[]): Steps {
    const result = this.call(f, self, args);
    return this.suspends ? yield* result : result;
  }

  dual(generator: GeneratorFunction): Plain {
    const { atomic } = this;
    return this.mark(function (this: Any, ...args: Any[]) {
      return atomic(generator, this, args);
    }, generator);
  }

  arrow(self: Any, generator: GeneratorFunction): Plain {
    return this.dual((...args) => generator.apply(self, args));
  }

  /** WHY: plain assignments; closures of the real mm are made anew in each run, and two defineProperty were a tenth of it. */
  mark(f: Plain, generator: GeneratorFunction): Plain {
    f[GENERATOR] = generator;
    f.bind = this.bind as Plain['bind'];
    return f;
  }

  /** In place of Function.prototype.bind, for functions that are marked. */
  private readonly bind = boundBy(this);

  /** Replaces the generator method `name` of a class by its dual. */
  ownMethod(owner: Any, name: string, isAsync: boolean): void {
    const generator = owner[name] as GeneratorFunction;
    const value = this.dual(isAsync ? this.async(generator) : generator);
    Object.defineProperty(owner, name, { value, writable: true, configurable: true });
  }

  /** Runs a generator to its end in one step. */
  readonly atomic = (generator: GeneratorFunction, self: Any, args: ArrayLike<Any>): Any => {
    this.atomicDepth++;
    try {
      const steps = generator.apply(self, args as Any[]);
      let next = steps.next();
      while (!next.done) next = steps.next(this.performer!.performNow(next.value));
      return next.value;
    } finally {
      this.atomicDepth--;
    }
  };

  /** An asynchronous function: runs up to its first await as a part of its caller, the rest as jobs. */
  async(body: GeneratorFunction): GeneratorFunction {
    const runtime = this;
    return function* (...args) {
      const promise = new runtime.Promise();
      yield* runtime.drive(body.apply(this, args), promise, () => undefined);
      return promise;
    };
  }

  private *drive(steps: Steps, promise: ExploredPromise, awaited: () => unknown): Steps<void> {
    try {
      let next = resume(steps, awaited);
      while (!next.done) {
        const request: unknown = next.value;
        if (request instanceof AwaitRequest) {
          request.promise.subscribe(() => this.drive(steps, promise, () => request.promise.outcome()));
          return;
        }
        next = steps.next(yield next.value);
      }
      promise.resolve(next.value);
    } catch (error) {
      promise.reject(error);
    }
  }

  /** `new Promise(executor)`. */
  *newPromise(executor: Plain): Steps {
    const promise = new this.Promise();
    try {
      const settle = [(value: unknown) => promise.resolve(value), (error: unknown) => promise.reject(error)];
      yield* this.invoke(executor, undefined, settle);
    } catch (error) {
      promise.reject(error);
    }
    return promise;
  }

  readonly queueMicrotask = (job: Plain): void => {
    this.current.jobs.push(() => this.invoke(job, undefined, []));
  };

  push(queue: JobQueue, job: () => Steps): void {
    queue.jobs.push(job);
    if (queue !== this.current) this.performer!.pushed(queue);
  }

  /** A promise of what `body` returns, which runs as an event (device.ts). */
  event(name: string, body: Plain): ExploredPromise {
    const promise = new this.Promise();
    this.performer!.addEvent(name, () => {
      try {
        promise.resolve(this.atomic(() => this.invoke(body, undefined, []), undefined, []));
      } catch (error) {
        promise.reject(error);
      }
    });
    return promise;
  }

  /** In place of setTimeout and setImmediate: the time is not looked at, the callback is a job of the thread that asked for it. */
  readonly setTimeout = (callback: Plain, _ms?: number, ...args: Any[]): Timer => {
    const queue = this.current;
    const timer = new Timer();
    const fire = () => this.push(queue, () => this.fire(timer, callback, args));
    timer.event = this.performer!.addEvent('(a timer fires)', fire);
    return timer;
  };

  readonly setImmediate = (callback: Plain, ...args: Any[]): Timer => this.setTimeout(callback, 0, ...args);

  /** It may have been cleared when its time was over and its thread at work. */
  private *fire(timer: Timer, callback: Plain, args: Any[]): Steps<void> {
    if (!timer.cleared) yield* this.invoke(callback, undefined, args);
  }

  readonly clearTimeout = (timer: Timer | undefined): void => {
    if (timer === undefined) return;
    timer.cleared = true;
    this.performer!.removeEvent(timer.event!);
  };

  readonly setInterval = (): never => {
    throw new Error('setInterval has no end, so no schedule has; use setTimeout');
  };

  placeNow(): string | undefined {
    if (!this.tracing) return undefined;
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 60;
    const { stack } = new Error();
    Error.stackTraceLimit = stackTraceLimit;
    return stack;
  }

  *await(value: unknown): Steps {
    return yield new AwaitRequest(this.Promise.resolve(value)) as unknown as Step;
  }
}

function boundBy(runtime: Runtime): (this: Plain, self: Any, ...bound: Any[]) => Plain {
  return function (self, ...bound) {
    const generator = this[GENERATOR]!;
    return runtime.dual((...args) => generator.apply(self, [...bound, ...args]));
  };
}

/** What setTimeout returns, with the face of Node's. */
class Timer {
  event: object | undefined;
  cleared = false;
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
  hasRef(): boolean {
    return true;
  }
}

function resume(steps: Steps, awaited: () => unknown): IteratorResult<Step, Any> {
  let value: unknown;
  try {
    value = awaited();
  } catch (error) {
    return steps.throw(error);
  }
  return steps.next(value);
}

export function isDual(f: unknown): boolean {
  return typeof f === 'function' && (f as Plain)[GENERATOR] !== undefined;
}
