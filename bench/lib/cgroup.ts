import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * A memory cgroup of our own, of version 1 or 2, to hold programs of bench/linux-peer in. `create` throws where none may be made.
 * Use: `create`, `add(pid)`, `limit(bytes)`, and when the programs have ended, `remove`.
 */
export class MemoryCgroup {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static create(): MemoryCgroup {
    const v1 = '/sys/fs/cgroup/memory';
    const path = join(existsSync(v1) ? v1 : '/sys/fs/cgroup', `unpin-bench-${process.pid}`);
    mkdirSync(path);
    return new MemoryCgroup(path);
  }

  add(pid: number): void {
    this.write('cgroup.procs', `${pid}`);
  }

  limit(lenBytes: number): void {
    const v1 = existsSync(join(this.path, 'memory.limit_in_bytes'));
    this.write(v1 ? 'memory.limit_in_bytes' : 'memory.max', `${lenBytes}`);
  }

  private write(name: string, text: string): void {
    writeFileSync(join(this.path, name), text);
  }

  remove(): void {
    rmdirSync(this.path);
  }
}
