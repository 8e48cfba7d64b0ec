#!/usr/bin/env node
/**
 * Runs a TypeScript program of the repository (a benchmark, an example): bundles it beside itself with esbuild, then
 * imports it. Usage: node scripts/run-ts.mjs FILE [ARGS...]
 */
import { rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const file = process.argv[2];
if (file === undefined) {
  process.stderr.write('usage: node scripts/run-ts.mjs FILE [ARGS...]\n');
  process.exit(2);
}
const outfile = join(dirname(file), `.${basename(file)}.${process.pid}.mjs`);
process.on('exit', () => rmSync(outfile, { force: true }));
await build({ entryPoints: [file], outfile, bundle: true, platform: 'node', format: 'esm', packages: 'external' });
process.argv.splice(1, 1);
await import(pathToFileURL(outfile).href);
