import type { WordsLabel } from '../base/index.js';

/** One step of an actor: an access to a shared word, or a place where it may be held up. */

/** What the explorer knows of a `Words` (seam.ts). */
export interface SharedWords {
  readonly i32: Int32Array;
  readonly label: WordsLabel | undefined;
}

export type WordOp =
  | 'read'
  | 'write'
  | 'fetchAdd'
  | 'fetchOr'
  | 'fetchAnd'
  | 'exchange'
  | 'compareExchange'
  | 'lock'
  | 'unlock'
  | 'wait'
  | 'notify';

export interface WordStep {
  readonly op: WordOp;
  readonly words: SharedWords;
  readonly index: number;
  /** Operand: what is written, added, expected by `wait`, or the number to wake. */
  readonly value: number;
  /** Of compareExchange. */
  readonly expected?: number;
}

/** `start`: the actor has not run yet. `resume`: after an await. `woken`: after a wait. `relax`: see cpuRelax. */
export interface PlainStep {
  readonly op: 'start' | 'resume' | 'woken' | 'relax';
}

export type Step = WordStep | PlainStep;

export function isWordStep(step: Step): step is WordStep {
  return 'words' in step;
}

/** Whether the step may change the word, or wake who waits for it. */
export function isWrite(step: WordStep): boolean {
  return step.op !== 'read' && step.op !== 'wait';
}

/** The new value of the word for the read-modify-write operations and stores. */
export function newValue(step: WordStep, old: number): number {
  switch (step.op) {
    case 'fetchAdd':
      return (old + step.value) | 0;
    case 'fetchOr':
      return old | step.value;
    case 'fetchAnd':
      return old & step.value;
    case 'compareExchange':
      return old === step.expected ? step.value | 0 : old;
    case 'write':
    case 'exchange':
      return step.value | 0;
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
  return words.i32.length === 1 ? label : `${label}[${index}]`;
}

function formatValue({ words, index }: WordStep, value: number): string {
  const { label } = words;
  if (typeof label === 'object' && label.value !== undefined) return label.value(index, value);
  return value >= -1 && value < 1024 ? String(value) : `0x${(value >>> 0).toString(16)}`;
}

/** As it is printed: `seq = 1` is a write, `seq -> 1` a read, `seq: 1 -> 2` both. */
export function describeStep(step: Step, old: number, now: number): string {
  if (!isWordStep(step)) return step.op === 'resume' ? '(goes on after await)' : `(${step.op})`;
  const name = wordLabel(step);
  const value = (v: number) => formatValue(step, v);
  switch (step.op) {
    case 'read':
      return `${name} -> ${value(old)}`;
    case 'write':
      return `${name} = ${value(now)}`;
    case 'lock':
    case 'unlock':
      return `${step.op} ${name}`;
    case 'wait':
      return old === step.value
        ? `waits at ${name}, which is ${value(old)}`
        : `does not wait: ${name} -> ${value(old)}`;
    case 'notify':
      return `wakes who waits at ${name}`;
    case 'compareExchange':
      return old === step.expected
        ? `${name}: ${value(old)} -> ${value(now)}`
        : `${name} -> ${value(old)}, not exchanged`;
    default:
      return `${name}: ${value(old)} -> ${value(now)}`;
  }
}
