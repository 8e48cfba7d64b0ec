import { KernelError } from '../base/index.js';
import { FIRST_EVENT } from './run.js';

/**
 * A schedule as text: for each stretch that an actor runs, its letter and the number of its steps: `a4b12a`. Actors are lettered
 * in the order of the model. A capital is an event of a device or timer: A the oldest of those that are under way, B the next.
 */

export function letterOf(who: number): string {
  return who < FIRST_EVENT ? String.fromCharCode(97 + who) : String.fromCharCode(65 + who - FIRST_EVENT);
}

export function encodePath(order: readonly number[]): string {
  let path = '';
  for (let i = 0; i < order.length; ) {
    let end = i + 1;
    while (order[end] === order[i]) end++;
    path += letterOf(order[i]!) + (end - i > 1 ? end - i : '');
    i = end;
  }
  return path;
}

/** Throws KernelError EINVAL for what is not a path over `nrActors`. */
export function decodePath(path: string, nrActors: number): number[] {
  if (!/^([a-zA-Z]\d*)*$/.test(path)) throw bad(path, 'letters of actors, each with a number of steps, such as a4b12a');
  const order: number[] = [];
  for (const [, letter, count] of path.matchAll(/([a-zA-Z])(\d*)/g)) {
    const code = letter!.charCodeAt(0);
    const actor = code >= 97 ? code - 97 : code - 65 + FIRST_EVENT;
    if (actor < FIRST_EVENT && actor >= nrActors)
      throw bad(path, `of actors a to ${String.fromCharCode(96 + nrActors)}`);
    for (let n = count === '' ? 1 : Number(count); n > 0; n--) order.push(actor);
  }
  return order;
}

function bad(path: string, what: string): KernelError {
  return new KernelError('EINVAL', 'replay', `path '${path}' must be ${what}`);
}
