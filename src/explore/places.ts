import type { SourceMap } from 'node:module';
import { relative, resolve } from 'node:path';

/** What `locate` says of a stack that has no frame of the program. */
export const NOWHERE = 'somewhere';

/** Where a line of the bundle comes from: for reports, and to tell a program's own files from this package's. */
export class Places {
  private readonly map: SourceMap;
  private readonly root: string;
  private readonly paths = new Map<number, string | undefined>();

  /** `root`: the folder of this package's modules. */
  constructor(map: SourceMap, root: string) {
    this.map = map;
    this.root = root;
  }

  /** Whether the plain accesses of a line (from 1) are looked at: those of the program's own files, and of files and folders in `races`. */
  accesses(line: number, races: readonly string[]): 'plain' | 'quiet' | undefined {
    const own = this.ownPathOf(line);
    if (own === undefined || own.startsWith('explore/')) return undefined;
    if (own.startsWith('..')) return 'plain';
    const isNamed = (name: string) => (name.endsWith('/') ? own.startsWith(name) : `/${own}`.endsWith(`/${name}`));
    return races.some(isNamed) ? 'plain' : 'quiet';
  }

  /** The path of the line's file from the root. */
  private ownPathOf(line: number): string | undefined {
    if (this.paths.has(line)) return this.paths.get(line);
    const entry = this.map.findEntry(line - 1, 1e6);
    const path =
      'originalSource' in entry ? relative(this.root, resolve(entry.originalSource)).replaceAll('\\', '/') : undefined;
    this.paths.set(line, path);
    return path;
  }

  /** `file:line` of the innermost frame of a stack that is not the explorer's own. */
  locate(stack: string): string {
    for (const [, line] of stack.matchAll(/\(explored\):(\d+):\d+/g)) {
      const entry = this.map.findEntry(Number(line) - 1, 1e6);
      if (!('originalSource' in entry)) continue;
      const file = resolve(entry.originalSource);
      if (file.startsWith(resolve(this.root, 'explore'))) continue;
      return `${relative(process.cwd(), file)}:${entry.originalLine + 1}`;
    }
    return NOWHERE;
  }
}
