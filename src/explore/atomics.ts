import { labelOf } from './label.js';
import { type IntArray, type Step, WAIT_NOT_EQUAL, WAIT_OK, type WordOp } from './step.js';

/**
 * In place of the global `Atomics` in explored programs: every operation is a scheduling point.
 *
 * This file is only ever run after rewrite.ts, which makes generators of these methods: `__x` is the runtime.
 */
// biome-ignore lint/suspicious/noExplicitAny: a number, or a bigint in arrays of 64 bits
type Value = any;
declare const __x: { schedulingPoint(step: Step): Value };

function at(op: WordOp, array: IntArray, index: number, value: Value, more: object = {}): Step {
  if (!isIntArray(array)) throw new TypeError('Atomics works on arrays of integers');
  if (!(index >= 0 && index < array.length))
    throw new RangeError(`index ${index} is not one of ${array.length} elements`);
  return { op, words: { array, label: labelOf(array) }, index, value, ...more };
}

function isIntArray(array: unknown): array is IntArray {
  return (
    ArrayBuffer.isView(array) &&
    !(array instanceof DataView) &&
    !(array instanceof Float32Array) &&
    !(array instanceof Float64Array) &&
    !(array instanceof Uint8ClampedArray)
  );
}

// biome-ignore lint/suspicious/noShadowRestrictedNames: it is put in place of the global one
export const Atomics = {
  load: (array: IntArray, index: number): Value => __x.schedulingPoint(at('load', array, index, 0)),
  store: (array: IntArray, index: number, value: Value): Value => {
    __x.schedulingPoint(at('store', array, index, value));
    return typeof value === 'bigint' ? value : Math.trunc(Number(value)) || 0;
  },
  add: (array: IntArray, index: number, value: Value): Value =>
    __x.schedulingPoint(at('fetchAdd', array, index, value)),
  sub: (array: IntArray, index: number, value: Value): Value =>
    __x.schedulingPoint(at('fetchSub', array, index, value)),
  and: (array: IntArray, index: number, value: Value): Value =>
    __x.schedulingPoint(at('fetchAnd', array, index, value)),
  or: (array: IntArray, index: number, value: Value): Value => __x.schedulingPoint(at('fetchOr', array, index, value)),
  xor: (array: IntArray, index: number, value: Value): Value =>
    __x.schedulingPoint(at('fetchXor', array, index, value)),
  exchange: (array: IntArray, index: number, value: Value): Value =>
    __x.schedulingPoint(at('exchange', array, index, value)),
  compareExchange: (array: IntArray, index: number, expected: Value, value: Value): Value =>
    __x.schedulingPoint(at('compareExchange', array, index, value, { expected })),
  /** A wait with a time-out may end by it at any moment. */
  wait: (array: IntArray, index: number, value: Value, timeout = Number.POSITIVE_INFINITY): string => {
    if (!(array instanceof Int32Array || array instanceof BigInt64Array))
      throw new TypeError('Atomics.wait works on Int32Array and BigInt64Array');
    const timed = !(timeout === Number.POSITIVE_INFINITY || Number.isNaN(timeout));
    const result = __x.schedulingPoint(at('wait', array, index, value, { timed }));
    return result === WAIT_OK ? 'ok' : result === WAIT_NOT_EQUAL ? 'not-equal' : 'timed-out';
  },
  waitAsync: (): never => {
    throw new Error('Atomics.waitAsync is not explored; use wait in an actor of its own');
  },
  notify: (array: IntArray, index: number, count = Number.POSITIVE_INFINITY): number =>
    __x.schedulingPoint(at('notify', array, index, count)),
  isLockFree: (size: number): boolean => size === 1 || size === 2 || size === 4 || size === 8,
  /** As cpuRelax. */
  pause: (): void => __x.schedulingPoint({ op: 'relax' }),
};
