import type { WordKey } from './memory.js';
import type { PairTable } from './pairs.js';

/**
 * The happens-before order of one run, as numbers. An event's number stands for the event and all that it depends on: the actor's
 * event before it, for a read the last write of the word, for a write also the reads since. So two runs that have brought all
 * actors to events of the same numbers differ only in the order of steps that do not depend on one another (they are prefixes of one
 * Mazurkiewicz trace), and stand in the same state.
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

interface Resource {
  write: number;
  /** The last read of each since the write. */
  readonly reads: Map<Party, number>;
}

export class Causality {
  private readonly pairs: PairTable;
  private readonly resources = new Map<WordKey, Resource>();

  constructor(pairs: PairTable) {
    this.pairs = pairs;
  }

  pair(a: number, b: number): number {
    return this.pairs.pair(a, b);
  }

  read(party: Party, key: WordKey): void {
    const resource = this.resource(key);
    party.last = this.pair(party.last, resource.write);
    resource.reads.set(party, party.last);
  }

  write(party: Party, key: WordKey): void {
    const resource = this.resource(key);
    party.last = this.peek(party, key, true);
    resource.write = party.last;
    resource.reads.clear();
  }

  /** The number that such a step would get. */
  peek(party: Party, key: WordKey, isWrite: boolean): number {
    const resource = this.resource(key);
    const after = this.pair(party.last, resource.write);
    return isWrite ? this.pair(after, this.digest(resource.reads)) : after;
  }

  /** The event `cause` of another comes before what the party does next. */
  follow(party: Party, cause: number): void {
    party.last = this.pair(party.last, cause);
  }

  private digest(reads: Map<Party, number>): number {
    if (reads.size === 0) return 0;
    return this.chain([...reads.values()]);
  }

  /** One number for a set of numbers, in whatever order. */
  chain(numbers: number[]): number {
    let all = 0;
    for (const number of numbers.sort((a, b) => a - b)) all = this.pair(all, number);
    return all;
  }

  private resource(key: WordKey): Resource {
    let resource = this.resources.get(key);
    if (resource === undefined) this.resources.set(key, (resource = { write: 0, reads: new Map() }));
    return resource;
  }
}
