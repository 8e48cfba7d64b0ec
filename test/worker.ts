import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { buildSync } from 'esbuild';

/**
 * Worker threads in tests: a worker's entry must be JavaScript, and the sources are TypeScript that vitest alone transforms.
 *
 * Use: `new Worker(bundleWorker(new URL('./someworker.ts', import.meta.url)), { workerData })`. The entry may import anything; it is bundled with all of it,
 * once for each entry and test file, with the flags that tests are built with.
 */

const bundles = new Map<string, URL>();
let folder: string | undefined;

/** The entry as one module of JavaScript, in a folder that goes with the process. */
export function bundleWorker(entryTs: URL): URL {
  const known = bundles.get(entryTs.href);
  if (known !== undefined) return known;
  folder ??= newFolder();
  const outfile = join(folder, `${basename(entryTs.pathname, '.ts')}.${bundles.size}.mjs`);
  buildSync({
    entryPoints: [fileURLToPath(entryTs)],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    sourcemap: 'inline',
    define: { __CONFIG_LOCKDEP__: 'true' },
    // What is CommonJS among the dependencies requires Node's own modules.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  });
  const url = pathToFileURL(outfile);
  bundles.set(entryTs.href, url);
  return url;
}

function newFolder(): string {
  const path = mkdtempSync(join(tmpdir(), 'unpin-test-workers-'));
  process.on('exit', () => rmSync(path, { recursive: true, force: true }));
  return path;
}
