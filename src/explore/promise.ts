import type { JobQueue, Runtime, Steps } from './runtime.js';

/**
 * Promises of explored programs, in place of the native ones, whose jobs run when the engine likes. A job goes to the queue of
 * the actor that subscribed, and is one of its steps (`resume`).
 */

// biome-ignore lint/suspicious/noExplicitAny: a promise of anything
type Any = any;

export interface ExploredPromise {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  /** The job is queued when the promise is settled. */
  subscribe(job: () => Steps): void;
  /** The value, or throws what it was rejected with. */
  outcome(): unknown;
  readonly settled: boolean;
}

type Resolve = (value?: unknown) => void;
type Executor = (resolve: Resolve, reject: Resolve) => void;

export interface PromiseClass {
  new (executor?: Executor): ExploredPromise;
  resolve(value?: unknown): ExploredPromise;
}

/** A job without a step of its own. */
// biome-ignore lint/correctness/useYield: jobs are generators
function* justDo(act: () => void): Steps<void> {
  act();
}

export function createPromiseClass(runtime: Runtime): PromiseClass {
  return class QueuedPromise implements ExploredPromise {
    private state: 'pending' | 'fulfilled' | 'rejected' = 'pending';
    private locked = false;
    private value: unknown;
    private settler: JobQueue | undefined;
    private readonly subscribers: { queue: JobQueue; job: () => Steps }[] = [];

    constructor(executor?: Executor) {
      if (executor === undefined) return;
      try {
        executor(
          (value) => this.resolve(value),
          (error) => this.reject(error),
        );
      } catch (error) {
        this.reject(error);
      }
    }

    get settled(): boolean {
      return this.state !== 'pending';
    }

    resolve(value: unknown): void {
      if (this.locked) return;
      this.locked = true;
      if (value instanceof QueuedPromise) value.subscribe(() => justDo(() => this.settle(value.state, value.value)));
      else if (value instanceof Promise) {
        value.catch(() => {});
        this.settle(
          'rejected',
          new TypeError('an explored program waits for a promise from outside, which has no schedule'),
        );
      } else this.settle('fulfilled', value);
    }

    reject(error: unknown): void {
      if (this.locked) return;
      this.locked = true;
      this.settle('rejected', error);
    }

    private settle(state: 'pending' | 'fulfilled' | 'rejected', value: unknown): void {
      this.state = state;
      this.value = value;
      this.settler = runtime.current;
      for (const { queue, job } of this.subscribers) runtime.push(queue, job);
      this.subscribers.length = 0;
    }

    subscribe(job: () => Steps): void {
      if (this.settled) {
        if (this.settler !== runtime.current) runtime.performer?.sawSettled(this.settler!);
        runtime.current.jobs.push(job);
      } else this.subscribers.push({ queue: runtime.current, job });
    }

    outcome(): unknown {
      if (this.state === 'rejected') throw this.value;
      return this.value;
    }

    // biome-ignore lint/suspicious/noThenProperty: it is a promise
    then(onFulfilled?: Any, onRejected?: Any): QueuedPromise {
      const next = new QueuedPromise();
      this.subscribe(() => this.react(next, this.state === 'fulfilled' ? onFulfilled : onRejected));
      return next;
    }

    private *react(next: QueuedPromise, handler: Any): Steps<void> {
      if (typeof handler !== 'function') {
        if (this.state === 'fulfilled') next.resolve(this.value);
        else next.reject(this.value);
        return;
      }
      try {
        next.resolve(yield* runtime.invoke(handler, undefined, [this.value]));
      } catch (error) {
        next.reject(error);
      }
    }

    catch(onRejected: Any): QueuedPromise {
      return this.then(undefined, onRejected);
    }

    finally(handler: Any): QueuedPromise {
      const next = new QueuedPromise();
      this.subscribe(() => this.reactFinally(next, handler));
      return next;
    }

    private *reactFinally(next: QueuedPromise, handler: Any): Steps<void> {
      try {
        const result = new QueuedPromise();
        result.resolve(yield* runtime.invoke(handler, undefined, []));
        result.then(
          () => next.resolve(this),
          (error: unknown) => next.reject(error),
        );
      } catch (error) {
        next.reject(error);
      }
    }

    static resolve(value?: unknown): QueuedPromise {
      if (value instanceof QueuedPromise) return value;
      const promise = new QueuedPromise();
      promise.resolve(value);
      return promise;
    }

    static reject(error: unknown): QueuedPromise {
      const promise = new QueuedPromise();
      promise.reject(error);
      return promise;
    }

    static all(values: Iterable<unknown>): QueuedPromise {
      const list = [...values];
      const results: unknown[] = new Array(list.length);
      const all = new QueuedPromise();
      let left = list.length;
      if (left === 0) all.resolve(results);
      for (const [i, value] of list.entries()) {
        QueuedPromise.resolve(value).then(
          (result: unknown) => {
            results[i] = result;
            if (--left === 0) all.resolve(results);
          },
          (error: unknown) => all.reject(error),
        );
      }
      return all;
    }

    static allSettled(values: Iterable<unknown>): QueuedPromise {
      const wrap = (value: unknown) =>
        QueuedPromise.resolve(value).then(
          (result: unknown) => ({ status: 'fulfilled', value: result }),
          (reason: unknown) => ({ status: 'rejected', reason }),
        );
      return QueuedPromise.all([...values].map(wrap));
    }

    static race(values: Iterable<unknown>): QueuedPromise {
      const first = new QueuedPromise();
      for (const value of values) {
        QueuedPromise.resolve(value).then(
          (result: unknown) => first.resolve(result),
          (error: unknown) => first.reject(error),
        );
      }
      return first;
    }
  };
}
