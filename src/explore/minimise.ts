import type { Run } from './run.js';
import type { Search } from './search.js';

/**
 * Makes a failing schedule simpler while it fails in the same way: fewest preemptions, then fewest steps, then fewest switches. Stretches of its
 * actors are left out or exchanged, one after the other, and what then cannot be followed is skipped (delta debugging).
 */

/** Runs of the model that it may take. */
const MAX_TRIALS = 300;

/** Returns the simplest run that it found; `failed` fails. */
export function minimise(search: Search, failed: Run): Run {
  const first = runLoosely(search, failed.conflictsGrew ? visibleChoices(search, failed) : failed.choices);
  if (!failsAlike(first, failed)) return failed;
  let best = first;
  let trials = 0;
  for (let again = true; again; ) {
    again = false;
    for (const choices of simpler(best.choices)) {
      if (++trials > MAX_TRIALS) return best;
      const run = runLoosely(search, choices);
      if (!failsAlike(run, failed) || !isSimpler(run, best)) continue;
      best = run;
      again = true;
      break;
    }
  }
  return best;
}

function failsAlike(run: Run, failed: Run): boolean {
  return run.failure?.kind === failed.failure!.kind;
}

function isSimpler(run: Run, than: Run): boolean {
  return (
    (run.preemptions - than.preemptions || run.order.length - than.order.length || switches(run) - switches(than)) < 0
  );
}

function switches({ choices }: Run): number {
  return stretches(choices).length;
}

/** The schedule's choices at the points where they count now that more words are known to be shared. */
function visibleChoices(search: Search, failed: Run): number[] {
  const run = search.newRun();
  run.stepwise = true;
  const choices: number[] = [];
  for (const who of failed.order) {
    if (run.failure !== undefined || !run.enabled().includes(who)) break;
    if (run.isChoice(who)) choices.push(who);
    run.choose(who);
  }
  return choices;
}

/** Follows the choices where they can be followed, and goes on without preemption. */
function runLoosely(search: Search, choices: readonly number[]): Run {
  const run = search.newRun();
  search.watch.follow(run);
  for (let at = 0; ; ) {
    run.settle();
    run.checkInvariant();
    search.watch.check(run);
    const enabled = run.enabled();
    if (run.failure !== undefined || enabled.length === 0) break;
    while (at < choices.length && !enabled.includes(choices[at]!)) at++;
    const holder = run.holder();
    run.choose(choices[at++] ?? (holder < 0 ? cheapest(run, enabled) : holder));
  }
  run.finish();
  return run;
}

function cheapest(run: Run, enabled: readonly number[]): number {
  return enabled.find((who) => run.costOf(who, -1) === 0) ?? enabled[0]!;
}

/** Where the same one is chosen several times, as [start, end). */
function stretches(choices: readonly number[]): [number, number][] {
  const list: [number, number][] = [];
  for (let start = 0; start < choices.length; ) {
    let end = start + 1;
    while (choices[end] === choices[start]) end++;
    list.push([start, end]);
    start = end;
  }
  return list;
}

function* simpler(choices: readonly number[]): Generator<readonly number[]> {
  const list = stretches(choices);
  for (const [start, end] of list) {
    yield choices.slice(0, start);
    yield [...choices.slice(0, start), ...choices.slice(end)];
  }
  for (let i = 0; i + 1 < list.length; i++) {
    const [start, middle] = list[i]!;
    const end = list[i + 1]![1];
    const swapped = [...choices.slice(middle, end), ...choices.slice(start, middle)];
    yield [...choices.slice(0, start), ...swapped, ...choices.slice(end)];
  }
}
