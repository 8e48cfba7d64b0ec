import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { problemAffectsResolutionKind } from '@arethetypeswrong/core/problems';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { afterAll, beforeAll, expect, test } from 'vitest';

/** The package as `npm pack` makes it of dist/: complete, nothing too much, and usable where nothing else is installed. */

const root = fileURLToPath(new URL('../../', import.meta.url));
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  exports: Record<string, string>;
  bin: Record<string, string>;
  dependencies: Record<string, string>;
};
const SUBPATHS = Object.keys(manifest.exports).filter((path) => path !== './package.json');

/** A project that has the package installed, with its dependencies and no others. */
const project = mkdtempSync(join(tmpdir(), 'unpin-package-'));
const installed = join(project, 'node_modules/unpin');
let tarball: Uint8Array<ArrayBuffer>;

function run(command: string, args: string[], cwd: string) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`);
  return stdout;
}

beforeAll(() => {
  const name = run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', project], root).trim();
  tarball = new Uint8Array(readFileSync(join(project, name)));
  mkdirSync(installed, { recursive: true });
  run('tar', ['-xzf', join(project, name), '-C', installed, '--strip-components=1'], project);
  for (const dependency of Object.keys(manifest.dependencies)) {
    const link = join(project, 'node_modules', dependency);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(root, 'node_modules', dependency), link);
  }
  writeFileSync(join(project, 'package.json'), '{ "type": "module" }');
}, 60_000);
afterAll(() => rmSync(project, { recursive: true }));

test('has what its exports and its command name, and nothing that it does not need', () => {
  const files = readdirSync(installed, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(installed, join(entry.parentPath, entry.name)));
  const needed = [...Object.values(manifest.exports), ...Object.values(manifest.bin)];
  for (const file of needed) expect(files).toContain(file.slice(2));
  expect(files).toContain('guests/images/memhog.img');
  const known = /^(dist\/.*\.(js|js\.map|d\.ts)|guests\/(images\/.*|README\.md)|package\.json|README\.md|LICENSE)$/;
  expect(files.filter((file) => !known.test(file))).toEqual([]);
});

test('publint and arethetypeswrong find nothing', async () => {
  const { messages, pkg } = await publint({ pack: { tarball: tarball.buffer }, strict: true });
  expect(messages.map((message) => formatMessage(message, pkg))).toEqual([]);
  const analysis = await checkPackage(createPackageFromTarballData(tarball));
  if (analysis.types === false) throw new Error('the package has no types');
  // ESM only: who resolves as CommonJS, or as Node 10 did, is not served.
  const problems = analysis.problems.filter(
    (problem) =>
      problemAffectsResolutionKind(problem, 'node16-esm', analysis) ||
      problemAffectsResolutionKind(problem, 'bundler', analysis),
  );
  expect(problems).toEqual([]);
});

test('each export is imported by Node from where it is installed', () => {
  const paths = SUBPATHS.map((path) => `unpin${path.slice(1)}`);
  const lines = paths.map((path) => `console.log('${path}', Object.keys(await import('${path}')).length > 0);`);
  writeFileSync(join(project, 'main.js'), lines.join('\n'));
  const out = run(process.execPath, ['main.js'], project);
  expect(out.trim().split('\n')).toEqual(paths.map((path) => `${path} true`));
});

test('the command runs from where it is installed', () => {
  const out = run(process.execPath, [join(installed, manifest.bin.unpin!), '--help'], project);
  expect(out).toContain('boot');
});
