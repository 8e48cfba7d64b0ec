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
import { conformanceCases } from '../../src/conformance/index.js';

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
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}${stdout}`);
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

/** The block of TypeScript of a document that `what` matches. */
function shown(document: string, what: RegExp): string {
  const blocks = [...readFileSync(join(root, document), 'utf8').matchAll(/^```ts\n([\s\S]*?)^```$/gm)];
  return blocks.map(([, code]) => code!).find((code) => what.test(code))!;
}

/** What conformance.md's reader has: a driver with regions, by its own names. */
const MY_NIC = `
import { ReferenceDriver } from 'unpin/conformance';
import type { Mm } from 'unpin/mm';
class Region extends ReferenceDriver {
  dmaRead(at: number, _lenBytes: number) { return this.load(at); }
  dmaWrite(at: number, value: number) { return this.store(at, value); }
  deregister() { return this.destroy(); }
}
export class MyNic {
  constructor(private readonly mm: Mm) {}
  register(va: number, lenBytes: number) { return new Region(this.mm, va, lenBytes); }
}`;

test('the programs that the documents show compile and run there', () => {
  const mm = "import type { Mm } from 'unpin/mm';\ndeclare const mm: Mm, va: number;\n";
  const programs = {
    'lost.ts': shown('docs/explore.md', /lost update/),
    'conformance.ts': shown('docs/conformance.md', /MyNic/),
    'mynic.ts': MY_NIC,
    'face.ts': mm + shown('docs/patch-2007.md', /new PteNotifier/),
  };
  const compilerOptions = { strict: true, module: 'nodenext', target: 'es2022', lib: ['es2024'], types: ['node'] };
  const typeRoots = [join(root, 'node_modules/@types')];
  for (const [file, text] of Object.entries(programs)) writeFileSync(join(project, file), text);
  const tsconfig = { compilerOptions: { ...compilerOptions, typeRoots }, files: Object.keys(programs) };
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify(tsconfig));
  run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', project], project);
  const cases = run(process.execPath, ['conformance.js'], project).trimEnd().split('\n');
  const adapter = { name: 'all', create: () => ({ load: () => 0, store: () => {}, destroy: () => {} }) };
  expect(cases).toHaveLength(conformanceCases(adapter).length);
  expect(cases.filter((line) => !/^holds +[NSM]\d/.test(line))).toEqual([]);
}, 120_000);

test('explore runs a file of a user who has only the package: TypeScript, and what the compiler makes of it', () => {
  for (const file of ['lost.ts', 'lost.js']) {
    const args = [join(installed, manifest.bin.unpin!), 'explore', file];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: project, encoding: 'utf8' });
    expect([status, stderr]).toEqual([1, '']);
    expect(stdout).toContain('counter is 1, not 2');
    expect(stdout).toMatch(new RegExp(`\\nreplay: unpin explore ${file} --replay \\w+\\n$`));
  }
});
