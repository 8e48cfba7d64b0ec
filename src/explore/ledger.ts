import type { Actor, Thread } from './actor.js';
import { Causality, type Party } from './causality.js';
import { type Conflicts, SharedMemory } from './memory.js';
import type { PairTable } from './pairs.js';
import { type AccessKind, ATOMIC, MARKED, PLAIN, type Race, RaceDetector, timeOf } from './races.js';
import type { JobQueue } from './runtime.js';
import { describeStep, isWrite, WAIT_OK, type WordStep } from './step.js';

/**
 * All that happens to the shared memory of one run passes through here, and is told to those who keep account of it: which words are shared
 * (over all runs), what depends on what (causality.ts), what is ordered by synchronisation (races.ts), and what is news for those who spin.
 */

/** What an invariant reads is read by one more actor: the steps that change it are worth a choice. */
export const OBSERVER = 26;
/** Events touch words as one more. */
export const DEVICE = 27;

export class Ledger {
  readonly memory = new SharedMemory();
  readonly causality: Causality | undefined;
  readonly races: RaceDetector | undefined;
  readonly conflicts: Conflicts;
  /** Something new was learned about shared words: earlier runs missed choices. */
  grew = false;
  /** The first data race. */
  race: Race | undefined;
  private readonly actors: readonly Actor[];
  private readonly placeNow: () => string | undefined;
  /** For each word, who touched it, as bits; kept where somebody calls cpuRelax. */
  private readonly touched = new Map<number, number>();

  constructor(
    actors: readonly Actor[],
    conflicts: Conflicts,
    pairs: PairTable | undefined,
    placeNow: () => string | undefined,
  ) {
    this.actors = actors;
    this.conflicts = conflicts;
    this.causality = pairs && new Causality(pairs);
    this.races = conflicts.plain ? new RaceDetector() : undefined;
    this.placeNow = placeNow;
  }

  /** Outside of all actors. */
  performOutside(step: WordStep, isInvariant: boolean): number {
    const key = this.memory.perform(step, -1);
    if (isInvariant && this.conflicts.note(key, OBSERVER, false)) this.grew = true;
    return this.memory.result;
  }

  /** Performs the step for an actor, or for an event (`who` is DEVICE). */
  perform(party: Party, who: number, step: WordStep): number {
    const { memory } = this;
    const key = memory.perform(step, who);
    const { conflicts } = this;
    if (conflicts.note(key, who, isWrite(step))) this.grew = true;
    // Two events are one to `note`.
    if (who === DEVICE && !conflicts.shared.has(key)) {
      conflicts.shared.add(key);
      this.grew = true;
    }
    if (conflicts.relaxes) this.noteNews(who, step, key);
    if (this.causality !== undefined && conflicts.shared.has(key)) this.noteOrder(party, step, key);
    if (this.races !== undefined) this.noteClocks(this.races, party, step, key);
    return memory.result;
  }

  /**
   * Who calls cpuRelax may look again when since the last time it has touched a word for the first time, or changed one, or another has
   * changed one that it had touched.
   */
  private noteNews(who: number, { op }: WordStep, key: number): void {
    const { memory, touched, actors } = this;
    const before = touched.get(key) ?? 0;
    const bit = 1 << who;
    if ((before & bit) === 0) {
      touched.set(key, before | bit);
      if (who < OBSERVER) actors[who]!.news = true;
    }
    if (memory.old === memory.now || op === 'lock' || op === 'unlock') return;
    if (who < OBSERVER) actors[who]!.wrote = true;
    if ((before & ~bit) === 0) return;
    for (const actor of actors) if (actor.index !== who && (before & (1 << actor.index)) !== 0) actor.news = true;
  }

  private noteOrder(party: Party, step: WordStep, key: number): void {
    const { causality, memory } = this;
    const sleeps = step.op === 'wait' && memory.result === WAIT_OK;
    if (step.op !== 'notify') {
      if (memory.wrote) causality!.write(party, key);
      else causality!.read(party, key);
    }
    if (sleeps || (step.op === 'notify' && memory.woken.length > 0)) causality!.write(party, memory.sleepersKey(step));
    else if (step.op === 'notify') causality!.read(party, memory.sleepersKey(step));
    if (step.op === 'notify') for (const actor of memory.woken) causality!.follow(this.actors[actor]!, party.last);
  }

  private noteClocks(races: RaceDetector, party: Party, step: WordStep, key: number): void {
    const { op } = step;
    if (op === 'notify') {
      for (const actor of this.memory.woken) races.join(this.actors[actor]!, races.stamp(party));
      return;
    }
    const kind = op === 'readOnce' || op === 'writeOnce' ? MARKED : ATOMIC;
    const { array } = step.words;
    const at = array.byteOffset + step.index * array.BYTES_PER_ELEMENT;
    this.noteAccess(races, party, array.buffer, at, array.BYTES_PER_ELEMENT, kind, this.memory.wrote, step);
    if (kind === ATOMIC && op !== 'store') races.acquire(party, key);
    if (!this.memory.wrote) return;
    if (kind === ATOMIC) races.release(party, key);
    else races.overwrite(key);
  }

  private noteAccess(
    races: RaceDetector,
    party: Party,
    buffer: object,
    at: number,
    lenBytes: number,
    kind: AccessKind,
    write: boolean,
    what: WordStep | string,
  ): void {
    const text = typeof what === 'string' ? what : describeStep(what, this.memory.old, this.memory.now);
    const place = typeof what === 'string' ? this.placeNow() : what.place;
    const base = this.memory.memoryOf(buffer) * 2 ** 33;
    for (let granule = at - (at & 7); granule < at + lenBytes; granule += 8) {
      const from = Math.max(at, granule) - granule;
      const to = Math.min(at + lenBytes, granule + 8) - granule;
      const mask = ((1 << (to - from)) - 1) << from;
      const race = races.access(base + granule, { party, time: timeOf(party), mask, kind, write, text, place });
      if (race !== undefined) this.race ??= race;
    }
  }

  /** A plain access to elements of an array over shared memory. Without `text` it is not looked at for races. */
  plainAccess(
    party: Party,
    who: number,
    array: ArrayBufferView,
    at: number,
    lenBytes: number,
    write: boolean,
    text?: () => string,
  ): void {
    const { conflicts } = this;
    if (text !== undefined && !conflicts.plain) conflicts.plain = this.grew = true;
    const base = this.memory.memoryOf(array.buffer) * 2 ** 33;
    for (let word = at - (at & 3); word < at + lenBytes; word += 4) {
      const key = base + word;
      if (conflicts.note(key, who, write)) this.grew = true;
      if (this.causality === undefined || !conflicts.shared.has(key)) continue;
      if (write) this.causality.write(party, key);
      else this.causality.read(party, key);
    }
    if (this.races !== undefined && text !== undefined)
      this.noteAccess(this.races, party, array.buffer, at, lenBytes, PLAIN, write, text());
  }

  /** A job of one was queued by another. */
  pushed(queue: JobQueue, by: Party): void {
    if (this.causality !== undefined) queue.digest = this.causality.pair(queue.digest, by.last);
    if (this.races !== undefined) this.races.join(queue as JobQueue & Party, this.races.stamp(by));
  }

  /** One subscribes to what another has settled. */
  sawSettled(party: Party, settler: Party): void {
    this.causality?.follow(party, settler.last);
    this.races?.join(party, settler.clock);
  }

  /** An actor calls cpuRelax. */
  noteRelax(party: Party): void {
    if (!this.conflicts.relaxes) this.conflicts.relaxes = this.grew = true;
    this.causality?.follow(party, 0);
  }

  /** The party goes on where its thread was left. */
  enterThread(party: Party, thread: Thread): void {
    this.causality?.follow(party, thread.last);
    this.races?.join(party, thread.clock);
  }

  leaveThread(party: Party, thread: Thread): void {
    thread.last = party.last;
    if (this.races !== undefined) thread.clock = this.races.stamp(party);
  }
}
