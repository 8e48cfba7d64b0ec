import type { Runtime, Steps } from './runtime.js';

/** Twins of the natives that call their first argument, for arguments that may suspend. */

// biome-ignore lint/suspicious/noExplicitAny: they stand for natives of any type
type Any = any;
export type NativeTwin = (self: Any, args: Any[]) => Steps;

export function nativeTwins(runtime: Runtime): Map<unknown, NativeTwin> {
  /** Calls `fn` for each element until `stop` says so of a result. */
  function* each(self: Any, [fn, that]: Any[], stop: (result: Any, i: number, value: Any) => boolean): Steps<void> {
    for (let i = 0; i < self.length; i++) {
      if (i in self && stop(yield* runtime.invoke(fn, that, [self[i], i, self]), i, self[i])) return;
    }
  }
  function* forEach(self: Any, args: Any[]): Steps {
    yield* each(self, args, () => false);
  }
  function* map(self: Any, args: Any[]): Steps {
    const results: unknown[] = [];
    yield* each(self, args, (result) => results.push(result) < 0);
    return results;
  }
  function* filter(self: Any, args: Any[]): Steps {
    const results: unknown[] = [];
    yield* each(self, args, (result, _i, value) => (result ? results.push(value) < 0 : false));
    return results;
  }
  function* some(self: Any, args: Any[]): Steps {
    let found = false;
    yield* each(self, args, (result) => (found = Boolean(result)));
    return found;
  }
  function* every(self: Any, args: Any[]): Steps {
    let all = true;
    yield* each(self, args, (result) => !(all = Boolean(result)));
    return all;
  }
  function* findIndex(self: Any, args: Any[]): Steps {
    let at = -1;
    yield* each(self, args, (result, i) => {
      if (result) at = i;
      return Boolean(result);
    });
    return at;
  }
  function* find(self: Any, args: Any[]): Steps {
    const i = yield* findIndex(self, args);
    return i < 0 ? undefined : self[i];
  }
  function* flatMap(self: Any, args: Any[]): Steps {
    return (yield* map(self, args)).flat();
  }
  function* reduce(self: Any, args: Any[]): Steps {
    let i = args.length > 1 ? 0 : 1;
    let value = args.length > 1 ? args[1] : self[0];
    for (; i < self.length; i++) value = yield* runtime.invoke(args[0], undefined, [value, self[i], i, self]);
    return value;
  }
  function* forEachEntry(self: Any, [fn, that]: Any[]): Steps {
    for (const [key, value] of self.entries()) yield* runtime.invoke(fn, that, [value, key, self]);
  }
  const array = Array.prototype;
  return new Map<unknown, NativeTwin>([
    [array.forEach, forEach],
    [array.map, map],
    [array.filter, filter],
    [array.some, some],
    [array.every, every],
    [array.find, find],
    [array.findIndex, findIndex],
    [array.flatMap, flatMap],
    [array.reduce, reduce],
    [Map.prototype.forEach, forEachEntry],
    [Set.prototype.forEach, forEachEntry],
  ]);
}
