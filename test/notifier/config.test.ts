import { readdirSync, readFileSync, rmSync } from 'node:fs';
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
    const {
      Host,
      MAP_SHARED,
      MemoryStore,
      MemorySwap,
      PteNotifier,
      pteNotifierRegister,
      mmuNotifierRegister,
      checkHost,
      CONFIG_PTE_NOTIFIERS,
    } = await import(pathToFileURL(outfile).href);
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
    expect(host.stats().notifierCalls).toBeUndefined();
    checkHost(host);
    const store = new MemoryStore({ sizeBytes: 4096 });
    const file = host.openFile(store);
    mm.writeSync(mm.mmap(0, 4096, 3, MAP_SHARED, file), byte.fill(9));
    await file.fsync();
    await store.read(0, [byte.fill(0)]);
    expect(byte[0]).toBe(9);
    host.compact();
    expect(() => pteNotifierRegister(new PteNotifier({ clear() {} }), mm.findVma(va))).toThrow(/ENOSYS/);
    expect(() => mmuNotifierRegister(mm, va, va + 4096, {})).toThrow(/ENOSYS/);
    mm.exit();
    checkHost(host);
    await host.stop();
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

/** Names in a source: all, or those that it declares as members and functions. */
function namesIn(text: string, declared: boolean): string[] {
  const names: string[] = [];
  const visit = (node: ts.Node): void => {
    if (!declared && ts.isIdentifier(node)) names.push(node.text);
    if ((ts.isClassElement(node) || ts.isTypeElement(node)) && node.name !== undefined) names.push(node.name.getText());
    if (ts.isFunctionDeclaration(node) || ts.isClassDeclaration(node)) names.push(node.name!.text);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile('source.ts', text, ts.ScriptTarget.ESNext, true));
  return names;
}

const ROOT = join(import.meta.dirname, '..', '..', 'src');
/** A minifier makes names of so many letters itself. */
const SHORT = 3;

function sourcesIn(folder: string): string[] {
  const names = readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' });
  return names.filter((name) => name.endsWith('.ts')).map((name) => join(ROOT, folder, name));
}

/** Some of them, so that the test cannot lose them all. */
const THEIRS = [
  ...['notifiers', 'notifierCalls', 'notifierHost', 'invalidateRangeStart', 'invalidateRangeEnd'],
  ...['clearFlushYoung', 'clearYoung', 'testYoung'],
  ...[
    'bracketOpened',
    'takeBack',
    'closeAreas',
    'moveAreas',
    'tellLocking',
    'removeClosed',
    'lockHooks',
    'inBracket',
    'nrRanges',
    'onPoisoned',
  ],
];

/** Where mm has a place for the notifiers: what is said of them there is theirs too. */
const HOSTS_OF_HOOKS = ['mm/mm.ts', 'mm/host.ts', 'mm/check.ts', 'mm/stat/stats.ts'].map((file) => join(ROOT, file));

/** Names that the notifiers declare and that nothing else of mm knows: `start` or `count` are everybody's, `debug` is the host's, `peekTable` and `ptesAddr` a look-up of mm by whichever thread. */
function namesOfNotifiers(): Set<string> {
  const own = [...sourcesIn('mm/notifier'), ...sourcesIn('mm/remote'), ...sourcesIn('notifier')];
  const others = [...sourcesIn('mm'), ...sourcesIn('base')].filter(
    (file) => !own.includes(file) && !HOSTS_OF_HOOKS.includes(file),
  );
  const known = new Set([
    'debug',
    'peekTable',
    'ptesAddr',
    ...others.flatMap((file) => namesIn(readFileSync(file, 'utf8'), false)),
  ]);
  const theirs = own.flatMap((file) => namesIn(readFileSync(file, 'utf8'), true));
  return new Set(theirs.filter((name) => name.length > SHORT && !known.has(name)));
}

let nrStripped = 0;

/** The hooks of which nothing is left when they are compiled out. */
function emptyHooks(): Set<string> {
  const names = new Set<string>();
  for (const folder of ['mm/notifier', 'mm/remote']) {
    const text = strip(join(ROOT, folder, 'hooks.ts'));
    for (const statement of ts.createSourceFile('hooks.ts', text, ts.ScriptTarget.ESNext, true).statements)
      if (ts.isFunctionDeclaration(statement) && statement.body!.statements.length === 0)
        names.add(statement.name!.text);
  }
  return names;
}

/** The source as it would be had nobody written the hooks: statements that the flag guards, what an early return leaves behind it, and calls of `hooks` are not there. */
function strip(file: string, hooks: ReadonlySet<string> = new Set()): string {
  const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.ESNext, true);
  const gone: [number, number, string][] = [];
  const visit = (node: ts.Node): void => {
    if (isCallOf(node, hooks)) {
      nrStripped++;
      gone.push([node.getStart(source), node.end, ts.isBlock(node.parent) ? '' : ';']);
      return;
    }
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

/** A statement that calls one of `hooks`, and does nothing else. */
function isCallOf(node: ts.Node, hooks: ReadonlySet<string>): boolean {
  return (
    ts.isExpressionStatement(node) &&
    ts.isCallExpression(node.expression) &&
    ts.isIdentifier(node.expression.expression) &&
    hooks.has(node.expression.expression.text)
  );
}

const stripped: Plugin = {
  name: 'without hooks',
  setup(build) {
    const hooks = emptyHooks();
    build.onLoad({ filter: HOOK_FILES }, ({ path }) => ({ contents: strip(path, hooks), loader: 'ts' }));
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
  for (const minifier of [{ minifySyntax: true }, { minifySyntax: true }, { minify: true }]) {
    const again = { contents: text, loader: 'js' as const };
    text = (await build({ ...common, stdin: again, ...minifier })).outputFiles[0]!.text;
  }
  return text;
}

test('S6: compiled out, the minified bundle is that of the source with every guarded statement taken out of it, byte for byte', async () => {
  const lockdep = { __CONFIG_LOCKDEP__: 'false' };
  const off = await minified({ ...lockdep, __CONFIG_PTE_NOTIFIERS__: 'false' });
  const without = await minified({ ...lockdep, __CONFIG_PTE_NOTIFIERS__: 'false' }, [stripped]);
  expect(nrStripped).toBeGreaterThan(50);
  expect(off).toBe(without);
  const on = await minified({ ...lockdep, __CONFIG_PTE_NOTIFIERS__: 'true' });
  expect(on.length).toBeGreaterThan(off.length);
});

test('S6: compiled out, no identifier of the notifiers is in the minified bundle', async () => {
  const theirs = namesOfNotifiers();
  const found = async (on: boolean) => {
    const text = await minified({ __CONFIG_LOCKDEP__: 'false', __CONFIG_PTE_NOTIFIERS__: String(on) });
    const names = new Set([...namesIn(text, false), ...(text.match(/\w*(notifier|subscription)\w*/gi) ?? [])]);
    return [...names].filter((name) => theirs.has(name) || /notifier|subscription/i.test(name));
  };
  const on = await found(true);
  for (const name of THEIRS) expect(on).toContain(name);
  expect(await found(false)).toEqual([]);
});

test('no check of locks is in a production bundle', async () => {
  const [off, on] = [await minified({ __CONFIG_LOCKDEP__: 'false' }), await minified({ __CONFIG_LOCKDEP__: 'true' })];
  const words = /is taken with|over an await|held from start to end|notifier hook|lockdep/;
  expect(off).not.toMatch(words);
  expect(on).toMatch(words);
});
