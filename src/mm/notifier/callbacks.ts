import { CONFIG_LOCKDEP } from '../../base/index.js';
import type { Mm } from '../mm.js';
import type { NotifierCalls } from '../stat/stats.js';
import { enterCallback, leaveCallback, pinAll } from './containment.js';
import type { NotifierHost } from './notifierhost.js';
import type { MmuSubscription } from './subscription.js';

/**
 * Callbacks of the drivers of one mm: each is counted, watched while it runs, and looked at when it returns. One that breaks the contract poisons its
 * subscription (containment.ts), which is not called again (N19).
 *
 * Use: `guard` around an op that is rare; `enter`, the op, `leave` where nothing may be allocated. The ops of a bracket do the same with fewer steps (brackets.ts).
 */
export class Callbacks {
  readonly host: NotifierHost;
  /** Whether callbacks are looked at more closely than for what they return: always in debug builds. */
  readonly watched: boolean;
  private readonly mm: Mm;
  /** Guarded callbacks that run right now. */
  private nrRunning = 0;

  constructor(mm: Mm, host: NotifierHost) {
    this.mm = mm;
    this.host = host;
    this.watched = CONFIG_LOCKDEP || host.budgetMs !== 0 || host.debug;
  }

  get running(): boolean {
    return this.nrRunning > 0;
  }

  /** Calls an op of `sub`, unless it is poisoned. */
  guard(sub: MmuSubscription, op: keyof NotifierCalls, call: () => unknown): void {
    if (sub.poisoned !== undefined) return;
    const began = this.enter(op);
    let result: unknown;
    try {
      result = call();
    } catch (error) {
      this.threw(sub, op, error);
    }
    this.leave(sub, op, began, result);
  }

  /** A callback is about to run. Returns what `leave` needs. */
  enter(op: keyof NotifierCalls): number {
    this.host.calls[op]++;
    this.nrRunning++;
    return this.watched ? enterCallback(this.host, op, false) : 0;
  }

  /** It has returned `result`, or thrown. Pairs with `enter`. */
  leave(sub: MmuSubscription, op: string, began: number, result: unknown): void {
    this.nrRunning--;
    if (this.watched || typeof result === 'object') this.judge(sub, op, began, result);
  }

  /** Poisons the subscription whose op has returned `result`, if that breaks the contract. */
  judge(sub: MmuSubscription, op: string, began: number, result: unknown): void {
    const broken = leaveCallback(this.host, op, began, result);
    if (broken !== undefined) this.poison(sub, broken);
  }

  threw(sub: MmuSubscription, op: string, error: unknown): void {
    this.poison(sub, `${op} threw ${String(error)}`);
  }

  /** The subscription broke its contract: what it may map now stays pinned, and so does what a later bracket would take away. */
  poison(sub: MmuSubscription, reason: string): void {
    if (sub.poisoned !== undefined) return;
    sub.poisoned = reason;
    this.host.vmstat.poisoned++;
    if (this.mm.remotes !== undefined) this.mm.remotes.revoke();
    pinAll(sub);
    const { onPoisoned } = sub;
    if (onPoisoned !== undefined) this.host.defer(() => onPoisoned(sub, reason));
  }
}
