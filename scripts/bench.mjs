#!/usr/bin/env node
/** `npm run bench -- NAME [ARGS...]` runs bench/NAME.ts; without a name it lists what there is. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';

const [name, ...args] = process.argv.slice(2);
const names = readdirSync('bench')
  .filter((f) => /^[a-z].*\.ts$/.test(f))
  .map((f) => f.slice(0, -3));
if (name === undefined || !existsSync(`bench/${name}.ts`)) {
  process.stderr.write(`bench: '${name ?? ''}' must be one of ${names.join(', ')}\n`);
  process.exit(2);
}
const result = spawnSync(process.execPath, ['scripts/run-ts.mjs', `bench/${name}.ts`, ...args], { stdio: 'inherit' });
process.exit(result.status ?? 1);
