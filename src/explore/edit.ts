import { readFileSync } from 'node:fs';
import { extname } from 'node:path';
import type { Loader, Plugin } from 'esbuild';
import { KernelError } from '../base/index.js';

/** Changes to source files as they are loaded: how a protection is taken out of production code. */
export interface Edit {
  /** End of the file's path, such as 'mm/notifier/invalidateseq.ts'. */
  readonly file: string;
  /** What stands there, once; any white space matches any. */
  readonly find: string;
  readonly replace: string;
}

/** `check` throws KernelError EINVAL for an edit that could not be made. */
export function editPlugin(edits: readonly Edit[]): { plugin: Plugin; check(): void } {
  const done = new Set<Edit>();
  let failed: unknown;
  const plugin: Plugin = {
    name: 'edit',
    setup(build) {
      if (edits.length === 0) return;
      build.onLoad({ filter: /\.[mc]?[jt]s$/ }, ({ path }) => {
        const mine = edits.filter(({ file }) => path.replaceAll('\\', '/').endsWith(`/${file}`));
        if (mine.length === 0) return undefined;
        let contents = readFileSync(path, 'utf8');
        try {
          contents = mine.reduce(apply, contents);
        } catch (error) {
          failed ??= error;
        }
        for (const edit of mine) done.add(edit);
        return { contents, loader: (extname(path).endsWith('ts') ? 'ts' : 'js') as Loader };
      });
    },
  };
  const check = () => {
    if (failed !== undefined) throw failed;
    const lost = edits.find((edit) => !done.has(edit));
    if (lost !== undefined) throw refusal(lost, 'is no file that the model loads');
  };
  return { plugin, check };
}

/** Edits that stand in the file themselves. */
const DATA = /\b(find|replace): *(`[^`]*`|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")/g;

/** `text` with the edit made. Throws KernelError EINVAL when what it looks for is not there exactly once, edits apart. */
export function apply(text: string, edit: Edit): string {
  const words = edit.find
    .trim()
    .split(/\s+/)
    .map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  const code = text.replace(DATA, (data) => '\0'.repeat(data.length));
  const matches = [...code.matchAll(new RegExp(words.join('\\s+'), 'g'))];
  if (matches.length !== 1)
    throw refusal(edit, `must hold '${edit.find.trim()}' once, and holds it ${matches.length} times`);
  const { index, 0: found } = matches[0]!;
  return text.slice(0, index) + edit.replace + text.slice(index + found.length);
}

function refusal({ file }: Edit, what: string): KernelError {
  return new KernelError('EINVAL', 'explore', `the mutant no longer fits: ${file} ${what}`);
}
