import type { Performer } from './runtime.js';

/**
 * Plain accesses to elements, as rewritten code makes them (rewrite.ts): `a[i]` is `__x.plain.get(a, i)`. Those to typed arrays over a
 * SharedArrayBuffer are told to the run, which looks for data races; all others just happen. They are no scheduling points: in a
 * program without races nobody could tell.
 */

// biome-ignore lint/suspicious/noExplicitAny: whatever the program indexes
type Any = any;

const OPERATORS: Record<string, (a: Any, b: Any) => Any> = {
  '+=': (a, b) => a + b,
  '-=': (a, b) => a - b,
  '*=': (a, b) => a * b,
  '/=': (a, b) => a / b,
  '%=': (a, b) => a % b,
  '**=': (a, b) => a ** b,
  '<<=': (a, b) => a << b,
  '>>=': (a, b) => a >> b,
  '>>>=': (a, b) => a >>> b,
  '&=': (a, b) => a & b,
  '|=': (a, b) => a | b,
  '^=': (a, b) => a ^ b,
};

/** What `a[i]` was when a compound assignment read it. */
interface Element {
  readonly array: Any;
  readonly key: Any;
  readonly value: Any;
}

export class PlainAccesses {
  private readonly runtime: { readonly performer: Performer | undefined };

  private readonly told: boolean;

  /** `told`: they are looked at for races. */
  constructor(runtime: { readonly performer: Performer | undefined }, told: boolean) {
    this.runtime = runtime;
    this.told = told;
  }

  get(array: Any, key: Any): Any {
    const value = array[key];
    if (isShared(array) && isIndex(array, key)) this.note(array, key, 1, false, () => `[${key}] -> ${value}`);
    return value;
  }

  set(array: Any, key: Any, value: Any): Any {
    if (isShared(array) && isIndex(array, key)) this.note(array, key, 1, true, () => `[${key}] = ${value}`);
    array[key] = value;
    return value;
  }

  /** The first half of `a[i] += v` and its like. */
  element(array: Any, key: Any): Element {
    return { array, key, value: this.get(array, key) };
  }

  /** The second half. */
  assign({ array, key, value }: Element, operator: string, operand: Any): Any {
    return this.set(array, key, OPERATORS[operator]!(value, operand));
  }

  /** `a[i]++` and its like; returns the old value or the new one. */
  step(array: Any, key: Any, by: number, returnsOld: boolean): Any {
    let old = this.get(array, key);
    if (typeof old !== 'bigint') old = Number(old);
    const now = typeof old === 'bigint' ? old + BigInt(by) : old + by;
    this.set(array, key, now);
    return returnsOld ? old : now;
  }

  /** `object[name](...args)` where the name is that of a method that moves many elements. */
  bulk(object: Any, name: string, args: Any[]): Any {
    this.noteBulk(object, name, args);
    return object[name](...args);
  }

  noteBulk(view: Any, name: string, args: Any[]): void {
    if (!isShared(view)) return;
    if (view instanceof DataView) {
      const lenBytes = Number(/\d+$/.exec(name)?.[0] ?? 0) / 8;
      const at = view.byteOffset + args[0];
      if (lenBytes > 0) this.tell(view, at, lenBytes, name.startsWith('set'), () => `${name}(${args[0]})`);
      return;
    }
    const at = (value: Any, otherwise: number): number => {
      const index = value === undefined ? otherwise : Math.trunc(value);
      return Math.min(view.length, index < 0 ? Math.max(0, view.length + index) : index);
    };
    const text = () => name;
    if (name === 'fill') this.noteRange(view, at(args[1], 0), at(args[2], view.length), true, text);
    else if (name === 'slice') this.noteRange(view, at(args[0], 0), at(args[1], view.length), false, text);
    else if (name === 'set') {
      const from = at(args[1], 0);
      if (isShared(args[0])) this.noteRange(args[0], 0, args[0].length, false, text);
      this.noteRange(view, from, from + args[0].length, true, text);
    } else {
      const [to, start] = [at(args[0], 0), at(args[1], 0)];
      const length = Math.min(at(args[2], view.length) - start, view.length - to);
      this.noteRange(view, start, start + length, false, text);
      this.noteRange(view, to, to + length, true, text);
    }
  }

  private noteRange(array: Any, from: number, to: number, write: boolean, text: () => string): void {
    if (to > from) this.note(array, from, to - from, write, text);
  }

  private note(array: Any, index: number, length: number, write: boolean, text: () => string): void {
    const size = array.BYTES_PER_ELEMENT;
    this.tell(array, array.byteOffset + index * size, length * size, write, text);
  }

  private tell(array: ArrayBufferView, at: number, lenBytes: number, write: boolean, text: () => string): void {
    this.runtime.performer?.plainAccess(array, at, lenBytes, write, this.told ? text : undefined);
  }
}

/** Methods whose calls are told: of typed arrays, and of DataView. */
export const BULK = /^(fill|set|slice|copyWithin|(get|set)((Int|Uint)(8|16|32)|Float(32|64)|Big(Int|Uint)64))$/;

function isShared(value: Any): boolean {
  return ArrayBuffer.isView(value) && value.buffer instanceof SharedArrayBuffer;
}

function isIndex(array: Any, key: Any): key is number {
  return typeof key === 'number' && key >= 0 && key < array.length && Number.isInteger(key);
}
