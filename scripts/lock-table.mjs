#!/usr/bin/env node
/**
 * The table of locks in docs/contract.md, made from src/base/lockorder.ts (as built): `node scripts/lock-table.mjs` writes it, `--check`
 * compares, prints the first line that differs and ends with exit code 1 (a part of `npm run check`).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LOCK_CLASSES } from '../dist/base/lockorder.js';

const CONTRACT = join(import.meta.dirname, '../docs/contract.md');
const BEGIN = '<!-- locks: from src/base/lockorder.ts, by scripts/lock-table.mjs -->';
const END = '<!-- end of locks -->';

const yesNo = (value) => (value ? 'yes' : 'no');
const HEAD = [
  'lock',
  'rank',
  'guards',
  'wait while held',
  'over a bracket',
  'in a callback',
  'several at once',
  'held by',
];

function rows() {
  return Object.values(LOCK_CLASSES)
    .sort((a, b) => a.rank - b.rank)
    .map((c) => [c.name, `${c.rank}`, c.guards, yesNo(c.wait), yesNo(c.bracket), yesNo(c.callback), c.nest, c.owner]);
}

function table() {
  const all = [HEAD, ...rows()];
  const widths = HEAD.map((_, i) => Math.max(...all.map((row) => row[i].length)));
  const line = (row) => `| ${row.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`;
  return [line(HEAD), line(widths.map((w) => '-'.repeat(w))), ...rows().map(line)].join('\n');
}

const text = readFileSync(CONTRACT, 'utf8');
const [before, rest] = text.split(BEGIN);
const after = rest?.split(END)[1];
if (after === undefined) {
  process.stderr.write(`lock-table: docs/contract.md must have the lines ${BEGIN} and ${END}\n`);
  process.exit(1);
}
const made = `${before}${BEGIN}\n\n${table()}\n\n${END}${after}`;
if (!process.argv.includes('--check')) writeFileSync(CONTRACT, made);
else if (made !== text) {
  const [is, should] = [text.split('\n'), made.split('\n')];
  const i = should.findIndex((line, n) => line !== is[n]);
  process.stderr.write(
    `docs/contract.md:${i + 1}: is not what src/base/lockorder.ts says; run node scripts/lock-table.mjs\n`,
  );
  process.exit(1);
}
