import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, expect, test } from 'vitest';

/**
 * The layers of docs/design.md, enforced: TypeScript refuses an import that a layer's project does not reference, and the
 * core layers see neither Node's types nor the DOM's. Each layer is compiled with one more file that tries.
 */

const root = fileURLToPath(new URL('../../', import.meta.url));

/** What each layer may import. A layer stands behind those that it imports: the compiler blames the first import of a file that must not be there. */
const MAY_IMPORT: Record<string, string[]> = {
  base: [],
  mm: ['base'],
  notifier: ['base', 'mm'],
  guestram: ['base', 'mm', 'notifier'],
  riscv: ['base'],
  machine: ['base', 'riscv'],
  kvm: ['base', 'mm', 'riscv', 'machine'],
  lguest: ['base', 'mm', 'riscv', 'machine'],
  rdma: ['base', 'mm'],
  vmm: ['base', 'mm', 'riscv', 'machine', 'kvm', 'lguest', 'rdma'],
  node: ['base', 'mm', 'riscv', 'machine', 'kvm', 'rdma'],
  explore: ['base'],
  conformance: ['base', 'mm'],
  cli: ['base', 'mm', 'notifier', 'guestram', 'riscv', 'machine', 'kvm', 'lguest', 'vmm', 'rdma', 'node', 'explore'],
};
const LAYERS = Object.keys(MAY_IMPORT);
const SEES_NODE = ['node', 'explore', 'cli'];

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

/** A line of a probe, and whether the layer may write it. */
type Line = [text: string, allowed: boolean];

const parsed = new Map<string, ts.SourceFile | undefined>();

function optionsOf(layer: string): ts.ParsedCommandLine {
  const fail = (d: ts.Diagnostic) => {
    throw new Error(ts.flattenDiagnosticMessageText(d.messageText, '\n'));
  };
  const host = { ...ts.sys, onUnRecoverableConfigFileDiagnostic: fail };
  return ts.getParsedCommandLineOfConfigFile(join(root, 'src', layer, 'tsconfig.json'), {}, host)!;
}

/** The lines that the compiler complains about when `text` is one more file of the layer. */
function compileIn(layer: string, text: string): Set<number> {
  const probe = join(root, 'src', layer, 'probe-of-layers.ts');
  const { options, projectReferences = [] } = optionsOf(layer);
  const host = ts.createCompilerHost(options);
  const { fileExists, getSourceFile } = host;
  host.fileExists = (file) => file === probe || fileExists(file);
  host.getSourceFile = (file, version) => {
    if (file === probe) return ts.createSourceFile(file, text, version);
    if (!parsed.has(file)) parsed.set(file, getSourceFile(file, version));
    return parsed.get(file);
  };
  const program = ts.createProgram({ rootNames: [probe], options, projectReferences, host });
  const lineOf = (d: ts.Diagnostic) => d.file!.getLineAndCharacterOfPosition(d.start!).line;
  return new Set(program.getSemanticDiagnostics(program.getSourceFile(probe)).map(lineOf));
}

test('every folder of src/ is a layer, with a project that the whole build references', () => {
  const dirs = readdirSync(join(root, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect(dirs.map((dir) => dir.name).sort()).toEqual([...LAYERS].sort());
  const whole = JSON.parse(readFileSync(join(root, 'tsconfig.json'), 'utf8')) as { references: { path: string }[] };
  expect(whole.references.map(({ path }) => path)).toEqual(expect.arrayContaining(LAYERS.map((l) => `src/${l}`)));
});

test.each(LAYERS)('%s imports what it may and no other layer, and sees no types but its own', (layer) => {
  const seesNode = SEES_NODE.includes(layer);
  const lines: Line[] = [
    ["import { readFileSync } from 'node:fs'; readFileSync('x');", seesNode],
    ['process.exitCode = 0;', seesNode],
    ['setTimeout(() => {}, 1);', seesNode],
    ['document.title;', false],
    ['window.location;', false],
    ['new Uint8Array(1).fill(0);', true],
  ];
  for (const other of LAYERS.filter((other) => other !== layer)) {
    const file = other === 'cli' ? 'args' : 'index';
    lines.push([`import '../${other}/${file}.js';`, MAY_IMPORT[layer]!.includes(other)]);
  }
  const refused = compileIn(layer, lines.map(([text]) => text).join('\n'));
  expect(lines.map(([text], i) => [text, !refused.has(i)])).toEqual(lines);
});

test('Biome refuses an import cycle, and passes the same files without it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'unpin-cycle-'));
  folders.push(folder);
  const config = JSON.parse(readFileSync(join(root, 'biome.json'), 'utf8')) as Record<string, unknown>;
  writeFileSync(join(folder, 'biome.json'), JSON.stringify({ ...config, $schema: undefined, vcs: undefined }));
  writeFileSync(join(folder, 'a.ts'), "import { b } from './b.js';\n\nexport const a = (): unknown => b;\n");
  const lint = (b: string) => {
    writeFileSync(join(folder, 'b.ts'), b);
    const biome = join(root, 'node_modules/.bin/biome');
    return spawnSync(biome, ['lint', '--error-on-warnings', '.'], { cwd: folder, encoding: 'utf8' });
  };
  const cycle = lint("import { a } from './a.js';\n\nexport const b = (): unknown => a;\n");
  expect([cycle.status, cycle.stderr + cycle.stdout]).toEqual([1, expect.stringContaining('noImportCycles')]);
  expect(lint('export const b = 1;\n').status).toBe(0);
});
