import type { WordKey } from './memory.js';
import type { PairTable } from './pairs.js';

/**
 * The happens-before order of one run, as numbers. An event's number stands for the event and all that it depends on: the actor's
 * event before it, and the last write of the word. (That a write came after a read is in the number of the read, which saw an older
 * write.) So two runs that have brought all actors to events of the same numbers differ only in the order of steps that do not depend on one
 * another (they are prefixes of one Mazurkiewicz trace), and stand in the same state.
 */

/** An actor, or an event of a device, as one that makes steps. */
export interface Party {
  /** Number of its last event. */
  last: number;
  /** Its place in vector clocks (races.ts), and what it knows of the others' time. */
  readonly slot: number;
  clock: number[];
}

/** Numbers below are first events, of actors, and marks. */
export const FIRST_PAIR = 64;

export class Causality {
  private readonly pairs: PairTable;
  /** The last write of each word. */
  private readonly writes = new Map<WordKey, number>();

  constructor(pairs: PairTable) {
    this.pairs = pairs;
  }

  pair(a: number, b: number): number {
    return this.pairs.pair(a, b);
  }

  read(party: Party, key: WordKey): void {
    party.last = this.peek(party, key);
  }

  write(party: Party, key: WordKey): void {
    party.last = this.peek(party, key);
    this.writes.set(key, party.last);
  }

  /** The number that an access to the word would get. */
  peek(party: Party, key: WordKey): number {
    return this.pair(party.last, this.writes.get(key) ?? 0);
  }

  /** The event `cause` of another comes before what the party does next. */
  follow(party: Party, cause: number): void {
    party.last = this.pair(party.last, cause);
  }

  /** One number for a set of numbers, in whatever order. */
  chain(numbers: number[]): number {
    let all = 0;
    for (const number of numbers.sort((a, b) => a - b)) all = this.pair(all, number);
    return all;
  }
}
