import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { createRequire, SourceMap } from 'node:module';
import { dirname, extname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { runInThisContext } from 'node:vm';
import { build, type Plugin } from 'esbuild';
import { KernelError, systemError } from '../base/index.js';
import { PROMISE } from './colour.js';
import { type Edit, editPlugin } from './edit.js';
import type { Model } from './model.js';
import { Places } from './places.js';
import { rewrite } from './rewrite.js';
import { Runtime } from './runtime.js';

/**
 * From a file to a model that can be run step by step: bundles it with all it imports (`unpin/...` is this package itself: its sources in a
 * checkout, else dist), with twins of base/sync and of `Atomics` in their place, rewrites the bundle and runs it.
 */

const HERE = dirname(fileURLToPath(import.meta.url));
const SOURCES = join(HERE, '..', '..', 'src');
const IN_CHECKOUT = existsSync(join(SOURCES, 'base', 'sync.ts'));
const ROOT = IN_CHECKOUT ? SOURCES : dirname(HERE);
const EXTENSION = IN_CHECKOUT ? '.ts' : extname(fileURLToPath(import.meta.url));

/** Globals that would run code behind the scheduler's back. */
const REPLACED = {
  queueMicrotask: '__x.queueMicrotask',
  setTimeout: '__x.setTimeout',
  clearTimeout: '__x.clearTimeout',
  setInterval: '__x.setInterval',
  setImmediate: '__x.setImmediate',
  clearImmediate: '__x.clearTimeout',
};

export interface LoadOptions {
  /** Changes to the sources, as they are read. */
  readonly edits?: readonly Edit[];
  /** Files of this package (ends of their paths) or folders (`mm/`) whose plain accesses are looked at for races, besides the program's own. */
  readonly races?: readonly string[];
  /** The bundle of the last unchanged file may serve again: for one who explores many models of a file and changes none. */
  readonly reuse?: boolean;
}

export interface LoadedModel {
  readonly runtime: Runtime;
  readonly model: Model<unknown>;
}

/** `name`: the export that is the model. Throws KernelError ENOENT, EINVAL, ENOEXEC. */
export async function loadModel(file: string, name = 'default', options: LoadOptions = {}): Promise<LoadedModel> {
  const bundle = await bundled(file, options);
  const first = modelOf(file, name, bundle.run(options.races ?? []));
  const { races } = first.model;
  return races === undefined ? first : modelOf(file, name, bundle.run([...races, ...(options.races ?? [])]));
}

function modelOf(file: string, name: string, { runtime, exports }: Loaded): LoadedModel {
  const model = exports[name];
  if (!isModel(model)) {
    const what = `export '${name}' of ${file} must be a model: { name, setup, actors, ... }`;
    throw new KernelError('EINVAL', 'explore', `${what}; ${describeExport(exports, name)}`);
  }
  return { runtime, model };
}

function describeExport(exports: Record<string, unknown>, name: string): string {
  const value = exports[name];
  if (value === undefined) return `it exports ${Object.keys(exports).join(', ') || 'nothing'}`;
  if (typeof value !== 'object' || value === null) return `it is ${value === null ? 'null' : `a ${typeof value}`}`;
  return `it has ${Object.keys(value).join(', ') || 'nothing'}`;
}

export function isModel(value: unknown): value is Model<unknown> {
  const model = value as Partial<Model<unknown>> | undefined;
  return typeof model?.setup === 'function' && typeof model.actors === 'object' && typeof model.name === 'string';
}

interface Loaded {
  readonly runtime: Runtime;
  readonly exports: Record<string, unknown>;
}

/** All that the file exports, as it runs under the explorer. */
export async function loadExports(file: string, options: LoadOptions = {}): Promise<Loaded> {
  return (await bundled(file, options)).run(options.races ?? []);
}

let last: { file: string; bundle: Bundle } | undefined;

async function bundled(file: string, { edits = [], reuse = false }: LoadOptions): Promise<Bundle> {
  if (edits.length > 0) return new Bundle(file, await bundle(file, edits));
  if (!reuse || last?.file !== file) last = { file, bundle: new Bundle(file, await bundle(file, [])) };
  return last.bundle;
}

/** A program in one script; each `run` of it makes everything anew. */
class Bundle {
  private readonly file: string;
  private readonly code: string;
  private readonly places: Places;
  private readonly rewritten = new Map<string, string>();

  constructor(file: string, { code, map }: { code: string; map: string }) {
    this.file = file;
    this.code = code;
    this.places = new Places(new SourceMap(JSON.parse(map)), ROOT);
  }

  run(races: readonly string[]): Loaded {
    const runtime = new Runtime();
    runtime.locate = (stack) => this.places.locate(stack);
    return { runtime, exports: evaluate(resolve(this.file), this.rewrite(races), runtime) };
  }

  private rewrite(races: readonly string[]): string {
    const key = races.join();
    let code = this.rewritten.get(key);
    if (code === undefined) {
      code = rewriteOrRefuse(this.file, () => rewrite(this.code, (line) => this.places.accesses(line, races)));
      this.rewritten.set(key, code);
    }
    return code;
  }
}

function checkReadable(file: string): void {
  const what = `${file} must be a file that exports a model`;
  try {
    accessSync(file, constants.R_OK);
    if (statSync(file).isFile()) return;
  } catch (error) {
    throw systemError('explore', what, error);
  }
  throw new KernelError('EINVAL', 'explore', `${what}: it is no regular file`);
}

async function bundle(file: string, edits: readonly Edit[]): Promise<{ code: string; map: string }> {
  checkReadable(file);
  const editing = editPlugin(edits);
  try {
    const result = await build({
      entryPoints: [file],
      bundle: true,
      write: false,
      outfile: 'explored.js',
      sourcemap: 'external',
      sourcesContent: false,
      format: 'cjs',
      platform: 'node',
      target: 'es2022',
      supported: {
        'optional-chain': false,
        'class-private-method': false,
        'class-private-field': false,
        'dynamic-import': false,
        'logical-assignment': false,
      },
      define: {
        ...REPLACED,
        // Locks of several actors in one thread: the explorer itself finds what lockdep would.
        __CONFIG_LOCKDEP__: 'false',
        'import.meta.url': JSON.stringify(pathToFileURL(resolve(file)).href),
      },
      inject: [join(ROOT, 'explore', `atomics${EXTENSION}`)],
      logLevel: 'silent',
      plugins: [seamPlugin, editing.plugin],
    });
    editing.check();
    const [map, code] = result.outputFiles;
    return { code: code!.text, map: map!.text };
  } catch (error) {
    if (error instanceof KernelError) throw error;
    throw new KernelError('ENOEXEC', 'explore', firstLine(error));
  }
}

function firstLine(error: unknown): string {
  const { errors } = error as { errors?: { text: string; location: { file: string; line: number } | null }[] };
  const first = errors?.[0];
  if (first === undefined) return String(error);
  return `${first.location ? `${first.location.file}:${first.location.line}: ` : ''}${first.text}`;
}

/** Module alias: base/sync is the seam's twin, `unpin/...` is this very package. */
const seamPlugin: Plugin = {
  name: 'seam',
  setup(build) {
    build.onResolve({ filter: /(^|\/)sync\.js$/ }, ({ importer, resolveDir, path }) =>
      importer !== '' && resolve(resolveDir, path) === join(ROOT, 'base', 'sync.js')
        ? { path: join(ROOT, 'explore', `seam${EXTENSION}`) }
        : undefined,
    );
    build.onResolve({ filter: /^unpin(\/|$)/ }, ({ path }) => {
      const own = ownModule(path);
      return existsSync(own)
        ? { path: own }
        : { errors: [{ text: `there is no '${path}'; see 'exports' of unpin's package.json` }] };
    });
  },
};

function ownModule(specifier: string): string {
  const sub = specifier.slice('unpin/'.length);
  // The explorer's own public face is what a model imports from it, and nothing that needs a bundler.
  const path = sub === 'explore' ? join(ROOT, 'explore', 'model') : join(ROOT, ...sub.split('/'), 'index');
  return path + EXTENSION;
}

function rewriteOrRefuse(file: string, make: () => string): string {
  try {
    return make();
  } catch (error) {
    if (error instanceof SyntaxError) throw new KernelError('ENOEXEC', 'explore', `${file}: ${error.message}`);
    throw error;
  }
}

type ModuleFunction = (module: { exports: object }, require: NodeJS.Require, x: Runtime, promise: unknown) => void;

/** Lines of `code` keep their numbers: places.ts counts on it. */
function evaluate(file: string, code: string, runtime: Runtime): Record<string, unknown> {
  const module = { exports: {} };
  const wrapped = `(function (module, require, __x, ${PROMISE}) { 'use strict'; const exports = module.exports; ${code}\n})`;
  const run = runInThisContext(wrapped, { filename: `${file} (explored)` }) as ModuleFunction;
  try {
    run(module, createRequire(file), runtime, runtime.Promise);
  } catch (error) {
    throw new KernelError('ENOEXEC', 'explore', `${file} failed when it was loaded: ${String(error)}`);
  }
  return module.exports as Record<string, unknown>;
}
