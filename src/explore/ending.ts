import type { Actor } from './actor.js';
import type { SharedMemory } from './memory.js';
import { isWordStep, type WordStep, wordLabel } from './step.js';

/** Why a run cannot go on although not everyone is done. */

export interface Ending {
  readonly kind: 'deadlock' | 'lost wake-up' | 'livelock';
  /** For each of those who are stuck. */
  readonly why: readonly { readonly actor: Actor; readonly text: string }[];
}

export function endingOf(actors: readonly Actor[], memory: SharedMemory): Ending | undefined {
  const stuck = actors.filter((actor) => actor.pending !== undefined || actor.result?.settled === false);
  if (stuck.length === 0) return undefined;
  const why = stuck.map((actor) => ({ actor, text: whyStuck(actor, actors, memory) }));
  if (stuck.some(({ pending }) => pending?.op === 'relax')) return { kind: 'livelock', why };
  return { kind: stuck.some((actor) => sleepsOnChanged(actor, memory)) ? 'lost wake-up' : 'deadlock', why };
}

/** The wait that goes on although the word has left the value for which it was. */
function sleepsOnChanged({ pending, index }: Actor, memory: SharedMemory): WordStep | undefined {
  const step = pending?.op === 'woken' ? memory.waitOf(index) : undefined;
  return step !== undefined && memory.hasChanged(step) ? step : undefined;
}

function whyStuck(actor: Actor, actors: readonly Actor[], memory: SharedMemory): string {
  const { pending, index } = actor;
  if (pending === undefined) return 'awaits a promise that nobody settles';
  if (pending.op === 'relax') return 'looks again and again, and nobody changes what it waits for';
  if (pending.op === 'woken') {
    const changed = sleepsOnChanged(actor, memory);
    if (changed === undefined) return 'waits, and nobody is left to wake it';
    const [was, is] = [changed.value, changed.words.array[changed.index]];
    return `sleeps at ${wordLabel(changed)} until it is not ${was}; it is ${is}, and nobody is left to wake it`;
  }
  if (!isWordStep(pending)) return 'waits for its thread';
  const holder = memory.holderOf(pending);
  const who = holder === undefined ? 'nobody who is left' : holder === index ? 'itself' : actors[holder]?.name;
  return `waits for lock ${wordLabel(pending)}, held by ${who ?? 'setup'}`;
}
