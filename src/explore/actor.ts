import type { Model } from './model.js';
import type { ExploredPromise } from './promise.js';
import type { JobQueue, Steps } from './runtime.js';
import type { Step } from './step.js';

/** An actor of one run: where it stands, and what it may do next (run.ts). */
export interface Actor extends JobQueue {
  readonly index: number;
  readonly name: string;
  readonly main: (state: unknown) => unknown;
  /** Actors of the same JavaScript thread, itself included. */
  readonly thread: { owner: Actor | undefined; readonly size: number };
  steps: Steps | undefined;
  pending: Step | undefined;
  result: ExploredPromise | undefined;
  /** Words that others had changed when it last called cpuRelax. */
  seenChanges: number;
  changes: number;
}

/** In the order of the model, before their first step. */
export function makeActors(model: Model<unknown>): Actor[] {
  const names = Object.keys(model.actors);
  const threadOf = new Map<string, Actor['thread']>();
  for (const group of model.threads ?? []) {
    const thread = { owner: undefined, size: group.length };
    for (const name of group) threadOf.set(name, thread);
  }
  return names.map((name, index) => ({
    index,
    name,
    main: model.actors[name]!,
    thread: threadOf.get(name) ?? { owner: undefined, size: 1 },
    jobs: [],
    steps: undefined,
    pending: { op: 'start' },
    result: undefined,
    seenChanges: 0,
    changes: 0,
  }));
}
