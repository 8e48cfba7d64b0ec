import type { Step } from './steprun.js';

/**
 * How `unpin step` shows its steps: a table with a line for each, or, where the terminal is too narrow for that, a few lines for each. What has changed since
 * the step before is marked.
 */

const HEAD: Step = {
  ...{ who: 'who', what: 'what', pte: 'pte', external: 'external pte', tlb: 'TLB' },
  ...{ seq: 'seq', inProgress: 'inProgress', frame: 'frame' },
};
const COLUMNS = Object.keys(HEAD) as (keyof Step)[];
/** Columns that say what is so after the step. */
const STATE = COLUMNS.slice(2);
const INDENT = '     ';
const LEGEND = [
  '*: changed by this step.',
  'RWAD: readable, writable, accessed, dirty.',
  'seq, inProgress: brackets that ended, and those under way.',
  'refs, maps: references to the frame, and those of them that are ptes.',
].join('\n');

export interface StepTable {
  /** What comes before the first step. */
  readonly head: string;
  /** Of one line or several, each. */
  readonly steps: readonly string[];
}

/** `columns`: of the terminal; 0 where there is no end of them. */
export function stepTable(steps: readonly Step[], columns: number): StepTable {
  const rows = steps.map((step, n) => marked(step, steps[n - 1]));
  const widths = COLUMNS.map((c) => Math.max(HEAD[c].length, ...rows.map((row) => row[c].length)));
  const lines = [HEAD, ...rows].map((row, n) => {
    const cells = COLUMNS.map((c, k) => row[c].padEnd(widths[k]!));
    return `${numbered(n)}  ${cells.join('  ')}`.trimEnd();
  });
  if (columns === 0 || lines.every((line) => line.length < columns))
    return { head: `${LEGEND}\n\n${lines[0]}`, steps: lines.slice(1) };
  return { head: `${LEGEND}\n`, steps: rows.map((row, n) => narrow(row, n + 1, columns)) };
}

function numbered(n: number): string {
  return n === 0 ? '   ' : String(n).padStart(3);
}

function marked(step: Step, before: Step | undefined): Step {
  const marks = STATE.filter((c) => before !== undefined && step[c] !== before[c]);
  return { ...step, ...Object.fromEntries(marks.map((c) => [c, `${step[c]}*`])) };
}

function narrow(row: Step, n: number, columns: number): string {
  const [first, ...words] = row.what.trimStart().split(' ');
  const depth = row.what.slice(0, row.what.length - row.what.trimStart().length);
  const what = fill([`${numbered(n)}  ${row.who}: ${depth}${first}`, ...words], ' ', INDENT, columns);
  const [pte, ...rest] = STATE.map((c) => `${HEAD[c]} ${row[c]}`);
  return `${what}\n${fill([`${INDENT}${pte}`, ...rest], '  ', INDENT, columns)}`;
}

/** Fills lines of fewer than `columns` characters; those after the first begin with `indent`. */
function fill(words: readonly string[], gap: string, indent: string, columns: number): string {
  const lines = [words[0]!];
  for (const word of words.slice(1)) {
    const longer = `${lines.at(-1)}${gap}${word}`;
    if (columns === 0 || longer.length < columns) lines[lines.length - 1] = longer;
    else lines.push(`${indent}${word}`);
  }
  return lines.join('\n');
}
