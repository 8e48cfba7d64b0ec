import type { WordsLabel } from '../base/index.js';

/** One step of an actor: an access to a shared word, or a place where it may be held up. */

/** What `Atomics` works on; the explorer's own arithmetic is that of the array. */
export type IntArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** What the explorer knows of a `Words` (seam.ts), or of an array that is given to `Atomics` (atomics.ts). */
export interface SharedWords {
  readonly array: IntArray;
  readonly label: WordsLabel | undefined;
}

/** `readOnce` and `writeOnce` are plain accesses that are marked as such; the others are atomic and synchronise. */
export type WordOp =
  | 'readOnce'
  | 'writeOnce'
  | 'load'
  | 'store'
  | 'fetchAdd'
  | 'fetchSub'
  | 'fetchOr'
  | 'fetchAnd'
  | 'fetchXor'
  | 'exchange'
  | 'compareExchange'
  | 'lock'
  | 'unlock'
  | 'wait'
  | 'notify';

/** The value of a word; a bigint in arrays of 64 bits, which the arithmetic below treats alike. */
export type WordValue = number;

export interface WordStep {
  readonly op: WordOp;
  readonly words: SharedWords;
  readonly index: number;
  /** Operand: what is written, added, expected by `wait`, or the number to wake. */
  readonly value: WordValue;
  /** Of compareExchange. */
  readonly expected?: WordValue;
  /** Of wait: it may end by itself. */
  readonly timed?: boolean;
  /** Where in the program, as a stack; only in runs that are shown. */
  place?: string;
}

/** `start`: the actor has not run yet. `resume`: after an await. `woken`: after a wait. `relax`: see cpuRelax. */
export interface PlainStep {
  readonly op: 'start' | 'resume' | 'woken' | 'relax';
  readonly timed?: boolean;
}

export type Step = WordStep | PlainStep;

/** What `wait` returns. */
export const WAIT_NOT_EQUAL = 0;
export const WAIT_OK = 1;
export const WAIT_TIMED_OUT = 2;

export function isWordStep(step: Step): step is WordStep {
  return 'words' in step;
}

/** Whether the step may change the word, or wake who waits for it. */
export function isWrite({ op }: WordStep): boolean {
  return op !== 'readOnce' && op !== 'load' && op !== 'wait';
}

/** `value` as the array would hold it. */
export function coerce(array: IntArray, value: WordValue): WordValue {
  if (array instanceof Int32Array) return value | 0;
  const one = new (array.constructor as Int32ArrayConstructor)(1);
  one[0] = value;
  return one[0]!;
}

/** The new value of the word for the read-modify-write operations and stores; the array brings it into its range. */
export function newValue(step: WordStep, old: WordValue): WordValue {
  switch (step.op) {
    case 'fetchAdd':
      return old + step.value;
    case 'fetchSub':
      return old - step.value;
    case 'fetchOr':
      return old | step.value;
    case 'fetchAnd':
      return old & step.value;
    case 'fetchXor':
      return old ^ step.value;
    case 'compareExchange':
      return old === coerce(step.words.array, step.expected!) ? step.value : old;
    case 'store':
    case 'writeOnce':
    case 'exchange':
      return step.value;
    case 'lock':
      return 1;
    case 'unlock':
      return 0;
    default:
      return old;
  }
}

export function wordLabel({ words, index }: WordStep): string {
  const { label } = words;
  if (label === undefined) return `word[${index}]`;
  if (typeof label !== 'string') return label.word(index);
  return words.array.length === 1 ? label : `${label}[${index}]`;
}

function formatValue({ words, index }: WordStep, value: WordValue): string {
  const { label } = words;
  if (typeof label === 'object' && label.value !== undefined) return label.value(index, value);
  if (typeof value === 'bigint' || (value >= -1 && value < 1024)) return String(value);
  return `0x${(value >>> 0).toString(16)}`;
}

/** As it is printed: `seq = 1` is a write, `seq -> 1` a read, `seq: 1 -> 2` both. */
export function describeStep(step: Step, old: WordValue, now: WordValue): string {
  if (!isWordStep(step)) return step.op === 'resume' ? '(goes on after await)' : `(${step.op})`;
  const name = wordLabel(step);
  const value = (v: WordValue) => formatValue(step, v);
  switch (step.op) {
    case 'readOnce':
    case 'load':
      return `${name} -> ${value(old)}`;
    case 'writeOnce':
    case 'store':
      return `${name} = ${value(now)}`;
    case 'lock':
    case 'unlock':
      return `${step.op} ${name}`;
    case 'wait':
      return old === coerce(step.words.array, step.value)
        ? `waits at ${name}, which is ${value(old)}`
        : `does not wait: ${name} -> ${value(old)}`;
    case 'notify':
      return `wakes who waits at ${name}`;
    case 'compareExchange':
      return old === coerce(step.words.array, step.expected!)
        ? `${name}: ${value(old)} -> ${value(now)}`
        : `${name} -> ${value(old)}, not exchanged`;
    default:
      return `${name}: ${value(old)} -> ${value(now)}`;
  }
}
