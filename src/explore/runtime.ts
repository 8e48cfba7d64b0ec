import { type NativeTwin, nativeTwins } from './natives.js';
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
  current: JobQueue = { jobs: [] };
  /** What performs steps: the run that is under way. */
  performer: Performer | undefined;
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

  call(f: Plain, self: Any, args: Any[]): Any {
    if (typeof f !== 'function') throw new TypeError(`${String(f)} is not a function`);
    if (f === this.schedulingPoint && (this.atomicDepth > 0 || this.performer!.needsNoChoice(args[0]))) {
      this.suspends = false;
      return this.atomicDepth > 0 ? this.performer!.performNow(args[0]) : this.performer!.performUnseen(args[0]);
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

  mark(f: Plain, generator: GeneratorFunction): Plain {
    Object.defineProperty(f, GENERATOR, { value: generator });
    Object.defineProperty(f, 'bind', {
      value: (self: Any, ...bound: Any[]) => this.dual((...args) => generator.apply(self, [...bound, ...args])),
    });
    return f;
  }

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

  /** In place of setTimeout and its like. */
  readonly noTimer = (): never => {
    throw new Error('a timer has no schedule; use an actor');
  };

  *await(value: unknown): Steps {
    return yield new AwaitRequest(this.Promise.resolve(value)) as unknown as Step;
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
