import type { Party } from './causality.js';
import type { WordKey } from './memory.js';

/**
 * Data races of one run, by vector clocks: two accesses to the same bytes, at least one of them a write and at least one of them plain
 * and not marked, that no synchronisation orders. What orders is: an atomic load that sees an atomic store (or a read-modify-write, or a
 * lock), `notify` and the `wait` that it ends, the start of an actor and the end of all before `check`, and what a promise or one thread
 * puts in order. `readOnce` and `writeOnce` order nothing; being marked, they race with plain accesses alone (Linux: KCSAN's rules).
 */

export const PLAIN = 0;
export const MARKED = 1;
export const ATOMIC = 2;
export type AccessKind = typeof PLAIN | typeof MARKED | typeof ATOMIC;

/** An access that later ones are compared with. */
export interface Access {
  readonly party: Party;
  readonly time: number;
  /** Which of eight bytes. */
  readonly mask: number;
  readonly kind: AccessKind;
  readonly write: boolean;
  readonly text: string;
  /** A stack, in runs that are shown. */
  readonly place: string | undefined;
}

export interface Race {
  readonly before: Access;
  readonly now: Access;
}

export class RaceDetector {
  /** What an atomic load of the word learns. */
  private readonly released = new Map<WordKey, number[]>();
  private readonly accesses = new Map<number, Access[]>();

  /** `from` happened before what the party does next. */
  join(party: Party, from: readonly number[]): void {
    const { clock } = party;
    for (let i = 0; i < from.length; i++) if ((from[i] ?? 0) > (clock[i] ?? 0)) clock[i] = from[i]!;
  }

  /** The party's time now; what it does later is not in it. */
  stamp(party: Party): number[] {
    const time = timeOf(party);
    const stamp = party.clock.slice();
    party.clock[party.slot] = time + 1;
    return stamp;
  }

  acquire(party: Party, key: WordKey): void {
    const from = this.released.get(key);
    if (from !== undefined) this.join(party, from);
  }

  release(party: Party, key: WordKey): void {
    this.released.set(key, this.stamp(party));
  }

  /** A marked plain store: whoever loads the word now learns nothing. */
  overwrite(key: WordKey): void {
    this.released.delete(key);
  }

  /** `granule`: a number for the eight bytes. Keeps the access; returns the one with which it races. */
  access(granule: number, now: Access): Race | undefined {
    let list = this.accesses.get(granule);
    if (list === undefined) this.accesses.set(granule, (list = []));
    let kept = 0;
    let race: Race | undefined;
    for (const before of list) {
      if (races(before, now)) race ??= { before, now };
      if (!replaces(now, before)) list[kept++] = before;
    }
    list.length = kept;
    list.push(now);
    return race;
  }
}

export function timeOf({ clock, slot }: Party): number {
  return (clock[slot] ??= 1);
}

function races(before: Access, now: Access): boolean {
  if (before.party === now.party || (before.mask & now.mask) === 0) return false;
  if (!(before.write || now.write) || !(before.kind === PLAIN || now.kind === PLAIN)) return false;
  return before.time > (now.party.clock[before.party.slot] ?? 0);
}

/** Whatever races with the older races with the newer, too. */
function replaces(now: Access, before: Access): boolean {
  return (
    now.party === before.party &&
    (before.mask & ~now.mask) === 0 &&
    now.kind <= before.kind &&
    (now.write || !before.write)
  );
}
