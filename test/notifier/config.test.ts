import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';
import ts from 'typescript';
import { expect, test } from 'vitest';

/** The same code with CONFIG_PTE_NOTIFIERS false, as a bundler makes it. */
test('S6: compiled out, mm works, nobody can register, and no hook is left', async () => {
  const outfile = join(import.meta.dirname, `.compiled-out.${process.pid}.mjs`);
  const common = { bundle: true, format: 'esm', platform: 'node', minifySyntax: true } as const;
  const define = { __CONFIG_PTE_NOTIFIERS__: 'false' };
  const contents = `export * from '../../src/mm/index.js'; export * from '../../src/notifier/index.js';`;
  const stdin = { contents, resolveDir: import.meta.dirname, loader: 'ts' as const };
  try {
    await build({ ...common, define, stdin, outfile });
    const { Host, MemorySwap, PteNotifier, pteNotifierRegister, CONFIG_PTE_NOTIFIERS } = await import(
      pathToFileURL(outfile).href
    );
    expect(CONFIG_PTE_NOTIFIERS).toBe(false);
    const host = new Host({ frames: 64, swap: new MemorySwap({ sizeBytes: 2 ** 22 }) });
    const mm = host.createMm();
    const va = mm.mmap(0, 256 * 4096, 3, 0x22);
    const byte = new Uint8Array(1);
    for (let p = 0; p < 256; p++) mm.writeSync(va + p * 4096, byte.fill(p));
    for (let p = 0; p < 256; p++) {
      mm.readSync(va + p * 4096, byte);
      expect(byte[0]).toBe(p);
    }
    expect(host.vmstat.brackets).toBe(0);
    expect(() => pteNotifierRegister(new PteNotifier({ clear() {} }), mm.findVma(va))).toThrow(/ENOSYS/);
  } finally {
    rmSync(outfile, { force: true });
  }
});

const FLAG = 'CONFIG_PTE_NOTIFIERS';
const HOOK_FILES = /src\/(mm|notifier|base)\/.+\.ts$/;

/** The truth of a condition in which the flag is false: undefined where the rest of it decides. */
function decided(condition: ts.Expression): boolean | undefined {
  if (ts.isIdentifier(condition) && condition.text === FLAG) return false;
  if (ts.isParenthesizedExpression(condition)) return decided(condition.expression);
  if (ts.isPrefixUnaryExpression(condition) && condition.operator === ts.SyntaxKind.ExclamationToken) {
    const value = decided(condition.operand);
    return value === undefined ? undefined : !value;
  }
  if (!ts.isBinaryExpression(condition)) return undefined;
  const left = decided(condition.left);
  if (condition.operatorToken.kind === ts.SyntaxKind.AmpersandAmpersandToken && left === false) return false;
  if (condition.operatorToken.kind === ts.SyntaxKind.BarBarToken && left === true) return true;
  return undefined;
}

let nrStripped = 0;

/** The source as it would be had nobody written the hooks: statements that the flag guards, and what an early return leaves behind it, are not there. */
function strip(file: string): string {
  const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.ESNext, true);
  const gone: [number, number, string][] = [];
  const visit = (node: ts.Node): void => {
    const taken = ts.isIfStatement(node) ? decided(node.expression) : undefined;
    if (!ts.isIfStatement(node) || taken === undefined) return ts.forEachChild(node, visit);
    nrStripped++;
    const kept = taken ? node.thenStatement : node.elseStatement;
    const text = kept?.getText(source) ?? '';
    const ends = taken && ts.isReturnStatement(node.thenStatement) && ts.isBlock(node.parent);
    gone.push([node.getStart(source), ends ? (node.parent as ts.Block).end - 1 : node.end, text]);
    if (kept === undefined && node.elseStatement !== undefined) visit(node.elseStatement);
  };
  visit(source);
  let text = source.text;
  for (const [start, end, instead] of gone.reverse()) text = text.slice(0, start) + instead + text.slice(end);
  return text;
}

const stripped: Plugin = {
  name: 'without hooks',
  setup(build) {
    build.onLoad({ filter: HOOK_FILES }, ({ path }) => ({ contents: strip(path), loader: 'ts' }));
  },
};

/**
 * A host and its mms for a program without drivers, as it is shipped. More than once through: esbuild decides what a bundle needs, and what is called how
 * often, before it has looked at what the flags make dead in other files, and drops that when it sees the bundle.
 */
async function minified(define: Record<string, string>, plugins: Plugin[] = []): Promise<string> {
  const contents = `export { Host, MemorySwap } from '../../src/mm/index.js';`;
  const common = { bundle: true, format: 'esm', platform: 'node', write: false } as const;
  const stdin = { contents, resolveDir: import.meta.dirname, loader: 'ts' as const };
  let text = (await build({ ...common, stdin, define, plugins, minifySyntax: true })).outputFiles[0]!.text;
  for (const minifier of [{ minifySyntax: true }, { minify: true }]) {
    const again = { contents: text, loader: 'js' as const };
    text = (await build({ ...common, stdin: again, ...minifier })).outputFiles[0]!.text;
  }
  return text;
}

test('S6: compiled out, the minified bundle is that of the source with every guarded statement taken out of it, byte for byte', async () => {
  const lockdep = { __CONFIG_LOCKDEP__: 'false' };
  const off = await minified({ ...lockdep, __CONFIG_PTE_NOTIFIERS__: 'false' });
  const without = await minified({ ...lockdep, __CONFIG_PTE_NOTIFIERS__: 'false' }, [stripped]);
  expect(nrStripped).toBeGreaterThan(5);
  expect(off).toBe(without);
  const on = await minified({ ...lockdep, __CONFIG_PTE_NOTIFIERS__: 'true' });
  expect(on.length).toBeGreaterThan(off.length);
});

test('no check of locks is in a production bundle', async () => {
  const [off, on] = [await minified({ __CONFIG_LOCKDEP__: 'false' }), await minified({ __CONFIG_LOCKDEP__: 'true' })];
  const words = /is taken with|over an await|held from start to end|notifier hook|lockdep/;
  expect(off).not.toMatch(words);
  expect(on).toMatch(words);
});
