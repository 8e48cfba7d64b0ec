/**
 * Work that may have to wait, and does not give up its turn where it need not: a generator that yields a promise only for what is not there yet.
 * An `async` function would come back to its caller at each `await`, ready or not.
 *
 * WHY: a vCPU on the mm's thread that polls for what it asked of a device (Linux's hvc console does, for each 16 bytes) kept the thread for its
 * whole turn, 4 ms, before the device got to its next step.
 *
 * Use: `function* work(): Steps<number> { const x = yield* wait(maybePromise); ... }`, `runSteps(work())`.
 */
export type Steps<T> = Generator<Promise<unknown>, T, unknown>;

/** The value, waited for if it is a promise. */
export function* wait<T>(value: Promise<T> | T): Steps<T> {
  return value instanceof Promise ? ((yield value) as T) : value;
}

/** Runs to the end at once if nothing has to be waited for; what the steps throw is thrown, or rejected. */
export function runSteps<T>(steps: Steps<T>): Promise<T> | T {
  const { done, value } = steps.next();
  return done ? value : finish(steps, value);
}

async function finish<T>(steps: Steps<T>, waiting: Promise<unknown>): Promise<T> {
  for (;;) {
    let next: IteratorResult<Promise<unknown>, T>;
    try {
      next = steps.next(await waiting);
    } catch (error) {
      next = steps.throw(error);
    }
    if (next.done) return next.value;
    waiting = next.value;
  }
}
