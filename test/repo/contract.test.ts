import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';

/** scripts/check-contract.mjs on made-up trees: one that is right, then the same with one fault each. */

const script = fileURLToPath(new URL('../../scripts/check-contract.mjs', import.meta.url));
const { checkContract } = (await import(script)) as { checkContract(root: string): string[] };
const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

/** Numbers are put together here, so that this file cites none. */
const N = (i: number) => `N${i}`;
const S = (i: number) => `S${i}`;

const GOOD: Record<string, string> = {
  'docs/contract.md': [
    '# Contract',
    `- **${N(1)}** A promise of which more`,
    '  is said. Code: `src/mm/a.ts`. Tests: `test/mm/a.test.ts`.',
    `- **${N(2)}** Another, as ${N(1)} and ${S(1)}.`,
    `- **${S(1)}** (reserved: comes with fork) What is to come.`,
    '',
  ].join('\n'),
  'docs/design.md': `As ${N(1)} says.\n`,
  'src/mm/a.ts': `// Proved by test/mm/a.test.ts.\nbug('${N(1)}', 'broken');\n`,
  'test/mm/a.test.ts': [
    `test('${N(1)}: holds', () => {});`,
    `describe('more', () => {`,
    `  it.skipIf(false)('${N(2)}: holds too', () => {});`,
    `});`,
    '',
  ].join('\n'),
};

function treeWith(changes: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), 'unpin-contract-'));
  folders.push(root);
  for (const [file, text] of Object.entries({ ...GOOD, ...changes })) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), text);
  }
  return root;
}

function check(changes: Record<string, string>): string[] {
  return checkContract(treeWith(changes));
}

/** The good tree with one text replaced. */
function replaced(file: string, from: string, to: string): string[] {
  expect(GOOD[file]).toContain(from);
  return check({ [file]: GOOD[file]!.replace(from, to) });
}

test('a tree without faults passes', () => {
  expect(check({})).toEqual([]);
});

test('as a command: a line for each fault, then their number, exit code 1; else nothing and 0', () => {
  const run = (root: string) => spawnSync(process.execPath, [script, root], { encoding: 'utf8' });
  expect(run(treeWith({}))).toMatchObject({ status: 0, stdout: '', stderr: '' });
  const bad = run(treeWith({ 'src/mm/b.ts': `// ${N(7)} ${N(8)}\n` }));
  expect(bad.status).toBe(1);
  expect(bad.stderr.split('\n')).toEqual([
    `src/mm/b.ts:1: ${N(7)} is not in docs/contract.md`,
    `src/mm/b.ts:1: ${N(8)} is not in docs/contract.md`,
    'check-contract: 2 faults',
    '',
  ]);
});

test('a number that is not in the contract is a fault, wherever it is cited', () => {
  for (const file of ['src/mm/b.ts', 'test/mm/b.ts', 'examples/b.ts', 'docs/b.md', 'bench/b.ts']) {
    expect(check({ [file]: `\n// ${N(7)}\n` })).toEqual([`${file}:2: ${N(7)} is not in docs/contract.md`]);
  }
  expect(replaced('docs/contract.md', `and ${S(1)}`, `and ${S(9)}`)).toEqual([
    `docs/contract.md:4: ${S(9)} is not in docs/contract.md`,
  ]);
});

test('a reserved number may not be cited outside the contract', () => {
  expect(check({ 'src/mm/b.ts': `// ${S(1)}\n` })).toEqual([
    `src/mm/b.ts:1: ${S(1)} is reserved (docs/contract.md:5, comes with fork); promise it there first`,
  ]);
});

test('a promise without a test is a fault; a skipped test, or a comment, is none', () => {
  for (const to of [`it.skip('${N(2)}: holds`, `it.todo('${N(2)}: holds`, `// ${N(2)}\n  it.skipIf(false)('holds`]) {
    expect(replaced('test/mm/a.test.ts', `it.skipIf(false)('${N(2)}: holds`, to)).toEqual([
      `docs/contract.md:4: ${N(2)} is promised, but no test names it in its title`,
    ]);
  }
});

test('a number that is defined twice is a fault', () => {
  expect(replaced('docs/contract.md', `**${N(2)}**`, `**${N(1)}**`)[0]).toBe(
    `docs/contract.md:4: ${N(1)} is defined a second time`,
  );
});

test('the files that the contract names must be there and name the number', () => {
  expect(replaced('docs/contract.md', '`src/mm/a.ts`', '`src/mm/gone.ts`')).toEqual([
    'docs/contract.md:3: src/mm/gone.ts does not exist',
  ]);
  expect(check({ 'src/mm/a.ts': 'export {};\n' })).toEqual([
    `docs/contract.md:3: ${N(1)}: src/mm/a.ts does not name it`,
  ]);
  expect(replaced('test/mm/a.test.ts', `test('${N(1)}: holds'`, `// ${N(1)}\ntest('holds'`)).toContain(
    `docs/contract.md:3: ${N(1)}: test/mm/a.test.ts does not name it`,
  );
});

test('a bug() without an invariant, and a proof that is not there, are faults', () => {
  expect(replaced('src/mm/a.ts', `'broken');`, `'broken');\nbug('oops', 'broken');`)).toEqual([
    `src/mm/a.ts:3: bug('oops', ...): the first argument must be a number of docs/contract.md`,
  ]);
  expect(replaced('src/mm/a.ts', 'test/mm/a.test.ts', 'test/mm/none.test.ts')).toEqual([
    'src/mm/a.ts:1: test/mm/none.test.ts does not exist',
  ]);
});

test('a file, a folder, a link or a heading that a document names and that is not there is a fault', () => {
  const shown =
    'See `src/mm/`, `src/mm/a.ts`, test/mm/*.test.ts, [it](contract.md#contract) and https://x.org/src/no/a.ts.\n';
  expect(check({ 'docs/b.md': shown, 'README.md': 'In [docs](docs/contract.md): docs/design.md.\n' })).toEqual([]);
  const cases: [string, string][] = [
    ['src/mm/`', 'src/none/`'],
    ['a.ts`', 'b.ts`'],
    ['test/mm', 'test/none'],
    ['contract.md#', 'none.md#'],
    ['#contract', '#none'],
  ];
  const faults = cases.map(([from, to]) => check({ 'docs/b.md': shown.replace(from, to) }));
  expect(faults).toEqual([
    ['docs/b.md:1: src/none/ does not exist'],
    ['docs/b.md:1: src/mm/b.ts does not exist'],
    ['docs/b.md:1: test/none/ does not exist'],
    ['docs/b.md:1: the link to none.md leads nowhere'],
    ['docs/b.md:1: docs/contract.md has no heading #none'],
  ]);
  expect(check({ 'README.md': 'src/none.ts\n' })).toEqual(['README.md:1: src/none.ts does not exist']);
});

test('a contract without numbers is a fault', () => {
  expect(check({ 'docs/contract.md': '# Contract\n' })[0]).toMatch(/docs\/contract.md:1: no numbers here/);
});
