import type { TraceEntry } from './outcome.js';
import type { SearchFailure, SearchResult } from './search.js';

/** How a search's outcome is shown: a failure as the actors' steps in columns, time running downwards. */

const MIN_COLUMN = 24;
const GAP = '  ';

export function formatResult(result: SearchResult): string {
  const { name, actors, failure, trace } = result;
  if (failure !== undefined) {
    return `${name}: ${failureTitle(failure)}\n\n${columns(actors, failure.trace)}\n${failure.message}\n`;
  }
  if (trace !== undefined) return `${name}: no failure in this schedule\n\n${columns(actors, trace)}`;
  return `${name}: no failure in ${extent(result)}\n`;
}

/** What was covered, as a sentence's end. */
export function extent({ distinct, states, complete, preemptions, walks }: SearchResult): string {
  const runs = count(distinct, 'schedule') + (states === 0 ? '' : ` through ${count(states, 'state')}`);
  if (complete) return `${runs}, which are all`;
  const bound = `all with at most ${count(preemptions, 'preemption')}`;
  return `${runs}, ${bound}${walks === 0 ? '' : `, nor in ${count(walks, 'random schedule')}`}`;
}

function count(n: number | 'none', what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`;
}

function failureTitle({ kind }: SearchFailure): string {
  switch (kind) {
    case 'invariant':
      return 'an invariant is broken';
    case 'check':
      return 'the check at the end fails';
    case 'threw':
      return 'an actor threw';
    case 'data race':
      return 'a data race';
    default:
      return kind;
  }
}

/** Longer traces are shown by their beginning and their end. */
const MAX_LINES = 120;

/** Steps that no other actor could notice are left out. */
function columns(actors: readonly string[], trace: readonly TraceEntry[]): string {
  const shown = trace.filter((entry) => entry.visible);
  if (shown.some(({ actor }) => actor < 0)) actors = [...actors, 'devices'];
  const entries = shown.map((entry) => (entry.actor < 0 ? { ...entry, actor: actors.length - 1 } : entry));
  const widths = actors.map((name, i) =>
    Math.max(
      MIN_COLUMN,
      name.length,
      ...entries.filter((entry) => entry.actor === i).map((entry) => entry.text.length),
    ),
  );
  const line = (cells: readonly string[]) => `  ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(GAP)}`.trimEnd();
  const lines = entries.map(({ actor, text }) => line(actors.map((_, i) => (i === actor ? text : ''))));
  if (lines.length > MAX_LINES) {
    const left = lines.length - MAX_LINES;
    lines.splice(MAX_LINES / 2, left, `  ... ${left} more steps ...`);
  }
  return `${[line(actors), line(widths.map((width) => '-'.repeat(width))), ...lines].join('\n')}\n`;
}
