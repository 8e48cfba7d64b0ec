import { bug } from './assert.js';
import { LOCK_CLASSES, type LockClass, type LockName } from './lockorder.js';

/**
 * Checks each lock and each wait of this thread against `lockorder.ts`, as Linux's lockdep does. Every call of it stands behind
 * `CONFIG_LOCKDEP`, so that nothing of it is in a production bundle.
 *
 * Found are, at the first time that it could go wrong and not only when it does: a lock taken in the wrong order or twice (N7), a wait with a
 * lock held that forbids it, an `await` included (N7), a bracket begun, or a callback left, with a lock held that may not be (N7), and a callback that
 * takes mmapLock or a page lock (N13) or waits where it must not (N12). The message names both places: where the first lock was taken, or the callback
 * called, and where the second is.
 *
 * Use: `lockdepAcquire` before a lock is taken, `lockdepRelease` after; `lockdepWait` where code may wait, also when it does not this time;
 * `lockdepEnterCallback`, `lockdepLeaveCallback` around a notifier's callback; `lockdepBracket` where one begins.
 */

interface Held {
  readonly cls: LockClass;
  readonly key: object;
  /** What `nest: 'ascending'` compares. */
  readonly order: number;
  readonly where: Error;
}

interface Callback {
  readonly op: string;
  readonly mayWait: boolean;
  readonly nrHeld: number;
  readonly where: Error;
}

/** Of this thread. */
let held: Held[] = [];
let callbacks: Callback[] = [];
let awaitCheck = false;
/** For pairs of locks of one rank: where the second was taken under the first. */
let orders = new WeakMap<object, WeakMap<object, [Error, Error]>>();
const words = new WeakMap<object, Map<number, Word>>();
let contending = false;

/** A lock in shared memory. */
interface Word {
  cls: LockClass;
}

function wordAt(buffer: object, byteOffset: number): Word {
  let ofBuffer = words.get(buffer);
  if (ofBuffer === undefined) words.set(buffer, (ofBuffer = new Map()));
  let word = ofBuffer.get(byteOffset);
  if (word === undefined) ofBuffer.set(byteOffset, (word = { cls: LOCK_CLASSES.driverLock }));
  return word;
}

function wordOf(i32: Int32Array, i: number): Word {
  return wordAt(i32.buffer, i32.byteOffset + 4 * i);
}

/** Of which class the lock in the word at `byteOffset` of shared memory is; without it it is a driver's lock. */
export function lockdepSetClass(buffer: SharedArrayBuffer, byteOffset: number, name: LockName): void {
  wordAt(buffer, byteOffset).cls = LOCK_CLASSES[name];
}

/** Before the lock in word `i` is taken; `lockdepLocked` when it is. To wait for it is no wait. */
export function lockdepLocking(i32: Int32Array, i: number): void {
  const word = wordOf(i32, i);
  lockdepAcquire(word, word.cls);
  contending = true;
}

export function lockdepLocked(): void {
  contending = false;
}

export function lockdepUnlocked(i32: Int32Array, i: number): void {
  lockdepRelease(wordOf(i32, i));
}

/** Whether a lock of the class may be taken here at all. Throws BrokenInvariant N13. */
export function lockdepMayTake(cls: LockClass): void {
  const callback = callbacks.at(-1);
  if (callback !== undefined && !cls.callback)
    bug('N13', `callback ${callback.op} takes ${cls.name}\n${places('callback', callback.where, cls.name, here())}`);
}

/** Before the lock is taken, so that a deadlock is told and not met. Throws BrokenInvariant N7, N13. */
export function lockdepAcquire(key: object, cls: LockClass, order = 0): void {
  lockdepMayTake(cls);
  const inHook = callbacks.at(-1)?.op === 'mmapLock';
  const taken: Held = { cls: inHook ? LOCK_CLASSES.notifierHook : cls, key, order, where: here() };
  for (const first of held) checkOrder(first, taken);
  if (cls.owner === 'transfer') return;
  held.push(taken);
  checkAwaits();
}

function checkOrder(first: Held, second: Held): void {
  const [a, b] = [first.cls, second.cls];
  if (first.key === second.key) wrong(first, second, `${a.name} is taken twice`);
  if (a.rank > b.rank) wrong(first, second, `${b.name} is taken with ${a.name} held: the other way round`);
  if (a.rank < b.rank) return;
  if (a.nest === 'no') wrong(first, second, `a second ${b.name} is taken`);
  if (a.nest === 'ascending') {
    if (first.order >= second.order) wrong(first, second, `${a.name} ${second.order} is taken after ${first.order}`);
  } else checkOneOrder(first, second);
}

/** Lock A under B here, and B under A there, is a deadlock of two threads, even where only one has run so far. */
function checkOneOrder(first: Held, second: Held): void {
  const other = orders.get(second.key)?.get(first.key);
  if (other !== undefined) {
    const before = places('then', other[0], 'and under it', other[1]);
    const now = places('now', first.where, 'and under it', second.where);
    bug('N7', `two locks (${first.cls.name}, ${second.cls.name}) are taken in both orders\n${before}\n${now}`);
  }
  let after = orders.get(first.key);
  if (after === undefined) orders.set(first.key, (after = new WeakMap()));
  if (!after.has(second.key)) after.set(second.key, [first.where, second.where]);
}

function wrong(first: Held, second: Held, what: string): never {
  bug('N7', `${what}\n${places(first.cls.name, first.where, second.cls.name, second.where)}`);
}

export function lockdepRelease(key: object): void {
  const i = held.findLastIndex((h) => h.key === key);
  if (i < 0) bug('N7', `a lock is given back that this thread does not hold\nhere: ${describe(here())}`);
  held.splice(i, 1);
}

/** The caller may wait for `what` now. Throws BrokenInvariant N7, N12. */
export function lockdepWait(what: string): void {
  if (contending) return;
  const callback = callbacks.at(-1);
  if (callback !== undefined && !callback.mayWait)
    bug('N12', `callback ${callback.op} waits for ${what}\n${places('callback', callback.where, 'wait', here())}`);
  // What was held when a callback was called that may wait is the caller's affair: it stands still.
  const own = callback === undefined ? held : held.slice(callback.nrHeld);
  const first = own.find((h) => !h.cls.wait);
  if (first !== undefined)
    bug('N7', `a wait for ${what} with ${first.cls.name} held\n${places(first.cls.name, first.where, 'wait', here())}`);
}

/** A bracket begins. Throws BrokenInvariant N7. */
export function lockdepBracket(): void {
  const first = held.find((h) => !h.cls.bracket);
  if (first !== undefined)
    bug('N7', `a bracket begins with ${first.cls.name} held\n${places(first.cls.name, first.where, 'start', here())}`);
}

/** A notifier's callback is called; `mayWait`: a start in a bracket that may block. Pairs with `lockdepLeaveCallback`. */
export function lockdepEnterCallback(op: string, mayWait: boolean): void {
  callbacks.push({ op, mayWait, nrHeld: held.length, where: here() });
}

/** It has returned. What is wrong with the locks that it has left held, which count as given back then. */
export function lockdepLeaveCallback(): string | undefined {
  const { op, nrHeld, where } = callbacks.pop()!;
  if (held.length <= nrHeld || op === 'mmapLock') return undefined;
  const left = held.splice(nrHeld)[0]!;
  const what =
    op === 'invalidateRangeStart' ? `${left.cls.name} is held from start to end` : `${op} leaves ${left.cls.name} held`;
  return `N7: ${what}\n${places(left.cls.name, left.where, 'callback', where)}`;
}

/** Runs `fn` as if on another thread, which holds nothing: for tests that let two threads meet in one. */
export function lockdepElsewhere<T>(fn: () => T): T {
  const [mine, called] = [held, callbacks];
  held = [];
  callbacks = [];
  try {
    return fn();
  } finally {
    held = mine;
    callbacks = called;
  }
}

/** Forgets what is held, and every order seen: for tests, after a fault that they made. */
export function lockdepReset(): void {
  held = [];
  callbacks = [];
  contending = false;
  orders = new WeakMap();
}

/** Whoever holds a lock when this thread's job ends holds it over an `await`. A microtask runs then. */
function checkAwaits(): void {
  if (awaitCheck) return;
  awaitCheck = true;
  const began = held;
  void Promise.resolve().then(() => {
    awaitCheck = false;
    const first = began.find((h) => !h.cls.wait);
    if (first === undefined) return;
    lockdepReset();
    report(`${first.cls.name} is held over an await\n${first.cls.name} taken at: ${describe(first.where)}`);
  });
}

let report = (message: string): void => bug('N7', message);

/** Who is told of a lock held over an await; without it an unhandled rejection is what tells it. For tests. */
export function lockdepOnAwait(tell: (message: string) => void): void {
  report = tell;
}

const FRAMES_SHOWN = 4;

function here(): Error {
  const limits = Error as { stackTraceLimit?: number };
  const limit = limits.stackTraceLimit;
  limits.stackTraceLimit = 12;
  const error = new Error();
  if (limit !== undefined) limits.stackTraceLimit = limit;
  return error;
}

function places(a: string, first: Error, b: string, second: Error): string {
  return `${a} at: ${describe(first)}\n${b} at: ${describe(second)}`;
}

/** `file:line` of the innermost frames outside of what takes locks and calls callbacks. */
function describe({ stack = '' }: Error): string {
  const frames = stack
    .split('\n')
    .slice(1)
    .filter((line) => !/\/(lockdep|sync|futex|mmaplock|containment|notifier)\.[jt]s\b/.test(line));
  const lines = frames.map((line) => /\(?(?:file:\/\/)?([^\s()]+:\d+):\d+\)?$/.exec(line)?.[1]);
  const found = lines.filter((line) => line !== undefined);
  return found.slice(0, FRAMES_SHOWN).join(' < ') || 'an unknown place';
}
