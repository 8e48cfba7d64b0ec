import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { transform } from 'esbuild';
import { expect, it } from 'vitest';
import { apply, type Edit } from '../../src/explore/edit.js';
import { editsOf, type Task, tasksOf } from '../../src/explore/suite.js';

/** Every mutant of every model still fits its sources: its edits can be made, change something, and leave what parses. None is explored here. */

const sources = ['src', 'test', 'examples'].flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => join(folder, file)),
);

const FOLDER = 'test/explore/models';
const models = readdirSync(FOLDER).filter((file) => file.endsWith('.ts'));
const tasks: Task[] = [];
for (const file of models) tasks.push(...(await tasksOf(`${FOLDER}/${file}`, true)));

/** The files that the edits change, with the new text. Throws KernelError EINVAL for an edit that does not fit. */
function edited(edits: readonly Edit[]): Map<string, string> {
  const texts = new Map<string, string>();
  for (const edit of edits) {
    const files = sources.filter((path) => path.endsWith(`/${edit.file}`));
    expect({ file: edit.file, files }).toEqual({ file: edit.file, files: [expect.any(String)] });
    const file = files[0]!;
    texts.set(file, apply(texts.get(file) ?? readFileSync(file, 'utf8'), edit));
  }
  return texts;
}

it.each(tasks)('fits: $name', async ({ mutant }) => {
  for (const [file, text] of edited(editsOf(mutant!))) {
    expect(text).not.toBe(readFileSync(file, 'utf8'));
    await transform(text, { loader: 'ts', sourcefile: file });
  }
});

it('refuses what does not fit', async () => {
  const file = 'mm/notifier/invalidateseq.ts';
  expect(() => edited([{ file, find: 'no such text', replace: '' }])).toThrow(/EINVAL.*holds it 0 times/);
  expect(() => edited([{ file, find: 'const', replace: '' }])).toThrow(/EINVAL.*must hold 'const' once/);
});
