import { statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, extname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { runInThisContext } from 'node:vm';
import { build, type Plugin } from 'esbuild';
import { KernelError } from '../base/index.js';
import { PROMISE } from './colour.js';
import type { Model } from './model.js';
import { rewrite } from './rewrite.js';
import { Runtime } from './runtime.js';

/**
 * From a file to a model that can be run step by step: bundles it with all it imports (`unpin/...` is this package itself, in
 * the form in which the explorer runs: sources or dist), with the twin of base/sync in its place, rewrites the bundle and runs it.
 */

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = dirname(HERE);
const EXTENSION = extname(fileURLToPath(import.meta.url));

/** Globals that would run code behind the scheduler's back. */
const REPLACED = {
  queueMicrotask: '__x.queueMicrotask',
  setTimeout: '__x.noTimer',
  setInterval: '__x.noTimer',
  setImmediate: '__x.noTimer',
};

export interface LoadedModel {
  readonly runtime: Runtime;
  readonly model: Model<unknown>;
}

/** `name`: the export that is the model. Throws KernelError ENOENT, EINVAL, ENOEXEC. */
export async function loadModel(file: string, name = 'default'): Promise<LoadedModel> {
  const { runtime, exports } = await loadExports(file);
  const model = exports[name] as Partial<Model<unknown>> | undefined;
  if (typeof model?.setup !== 'function' || typeof model.actors !== 'object' || typeof model.name !== 'string') {
    const what = `export '${name}' of ${file} must be a model: { name, setup, actors, ... }`;
    throw new KernelError('EINVAL', 'explore', `${what}; it exports ${Object.keys(exports).join(', ') || 'nothing'}`);
  }
  return { runtime, model: model as Model<unknown> };
}

/** All that the file exports, as it runs under the explorer. */
export async function loadExports(file: string): Promise<{ runtime: Runtime; exports: Record<string, unknown> }> {
  const runtime = new Runtime();
  return { runtime, exports: evaluate(resolve(file), rewriteOrRefuse(file, await bundle(file)), runtime) };
}

async function bundle(file: string): Promise<string> {
  if (!statSync(file, { throwIfNoEntry: false })?.isFile())
    throw new KernelError('ENOENT', 'explore', `${file} must be a file that exports a model`);
  try {
    const result = await build({
      entryPoints: [file],
      bundle: true,
      write: false,
      format: 'cjs',
      platform: 'node',
      target: 'es2022',
      supported: {
        'optional-chain': false,
        'class-private-method': false,
        'class-private-field': false,
        'dynamic-import': false,
      },
      define: { ...REPLACED, 'import.meta.url': JSON.stringify(pathToFileURL(resolve(file)).href) },
      logLevel: 'silent',
      plugins: [seamPlugin],
    });
    return result.outputFiles[0]!.text;
  } catch (error) {
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
        ? { path: join(HERE, `seam${EXTENSION}`) }
        : undefined,
    );
    build.onResolve({ filter: /^unpin(\/|$)/ }, ({ path }) => ({ path: ownModule(path) }));
  },
};

function ownModule(specifier: string): string {
  const sub = specifier.slice('unpin/'.length);
  // The explorer's own public face is what a model imports from it, and nothing that needs a bundler.
  const path = sub === 'explore' ? join(HERE, 'model') : join(ROOT, ...sub.split('/'), 'index');
  return path + EXTENSION;
}

function rewriteOrRefuse(file: string, code: string): string {
  try {
    return rewrite(code);
  } catch (error) {
    if (error instanceof SyntaxError) throw new KernelError('ENOEXEC', 'explore', `${file}: ${error.message}`);
    throw error;
  }
}

type ModuleFunction = (module: { exports: object }, require: NodeJS.Require, x: Runtime, promise: unknown) => void;

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
