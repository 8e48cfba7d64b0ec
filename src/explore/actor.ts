import type { Party } from './causality.js';
import type { Model } from './model.js';
import type { ExploredPromise } from './promise.js';
import type { JobQueue, Steps } from './runtime.js';
import type { Step } from './step.js';

/** Who makes steps in a run: an actor, where it stands, and what it may do next (run.ts); or an event of a device or timer. */

export interface Thread {
  owner: Actor | undefined;
  readonly size: number;
  /** Number of the last event of an actor that held it. */
  last: number;
  clock: number[];
}

export interface Actor extends JobQueue, Party {
  readonly index: number;
  readonly name: string;
  readonly main: (state: unknown) => unknown;
  /** Shared with the actors of the same JavaScript thread. */
  readonly thread: Thread;
  steps: Steps | undefined;
  pending: Step | undefined;
  result: ExploredPromise | undefined;
  /** Calls of cpuRelax. */
  relaxes: number;
  /** Since its last cpuRelax: to look again may show something new; it has itself changed a word. */
  news: boolean;
  wrote: boolean;
}

/** Something outside of all actors that will happen once, whenever the scheduler says so. */
export interface PendingEvent extends JobQueue, Party {
  readonly name: string;
  readonly act: () => void;
}

/** In the order of the model, before their first step. */
export function makeActors(model: Model<unknown>): Actor[] {
  const names = Object.keys(model.actors);
  const threadOf = new Map<string, Thread>();
  for (const group of model.threads ?? []) {
    const thread = makeThread(group.length);
    for (const name of group) threadOf.set(name, thread);
  }
  return names.map((name, index) => ({
    index,
    name,
    main: model.actors[name]!,
    thread: threadOf.get(name) ?? makeThread(1),
    jobs: [],
    digest: 0,
    last: index + 1,
    slot: index,
    clock: [],
    steps: undefined,
    pending: { op: 'start' },
    result: undefined,
    relaxes: 0,
    news: true,
    wrote: false,
  }));
}

function makeThread(size: number): Thread {
  return { owner: undefined, size, last: 0, clock: [] };
}
