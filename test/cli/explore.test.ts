import fs from 'node:fs';
import path from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { testFolder, unpin } from './command.js';

/** `unpin explore` as a command: what it prints, and its exit codes. */

const folder = testFolder('explore');
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const where = path.join(folder, name);
  fs.writeFileSync(where, text);
  return where;
}

const explore = (...args: string[]) => unpin(['explore', ...args]).done;

it('prints both actors of the broken driver in columns, and a path that replays', async () => {
  const found = await explore('examples/broken-driver.ts');
  expect(found).toMatchObject({ code: 1, stderr: '' });
  expect(found.stdout).toMatch(/^broken driver: the check at the end fails\n\n {2}reclaim +fault\n/);
  expect(found.stdout).toMatch(/\n {30,}entry = \d+\n/);
  expect(found.stdout).toMatch(/\nN3: the device still maps frame \d+/);
  const replay = /--replay (\w+)/.exec(found.stdout)![1]!;
  const replayed = await explore('examples/broken-driver.ts', '--replay', replay);
  expect(replayed.code).toBe(1);
  expect(found.stdout).toBe(`${replayed.stdout}\nreplay: unpin explore examples/broken-driver.ts --replay ${replay}\n`);
});

it('says how much it explored when nothing fails', async () => {
  const result = await explore('examples/mended-driver.ts', '--preemptions', '1');
  expect(result).toMatchObject({ code: 0, stderr: '' });
  expect(result.stdout).toMatch(
    /^mended driver: no failure in \d+ schedules through \d+ states, all with at most 1 preemption\n$/,
  );
});

it('explores JavaScript outside of the package, and notes what ran as one step', async () => {
  const outside = file(
    'model.mjs',
    `import { model } from 'unpin/explore';
     import { Words } from 'unpin/mm';
     export const both = model({
       name: 'both',
       setup: () => new Words({ buffer: new SharedArrayBuffer(4) }, 0, 1),
       actors: { one: (w) => w.store(0, 1), two: (w) => [2, 1].sort((a, b) => w.load(0) + a - b) },
     });`,
  );
  const result = await explore(outside, '--model', 'both', '--preemptions', 'none');
  expect(result.code).toBe(0);
  expect(result.stdout).toMatch(
    /both: no failure in \d+ schedules? through \d+ states, which are all\nnote: shared words were touched \d+ times? in/,
  );
});

it('says which actor threw, what, and where', async () => {
  const throwing = file(
    'throwing.ts',
    `import { model } from 'unpin/explore';
     function deep(): never {
       throw new TypeError('no such thing');
     }
     export default model({
       name: 'throwing',
       setup: () => new Int32Array(new SharedArrayBuffer(4)),
       actors: { one: (w) => void Atomics.store(w, 0, 1), two: (w) => void (Atomics.load(w, 0) === 1 && deep()) },
     });`,
  );
  const { code, stdout, stderr } = await explore(throwing);
  expect([code, stderr]).toEqual([1, '']);
  expect(stdout).toMatch(/^throwing: an actor threw\n/);
  expect(stdout).toMatch(/\ntwo threw TypeError: no such thing at .*throwing.ts:3\n/);
});

const broken = file('broken.ts', 'export default {');
const throws = file('throws.ts', 'throw new Error("no");');
const typo = file('typo.ts', "import { model } from 'unpin/explor'; export default model({});");
const nameless = file('nameless.ts', 'export default { setup: () => 1, actors: { a() {} } };');
const setup = file(
  'setup.ts',
  'export default { name: "s", actors: { a() {} }, setup() { throw new Error("no state") } };',
);

it.each<[string[], RegExp]>([
  [['no-such-file.ts'], /ENOENT: explore: no-such-file.ts must be a file .*: no such file or folder$/m],
  [[folder], /EINVAL: explore: .* must be a file .*: it is no regular file$/m],
  [[broken], /ENOEXEC: explore: .*broken.ts:1: /],
  [[throws], /ENOEXEC: explore: .*throws.ts failed when it was loaded: Error: no/],
  [[setup], /EINVAL: explore: setup of 's' failed: no state/],
  [[typo], /ENOEXEC: explore: .*typo.ts:1: there is no 'unpin\/explor'/],
  [[nameless], /EINVAL: explore: export 'default' of .* must be a model: .*; it has setup, actors$/m],
  [['examples/broken-driver.ts', '--model', 'other'], /EINVAL: explore: export 'other' of .* must be a model/],
  [['examples/broken-driver.ts', '--preemptions', 'few'], /'few' must be a whole number, or none/],
  [['examples/broken-driver.ts', '--replay', 'z1'], /EINVAL: replay: path 'z1' must be of actors a to b/],
  [['examples/broken-driver.ts', '--replay', 'b!'], /EINVAL: replay: path 'b!' must be letters/],
  [['examples/broken-driver.ts', '--all'], /EINVAL: explore: name a file or --all, not both/],
  [['--all', 'no-such-folder'], /ENOENT: explore: no-such-folder must be a folder/],
  [['examples/broken-driver.ts', '--json', 'x'], /EINVAL: explore: --json goes with/],
  [[], /missing required argument 'file'/],
])('refuses %j with one line and exit code 2', async (args, message) => {
  const { code, stdout, stderr } = await explore(...args);
  expect([code, stdout, stderr.trimEnd().split('\n').length]).toEqual([2, '', 1]);
  expect(stderr).toMatch(message);
});

const MODELS = `
  import { label, model } from 'unpin/explore';
  const shared = () => label(new Int32Array(new SharedArrayBuffer(8)), 'word');
  const add = (a) => void Atomics.add(a, 0, 1);
  const set = (a) => void (a[1] = 5);
  export const right = model({
    name: 'right',
    setup: shared,
    actors: { one: add, two: add },
    check: (a) => (a[0] === 2 ? undefined : 'lost'),
    mutants: [
      { name: 'plain', file: 'models.mjs', find: 'Atomics.add(a, 0, 1);', replace: 'a[0]++;', fails: /^data race/ },
      MORE
    ],
  });
`;

it('explores every model of a folder, and says so last', async () => {
  const models = path.join(folder, 'held');
  fs.mkdirSync(models);
  fs.writeFileSync(path.join(models, 'models.mjs'), MODELS.replace('MORE', ''));
  const json = path.join(folder, 'all.json');
  const all = await explore('--all', models, '--json', json, '--workers', '1');
  expect(all).toMatchObject({ code: 0, stderr: '' });
  expect(all.stdout).toMatch(
    /^ {2}model +schedules +states +bound +exhausted +seconds\n.*\n {2}right +\d+ +\d+ +\w+ +yes +[\d.]+\n/,
  );
  expect(all.stdout).toMatch(/\nall 1 models held: \d+ schedules through \d+ states, [\d.]+ s\n$/);
  expect(JSON.parse(fs.readFileSync(json, 'utf8')).models).toMatchObject([
    { model: 'right', ok: true, exhausted: true, complete: true },
  ]);
  const mutants = await explore(path.join(models, 'models.mjs'), '--mutants');
  expect(mutants).toMatchObject({ code: 0, stderr: '' });
  expect(mutants.stdout).toMatch(/right: plain +data race +\d+ +0 +ab\n/);
  expect(mutants.stdout).toMatch(/\nall 1 mutants of 1 models were found, [\d.]+ s\n$/);
});

it('has exit code 1 for a model that fails, and for a mutant that is left alive or does not fit', async () => {
  const models = path.join(folder, 'failing');
  fs.mkdirSync(models);
  const more = `{ name: 'harmless', file: 'models.mjs', find: 'a[1] = 5', replace: 'a[1] = 6' },
      { name: 'gone', file: 'models.mjs', find: 'no such text', replace: '' },`;
  const failing = `export const wrong = model({ name: 'wrong', setup: shared, actors: { one: set, two: set } });`;
  const where = path.join(models, 'models.mjs');
  fs.writeFileSync(where, MODELS.replace('MORE', more) + failing);
  const all = await explore('--all', models);
  expect(all.code).toBe(1);
  expect(all.stdout).toMatch(/ {2}wrong +\d+ +\d+ +\d +FAILED/);
  expect(all.stdout).toMatch(
    /one +two\n.*\n {2}\[1\] = 5\n {4}at .*models.mjs:\d+\n +\[1\] = 5\n +at .*models.mjs:\d+\n/,
  );
  expect(all.stdout).toMatch(/\nreplay: unpin explore .*models.mjs --model wrong --replay ab\n/);
  expect(all.stdout).toMatch(/\n1 of 2 models failed: /);
  const mutants = await explore(where, '--mutants');
  expect(mutants.code).toBe(1);
  expect(mutants.stdout).toMatch(/right: harmless +NOT FOUND/);
  expect(mutants.stdout).toMatch(/right: gone: EINVAL: explore: the mutant no longer fits: models.mjs must hold/);
  expect(mutants.stdout).toMatch(/\n2 of 3 mutants left alive, /);
});

it('goes beyond the bound by random schedules, which their seed brings back', async () => {
  const lost = file(
    'lost.mjs',
    `import { model } from 'unpin/explore';
     const add = (a) => Atomics.store(a, 0, Atomics.load(a, 0) + 1);
     export default model({
       name: 'lost', preemptions: 0, setup: () => new Int32Array(new SharedArrayBuffer(4)),
       actors: { one: add, two: add }, check: (a) => (a[0] === 2 ? undefined : 'lost'),
     });`,
  );
  expect(await explore(lost)).toMatchObject({ code: 0 });
  for (const how of ['--random', '--pct']) {
    const found = await explore(lost, how, '100', '--depth', '2', '--seed', '7');
    expect(found.code).toBe(1);
    const seed = /seed (\d+)/.exec(found.stdout)![1]!;
    expect(Number(seed)).toBeGreaterThanOrEqual(7);
    expect(await explore(lost, how, '1', '--depth', '2', '--seed', seed)).toMatchObject({
      code: 1,
      stdout: found.stdout,
    });
  }
});
