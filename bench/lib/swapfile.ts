import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** A swap file of the machine's own Linux, in a folder below the working directory. `on` throws where that is not permitted. */
export class LinuxSwap {
  readonly folder: string;
  private readonly path: string;
  /** However the process ends, but by SIGKILL. */
  private readonly atExit = () => this.off();

  private constructor(folder: string) {
    this.folder = folder;
    this.path = join(folder, 'linux');
  }

  static on(lenBytes: number): LinuxSwap {
    const swap = new LinuxSwap(mkdtempSync('.bench-swap-'));
    try {
      swap.make(lenBytes);
    } catch (error) {
      rmSync(swap.folder, { recursive: true });
      throw new Error(`no swap can be set up here: ${String(error).split('\n')[0]}`);
    }
    return swap;
  }

  private make(lenBytes: number): void {
    const fd = openSync(this.path, 'wx', 0o600);
    const chunk = new Uint8Array(2 ** 20);
    for (let written = 0; written < lenBytes; written += chunk.length) writeSync(fd, chunk);
    closeSync(fd);
    execFileSync('mkswap', [this.path], { stdio: 'pipe' });
    execFileSync('swapon', [this.path], { stdio: 'pipe' });
    process.once('exit', this.atExit);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));
  }

  off(): void {
    process.off('exit', this.atExit);
    execFileSync('swapoff', [this.path]);
    rmSync(this.folder, { recursive: true });
  }
}
