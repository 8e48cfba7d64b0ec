import type { Host, HostOptions } from '../host.js';
import type { NotifierCalls, VmStat } from '../stat/stats.js';

/** What the notifiers of an mm need of their host, and what those of all its mms share: counters, time, the numbers of subscriptions. */
export interface NotifierHost {
  readonly calls: NotifierCalls;
  /** A callback that takes longer is a broken contract; 0 for no budget. */
  readonly budgetMs: number;
  now(): number;
  defer(fn: () => void): void;
  nextId(): number;
  readonly vmstat: Pick<VmStat, 'brackets' | 'refusals' | 'poisoned'>;
  /** Whether drivers are asked after each start what they have left behind. */
  readonly debug: boolean;
}

export function makeNotifierHost(host: Host, options: HostOptions): NotifierHost {
  const { vmstat } = host;
  let nextId = 1;
  return {
    calls: vmstat.notifierCalls,
    budgetMs: options.now === undefined ? 0 : (options.notifierBudgetMs ?? 0),
    now: options.now ?? (() => 0),
    defer: (fn) => host.defer(fn),
    nextId: () => nextId++,
    vmstat,
    debug: options.debug ?? false,
  };
}
