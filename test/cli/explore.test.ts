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

it('refuses bad input with one line and exit code 2', async () => {
  const broken = file('broken.ts', 'export default {');
  const throws = file('throws.ts', 'throw new Error("no");');
  const setup = file(
    'setup.ts',
    'export default { name: "s", actors: { a() {} }, setup() { throw new Error("no state") } };',
  );
  for (const [args, message] of [
    [['no-such-file.ts'], /ENOENT: explore: no-such-file.ts must be a file/],
    [[folder], /ENOENT: explore: .* must be a file/],
    [[broken], /ENOEXEC: explore: .*broken.ts:1: /],
    [[throws], /ENOEXEC: explore: .*throws.ts failed when it was loaded: Error: no/],
    [[setup], /EINVAL: explore: setup of 's' failed: no state/],
    [['examples/broken-driver.ts', '--model', 'other'], /EINVAL: explore: export 'other' of .* must be a model/],
    [['examples/broken-driver.ts', '--preemptions', 'few'], /'few' must be a whole number, or none/],
    [['examples/broken-driver.ts', '--replay', 'z1'], /EINVAL: replay: path 'z1' must be of actors a to b/],
    [['examples/broken-driver.ts', '--replay', 'b!'], /EINVAL: replay: path 'b!' must be letters/],
    [[], /missing required argument 'file'/],
  ] as const) {
    const { code, stdout, stderr } = await explore(...args);
    expect({ args, code, stdout, lines: stderr.trimEnd().split('\n').length }).toEqual({
      args,
      code: 2,
      stdout: '',
      lines: 1,
    });
    expect(stderr).toMatch(message);
  }
});
