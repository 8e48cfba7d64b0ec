import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

/** What the documents show is there; what they point at is looked at by scripts/check-contract.mjs. */

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');

test("the README's driver is examples/guestram.ts, to the letter", () => {
  const shown = /```ts\n([\s\S]*?)```/.exec(read('README.md'))?.[1];
  expect(shown).toBe(read('examples/guestram.ts'));
});

const documents = ['README.md', 'CONTRIBUTING.md', 'guests/README.md'].concat(
  readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.md'))
    .map((path) => join('docs', path)),
);

test('the commands that the README names are those of package.json', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  expect(read('README.md')).toContain('npm ci && npm start');
  expect(read('README.md')).toContain('npm cit');
  expect(Object.keys(scripts)).toEqual(expect.arrayContaining(['start', 'test', 'build']));
});

/** `npx unpin VERB ... --option ...` where the documents show a command: lines of their own. */
const commands = documents.flatMap((document) =>
  [
    ...read(document)
      .replaceAll('\\\n', ' ')
      .matchAll(/^(?: {4})?(?:\$ )?npx unpin .*$/gm),
  ].map(([line]) => line.trim()),
);

/** The options of a verb, as its own help tells them. */
const optionsOf = new Map<string, readonly string[]>();
function options(verb: string): readonly string[] {
  let found = optionsOf.get(verb);
  if (found === undefined) {
    const { stdout } = spawnSync(process.execPath, [join(root, 'dist/cli/main.js'), ...verb.split(' '), '--help']);
    found = [...String(stdout).matchAll(/^ +(?:-\w, )?(--[\w-]+)/gm)].map(([, option]) => option!);
    optionsOf.set(verb, found);
  }
  return found;
}

test.each(commands)('%s: the command has these options', (command) => {
  const [, verb] = /npx unpin (rdma \w+|\w+)/.exec(command)!;
  const said = command.replace(/ #.*/, '').replace(/'[^']*'/g, '');
  expect(options(verb!)).toContain('--help');
  expect(options(verb!)).toEqual(expect.arrayContaining([...said.matchAll(/--[\w-]+/g)].map(([option]) => option)));
});
