import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

/**
 * Runs the real command, dist/cli/main.js (`npm run build` first), as a process of its own. One that is still there after
 * `killMs` is killed and says so: never a hang.
 *
 * Use: `await unpin(['boot', ...]).done`; while it runs, `process`, `until`.
 */

export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Result {
  /** Exit code; null where a signal ended the process. */
  code: number | null;
  stdout: string;
  stderr: string;
  hung: boolean;
}

export interface CommandOptions {
  killMs?: number;
  uid?: number;
  cwd?: string;
  env?: Record<string, string>;
  /** What it reads; 'open': a pipe that stays open, for `process.stdin`. Default: nothing. */
  stdin?: string;
}

export class Command {
  readonly process: ChildProcess;
  readonly done: Promise<Result>;
  stdout = '';
  stderr = '';
  private readonly watchers = new Set<() => void>();
  private ended = false;

  constructor(file: string, args: readonly string[], options: CommandOptions = {}) {
    const { uid, cwd, stdin } = options;
    this.process = spawn(file, args, {
      stdio: [stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: '1', ...options.env },
      ...(uid !== undefined && { uid, gid: uid }),
      ...(cwd !== undefined && { cwd }),
    });
    if (stdin !== 'open') this.process.stdin?.end(stdin);
    this.process.stdout!.setEncoding('utf8').on('data', (text) => this.changed(() => (this.stdout += text)));
    this.process.stderr!.setEncoding('utf8').on('data', (text) => this.changed(() => (this.stderr += text)));
    this.done = this.wait(options.killMs ?? 30_000);
  }

  private changed(change: () => void): void {
    change();
    for (const watcher of [...this.watchers]) watcher();
  }

  private wait(killMs: number): Promise<Result> {
    let hung = false;
    const timer = setTimeout(() => {
      hung = true;
      this.process.kill('SIGKILL');
    }, killMs);
    return new Promise((resolve, reject) => {
      this.process.on('error', reject);
      this.process.on('close', (code) => {
        clearTimeout(timer);
        this.changed(() => (this.ended = true));
        resolve({ code, stdout: this.stdout, stderr: this.stderr, hung });
      });
    });
  }

  /** Resolves once stdout has what `pattern` matches; rejects when the process ends without it. */
  until(pattern: RegExp): Promise<void> {
    return new Promise((resolve, reject) => {
      const watcher = () => {
        const found = pattern.test(this.stdout);
        if (!found && !this.ended) return;
        this.watchers.delete(watcher);
        if (found) resolve();
        else reject(new Error(`ended without ${pattern}: ${this.stdout}${this.stderr}`));
      };
      this.watchers.add(watcher);
      watcher();
    });
  }
}

export function unpin(args: readonly string[], options: CommandOptions = {}): Command {
  return new Command(process.execPath, [MAIN, ...args], options);
}

export function boot(args: readonly string[], options: CommandOptions = {}): Promise<Result> {
  return unpin(['boot', ...args], options).done;
}

/** Refused before anything ran: one line, which `line` matches, and no stack trace. */
export function expectRefused(result: Result, line: RegExp): void {
  expect(result.hung).toBe(false);
  expect(result.stderr.trim().split('\n')).toHaveLength(1);
  expect(result.stderr).toMatch(line);
  expect(result.stderr).not.toMatch(/\bat .*:\d+:\d+/);
  expect(result.stdout).toBe('');
  expect(result.code).toBe(2);
}

/** A user without rights. */
export const NOBODY = 65534;

/** A folder of its own, for one test file. */
export function testFolder(name: string): string {
  return fs.mkdtempSync(path.join(os.tmpdir(), `unpin-test-${name}-`));
}
