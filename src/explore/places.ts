import type { SourceMap } from 'node:module';
import { relative, resolve } from 'node:path';

/** Where a line of the bundle comes from: for reports, and to tell a program's own files from this package's. */
export class Places {
  private readonly map: SourceMap;
  private readonly root: string;
  private readonly files = new Map<number, string | undefined>();

  /** `root`: the folder of this package's modules. */
  constructor(map: SourceMap, root: string) {
    this.map = map;
    this.root = root;
  }

  /** Whether the plain accesses of a line (from 1) are looked at: those of the program's own files, and of files and folders in `races`. */
  accesses(line: number, races: readonly string[]): 'plain' | 'quiet' | undefined {
    const file = this.fileOf(line);
    if (file === undefined) return undefined;
    const own = relative(this.root, file).replaceAll('\\', '/');
    if (own.startsWith('..')) return 'plain';
    if (own.startsWith('explore/')) return undefined;
    const isNamed = (name: string) => (name.endsWith('/') ? own.startsWith(name) : `/${own}`.endsWith(`/${name}`));
    return races.some(isNamed) ? 'plain' : 'quiet';
  }

  private fileOf(line: number): string | undefined {
    if (this.files.has(line)) return this.files.get(line);
    const entry = this.map.findEntry(line - 1, 1e6);
    const file = 'originalSource' in entry ? resolve(entry.originalSource) : undefined;
    this.files.set(line, file);
    return file;
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
    return 'somewhere';
  }
}
