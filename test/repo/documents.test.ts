import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { formatResult } from '../../src/explore/index.js';
import { runTask, tasksOf } from '../../src/explore/suite.js';
import { testFolder, unpin } from '../cli/command.js';

/** What docs/explore.md shows is what happens: its code, its commands, its output, and its tables. Its programs as a user has them: package.test.ts. */

const root = fileURLToPath(new URL('../..', import.meta.url));
const text = readFileSync(join(root, 'docs/explore.md'), 'utf8');
const contract = readFileSync(join(root, 'docs/contract.md'), 'utf8');
const blocks = [...text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language, code]) => ({
  language,
  code: code!,
}));
const folder = testFolder('documents');
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function block(what: RegExp): string {
  const found = blocks.filter(({ code }) => what.test(code));
  expect(found).toHaveLength(1);
  return found[0]!.code;
}

/** The first cells of the table whose head begins with `head`. */
function firstCells(head: string): string[] {
  const lines = text
    .slice(text.indexOf(`\n| ${head} `))
    .trimStart()
    .split('\n');
  const end = lines.findIndex((line) => !line.startsWith('|'));
  return lines.slice(2, end).map((line) => line.split('|')[1]!.trim());
}

test('every block is one that is looked at here', () => {
  expect(blocks).toHaveLength(4);
});

test('a command is shown with what it prints, to the letter', async () => {
  const [command, ...output] = block(/^\$ npx unpin /).split('\n');
  const args = command!.slice('$ npx unpin '.length).split(' ');
  expect((await unpin(args, { cwd: root }).done).stdout).toBe(output.join('\n'));
});

test('the model that is shown fails as it should, and its file may have mutants', async () => {
  const file = join(folder, 'lost.ts');
  writeFileSync(file, block(/name: 'lost update'/));
  const { code, stdout } = await unpin(['explore', file]).done;
  expect(code).toBe(1);
  expect(stdout).toMatch(/\ncounter is 1, not 2\n/);
});

test('the report of a data race that is shown is that of examples/ring.ts with a protection less', async () => {
  const tasks = await tasksOf('examples/ring.ts', true);
  const reports = [];
  for (const task of tasks) reports.push(formatResult((await runTask(task, {})).result));
  expect(reports.filter((report) => report.endsWith(block(/nothing orders these accesses/)))).toHaveLength(1);
});

test('the mutant that is shown fits, and is found', async () => {
  const file = join(folder, 'mutant.ts');
  const models = join(root, 'test/explore/models/invalidateseq.ts');
  writeFileSync(
    file,
    `import { asItIs } from '${models}';\nexport default { ...asItIs,\n${block(/^ {2}mutants: \[/)} };`,
  );
  const tasks = await tasksOf(file, true);
  expect(tasks).toHaveLength(1);
  const { ok, why } = await runTask(tasks[0]!, {});
  expect([ok, why]).toEqual([true, undefined]);
});

test('the options that are told are those that there are', async () => {
  const { stdout } = await unpin(['explore', '--help']).done;
  const options = (of: string) => new Set([...of.matchAll(/--[a-z]+/g)].map(([option]) => option));
  const there = options(stdout.slice(stdout.indexOf('Options:')).replaceAll(/^ {3,}.*$/gm, ''));
  there.delete('--help');
  const told = options(text.slice(text.indexOf('## Options'), text.indexOf('## What it finds')));
  expect([...told].sort()).toEqual([...there].sort());
});

test('every file of models is in the table, and nothing else', () => {
  const files = readdirSync(join(root, 'test/explore/models')).map((file) => file.replace(/\.ts$/, ''));
  const told = firstCells('file').flatMap((cell) => [...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name!));
  expect(told.sort()).toEqual(files.sort());
});

test('every exhibit of the museum that is promised has a model, or why it has none is told', () => {
  const promised = [...contract.matchAll(/^- \*\*(M\d+)\*\*(?! \(reserved)/gm)].map(([, number]) => number!);
  const section = text.slice(text.indexOf('### The museum'), text.indexOf('### What cannot'));
  const told = new Set(section.match(/\bM\d+\b/g));
  expect(promised.filter((number) => !told.has(number))).toEqual([]);
});
